"""The series of a request: what their slices come to together."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from contract.answer import DECIMALS, Decision, Outputs, Rules
from contract.errors import (
    Localizer,
    NotAnImage,
    NotHead,
    NotMagnitude,
    NotMr,
    NotPatient,
    UnsupportedSopClass,
)
from contract.preprocessing import DicomReference
from contract.series import score_series
from service.answers import Answer
from service.jobs import Job

NO_SLICES: Final = (
    *(NotAnImage, NotMr, UnsupportedSopClass, NotPatient, NotHead, Localizer, NotMagnitude),
)
"""Refusals of what is no slice of a head: no tumour of the series can hide in it."""


def summaries(jobs: Sequence[Job], rules: Rules) -> list[dict[str, Any]]:
    """One summary for each series with at least one predicted slice, in the order of the request.

    A slice that was sent twice, with the same identifier and place, counts once. Slices that name no
    series are in none, but one that could not be read counts as failed in each, as it may be of any.

    Args:
        jobs: of one request, answered.
        rules: that they were answered by.
    """
    predicted: dict[str, dict[tuple[DicomReference, int], int]] = {}
    for index, job in enumerate(jobs):
        series = job.dicom and job.dicom.series_instance_uid
        if not job.dicom or not series or job.answer is None:
            continue
        # The place too, not the identifier alone: some anonymisers give all slices the same one.
        # Without an identifier every slice is another one.
        key = (job.dicom, 0 if job.dicom.sop_instance_uid else index)
        predicted.setdefault(series, {}).setdefault(key, index)
    lost = unread(jobs)
    return [
        _summary(
            uid, [(index, jobs[index]) for index in members.values()], missing(lost, uid), rules
        )
        for uid, members in predicted.items()
    ]


def is_dicom(data: bytes) -> bool:
    """Whether a file is a DICOM object (PS3.10 2024e, 7.1)."""
    return data[128:132] == b"DICM"


def unread(jobs: Iterable[Job]) -> list[Job]:
    """Those that have no outputs and may be slices of a series, for all that is known of them."""
    return [
        job
        for job in jobs
        if not isinstance(job.outcome, (Outputs, *NO_SLICES))
        # What could not be taken out of an archive may be anything.
        and (job.upload.failure is not None or is_dicom(job.upload.data))
    ]


def missing(lost: Iterable[Job], series_instance_uid: str) -> int:
    """How many of the unread slices are of a series, or do not say which one they are of."""
    return sum(
        job.dicom is None or job.dicom.series_instance_uid in {None, series_instance_uid}
        for job in lost
    )


def _summary(
    uid: str, members: Sequence[tuple[int, Job]], failed: int, rules: Rules
) -> dict[str, Any]:
    places = [job.dicom for _, job in members if job.dicom is not None]
    answers = [job.answer for _, job in members if job.answer is not None]
    score = score_series(places, [answer.tumor_probability for answer in answers])
    numbers = [index for index, _ in members]
    return {
        "series_instance_uid": uid,
        "slices": len(members),
        "failed": failed,
        "tumor_probability": round(score.tumor_probability, DECIMALS),
        "decision": decide(
            [answers[index] for index in score.window], score.tumor_probability, rules, failed
        ),
        "most_suspicious": numbers[score.most_suspicious],
        "window": [numbers[index] for index in score.window],
        "suspicious": [
            numbers[index]
            for index in score.order
            if answers[index].decision is not Decision.NO_TUMOR
        ],
    }


def decide(
    window: Sequence[Answer], tumor_probability: float, rules: Rules, failed: int
) -> Decision:
    """The decision on a series; it is never without a tumour while slices of it are missing.

    Args:
        window: the slices that its probability is the mean of; one that is unlike the training data
            makes the probability worth nothing.
        tumor_probability: of the series.
        rules: of its version.
        failed: slices of the series that could not be read or predicted; they may show a tumour.
    """
    familiar = all(answer.in_distribution is not False for answer in window)
    decision = rules.decide(round(tumor_probability, DECIMALS), familiar=familiar)
    return Decision.REFER if failed and decision is Decision.NO_TUMOR else decision
