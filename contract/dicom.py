"""DICOM MR objects to slices: pixels as a viewer would show them, and where they come from.

No attribute of a patient leaves this module: neither in a :class:`Slice`, nor in an error, nor in a
log record or warning of pydicom.
"""

import io
import logging
import math
import re
import struct
import threading
import warnings
import zlib
from typing import Final

from pydicom import Dataset, FileDataset, dcmread
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRColorImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)

from contract.dicom_pixels import check_format, stored_values
from contract.errors import (
    DecodeError,
    NoPixelData,
    NotMr,
    TooManyPixels,
    TruncatedImage,
    UndecodableImage,
)
from contract.greyscale import floats, grey_levels, luma, square
from contract.preprocessing import DicomReference, Slice

MR_SOP_CLASSES: Final = frozenset(
    {
        MRImageStorage,
        EnhancedMRImageStorage,
        EnhancedMRColorImageStorage,
        LegacyConvertedEnhancedMRImageStorage,
    }
)
"""Storage classes of MR images (DICOM PS3.4 2024e, table B.5-1); spectroscopy is no image."""

MAX_PIXEL_ASPECT: Final = 10.0
"""Pixels more oblong than this are taken for a wrong attribute, and left as they are."""

MAX_ITEMS: Final = 100_000
"""Sequence items in an object: thousands of frames have fewer, and a bomb of them takes minutes."""

MAX_BYTES_PER_PIXEL: Final = 4
MAX_HEADER_BYTES: Final = 16 * 2**20
"""With :data:`MAX_BYTES_PER_PIXEL`: what a deflated object may inflate to."""

_ATTRIBUTES: Final = [
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PhotometricInterpretation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("PixelSpacing", "PixelAspectRatio"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for part in ("Descriptor", "Data")
        for colour in ("Red", "Green", "Blue")
    ),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData"),
]
"""All that is parsed; everything else, the patient's attributes with it, is skipped unread."""

_FUNCTIONAL_GROUPS: Final = (
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
)
"""Where an enhanced object keeps what a classic one has at its top level (PS3.3 2024e, C.7.6.16)."""

_EXPLICIT_HEADER: Final = (
    bytes(128)
    + b"DICM"
    + struct.pack("<HH2sH", 0x0002, 0x0010, b"UI", len(ExplicitVRLittleEndian) + 1)
    + f"{ExplicitVRLittleEndian}\0".encode()
)
"""Preamble and file meta information of an object that is not deflated (PS3.10 2024e, 7.1)."""

_ITEM_TAG: Final = b"\xfe\xff\x00\xe0"
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")
_QUIET: Final = ("ignore", None, Warning, re.compile("pydicom"), 0)

_QUIET_LOCK: Final = threading.Lock()

# pydicom's records quote attribute values, so none may reach the service's log.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


class _Reader(io.BytesIO):
    """Remembers whether it was asked for more than there is."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._size = len(data)
        self._short = False

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._short |= 0 < len(data) < (size or 0)
        return data

    @property
    def overrun(self) -> bool:
        return self._short or self.tell() > self._size


def decode_dicom(data: bytes, max_pixels: int, *, any_modality: bool = False) -> Slice:
    """Decodes a single-frame MR object.

    The grey levels are those of the modality LUT or rescale, then of the VOI LUT or the first window;
    an object with neither gets its own range. Pixels that are not square are resampled to be. Overlays
    are ignored.

    Args:
        data: a whole DICOM file, from the preamble on.
        max_pixels: rows times columns times frames that are accepted, checked before decompression.
        any_modality: also take images whose modality or SOP class is not MR, for sites whose tags are
            wrong.

    Returns:
        One grey slice; ``original_size`` and the pixel spacing are those of the object, before any
        resampling to square pixels.

    Raises:
        DecodeError: one of its kinds; no other exception leaves this function.
    """
    quieten()
    try:
        return _decode(data, max_pixels, any_modality=any_modality)
    except DecodeError:
        raise
    except Exception:  # noqa: BLE001 - whatever damage makes pydicom raise, attribute values in it
        raise UndecodableImage("the DICOM object is damaged and cannot be decoded") from None


def quieten() -> None:
    """Ignores pydicom's warnings, which quote attribute values, from now on and in all threads.

    ``catch_warnings`` would leave no trace, but is not safe in threads, and decoding runs in them.
    """
    if next(iter(warnings.filters), None) == _QUIET:
        return
    with _QUIET_LOCK:
        if next(iter(warnings.filters), None) != _QUIET:
            warnings.filterwarnings("ignore", module="pydicom")


def _decode(data: bytes, max_pixels: int, *, any_modality: bool) -> Slice:
    dataset = _read(_inflated(data, max_pixels), any_modality=any_modality)
    form = check_format(dataset, max_pixels)
    attributes = _frame_attributes(dataset, 1)
    stored, photometric = stored_values(dataset, form)
    if photometric in {"MONOCHROME1", "MONOCHROME2"}:
        pixels = grey_levels(stored, attributes, inverted=photometric == "MONOCHROME1")
    else:
        pixels = luma(stored, photometric, form.bits_stored, dataset)
    spacing = _spacing(attributes)
    return Slice(
        square(pixels, _aspect(attributes, spacing), max_pixels),
        (form.rows, form.columns),
        DicomReference(
            sop_instance_uid=_uid(dataset, "SOPInstanceUID"),
            series_instance_uid=_uid(dataset, "SeriesInstanceUID"),
            frame=1,
            pixel_spacing_mm=spacing,
        ),
    )


def _inflated(data: bytes, max_pixels: int) -> bytes:
    """The object itself or, of a deflated one, its explicit little endian form."""
    reader = io.BytesIO(data)
    read_preamble(reader, force=False)
    meta = read_dataset(
        reader,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, _vr, _length: tag.group != 0x0002,
    )
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return data
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    limit = max_pixels * MAX_BYTES_PER_PIXEL + MAX_HEADER_BYTES
    inflated = inflater.decompress(reader.read(), limit)
    if inflater.unconsumed_tail:
        raise TooManyPixels(f"the DICOM object inflates to more than {limit} bytes")
    if not inflater.eof:
        raise TruncatedImage("the deflated DICOM object ends too early")
    return _EXPLICIT_HEADER + inflated


def _read(data: bytes, *, any_modality: bool) -> FileDataset:
    """Parses an object; it is an MR image with pixels, and its transfer syntax is known."""
    if data.count(_ITEM_TAG) > MAX_ITEMS:
        raise UndecodableImage("the DICOM object has too many sequence items")
    reader = _Reader(data)
    dataset = dcmread(reader, specific_tags=_ATTRIBUTES)
    if "PixelData" not in dataset and reader.overrun:
        raise TruncatedImage("the DICOM object ends before its pixels")
    is_mr = str(dataset.get("Modality", "")).strip().upper() == "MR"
    if not any_modality and not (is_mr and dataset.get("SOPClassUID") in MR_SOP_CLASSES):
        raise NotMr("the DICOM object is no MR image")
    if not dataset.get("PixelData"):
        raise NoPixelData("the DICOM object holds no pixel data")
    if "TransferSyntaxUID" not in dataset.file_meta:
        is_implicit, is_little_endian = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if is_little_endian else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit
    return dataset


def _frame_attributes(dataset: Dataset, frame: int) -> Dataset:
    """What holds for one frame (from 1), flat, as in a classic object."""
    attributes = Dataset(dataset)
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    own = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])[frame - 1 : frame]
    for groups in shared + own:
        for keyword in _FUNCTIONAL_GROUPS:
            for item in list(groups.get(keyword) or [])[:1]:
                attributes.update(item)
    return attributes


def _spacing(attributes: Dataset) -> tuple[float, float] | None:
    """Millimetres from row to row and from column to column, if stated and possible."""
    spacing = floats(attributes, "PixelSpacing")
    if len(spacing) != 2 or not all(0 < side < math.inf for side in spacing):
        return None
    return spacing[0], spacing[1]


def _aspect(attributes: Dataset, spacing: tuple[float, float] | None) -> float:
    """A pixel's height over its width; 1 if nothing is stated that can be believed."""
    sides = spacing or floats(attributes, "PixelAspectRatio")
    if len(sides) != 2 or not min(sides) > 0:
        return 1.0
    aspect = sides[0] / sides[1]
    return aspect if 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT else 1.0


def _uid(dataset: Dataset, keyword: str) -> str | None:
    """A UID (PS3.5 2024e, 9.1), or None if it is missing or malformed."""
    uid = str(dataset.get(keyword) or "").strip("\0 ")
    return uid if len(uid) <= 64 and _UID.fullmatch(uid) else None
