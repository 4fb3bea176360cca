"""Predicted slices, sorted into the series that they belong to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from contract.answer import DECIMALS, Decision, Outputs, Rules
from contract.region import RegionSource
from contract.series import METHOD, score_series
from service.content import content_digest
from service.dicom.findings import Box, SeriesFindings, SliceFinding
from service.errors import UnidentifiedSource
from service.jobs import Job
from service.series import decide, is_one_image, missing, unread

if TYPE_CHECKING:  # pydicom costs a quarter of a second, which the start need not wait for
    from pydicom import Dataset


@dataclass(frozen=True, slots=True, eq=False)
class PredictedSeries:
    """One series of a request.

    Attributes:
        headers: of its images, one for each object.
        findings: on it, without any slice's grey levels.
        jobs: the slices' jobs, in the order of ``findings.slices``.
    """

    headers: tuple["Dataset", ...]
    findings: SeriesFindings
    jobs: tuple[Job, ...]


def sort_into_series(
    jobs: Sequence[Job], entries: Sequence[Mapping[str, Any]], rules: Rules
) -> list[PredictedSeries]:
    """The series of one request that have at least one predicted slice.

    Of an image that was sent twice, the newest counts: see :func:`service.series.is_one_image`. A slice
    that could not be read counts in its series or, if it does not say which one that is, in each. It
    looks at whole files, so it belongs in a thread.

    Args:
        jobs: predicted with their headers kept, and answered.
        entries: what /predict answers for each of them.
        rules: that they were answered by.

    Raises:
        UnidentifiedSource: different slices have one SOP instance UID, or one lacks a UID that
            references need.
    """
    predicted: dict[tuple[str, str], dict[tuple[str, int], tuple[Job, SliceFinding]]] = {}
    digests: dict[int, str] = {}
    for job, entry in zip(jobs, entries, strict=True):
        if job.header is None or not isinstance(job.outcome, Outputs):
            continue
        # The frames of an object share its file.
        file = id(job.upload)
        if file not in digests:
            digests[file] = (job.upload.digest or content_digest(job.upload.data)).hex()
        finding = _finding(job, job.header, entry, digests[file])
        members = predicted.setdefault(_series_of(job.header), {})
        place = finding.sop_instance_uid, finding.frame
        if place in members and not is_one_image(members[place][0], job):
            raise UnidentifiedSource("different slices have one SOP Instance UID")
        members[place] = job, finding
    lost = unread(jobs)
    return [
        _series(list(members.values()), missing(lost, series), rules)
        for series, members in predicted.items()
    ]


def _series(
    members: Sequence[tuple[Job, SliceFinding]], failed: int, rules: Rules
) -> PredictedSeries:
    places = [job.dicom for job, _ in members if job.dicom is not None]
    score = score_series(places, [finding.tumor_probability for _, finding in members])
    familiar = [finding.in_distribution for _, finding in members]
    ordered = [members[index] for index in score.order]
    objects = {finding.sop_instance_uid: job.header for job, finding in ordered if job.header}
    findings = SeriesFindings(
        tuple(finding for _, finding in ordered),
        round(score.tumor_probability, DECIMALS),
        decide(familiar, score, rules, failed),
        score.order.index(score.most_suspicious),
        METHOD,
        failed,
    )
    return PredictedSeries(tuple(objects.values()), findings, tuple(job for job, _ in ordered))


def _series_of(header: "Dataset") -> tuple[str, str]:
    return _uid(header, "StudyInstanceUID"), _uid(header, "SeriesInstanceUID")


def _uid(header: "Dataset", keyword: str) -> str:
    from service.dicom.source import uid

    return uid(header, keyword)


def _finding(job: Job, header: "Dataset", entry: Mapping[str, Any], digest: str) -> SliceFinding:
    familiar = entry.get("in_distribution", True)
    # What the model cannot judge must not lie in the archive as a finding, nor what is no outline.
    region = job.answer.region if job.answer and familiar else None
    if region is not None and region.source is not RegionSource.MASK:
        region = None
    return SliceFinding(
        _uid(header, "SOPInstanceUID"),
        job.frame,
        entry["label"],
        entry["probabilities"],
        entry["tumor_probability"],
        Decision(entry["decision"]),
        in_distribution=familiar,
        mask=region.mask() if region else None,
        box=Box(*region.box) if region else None,
        digest=digest,
    )
