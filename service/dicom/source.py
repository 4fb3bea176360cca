"""The source series: which images there are, where they lie in the patient, and whose they are."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import (
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    UID_dictionary,
)

from contract.dicom_frames import measurable
from service.dicom import patient
from service.errors import UnidentifiedSource

GEOMETRY: Final = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
)

KEYWORDS: Final = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("FrameOfReferenceUID", "PositionReferenceIndicator", "Rows", "Columns", "NumberOfFrames"),
    *("SeriesNumber", "Modality", *GEOMETRY),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions"),
    *("StationName", "InstitutionName"),
)
"""What has to be read of a source image beside :data:`service.dicom.patient.KEYWORDS`."""

ORTHOGONALITY: Final = 1e-2
"""How far direction cosines may be from perpendicular unit vectors, after rounding by the writer."""

EXACT: Final = 1e-5
"""Direction cosines that are nearer to unit vectors than this are copied as they are."""

LOSSY_METHODS: Final = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
}
"""Transfer syntaxes that always lose something, and the Lossy Image Compression Method of each."""

_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)+")


@dataclass(frozen=True, slots=True)
class Plane:
    """Where a frame lies in the patient (DICOM PS3.3 2024e, C.7.6.2).

    Attributes:
        position: mm, centre of the first pixel: x, y, z.
        orientation: direction cosines of a row and of a column.
        spacing: mm from row to row and from column to column.
        thickness: mm, if stated.
    """

    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float, float, float]
    spacing: tuple[float, float]
    thickness: float | None

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector perpendicular to the plane, float64 (3,)."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def depth(self) -> float:
        """Position along the normal in mm."""
        return float(self.normal @ np.asarray(self.position))


class Lossy(NamedTuple):
    """Compression with loss (DICOM PS3.3 2024e, C.7.6.1.1.5), once or several times.

    Attributes:
        ratios, methods: of each time, as far as stated.
    """

    ratios: tuple[float, ...]
    methods: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image of the series.

    Attributes:
        sop_class_uid, sop_instance_uid: what it is.
        frame_of_reference_uid: what its planes are stated in; None if it does not say.
        rows, columns: of its stored pixel matrix.
        planes: of its frames; None where the object does not say it, or not credibly.
        multi_frame: references to it name frames.
        lossy: how its pixels were compressed with loss; None if they were not.
    """

    sop_class_uid: str
    sop_instance_uid: str
    frame_of_reference_uid: str | None
    rows: int
    columns: int
    planes: tuple[Plane | None, ...]
    multi_frame: bool
    lossy: Lossy | None

    def plane(self, frame: int) -> Plane | None:
        """Of a frame, from 1."""
        return self.planes[frame - 1] if 0 < frame <= len(self.planes) else None


@dataclass(frozen=True, slots=True, eq=False)
class SourceSeries:
    """The images of one series.

    Attributes:
        study_uid, series_uid: what it is.
        position_reference: what in the patient the frame of reference starts from; None if the images
            do not agree on it.
        images: by SOP instance UID.
        identity: patient and study attributes (:mod:`service.dicom.patient`).
        equipment: what acquired it, valid attributes only.
        number: its series number, 0 if it has none.
    """

    study_uid: str
    series_uid: str
    position_reference: str | None
    images: dict[str, SourceImage]
    identity: Dataset
    equipment: Dataset
    number: int

    @classmethod
    def of(cls, headers: Sequence[Dataset]) -> "SourceSeries":
        """Reads the headers of one series' images.

        Raises:
            UnidentifiedSource: an image lacks a UID that references to it need, or they are of several
                patients.
            ValueError: there is none, or they belong to several series.
        """
        if not headers:
            raise ValueError("a series has at least one image")
        identities = {
            (_uid(header, "StudyInstanceUID"), _uid(header, "SeriesInstanceUID"))
            for header in headers
        }
        if len(identities) > 1:
            raise ValueError("the images belong to several series")
        issuer = _issuer_of_the_one_patient(headers)
        study_uid, series_uid = identities.pop()
        images = [_image(header) for header in headers]
        first = headers[0]
        identity = patient.identity(first)
        if issuer:
            identity.IssuerOfPatientID = issuer
        return cls(
            study_uid,
            series_uid,
            _common(headers, "PositionReferenceIndicator"),
            {image.sop_instance_uid: image for image in images},
            identity,
            _equipment(first),
            _integer(first, "SeriesNumber"),
        )


def uid(header: Dataset, keyword: str) -> str:
    """A UID as it is written, which may be malformed; empty if it is missing or damaged."""
    return str(patient.raw(header, keyword) or "").strip("\0 ")


def _issuer_of_the_one_patient(headers: Sequence[Dataset]) -> str:
    """Who issued the patient's ID, which only some of the images may say; empty if none does.

    Raises:
        UnidentifiedSource: the images are of several patients.
    """
    numbers, issuers = zip(*map(patient.whose, headers), strict=True)
    stated = set(issuers) - {""}
    if len(set(numbers)) > 1 or len(stated) > 1:
        raise UnidentifiedSource("the series has images of several patients")
    return str(stated.pop()) if stated else ""


def _common(headers: Sequence[Dataset], keyword: str) -> str | None:
    """What all images state; None if they do not agree."""
    values = {patient.text(header, keyword) for header in headers}
    return values.pop() if len(values) == 1 else None


def spacing_between(planes: Iterable[Plane]) -> float | None:
    """Distance in mm between neighbours of parallel planes, if it is the same throughout."""
    depths = np.unique(np.round([plane.depth for plane in planes], 3))
    gaps = np.diff(depths)
    if gaps.size == 0 or gaps.max() - gaps.min() > 0.01 * gaps.mean():
        return None
    return float(gaps.mean())


def _image(header: Dataset) -> SourceImage:
    sop_class_uid = _uid(header, "SOPClassUID")
    known = UID_dictionary.get(sop_class_uid)
    if known is None or known[1] != "SOP Class" or known[3]:
        raise UnidentifiedSource("the DICOM object is of a private, retired or unknown SOP class")
    shared = patient.sequence(header, "SharedFunctionalGroupsSequence")[:1]
    own = patient.sequence(header, "PerFrameFunctionalGroupsSequence")
    # Of a frame without a group of its own nothing is known, whatever number of frames is stated.
    count = _integer(header, "NumberOfFrames")
    # Nor of which frame a position speaks that is the whole object's.
    whole = Dataset() if count > 1 else header
    planes = tuple(
        _plane(header, whole, [*own[frame : frame + 1], *shared])
        for frame in range(max(1, min(count, len(own))))
    )
    return SourceImage(
        sop_class_uid,
        _uid(header, "SOPInstanceUID"),
        _valid_uid(header, "FrameOfReferenceUID"),
        _integer(header, "Rows"),
        _integer(header, "Columns"),
        planes,
        # A classic image may state that it has one frame; references to it must not name that.
        multi_frame=count > 1 or bool(own),
        lossy=_lossy(header),
    )


def _lossy(header: Dataset) -> Lossy | None:
    meta = getattr(header, "file_meta", Dataset())
    method = LOSSY_METHODS.get(meta.get("TransferSyntaxUID"))
    if patient.raw(header, "LossyImageCompression") != "01" and method is None:
        return None
    ratios = _floats(header, "LossyImageCompressionRatio") or []
    methods = patient.texts(header, "LossyImageCompressionMethod") or ([method] if method else [])
    return Lossy(tuple(ratios), tuple(methods))


def _plane(header: Dataset, placed: Dataset, groups: Sequence[Dataset]) -> Plane | None:
    """A frame's own attributes before the shared ones, and those before the object's.

    Args:
        header: the object's.
        placed: what the position is read of where no group has one.
        groups: the frame's, then the shared ones.
    """
    position = _numbers(placed, groups, "PlanePositionSequence", "ImagePositionPatient")
    orientation = _numbers(header, groups, "PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = _numbers(header, groups, "PixelMeasuresSequence", "PixelSpacing")
    thickness = _numbers(header, groups, "PixelMeasuresSequence", "SliceThickness")
    # What the decoder does not believe must not be measured with either.
    if len(position) != 3 or len(orientation) != 6 or not measurable(spacing):
        return None
    row, column = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    errors = [row @ row - 1, column @ column - 1, row @ column]
    if max(map(abs, errors)) > ORTHOGONALITY:
        return None
    x, y, z = position
    (rx, ry, rz), (cx, cy, cz) = _orthonormal(row, column)
    return Plane(
        (x, y, z),
        (rx, ry, rz, cx, cy, cz),
        (spacing[0], spacing[1]),
        thickness[0] if thickness and thickness[0] > 0 else None,
    )


def _orthonormal(
    row: NDArray[np.float64], column: NDArray[np.float64]
) -> tuple[list[float], list[float]]:
    """Direction cosines as they were before they were rounded; those that need nothing stay exact."""
    exact = np.stack([row, column])
    row = row / np.linalg.norm(row)
    column = column - (column @ row) * row
    made = np.stack([row, column / np.linalg.norm(column)])
    kept = exact if np.allclose(made, exact, rtol=0, atol=EXACT) else made
    ours, theirs = kept.tolist()
    return ours, theirs


def _numbers(
    header: Dataset, groups: Sequence[Dataset], sequence: str, keyword: str
) -> list[float]:
    items = [item for group in groups for item in patient.sequence(group, sequence)[:1]]
    for holder in (*items, header):
        if (numbers := _floats(holder, keyword)) is not None:
            return numbers
    return []


def _floats(holder: Dataset, keyword: str) -> list[float] | None:
    """Finite numbers of an attribute; None if it has none, or others."""
    try:
        value = holder[keyword].value
        several = [value] if isinstance(value, str | float | int) else list(value or [])
        numbers = [float(item) for item in several]
    except Exception:  # noqa: BLE001 - missing, or whatever a malformed value makes pydicom raise
        return None
    return numbers if numbers and all(map(math.isfinite, numbers)) else None


def _integer(header: Dataset, keyword: str) -> int:
    """A whole number of at least 0; 0 if there is none."""
    numbers = _floats(header, keyword) or [0.0]
    return max(0, int(numbers[0]))


def _uid(header: Dataset, keyword: str) -> str:
    found = _valid_uid(header, keyword)
    if found is None:
        raise UnidentifiedSource("the DICOM object lacks a UID that results have to refer to")
    return found


def _valid_uid(header: Dataset, keyword: str) -> str | None:
    """A UID that can be copied; components with a leading zero, as some writers have, do no harm."""
    found = uid(header, keyword)
    return found if len(found) <= 64 and _UID.fullmatch(found) else None


def _equipment(header: Dataset) -> Dataset:
    clean = Dataset()
    for keyword in (
        "Manufacturer",
        "ManufacturerModelName",
        "DeviceSerialNumber",
        "SoftwareVersions",
        "StationName",
        "InstitutionName",
    ):
        if values := patient.texts(header, keyword):
            setattr(clean, keyword, values if keyword == "SoftwareVersions" else values[0])
    return clean
