"""DICOM MR objects to slices: pixels as a viewer would show them, and where they come from.

No attribute of a patient leaves this module: neither in a :class:`Slice`, nor in an error, nor in a
log record or warning of pydicom.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import numpy as np
from pydicom import Dataset, FileDataset, dcmread
from pydicom.charset import CODES_TO_ENCODINGS, python_encoding
from pydicom.dataset import FileMetaDataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from contract.dicom_frames import aspect, frame_attributes, reference, uid
from contract.dicom_kind import FLOAT_PIXELS, check_frame, check_kind
from contract.dicom_meta import Inflated, inflate
from contract.dicom_pixels import Frames
from contract.dicom_size import BoundedReader, check_size
from contract.dicom_values import PRIVATE
from contract.errors import (
    DecodeError,
    TooManyPixels,
    TruncatedImage,
    UndecodableImage,
)
from contract.greyscale import grey_levels, is_inverted, luma, square
from contract.policy import Checks, Policy
from contract.preprocessing import DicomReference, Slice
from contract.quiet import quieten
from contract.turning import upright

MAX_BYTES_PER_PIXEL: Final = 4
MAX_HEADER_BYTES: Final = 16 * 2**20
"""With :data:`MAX_BYTES_PER_PIXEL`: what a deflated object may inflate to."""

_KEYWORDS: Final = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("InstanceNumber", "Modality"),
    *("ImageType", "BodyPartExamined", "AnatomicRegionSequence"),
    *("SeriesDescription", "ProtocolName"),
    *("PatientSpeciesDescription", "PatientSpeciesCodeSequence"),
    *("QualityControlSubject", "QualityControlImage"),
    *("ComplexImageComponent", "VolumeBasedCalculationTechnique"),
    *("ScanningSequence", "InversionRecovery"),
    *("InversionTime", "InversionTimes"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PhotometricInterpretation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"),
    *("ImagePositionPatient", "ImageOrientationPatient"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "PixelPresentation"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PresentationLUTShape"),
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for part in ("Descriptor", "Data")
        for colour in ("Red", "Green", "Blue")
    ),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("PixelData", *FLOAT_PIXELS),
)

_ATTRIBUTES: Final = [*map(Tag, _KEYWORDS), *map(Tag, PRIVATE)]
"""All that is parsed; everything else, what tells who the patient is with it, is skipped unread."""

_CHARACTER_SET: Final = Tag("SpecificCharacterSet")
"""Read in any case: it says what the texts are."""

# pydicom's records quote attribute values, so none may reach the service's log.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)

# Latin alphabet No. 9 (PS3.3 2024e, C.12.1.1.2), which pydicom does not know and reads as No. 1.
python_encoding.update({"ISO_IR 203": "iso8859_15", "ISO 2022 IR 203": "iso8859_15"})
CODES_TO_ENCODINGS[b"\x1b-b"] = "iso8859_15"


class DicomObject:
    """An MR object whose header has been checked; a :class:`contract.source.Source`.

    The grey levels of a frame are those of the modality LUT or rescale, then of the VOI LUT or the
    first window, the frame's own where it has any; a frame with neither gets its own range. Pixels that
    are not square are resampled to be. Overlays are ignored.

    Args:
        dataset: the attributes that this module reads.
        policy: what is accepted.
        header: the attributes that were asked for.
        inflated_bytes: what the object inflated to, if it was deflated.
    """

    def __init__(
        self,
        dataset: FileDataset,
        policy: Policy,
        header: Dataset | None,
        inflated_bytes: int = 0,
    ) -> None:
        self.header = header
        self._inflated_bytes = inflated_bytes
        self._pixels = Frames(dataset, policy)
        if self._pixels.count > 1 and "ImagePositionPatient" in dataset:
            # Of which frame is not said; where they lie is in the functional groups, or nowhere.
            del dataset.ImagePositionPatient
        self._dataset = dataset
        self._policy = policy

    @property
    def frames(self) -> int:
        """Number of slices."""
        return self._pixels.count

    @property
    def isolated(self) -> bool:
        """Whether a process of its own decompresses its slices."""
        return self._pixels.isolated

    @property
    def held_bytes(self) -> int:
        """Bytes of a deflated object that stay for its further slices."""
        return self._inflated_bytes if self.frames > 1 else 0

    @property
    def study_instance_uid(self) -> str | None:
        """Of the object; None if it is missing, malformed or damaged: it can be predicted without."""
        with suppress(Exception):
            return uid(self._dataset, "StudyInstanceUID")
        return None

    def reference(self, frame: int) -> DicomReference:
        """Where a frame (from 1) belongs.

        Raises:
            DecodeError: its attributes are damaged.
        """
        with _errors_named():
            return reference(frame_attributes(self._dataset, frame), frame)

    def slice(self, frame: int) -> Slice:
        """Decodes a frame (from 1).

        Returns:
            One grey slice as it is stored; ``original_size`` and the pixel spacing are those of the
            object, before any resampling to square pixels.

        Raises:
            DecodeError: one of its kinds; no other exception leaves this function.
        """
        with _errors_named():
            attributes = frame_attributes(self._dataset, frame)
            check_frame(attributes, self._policy.checks)
            stored, photometric = self._pixels.stored_values(frame)
            form = self._pixels.form
            if photometric in {"MONOCHROME1", "MONOCHROME2"}:
                inverted = is_inverted(photometric, attributes)
                pixels = grey_levels(stored, attributes, inverted=inverted)
            else:
                pixels = luma(stored, photometric, form.bits_stored, attributes)
            place = reference(attributes, frame)
            turn, height = upright(place.orientation), aspect(attributes)
            # Turned before it is resampled: whichever way it is stored, the model sees the same.
            height = 1 / height if turn.transposed else height
            read = square(turn.apply(pixels), height, self._policy.max_pixels)
            pixels = np.ascontiguousarray(turn.undo(read))
            return Slice(pixels, (form.rows, form.columns), place, turn)


def open_dicom(data: bytes, policy: Policy, *, keep: Sequence[str] = ()) -> DicomObject:
    """Parses and checks an MR object, and decompresses nothing yet.

    Args:
        data: a whole DICOM file, from the preamble on.
        policy: what is accepted.
        keep: keywords of the attributes that are kept in its header, other than the pixels.

    Raises:
        DecodeError: one of its kinds, which says where in a study the object belongs, if its header can
            be read; no other exception leaves this function.
    """
    quieten()
    with _errors_named():
        inflated = _inflated(data, policy.max_pixels)
        reader, dataset, header = _read(inflated, keep)
    size = 0 if inflated.data is data else len(inflated.data)
    with _placed(dataset), _errors_named():
        _check(dataset, reader, policy.checks)
        return DicomObject(dataset, policy, header, size)


@contextmanager
def _errors_named() -> Iterator[None]:
    """Lets none but :class:`DecodeError` out: pydicom's own quote attribute values."""
    try:
        yield
    except DecodeError:
        raise
    except Exception:  # noqa: BLE001 - whatever damage makes pydicom raise, attribute values in it
        raise UndecodableImage("the DICOM object is damaged and cannot be decoded") from None


@contextmanager
def _placed(dataset: FileDataset) -> Iterator[None]:
    """Has errors say where the object belongs, so that no other series is taken to lack it."""
    try:
        yield
    except DecodeError as error:
        with suppress(Exception):
            error.study = uid(dataset, "StudyInstanceUID")
            # Not that of a frame: to convert the functional groups of thousands takes long.
            error.dicom = reference(dataset, 1)
        raise


def _inflated(data: bytes, max_pixels: int) -> Inflated:
    """The object itself or, of a deflated one, its explicit little endian form."""
    limit = max_pixels * MAX_BYTES_PER_PIXEL + MAX_HEADER_BYTES
    inflated = inflate(data, limit)
    if inflated.is_longer:
        raise TooManyPixels(f"the DICOM object inflates to more than {limit} bytes")
    if not inflated.is_whole:
        raise TruncatedImage("the deflated DICOM object ends too early")
    return inflated


def _read(
    inflated: Inflated, keep: Sequence[str]
) -> tuple[BoundedReader, FileDataset, Dataset | None]:
    """Parses an object.

    Returns:
        What it was read with, it, and its header with the attributes that are kept, if any are.
    """
    check_size(inflated.data, inflated.meta)
    reader = BoundedReader(inflated.data)
    kept = [Tag(keyword) for keyword in keep]
    dataset = dcmread(reader, specific_tags=[*_ATTRIBUTES, *kept])
    return reader, dataset, _split(dataset, {*kept, _CHARACTER_SET}) if kept else None


def _check(dataset: FileDataset, reader: BoundedReader, checks: Checks) -> None:
    """Of an accepted kind, with pixels; its transfer syntax is known then."""
    if "PixelData" not in dataset and reader.overrun:
        raise TruncatedImage("the DICOM object ends before its pixels")
    check_kind(dataset, checks)
    for keyword in FLOAT_PIXELS:
        # Beside pixels that are read, pydicom would take them for an ambiguity.
        if keyword in dataset:
            delattr(dataset, keyword)
    if "TransferSyntaxUID" not in dataset.file_meta:
        is_implicit, is_little_endian = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if is_little_endian else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit


def _split(dataset: FileDataset, kept: Collection[BaseTag]) -> Dataset:
    """A header of the attributes that are kept; of them, the data set has what is read of it alone."""
    header = Dataset({tag: value for tag, value in dataset.items() if tag in kept})
    header.file_meta = FileMetaDataset(dict(dataset.file_meta.items()))
    is_implicit, is_little_endian = dataset.original_encoding
    header.set_original_encoding(is_implicit, is_little_endian, dataset.original_character_set)
    for tag in header.keys() - {*_ATTRIBUTES, _CHARACTER_SET}:
        del dataset[tag]
    return header
