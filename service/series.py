"""The series of a request: what their slices come to together."""

import re
from collections.abc import Iterable, Sequence
from math import log
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
from contract.series import SeriesScore, is_mostly_unfamiliar, score_series
from service.answers import Answer
from service.archives import is_ignored
from service.jobs import Job, Upload

NO_SLICES: Final = (
    *(NotAnImage, NotMr, UnsupportedSopClass, NotPatient, NotHead, Localizer, NotMagnitude),
)
"""Refusals of what is no slice of a head: no tumour of the series can hide in it."""

MAGIC: Final = bytes(128) + b"DICM"
"""What a DICOM file begins with, if its preamble is empty (PS3.10 2024e, 7.1)."""

_OTHER_KIND: Final = re.compile(r"\.(?!(dcm|dicom|dic|ima|mr)$)[a-z]+$", re.IGNORECASE)
"""End of a name that no slice has. On media slices are IM000001 and the like; elsewhere, UIDs."""

SAME_PROBABILITY: Final = 1e-3
"""Of one image, a model's probabilities differ by less from one batch to another."""

SAME_LOGARITHM: Final = 1e-2
"""And their natural logarithms, as its logits do."""

_TINY: Final = 1e-30
"""Less than any probability that counts; that of 0 has no logarithm."""

Series = tuple[str | None, str]
"""Study and Series Instance UID: some anonymisers give the series of all patients one UID."""


def summaries(jobs: Sequence[Job], rules: Rules) -> list[dict[str, Any]]:
    """One summary for each series with at least one predicted slice, in the order of the request.

    Of an image that was sent twice, the newest counts: see :func:`is_one_image`. Without an identifier
    every slice is another one. Slices that name no series are in none, but one that could not be read
    counts as failed in each, as it may be of any.

    Args:
        jobs: of one request, answered.
        rules: that they were answered by.
    """
    named = [
        (index, job, job.dicom, job.dicom.series_instance_uid)
        for index, job in enumerate(jobs)
        if job.answer is not None and job.dicom and job.dicom.series_instance_uid
    ]
    slices: dict[Series, list[int]] = {}
    alike: dict[tuple[Series, DicomReference], list[int]] = {}
    for index, job, place, uid in named:
        series = (job.study, uid)
        members = slices.setdefault(series, [])
        # Where in the series the slices of this identifier and place are, which may be several: some
        # anonymisers give all slices the same one, and take their places away.
        known = alike.setdefault((series, place), [])
        for at in known if place.sop_instance_uid else ():
            if is_one_image(jobs[members[at]], job):
                members[at] = index
                break
        else:
            known.append(len(members))
            members.append(index)
    lost = unread(jobs)
    return [
        _summary(
            series,
            [(index, jobs[index]) for index in members],
            missing(lost, series),
            rules,
        )
        for series, members in slices.items()
    ]


def is_one_image(one: Job, other: Job) -> bool:
    """Whether two answered slices of one SOP instance UID and frame are an image that was sent twice.

    By what the model says of them, as the pixels are gone by then: a copy in another transfer syntax,
    or with a corrected name, gives the same. The logarithms count too: of two healthy slices, or of two
    with a clear tumour, the probabilities themselves may well be the same.
    """
    if one.dicom != other.dicom or one.answer is None or other.answer is None:
        return False
    return (
        _are_close(_probabilities(one.answer), _probabilities(other.answer), SAME_PROBABILITY)
        and _box(one.answer) == _box(other.answer)
        and _are_close(_logarithms(one), _logarithms(other), SAME_LOGARITHM)
    )


def _probabilities(answer: Answer) -> list[float]:
    return [answer.tumor_probability, *answer.probabilities.values()]


def _logarithms(job: Job) -> list[float]:
    if not isinstance(job.outcome, Outputs):
        return []
    return [log(max(float(value), _TINY)) for value in job.outcome.probabilities.flat]


def _are_close(some: Sequence[float], others: Sequence[float], most: float) -> bool:
    return len(some) == len(others) and all(
        abs(one - other) <= most for one, other in zip(some, others, strict=True)
    )


def _box(answer: Answer) -> tuple[int, int, int, int] | None:
    return None if answer.region is None else answer.region.box


def is_dicom(data: bytes) -> bool:
    """Whether a file is a DICOM object (PS3.10 2024e, 7.1)."""
    return data[128:132] == b"DICM"


def may_be_dicom(upload: Upload) -> bool:
    """Whether a file is a DICOM object, or may have been one before something was taken from it.

    A copy that was broken off leaves nothing, zeros alone, or a preamble of zeros without what follows
    it. Data elements without preamble begin with one of group 0002 or 0008. Of nothing, the name has to
    be one that a slice may have: media and systems have empty files of their own.
    """
    data = upload.data
    if not data:
        return upload.name is None or _may_name_slice(upload.name)
    is_bare = data[:2] in {b"\x02\0", b"\x08\0"} and data[3:4] == b"\0"
    return is_dicom(data) or is_bare or MAGIC.startswith(data) or not data.strip(b"\0")


def _may_name_slice(path: str) -> bool:
    name = path.replace("\\", "/").rpartition("/")[2]
    return not is_ignored(name) and _OTHER_KIND.search(name) is None


def unread(jobs: Iterable[Job]) -> list[Job]:
    """Those that have no outputs and may be slices of a series, for all that is known of them."""
    return [
        job
        for job in jobs
        if not isinstance(job.outcome, (Outputs, *NO_SLICES))
        # What could not be taken out of an archive may be anything.
        and (job.upload.failure is not None or may_be_dicom(job.upload))
    ]


def missing(lost: Iterable[Job], series: Series) -> int:
    """How many of the unread slices are of a series, or do not say which one they are of."""
    study_uid, series_uid = series
    return sum(
        job.dicom is None
        or (
            job.dicom.series_instance_uid in {None, series_uid}
            and (job.study is None or job.study == study_uid)
        )
        for job in lost
    )


def _summary(
    series: Series, members: Sequence[tuple[int, Job]], failed: int, rules: Rules
) -> dict[str, Any]:
    places = [job.dicom for _, job in members if job.dicom is not None]
    answers = [job.answer for _, job in members if job.answer is not None]
    score = score_series(places, [answer.tumor_probability for answer in answers])
    familiar = [answer.in_distribution is not False for answer in answers]
    numbers = [index for index, _ in members]
    study_uid, series_uid = series
    return {
        "study_instance_uid": study_uid,
        "series_instance_uid": series_uid,
        "slices": len(members),
        "failed": failed,
        "unfamiliar": familiar.count(False),
        "tumor_probability": round(score.tumor_probability, DECIMALS),
        "decision": decide(familiar, score, rules, failed),
        "most_suspicious": numbers[score.most_suspicious],
        "window": [numbers[index] for index in score.window],
        "suspicious": [
            numbers[index]
            for index in score.order
            if answers[index].decision is not Decision.NO_TUMOR
        ],
    }


def decide(familiar: Sequence[bool], score: SeriesScore, rules: Rules, failed: int) -> Decision:
    """The decision on a series.

    One slice of those that decide that is unlike the training data makes the series' probability worth
    nothing. It is never without a tumour while slices of it are missing or most of it cannot be judged.

    Args:
        familiar: of each of the series' slices, whether the model can judge it.
        score: what they come to.
        rules: of their version.
        failed: slices of the series that could not be read or predicted; they may show a tumour.
    """
    window = all(familiar[index] for index in score.window)
    decision = rules.decide(round(score.tumor_probability, DECIMALS), familiar=window)
    unknown = failed or is_mostly_unfamiliar(familiar.count(False), len(familiar))
    return Decision.REFER if unknown and decision is Decision.NO_TUMOR else decision
