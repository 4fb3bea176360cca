"""The stored values of a DICOM object: which transfer syntaxes are read, by what, and how safely."""

import struct
from typing import Any, Final, NamedTuple

from numpy.typing import NDArray
from pydicom import FileDataset
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGTransferSyntaxes,
    RLELossless,
)

from contract.errors import (
    MultiFrame,
    TooManyPixels,
    TruncatedImage,
    UndecodableImage,
    UnsupportedPixels,
    UnsupportedTransferSyntax,
)

DECODERS: Final[dict[str, str]] = {
    RLELossless: "pydicom",
    JPEGBaseline8Bit: "pillow",
    JPEGExtended12Bit: "pillow",
    **dict.fromkeys(JPEG2000TransferSyntaxes, "pillow"),
}
"""pydicom's plugin for each compressed transfer syntax: its own and Pillow, whatever else is installed.
Lossless JPEG and JPEG-LS are left out on purpose, since no decoder with a permissive licence is safe on
hostile input within the service's process. Measured by mutating pydicom's test files: python-gdcm 3.2.6
ends the process (``terminate called after throwing an instance of 'gdcm::Exception'``), pyjpegls 1.5.1
takes four seconds for 64 x 64 pixels. pylibjpeg-libjpeg is GPL."""

MAX_RLE_BYTES: Final = 4 * 2**20
"""Length of an RLE frame; it may unpack to 64 times as much before its true length is known."""


class PixelFormat(NamedTuple):
    """The checked part of the image pixel module (DICOM PS3.3 2024e, C.7.6.3).

    Attributes:
        rows, columns: size of a frame.
        samples: values of a pixel, 1 or 3.
        bits_allocated: bits of a value in the file, 8 or 16.
        bits_stored: bits of it that are used, the lowest ones.
        photometric: photometric interpretation.
    """

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    photometric: str

    @property
    def frame_bytes(self) -> int:
        """Length of an uncompressed frame."""
        values = self.rows * self.columns * self.samples
        if self.photometric == "YBR_FULL_422":
            values = values * 2 // 3
        return values * self.bits_allocated // 8


def check_format(dataset: FileDataset, max_pixels: int) -> PixelFormat:
    """Checks the size and the form of the pixels, before anything is decompressed.

    Raises:
        TooManyPixels: all frames together have more than ``max_pixels``.
        MultiFrame: there are several frames.
        UnsupportedPixels: the values are of a kind that no MR image needs.
        UndecodableImage: the size is impossible.
    """
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if min(rows, columns, frames) < 1:
        raise UndecodableImage("the DICOM object states an impossible image size")
    if rows * columns * frames > max_pixels:
        raise TooManyPixels(f"more than the {max_pixels} pixels that are accepted")
    if frames > 1:
        raise MultiFrame("the DICOM object holds several frames")
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    high_bit = int(dataset.get("HighBit", stored - 1))
    if allocated not in {8, 16} or not 1 <= stored <= allocated or high_bit != stored - 1:
        raise UnsupportedPixels("only values in the low bits of 8 or 16 are read")
    samples = int(dataset.get("SamplesPerPixel", 1))
    if samples not in {1, 3}:
        raise UnsupportedPixels("only pixels of one or three values are read")
    photometric = str(dataset.PhotometricInterpretation).strip().upper()
    return PixelFormat(rows, columns, samples, allocated, stored, photometric)


def stored_values(dataset: FileDataset, form: PixelFormat) -> tuple[NDArray[Any], str]:
    """Decompresses the first frame; unused bits are cleared, YBR becomes RGB.

    Returns:
        (rows, columns) or (rows, columns, 3), and the photometric interpretation it has now.

    Raises:
        UnsupportedTransferSyntax: there is no decoder for it.
        TruncatedImage: there are fewer values than pixels.
        TooManyPixels: compressed pixels would unpack to more than the object states.
        UndecodableImage: the compressed image has another size than the object states.
    """
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UnsupportedTransferSyntax("the transfer syntax is not supported") from None
    plugin = ""
    if decoder.is_encapsulated:
        plugin = _plugin(decoder.available_plugins, syntax, form)
        _check_frame(get_frame(dataset.PixelData, 0, number_of_frames=1), syntax, form)
    elif len(dataset.PixelData) < form.frame_bytes:
        raise TruncatedImage("the DICOM object ends before its pixels do")
    values, properties = decoder.as_array(dataset, index=0, decoding_plugin=plugin)
    return values, str(properties["photometric_interpretation"])


def _plugin(available: tuple[str, ...], syntax: UID, form: PixelFormat) -> str:
    plugin = DECODERS.get(syntax)
    # Pillow reads 12-bit JPEG not at all, and deep colour with its low bits lost.
    is_deep = form.bits_stored > 8 and (form.samples > 1 or syntax == JPEGExtended12Bit)
    if plugin is None or plugin not in available or (plugin == "pillow" and is_deep):
        raise UnsupportedTransferSyntax("there is no decoder for the transfer syntax")
    return plugin


def _check_frame(frame: bytes, syntax: UID, form: PixelFormat) -> None:
    """Keeps a small object from holding a huge compressed image, which a decoder would believe."""
    if syntax == RLELossless:
        if len(frame) > min(2 * form.frame_bytes + 1024, MAX_RLE_BYTES):
            raise TooManyPixels("the RLE frame is longer than its pixels can need")
        return
    size = jpeg_size(frame) if syntax in JPEGTransferSyntaxes else jpeg2000_size(frame)
    if size is None:
        raise UndecodableImage("the compressed pixels have no readable header")
    if size != (form.rows, form.columns):
        raise UndecodableImage("the compressed pixels have another size than the object states")


def jpeg_size(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns in the frame header of a JPEG stream, if it has one.

    Source: ITU-T T.81 (09/92), B.2.2.
    """
    position = 2
    while position + 9 <= len(stream) and stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker == 0xFF:
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            rows, columns = struct.unpack_from(">HH", stream, position + 5)
            return rows, columns
        else:
            position += 2 + int.from_bytes(stream[position + 2 : position + 4])
    return None


def jpeg2000_size(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns in the header of a JPEG 2000 codestream, if it is one.

    Source: ITU-T T.800 (08/2002), A.5.1.
    """
    if not stream.startswith(b"\xff\x4f\xff\x51") or len(stream) < 24:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", stream, 8)
    return bottom - top, right - left
