"""The findings as a structured report: TID 1500, Measurement Report."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

import numpy as np
from highdicom.seg import Segmentation
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegmentationFrame,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    SourceImageForSegmentation,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes as dictionary
from pydicom.sr.coding import Code

from contract.answer import Decision
from contract.series import is_mostly_unfamiliar
from service.dicom import codes
from service.dicom.findings import DISCLAIMER, SliceFinding
from service.dicom.library import image_library
from service.dicom.making import MANUFACTURER, Kind, Making
from service.dicom.segmentation import Segmented, SegmentedFrame
from service.release import RELEASE

MAX_SLICES: Final = 20
"""Slices with a group of measurements of their own, the most suspicious first; beyond it the report is
PARTIAL and says so."""

PERCENT_DECIMALS: Final = 4

Reference = TypeVar(
    "Reference", SourceImageForMeasurementGroup, SourceImageForRegion, SourceImageForSegmentation
)
Group = MeasurementsAndQualitativeEvaluations | PlanarROIMeasurementsAndQualitativeEvaluations


def report(making: Making, segmented: Segmented) -> ComprehensiveSR:
    """The report on a series.

    It has one group of measurements on the series and one on each suspicious slice, at most
    :data:`MAX_SLICES`.

    Args:
        making: the series.
        segmented: what was made of its regions.
    """
    findings = making.findings
    listed = findings.suspicious[:MAX_SLICES]
    groups: list[Group] = [_series_group(making)]
    groups += [_slice_group(making, finding, segmented.frames) for finding in listed]
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(making)),
        procedure_reported=codes.BRAIN_MRI,
        imaging_measurements=groups,
        title=dictionary.DCM.ImagingMeasurementReport,
    )
    root = content[0].ContentSequence
    # Before the measurements, as in the template.
    root.insert(len(root) - 1, image_library(making.source))
    root.append(_comment(_text(making, segmented.unplaced)))
    omitted = _omitted(making)
    made = ComprehensiveSR(
        evidence=_evidence(making, segmented.objects),
        content=content[0],
        is_complete=not omitted,
        is_final=False,
        is_verified=False,
        coding_schemes=[codes.private_scheme()],
        **making.arguments(Kind.REPORT),
    )
    if omitted:
        made.CompletionFlagDescription = omitted[:64]
    making.finish(made)
    return made


def _omitted(making: Making) -> str:
    """What the report lacks."""
    findings = making.findings
    parts = []
    if findings.failed:
        parts.append(f"{findings.failed} images not analyzed")
    if is_mostly_unfamiliar(findings.unfamiliar, len(findings.slices)):
        parts.append(f"{findings.unfamiliar} of {len(findings.slices)} slices cannot be judged")
    if (left := len(findings.suspicious) - MAX_SLICES) > 0:
        parts.append(f"{left} suspicious slices not listed")
    return ", ".join(parts)


def _text(making: Making, unplaced: int) -> str:
    findings = making.findings
    sentences = [
        f"{DISCLAIMER}. Result of research software, not verified by a person.",
        f"{len(findings.slices)} slices analyzed, {len(findings.suspicious)} of them suspicious.",
        f"The series' tumor probability is {findings.method}.",
    ]
    if findings.unfamiliar:
        sentences.append(
            f"{findings.unfamiliar} slices are unlike those that the model was trained on."
        )
    if unplaced:
        sentences.append(
            f"{unplaced} slices with a region are in no segmentation, as their images do not say where "
            "they lie in the patient or how thick they are."
        )
    if omitted := _omitted(making):
        sentences.append(f"Incomplete: {omitted}.")
    return " ".join(sentences)


def _series_group(making: Making) -> MeasurementsAndQualitativeEvaluations:
    findings = making.findings
    leading = findings.leading
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(making.uid("tracking", "series"), "Series"),
        finding_type=codes.NEOPLASM_OF_BRAIN,
        algorithm_id=_algorithm(making),
        finding_sites=[FindingSite(codes.BRAIN)],
        measurements=[_percentage(codes.PROBABILITY, findings.tumor_probability)],
        qualitative_evaluations=[_evaluation(findings.decision)],
        source_images=[_source(SourceImageForMeasurementGroup, making, leading)],
    )


def _slice_group(
    making: Making, finding: SliceFinding, frames: Mapping[tuple[str, int], SegmentedFrame]
) -> Group:
    place = finding.sop_instance_uid, finding.frame
    segmented = frames.get(place)
    measurements = [_percentage(codes.PROBABILITY, finding.tumor_probability)]
    if finding.in_distribution:
        measurements += [_class(name, share) for name, share in finding.probabilities.items()]
    if segmented is not None and (area := _area(making, finding)) is not None:
        measurements.append(area)
    common: dict[str, Any] = {
        "tracking_identifier": _tracking(making, finding, segmented),
        "finding_type": codes.NEOPLASM_OF_BRAIN,
        "algorithm_id": _algorithm(making),
        "finding_sites": [FindingSite(codes.BRAIN)],
        "measurements": measurements,
        "qualitative_evaluations": [_evaluation(finding.decision)],
    }
    if segmented is not None:
        segment = ReferencedSegmentationFrame(
            segmented.segmentation.SOPClassUID,
            segmented.segmentation.SOPInstanceUID,
            segmented.number,
            1,
            _source(SourceImageForSegmentation, making, finding),
        )
        # A frame says which segment it is of, and both together are not allowed (PS3.3 2024e, 10.3).
        del segment[0].ReferencedSOPSequence[0].ReferencedSegmentNumber
        return PlanarROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **common)
    if finding.box is not None:
        left, top, right, bottom = finding.box
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        region = ImageRegion(
            "POLYLINE",
            np.asarray(corners, np.float64),
            _source(SourceImageForRegion, making, finding),
        )
        return PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **common)
    return MeasurementsAndQualitativeEvaluations(
        source_images=[_source(SourceImageForMeasurementGroup, making, finding)], **common
    )


def _tracking(
    making: Making, finding: SliceFinding, segmented: SegmentedFrame | None
) -> TrackingIdentifier:
    """What is measured: the segment, wherever a slice shows it, or else what the slice alone shows."""
    if segmented is not None:
        (segment,) = segmented.segmentation.SegmentSequence
        return TrackingIdentifier(segment.TrackingUID, segment.TrackingID)
    uid = making.uid("tracking", finding.sop_instance_uid, str(finding.frame))
    return TrackingIdentifier(uid, f"Slice {_number(making, finding)}")


def _number(making: Making, finding: SliceFinding) -> int:
    """Place of a slice among those analyzed, from 1."""
    return next(
        number for number, other in enumerate(making.findings.slices, 1) if other is finding
    )


def _percentage(name: Code | CodedConcept, share: float) -> Measurement:
    return Measurement(name, round(100 * share, PERCENT_DECIMALS), codes.PERCENT)


def _class(name: str, share: float) -> Measurement:
    """The probability of a class; the class is also there as a standard code."""
    measurement = _percentage(codes.class_probability(name), share)
    if name in codes.CLASS_CODES:
        finding = CodeContentItem(
            codes.FINDING, codes.CLASS_CODES[name], RelationshipTypeValues.HAS_CONCEPT_MOD
        )
        measurement[0].ContentSequence = [finding]
    return measurement


def _area(making: Making, finding: SliceFinding) -> Measurement | None:
    plane = making.source.images[finding.sop_instance_uid].plane(finding.frame)
    if plane is None or finding.mask is None:
        return None
    area = np.count_nonzero(finding.mask) * plane.spacing[0] * plane.spacing[1]
    return Measurement(codes.AREA, round(float(area), 2), codes.SQUARE_MILLIMETER)


def _evaluation(decision: Decision) -> QualitativeEvaluation:
    return QualitativeEvaluation(codes.NEOPLASM_OF_BRAIN, codes.DECISION_CODES[decision])


def _source(kind: type[Reference], making: Making, finding: SliceFinding) -> Reference:
    image = making.source.images[finding.sop_instance_uid]
    frames = [finding.frame] if image.multi_frame else None
    return kind(image.sop_class_uid, image.sop_instance_uid, frames)


def _algorithm(making: Making) -> AlgorithmIdentification:
    model = making.model
    return AlgorithmIdentification(
        model.name,
        str(model.version),
        parameters=model.parameters,
        family=codes.ARTIFICIAL_INTELLIGENCE,
        manufacturer=MANUFACTURER,
    )


def _observer(making: Making) -> ObserverContext:
    return ObserverContext(
        observer_type=dictionary.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=making.device_uid,
            name=f"{MANUFACTURER} {RELEASE}",
            manufacturer_name=MANUFACTURER,
            model_name=making.model.label,
            serial_number=making.model.manifest_digest[:16],
        ),
    )


def _comment(text: str) -> TextContentItem:
    return TextContentItem(codes.COMMENT, text, RelationshipTypeValues.CONTAINS)


def _evidence(making: Making, segmentations: Iterable[Segmentation]) -> list[Dataset]:
    """Everything that the report refers to."""
    source = making.source
    evidence = [
        making.reference(image.sop_class_uid, image.sop_instance_uid, source.series_uid)
        for image in source.images.values()
    ]
    evidence += [
        making.reference(made.SOPClassUID, made.SOPInstanceUID, made.SeriesInstanceUID)
        for made in segmentations
    ]
    return evidence
