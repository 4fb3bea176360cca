"""Real slices for the tests, and the same pixels in other files."""

import io
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom import DataElement, Dataset, FileMetaDataset, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    MRImageStorage,
    RLELossless,
)

from tests.support.dicom import encoded
from tests.support.encoding import compress

DATA = Path(__file__).parents[1] / "data"
SLICES = sorted((DATA / "slices").glob("*/*.jpg"))
OBJECTS = sorted((DATA / "dicom").glob("*.dcm"))
GOLDEN = Path(__file__).parent / "golden"

SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big-endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg2000": JPEG2000Lossless,
    "jpeg-lossless": JPEGLossless,
    "jpeg-lossless-sv1": JPEGLosslessSV1,
    "jpeg-ls": JPEGLSLossless,
}
"""The lossless ones; the others are :data:`LOSSY`."""

LOSSY = {"jpeg-ls-near": JPEGLSNearLossless, "jpeg2000-lossy": JPEG2000}
"""Those of any depth. JPEG baseline has 8 bits; of 12 in JPEG extended there is :func:`extended`."""

_NAME = "PLANTED^JANE"
RANGE = {"WindowCenter": 128, "WindowWidth": 256}
"""A window that leaves 8-bit values as they are."""

SHIPPED = sorted(
    path
    for path in (Path(pydicom.__file__).parent / "data" / "test_files").rglob("*")
    if path.is_file() and path.read_bytes()[128:132] == b"DICM"
)
"""What comes with pydicom itself; the rest of its test data would have to be downloaded."""


@cache
def grey_slice(columns: int = 96, rows: int = 80) -> NDArray[np.uint8]:
    """A real slice, not square, so that a swapped axis shows; its darkest is 0, its brightest 255."""
    with Image.open(SLICES[0]) as image:
        scaled = np.asarray(image.convert("L").resize((columns, rows)), np.float64)
    stretched = (scaled - scaled.min()) * (255 / (scaled.max() - scaled.min()))
    pixels: NDArray[np.uint8] = np.rint(stretched).astype(np.uint8)
    pixels.flags.writeable = False
    return pixels


@cache
def deep_slice() -> NDArray[np.uint16]:
    """The 12-bit values of a real MR object."""
    values = np.asarray(dcmread(DATA / "dicom" / "siemens_mprage_sagittal_0096.dcm").pixel_array)
    values.flags.writeable = False
    return values


def encode(image: Image.Image | NDArray[Any], kind: str, **options: Any) -> bytes:
    """A JPEG or PNG file of an image."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def mr_object(
    values: NDArray[Any],
    syntax: UID = ExplicitVRLittleEndian,
    *,
    bits_stored: int | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> bytes:
    """A classic MR object file of stored values.

    Args:
        values: (rows, columns) or (rows, columns, 3), uint8, int8, uint16 or int16.
        syntax: transfer syntax; the values are compressed for it.
        bits_stored: the type's size if not given.
        attributes: set last, by keyword, or whole elements by whatever key; None removes one.
    """
    return mr_frames([values], syntax, bits_stored=bits_stored, attributes=attributes)


def mr_frames(
    frames: Sequence[NDArray[Any]],
    syntax: UID = ExplicitVRLittleEndian,
    *,
    bits_stored: int | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> bytes:
    """The same of several frames, of which each is as in :func:`mr_object`."""
    values = frames[0]
    dataset = Dataset()
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.2.1143.1"
    dataset.SeriesInstanceUID = "1.2.826.0.1.3680043.2.1143.2"
    dataset.Modality = "MR"
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel = 1 if values.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if values.ndim == 2 else "RGB"
    if values.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * values.itemsize
    dataset.BitsStored = bits_stored or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    if len(frames) > 1:
        dataset.NumberOfFrames = len(frames)
    if "PixelData" not in (attributes or {}):
        _set_pixels(dataset, frames, syntax)
    for keyword, value in (attributes or {}).items():
        if isinstance(value, DataElement):
            dataset.add(value)
        elif value is None:
            dataset.pop(tag_for_keyword(keyword) or 0, None)
        else:
            setattr(dataset, keyword, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OB" if syntax.is_encapsulated or values.itemsize == 1 else "OW"
        dataset["PixelData"].is_undefined_length = syntax.is_encapsulated
    return write(dataset, syntax)


def frame_type(*terms: str) -> Dataset:
    """Functional groups that say what kind of frame it is."""
    groups, kind = Dataset(), Dataset()
    kind.FrameType = list(terms)
    groups.MRImageFrameTypeSequence = [kind]
    return groups


@cache
def extended() -> tuple[bytes, bytes]:
    """An MR object of JPEG extended with 12 bits, and the stream in it: nothing here writes those."""
    dataset = dcmread(next(path for path in SHIPPED if path.name == "JPGExtended.dcm"))
    (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
    values = np.zeros((dataset.Rows, dataset.Columns), np.uint16)
    attributes = {"PixelData": encapsulate([stream])}
    return mr_object(values, JPEGExtended12Bit, bits_stored=12, attributes=attributes), stream


@cache
def planted() -> bytes:
    """An MR object whose patient is PLANTED^JANE, wherever a name could stray to."""
    dataset = dcmread(OBJECTS[-1])
    dataset.PatientName = dataset.PatientID = dataset.InstitutionName = _NAME
    dataset.StudyDescription = dataset.ImageComments = _NAME
    return write(dataset, ExplicitVRLittleEndian)


def planted_and_damaged() -> list[bytes]:
    """The same, whole, cut short, and with the name as the value of attributes that are read."""
    whole = planted()
    name = _NAME.encode()
    text = b"LO" + len(name).to_bytes(2, "little") + name
    result = [whole, whole[: len(whole) // 2]]
    for tag, vr in [
        (b"\x28\x00\x10\x00", b"US"),  # Rows
        (b"\x28\x00\x50\x10", b"DS"),  # Window Center
        (b"\x28\x00\x30\x00", b"DS"),  # Pixel Spacing
        (b"\x28\x00\x04\x00", b"CS"),  # Photometric Interpretation
        (b"\x08\x00\x16\x00", b"UI"),  # SOP Class UID
        (b"\x08\x00\x18\x00", b"UI"),  # SOP Instance UID
        (b"\x08\x00\x60\x00", b"CS"),  # Modality
        (b"\x08\x00\x05\x00", b"CS"),  # Specific Character Set
        (b"\x02\x00\x10\x00", b"UI"),  # Transfer Syntax UID
    ]:
        start = whole.find(tag + vr)
        if start >= 0:
            end = start + 8 + int.from_bytes(whole[start + 6 : start + 8], "little")
            result.extend(
                whole[:start] + tag + kind + text[2:] + whole[end:] for kind in (vr, b"LO")
            )
    return result


def _set_pixels(dataset: Dataset, frames: Sequence[NDArray[Any]], syntax: UID) -> None:
    values = np.stack(frames)
    big_endian = syntax == ExplicitVRBigEndian
    native = values.astype(values.dtype.newbyteorder(">" if big_endian else "<")).tobytes()
    if syntax == RLELossless:
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.PixelData = native
        dataset.compress(RLELossless, generate_instance_uid=False)
    elif syntax == JPEGBaseline8Bit:
        dataset.PixelData = encapsulate([encode(frame, "JPEG", quality=95) for frame in frames])
    elif syntax.is_encapsulated:
        bits = dataset.BitsStored
        dataset.PixelData = encapsulate([compress(frame, syntax, bits) for frame in frames])
    else:
        dataset.PixelData = native + bytes(len(native) % 2)


def write(dataset: Dataset, syntax: UID) -> bytes:
    """A DICOM file of a dataset whose pixels are already in the syntax's form."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", MRImageStorage)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2.3")
    return encoded(dataset)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG chunk with the right checksum."""
    checksum = zlib.crc32(kind + content)
    return len(content).to_bytes(4) + kind + content + checksum.to_bytes(4)


def raw_png(
    pixels: NDArray[Any], kind: int = 0, *, interlaced: bool = False, absent: bytes = b""
) -> bytes:
    """A PNG of 8 or 16 bits and any colour type, which Pillow reads but does not write.

    Args:
        pixels: uint8 or uint16, (rows, columns) or (rows, columns, samples).
        kind: its colour type.
        interlaced: by Adam7 (ISO/IEC 15948, 8.2).
        absent: what stands for transparency, as its chunk has it.
    """
    rows, columns = pixels.shape[:2]
    steps = [(0, 0, 1, 1)]
    if interlaced:
        steps = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2)]
        steps += [(0, 1, 2, 2), (1, 0, 2, 1)]
    big_endian = pixels.astype(pixels.dtype.newbyteorder(">"))
    raw = b"".join(
        b"\0" + line.tobytes()
        for top, left, down, across in steps
        for line in big_endian[top::down, left::across]
    )
    form = columns.to_bytes(4) + rows.to_bytes(4)
    form += bytes([8 * pixels.itemsize, kind, 0, 0, interlaced])
    header = png_chunk(b"IHDR", form)
    header += png_chunk(b"tRNS", absent) if absent else b""
    content = header + png_chunk(b"IDAT", zlib.compress(raw)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content
