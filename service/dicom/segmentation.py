"""The region as a segmentation that lies exactly on its source images."""

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Final, NamedTuple

import numpy as np
from highdicom import PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence
from highdicom.color import CIELabColor
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import DS

from service.dicom import codes
from service.dicom.findings import DISCLAIMER, SliceFinding
from service.dicom.making import Kind, Making
from service.dicom.source import Plane, SourceImage, spacing_between

LABEL: Final = "Suspected tumor"
COLOUR: Final = CIELabColor.from_rgb(255, 0, 0)

POSITION_STEP_MM: Final = 0.01
"""Planes nearer to each other than this are one position."""

ALIKE: Final = 1e-3
"""Direction cosines that differ by less are one orientation."""

SAME_MEASURE: Final = 1e-4
"""Pixel spacings, or thicknesses, that differ by a smaller share are one."""


class Masked(NamedTuple):
    """A slice with a mask, and where it lies."""

    finding: SliceFinding
    mask: NDArray[np.bool_]
    image: SourceImage
    plane: Plane


class SegmentedFrame(NamedTuple):
    """Where the mask of a slice is found."""

    segmentation: Segmentation
    number: int


class Segmented(NamedTuple):
    """What was made of the regions of a series.

    Attributes:
        objects: one for each grid.
        frames: for each slice (SOP instance UID, frame), the frame that holds its mask.
        unplaced: slices with a region that no object can hold.
    """

    objects: list[Segmentation]
    frames: dict[tuple[str, int], SegmentedFrame]
    unplaced: int


def segment(making: Making) -> Segmented:
    """Segmentations of the slices in which something was found.

    One object holds parallel planes of one size in one frame of reference; a series of several
    orientations gives several objects. Where slices share a position (echoes, time points), the most
    suspicious one's mask is taken. A slice whose object does not say where it lies in the patient, and
    how thick it is, has no segmentation, since a viewer could not place it.
    """
    groups: list[list[Masked]] = []
    regions = [
        finding
        for finding in making.findings.suspicious
        if finding.mask is not None and finding.mask.any()
    ]
    placed = [masked for finding in regions if (masked := _placed(making, finding)) is not None]
    for masked in placed:
        group = next((group for group in groups if _shares_grid(group[0], masked)), None)
        if group is None:
            groups.append([masked])
        else:
            group.append(masked)
    made = Segmented([], {}, len(regions) - len(placed))
    for group in groups:
        depth = _depth(making, group[0])
        if depth is None:
            made = made._replace(unplaced=made.unplaced + len(group))
            continue
        segmentation = _segmentation(making, _of_positions(group), depth, len(made.objects) + 1)
        made.objects.append(segmentation)
        for number, item in enumerate(segmentation.PerFrameFunctionalGroupsSequence, 1):
            source = item.DerivationImageSequence[0].SourceImageSequence[0]
            frame = int(source.get("ReferencedFrameNumber", 1))
            made.frames[source.ReferencedSOPInstanceUID, frame] = SegmentedFrame(
                segmentation, number
            )
    return made


def _placed(making: Making, finding: SliceFinding) -> Masked | None:
    image = making.source.images[finding.sop_instance_uid]
    plane = image.plane(finding.frame)
    if finding.mask is None or plane is None or image.frame_of_reference_uid is None:
        return None
    return Masked(finding, finding.mask, image, plane)


def _of_positions(group: Sequence[Masked]) -> list[Masked]:
    """The first of each position, which is the most suspicious one."""
    found: dict[tuple[int, ...], Masked] = {}
    for masked in group:
        position = tuple(round(value / POSITION_STEP_MM) for value in masked.plane.position)
        found.setdefault(position, masked)
    return list(found.values())


def _shares_grid(one: Masked, other: Masked) -> bool:
    """Whether two slices may be frames of one segmentation; writers round each slice's numbers anew."""
    ours, theirs = one.plane, other.plane
    return (
        one.image.frame_of_reference_uid == other.image.frame_of_reference_uid
        and one.mask.shape == other.mask.shape
        and np.allclose(ours.orientation, theirs.orientation, rtol=0, atol=ALIKE)
        and np.allclose(ours.spacing, theirs.spacing, rtol=SAME_MEASURE)
        and math.isclose(ours.thickness or 0, theirs.thickness or 0, rel_tol=SAME_MEASURE)
    )


class Depth(NamedTuple):
    """Extent of planes along their normal: mm."""

    thickness: float
    spacing: float | None


def _depth(making: Making, like: Masked) -> Depth | None:
    """How thick slices are, or else how far apart; None if the series says neither."""
    orientation = like.plane.orientation
    parallel = [
        plane
        for image in making.source.images.values()
        if image.frame_of_reference_uid == like.image.frame_of_reference_uid
        for plane in image.planes
        if plane is not None and np.allclose(plane.orientation, orientation, atol=ALIKE)
    ]
    spacing = spacing_between(parallel)
    thickness = like.plane.thickness or spacing
    return None if thickness is None else Depth(thickness, spacing)


def _segmentation(
    making: Making, slices: Sequence[Masked], depth: Depth, instance: int
) -> Segmentation:
    first = slices[0].plane
    placeholders = [
        _placeholder(making, masked, first, depth, index) for index, masked in enumerate(slices, 1)
    ]
    arguments = making.arguments(Kind.SEGMENTATION, instance)
    made = Segmentation(
        source_images=placeholders,
        pixel_array=np.stack([masked.mask for masked in slices]).astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[_description(making)],
        pixel_measures=PixelMeasuresSequence(first.spacing, depth.thickness),
        plane_orientation=PlaneOrientationSequence("PATIENT", first.orientation),
        plane_positions=[
            PlanePositionSequence("PATIENT", masked.plane.position) for masked in slices
        ],
        content_label="SUSPECTED_TUMOR",
        content_description=f"{LABEL}. {DISCLAIMER}.",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **arguments,
    )
    uids = [placeholder.SOPInstanceUID for placeholder in placeholders]
    _refer(made, making, dict(zip(uids, slices, strict=True)))
    shared = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    # highdicom derives one from the slices with a mask, between which others may lie.
    shared.pop("SpacingBetweenSlices", None)
    if depth.spacing is not None:
        shared.SpacingBetweenSlices = DS(depth.spacing, auto_format=True)
    made.PositionReferenceIndicator = making.source.position_reference
    making.mark_lossy(made, [masked.image for masked in slices])
    organization = making.uid("dimensions", str(instance))
    made.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in made.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization
    making.finish(made)
    return made


def _placeholder(making: Making, masked: Masked, first: Plane, depth: Depth, index: int) -> Dataset:
    """A frame as the single-frame image that highdicom asks for; :func:`_refer` names the true one.

    It wants orientation and spacing of all to be those of the first, to the last digit.
    """
    image = making.reference(MRImageStorage, f"2.25.{index}", making.source.series_uid)
    image.FrameOfReferenceUID = masked.image.frame_of_reference_uid
    image.Modality = "MR"
    image.Rows, image.Columns = masked.mask.shape
    image.ImagePositionPatient = list(masked.plane.position)
    image.ImageOrientationPatient = list(first.orientation)
    image.PixelSpacing = list(first.spacing)
    image.SliceThickness = depth.thickness
    return image


def _refer(made: Segmentation, making: Making, slices: dict[str, Masked]) -> None:
    """Names the source of each frame, and all of them in the referenced series."""
    referenced: dict[str, Dataset] = {}
    for item in made.PerFrameFunctionalGroupsSequence:
        derivation = item.DerivationImageSequence[0]
        source = derivation.SourceImageSequence[0]
        masked = slices[source.ReferencedSOPInstanceUID]
        reference = Dataset()
        reference.ReferencedSOPClassUID = masked.image.sop_class_uid
        reference.ReferencedSOPInstanceUID = masked.image.sop_instance_uid
        referenced.setdefault(masked.image.sop_instance_uid, reference)
        source.update(reference)
        if masked.image.multi_frame:
            source.ReferencedFrameNumber = masked.finding.frame
    made.SourceImageSequence = [deepcopy(reference) for reference in referenced.values()]
    series = Dataset()
    series.SeriesInstanceUID = making.source.series_uid
    series.ReferencedInstanceSequence = list(referenced.values())
    made.ReferencedSeriesSequence = [series]


def _description(making: Making) -> SegmentDescription:
    return SegmentDescription(
        segment_number=1,
        segment_label=LABEL,
        segmented_property_category=codes.ABNORMAL_STRUCTURE,
        segmented_property_type=codes.NEOPLASM,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            making.model.name,
            codes.ARTIFICIAL_INTELLIGENCE,
            str(making.model.version),
            source="Brain MRI inference",
            parameters=dict(item.split("=", 1) for item in making.model.parameters),
        ),
        tracking_uid=making.uid("tracking", "segment"),
        tracking_id=LABEL,
        anatomic_regions=[codes.BRAIN],
        display_color=COLOUR,
    )
