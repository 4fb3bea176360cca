"""What a DICOM object says of each of its frames: its attributes, and where it lies."""

import math
import re
from collections.abc import Container, Iterable, Sequence
from typing import Final

from pydicom import Dataset, FileDataset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import BaseTag, Tag

from contract.greyscale import floats, numbers
from contract.preprocessing import DicomReference

MAX_PIXEL_ASPECT: Final = 10.0
"""Pixels more oblong than this are taken for a wrong attribute: left as they are, and not measured."""

MIN_SPACING_MM: Final = 0.01
MAX_SPACING_MM: Final = 100.0
"""Of the pixels of a slice: no scanner makes others, so nothing is measured with what is beyond."""

_SIDES: Final = (
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"),
)
"""What says how oblong pixels are (PS3.3 2024e, C.7.6.3.1.7), the first one first. Only the first is of
the patient, so nothing is measured with the others."""

FUNCTIONAL_GROUPS: Final = (
    "PixelMeasuresSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "MRImageFrameTypeSequence",
    "MRModifierSequence",
)
"""Where an enhanced object keeps what a classic one has at its top level (PS3.3 2024e, C.7.6.16)."""

UNASSIGNED: Final = (
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
)
"""Where a legacy converted object keeps what has no functional group (PS3.3 2024e, C.7.6.16.2)."""

_GROUPS: Final = frozenset(
    map(Tag, ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"))
)
_IN_GROUPS: Final = frozenset(map(Tag, UNASSIGNED + FUNCTIONAL_GROUPS))

OF_INVERSION: Final = frozenset(map(Tag, ("ScanningSequence", "InversionTime")))
"""What is read of it: that a frame is of an inversion recovery."""

_SHORT_BYTES: Final = 256
"""A value of so many is converted in microseconds, so it may be converted again for each frame."""

_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")


def frame_attributes(dataset: FileDataset, frame: int) -> Dataset:
    """What holds for one frame (from 1), flat, as in a classic object.

    A frame's own functional groups go before the shared ones, and those before the top level. What
    takes long to convert stays converted in the data set, for other frames.
    """
    _convert(dataset, _GROUPS)
    # Dataset(dataset) would share its elements: a frame's own would stay for all others.
    attributes = Dataset(dict(dataset.items()))
    # It says in which byte order the words of a lookup table are.
    attributes.file_meta = dataset.file_meta
    holders: list[Dataset] = [dataset]
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    own = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])[frame - 1 : frame]
    for groups in shared + own:
        _convert(groups, _IN_GROUPS)
        for keyword in UNASSIGNED:
            for item in list(groups.get(keyword) or [])[:1]:
                attributes.update(
                    {tag: value for tag, value in item.items() if tag in OF_INVERSION}
                )
                holders.append(item)
        for keyword in FUNCTIONAL_GROUPS:
            for item in list(groups.get(keyword) or [])[:1]:
                attributes.update(item)
                holders.append(item)
    _convert(attributes, attributes.keys(), holders)
    return attributes


def _convert(dataset: Dataset, tags: Container[BaseTag], holders: Iterable[Dataset] = ()) -> None:
    """Converts long values where they are kept, as pydicom would do it anew for each frame.

    It would also convert anew, at each access, what cannot be converted. Such an element becomes one
    that fails as well, but at once.

    Args:
        dataset: what they are converted in.
        tags: of elements that are.
        holders: the data sets that they were copied from, where they are replaced as well.
    """
    for tag, raw in list(dataset.items()):
        if tag not in tags or not isinstance(raw, RawDataElement):
            continue
        if len(raw.value or b"") <= _SHORT_BYTES:
            continue
        try:
            found: DataElement | RawDataElement = dataset[tag]
        except ValueError:  # Of a number of the wrong length, at once: it is left as it is.
            found = dict(dataset.items())[tag]
        except Exception:  # noqa: BLE001 - whatever damage makes pydicom raise
            found = raw._replace(VR="SQ", length=1, value=b"\0")
            dataset[tag] = found
        for holder in holders:
            if dict(holder.items()).get(tag) is raw:
                holder[tag] = found


def reference(attributes: Dataset, frame: int) -> DicomReference:
    """Where a frame belongs, of what :func:`frame_attributes` gives."""
    return DicomReference(
        sop_instance_uid=uid(attributes, "SOPInstanceUID"),
        series_instance_uid=uid(attributes, "SeriesInstanceUID"),
        frame=frame,
        pixel_spacing_mm=spacing(attributes),
        position_mm=_position(attributes),
        orientation=_orientation(attributes),
        instance_number=_instance_number(attributes),
    )


def spacing(attributes: Dataset) -> tuple[float, float] | None:
    """Millimetres from row to row and from column to column, if stated and :func:`measurable`.

    Raises:
        UndecodableImage: it is stated, and no number.
    """
    sides = numbers(attributes, "PixelSpacing")
    return (sides[0], sides[1]) if measurable(sides) else None


def aspect(attributes: Dataset) -> float:
    """A pixel's height over its width; 1 if nothing is stated that can be believed.

    Raises:
        UndecodableImage: it is stated, and no number.
    """
    for keyword in _SIDES:
        sides = numbers(attributes, keyword)
        if credible(sides):
            return sides[0] / sides[1]
    return 1.0


def credible(sides: Sequence[float]) -> bool:
    """Whether these are the two sides of a pixel, no more oblong than :data:`MAX_PIXEL_ASPECT`."""
    return (
        len(sides) == 2
        and all(0 < side < math.inf for side in sides)
        and max(sides) <= MAX_PIXEL_ASPECT * min(sides)
    )


def measurable(sides: Sequence[float]) -> bool:
    """Whether these are :func:`credible`, and millimetres of a slice."""
    return credible(sides) and min(sides) >= MIN_SPACING_MM and max(sides) <= MAX_SPACING_MM


def uid(dataset: Dataset, keyword: str) -> str | None:
    """A UID (PS3.5 2024e, 9.1), or None if it is missing or malformed."""
    text = str(dataset.get(keyword) or "").strip("\0 ")
    return text if len(text) <= 64 and _UID.fullmatch(text) else None


def _position(attributes: Dataset) -> tuple[float, float, float] | None:
    try:
        x, y, z = floats(attributes, "ImagePositionPatient")
    except ValueError:
        return None
    return (x, y, z) if all(map(math.isfinite, (x, y, z))) else None


def _orientation(attributes: Dataset) -> tuple[float, float, float, float, float, float] | None:
    """Two unit vectors at a right angle, or nothing."""
    try:
        a, b, c, d, e, f = floats(attributes, "ImageOrientationPatient")
    except ValueError:
        return None
    lengths = math.hypot(a, b, c), math.hypot(d, e, f)
    if not all(abs(length - 1) < 0.01 for length in lengths) or abs(a * d + b * e + c * f) > 0.01:
        return None
    return a, b, c, d, e, f


def _instance_number(attributes: Dataset) -> int | None:
    try:
        return int(str(attributes.get("InstanceNumber") or ""))
    except ValueError:
        return None
