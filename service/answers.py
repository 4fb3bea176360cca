"""A slice's outputs, to its answer and its entry in the answer to the request."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

import numpy as np
from PIL import Image

from contract.answer import Decision, Outputs, Rules
from contract.errors import ContractError
from contract.region import Geometry, Region, find_region
from service.errors import Failure, ServiceError
from service.jobs import Job

AREA_DECIMALS: Final = 2
"""Of an area in square millimetres."""


class MaskForm(StrEnum):
    """How the mask of a region is written, where it is asked for."""

    NONE = "none"
    RLE = "rle"
    PNG = "png"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered for one slice; what the version cannot say is None.

    Attributes:
        label: the most probable class; of several, one that says what the decision does.
        probabilities: of every class, rounded.
        tumor_probability: of any tumour, rounded.
        decision: what the slice is taken for.
        prediction_set: classes that are probable enough; all, if it is not in distribution.
        in_distribution: whether it is like the training data.
        distance: from the training data.
        localises: whether the version says where a tumour is.
        region: where it is, if there is one.
    """

    label: str
    probabilities: dict[str, float]
    tumor_probability: float
    decision: Decision
    prediction_set: list[str] | None
    in_distribution: bool | None
    distance: float | None
    localises: bool
    region: Region | None

    @classmethod
    def of(
        cls,
        outputs: Outputs,
        geometry: Geometry | None,
        rules: Rules,
        *,
        coloured: bool = False,
    ) -> Self:
        """The answer to one slice.

        Args:
            outputs: of this slice alone.
            geometry: of the slice; None gives no region.
            rules: of the version that predicted it.
            coloured: whether it is a picture in colour.
        """
        answers = rules.answer(outputs, np.array([True]) if coloured else None)
        values = answers.probabilities[0].tolist()
        tumor_probability = float(answers.tumor_probability[0])
        region, record = None, rules.region
        cells = None if record is None else rules.cells(outputs)
        if (
            record is not None
            and cells is not None
            and geometry is not None
            and tumor_probability >= record.min_tumor_probability
        ):
            region = find_region(cells, geometry, record, rules.region_source)
        return cls(
            rules.classes[int(answers.labels[0])],
            dict(zip(rules.classes, values, strict=True)),
            tumor_probability,
            answers.decisions[0],
            None
            if answers.prediction_set is None
            else [
                name
                for name, chosen in zip(rules.classes, answers.prediction_set[0], strict=True)
                if chosen
            ],
            None if answers.in_distribution is None else bool(answers.in_distribution[0]),
            None if answers.distance is None else float(answers.distance[0]),
            cells is not None,
            region,
        )

    def content(self, form: MaskForm) -> dict[str, Any]:
        """As JSON; what the version cannot say is absent."""
        fields: dict[str, Any] = {
            "label": self.label,
            "probability": self.probabilities[self.label],
            "probabilities": self.probabilities,
            "tumor_probability": self.tumor_probability,
            "decision": self.decision,
        }
        if self.prediction_set is not None:
            fields["prediction_set"] = self.prediction_set
        if self.in_distribution is not None:
            fields["in_distribution"] = self.in_distribution
        if self.localises:
            fields["region"] = None if self.region is None else region_content(self.region, form)
        return fields


def answer_job(job: Job) -> None:
    """Fills in :attr:`Job.answer` of what was predicted and has none. Any thread."""
    if job.answer is None and isinstance(job.outcome, Outputs):
        job.answer = Answer.of(job.outcome, job.geometry, job.rules, coloured=job.coloured)


def entries_of(jobs: Sequence[Job], form: MaskForm) -> list[dict[str, Any]]:
    """The entry of each job; what was predicted is answered first. Any thread."""
    return [_entry(job, form) for job in jobs]


def region_content(region: Region, form: MaskForm) -> dict[str, Any]:
    """A region as JSON."""
    content: dict[str, Any] = {
        "source": region.source,
        "box": list(region.box),
        "score": region.score,
        "area_pixels": region.area_pixels,
    }
    if region.area_mm2 is not None:
        content["area_mm2"] = round(region.area_mm2, AREA_DECIMALS)
    if form is MaskForm.RLE:
        content["mask"] = {"encoding": "rle", **region.run_lengths()}
    elif form is MaskForm.PNG:
        file = io.BytesIO()
        Image.fromarray(region.mask()).save(file, "PNG")
        data = base64.b64encode(file.getvalue()).decode()
        content["mask"] = {"encoding": "png", "size": list(region.size), "data": data}
    return content


def known_failure(job: Job) -> Failure:
    """Why a job has no prediction; a settled one always says, so its silence is an unknown error."""
    outcome = job.outcome
    return outcome if isinstance(outcome, ServiceError | ContractError) else ServiceError()


def _entry(job: Job, form: MaskForm) -> dict[str, Any]:
    place = _place(job)
    answer_job(job)
    if job.answer is None or not isinstance(job.outcome, Outputs):
        failure = known_failure(job)
        error = {"status": failure.status, "code": failure.code, "detail": failure.detail}
        return {"input": job.upload.name, "error": error, **place}
    return {"input": job.upload.name, **job.answer.content(form), **place}


def _place(job: Job) -> dict[str, Any]:
    """Where a DICOM slice belongs, as a part of its entry."""
    if job.dicom is None:
        return {}
    place = {
        "sop_instance_uid": job.dicom.sop_instance_uid,
        "study_instance_uid": job.study,
        "series_instance_uid": job.dicom.series_instance_uid,
        "frame": job.dicom.frame,
    }
    return {"dicom": place}
