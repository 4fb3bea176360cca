"""Image library of the report (TID 1600): the images that it speaks of, and where they lie."""

from collections.abc import Iterable
from typing import Final

from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    ImageContentItem,
    NumContentItem,
    RelationshipTypeValues,
    UIDRefContentItem,
)
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from service.dicom.source import Plane, SourceImage, SourceSeries

ACQUISITION: Final = RelationshipTypeValues.HAS_ACQ_CONTEXT
CONTAINS: Final = RelationshipTypeValues.CONTAINS
PIXELS: Final = CodedConcept("{pixels}", "UCUM", "Pixels")
COSINE: Final = CodedConcept("{-1:1}", "UCUM", "{-1:1}")
SOURCE: Final = Code("260753009", "SCT", "Source")

_ORIENTATION: Final = tuple(
    getattr(codes.DCM, f"ImageOrientationPatient{vector}{axis}")
    for vector in ("Row", "Column")
    for axis in "XYZ"
)
_POSITION: Final = tuple(getattr(codes.DCM, f"ImagePositionPatient{axis}") for axis in "XYZ")


def image_library(source: SourceSeries) -> ContainerContentItem:
    """The library of one series: what all images share once, and their positions one by one.

    highdicom's own repeats everything with each image and wants attributes that a source may lack.
    """
    library = ContainerContentItem(codes.DCM.ImageLibrary, relationship_type=CONTAINS)
    library.ContentSequence = ContentSequence()
    groups: dict[object, list[SourceImage]] = {}
    for image in source.images.values():
        groups.setdefault(_shared(image), []).append(image)
    for images in groups.values():
        group = ContainerContentItem(codes.DCM.ImageLibraryGroup, relationship_type=CONTAINS)
        group.ContentSequence = ContentSequence(
            [*_descriptors(images[0]), *(_entry(image) for image in images)]
        )
        library.ContentSequence.append(group)
    return library


def _common(image: SourceImage) -> Plane | None:
    """A plane of the image, if all its frames are parallel and alike."""
    first = image.planes[0]
    if first is None or any(
        plane is None or (plane.orientation, plane.spacing) != (first.orientation, first.spacing)
        for plane in image.planes
    ):
        return None
    return first


def _shared(image: SourceImage) -> object:
    plane = _common(image)
    geometry = plane and (plane.orientation, plane.spacing, plane.thickness)
    return (
        image.sop_class_uid,
        image.frame_of_reference_uid,
        image.rows,
        image.columns,
        geometry,
    )


def _descriptors(image: SourceImage) -> Iterable[ContentItem]:
    """TID 1602, and TID 1604 for what is known of the plane."""
    yield CodeContentItem(codes.DCM.Modality, codes.DCM.MagneticResonance, ACQUISITION)
    yield CodeContentItem(codes.DCM.TargetRegion, codes.SCT.Brain, ACQUISITION)
    if (uid := image.frame_of_reference_uid) is not None:
        yield UIDRefContentItem(codes.DCM.FrameOfReferenceUID, uid, ACQUISITION)
    yield NumContentItem(codes.DCM.PixelDataRows, image.rows, PIXELS, relationship_type=ACQUISITION)
    yield NumContentItem(
        codes.DCM.PixelDataColumns, image.columns, PIXELS, relationship_type=ACQUISITION
    )
    plane = _common(image)
    if plane is None:
        return
    yield _length(codes.DCM.HorizontalPixelSpacing, plane.spacing[1])
    yield _length(codes.DCM.VerticalPixelSpacing, plane.spacing[0])
    if plane.thickness is not None:
        yield _length(codes.DCM.SliceThickness, plane.thickness)
    for name, value in zip(_ORIENTATION, plane.orientation, strict=True):
        yield NumContentItem(name, value, COSINE, relationship_type=ACQUISITION)


def _entry(image: SourceImage) -> ImageContentItem:
    """TID 1601; of a multi-frame image the object as a whole."""
    entry = ImageContentItem(
        SOURCE, image.sop_class_uid, image.sop_instance_uid, relationship_type=CONTAINS
    )
    plane = image.planes[0]
    if not image.multi_frame and plane is not None:
        entry.ContentSequence = ContentSequence(list(_position(plane)))
    return entry


def _position(plane: Plane) -> Iterable[ContentItem]:
    for name, value in zip(_POSITION, plane.position, strict=True):
        yield _length(name, value)


def _length(name: Code, value: float) -> NumContentItem:
    return NumContentItem(name, value, codes.UCUM.Millimeter, relationship_type=ACQUISITION)
