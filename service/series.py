"""The series of a request: what their slices come to together."""

from collections.abc import Sequence
from typing import Any

from contract.answer import DECIMALS, Decision, Rules
from contract.series import score_series
from service.answers import Answer
from service.jobs import Job


def summaries(jobs: Sequence[Job], rules: Rules) -> list[dict[str, Any]]:
    """One summary for each series with at least one predicted slice, in the order of the request.

    A slice that was sent twice counts once. Slices that name no series are in none.

    Args:
        jobs: of one request, answered.
        rules: that they were answered by.
    """
    predicted: dict[str, dict[tuple[str | None, int, int], int]] = {}
    failed: dict[str, int] = {}
    for index, job in enumerate(jobs):
        series = job.dicom and job.dicom.series_instance_uid
        if not job.dicom or not series:
            continue
        if job.answer is None:
            failed[series] = failed.get(series, 0) + 1
            continue
        instance = job.dicom.sop_instance_uid
        # Without an identifier every slice is another one.
        key = (instance, job.dicom.frame, 0 if instance else index)
        predicted.setdefault(series, {}).setdefault(key, index)
    return [
        _summary(
            uid, [(index, jobs[index]) for index in members.values()], failed.get(uid, 0), rules
        )
        for uid, members in predicted.items()
    ]


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
            [answers[index] for index in score.window], score.tumor_probability, rules
        ),
        "most_suspicious": numbers[score.most_suspicious],
        "window": [numbers[index] for index in score.window],
        "suspicious": [
            numbers[index]
            for index in score.order
            if answers[index].decision is not Decision.NO_TUMOR
        ],
    }


def decide(window: Sequence[Answer], tumor_probability: float, rules: Rules) -> Decision:
    """The decision on a series.

    Args:
        window: the slices that its probability is the mean of; one that is unlike the training data
            makes the probability worth nothing.
        tumor_probability: of the series.
        rules: of its version.
    """
    familiar = all(answer.in_distribution is not False for answer in window)
    return rules.decide(round(tumor_probability, DECIMALS), familiar=familiar)
