"""The stored values of a DICOM object: which transfer syntaxes are read, by what, and how safely."""

import struct
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import FileDataset
from pydicom.encaps import encapsulate, generate_frames
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
    TooManyFrames,
    TooManyPixels,
    TruncatedImage,
    UndecodableImage,
    UnsupportedPixels,
    UnsupportedTransferSyntax,
)
from contract.policy import Policy

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


class Frames:
    """The pixels of an object, decompressed frame by frame.

    Args:
        dataset: holds the image pixel module; a compressed object's pixel data is taken out of it.
        policy: what is accepted.

    Raises:
        UnsupportedTransferSyntax: there is no decoder for it.
        UnsupportedPixels: the values are of a kind that no MR image needs.
        TooManyPixels, TooManyFrames: over a limit.
        TruncatedImage: there are fewer values than pixels, or fewer frames than stated.
        UndecodableImage: the size is impossible.
    """

    def __init__(self, dataset: FileDataset, policy: Policy) -> None:
        self.form, self.count = _check_format(dataset, policy)
        self._dataset = dataset
        syntax = UID(dataset.file_meta.TransferSyntaxUID)
        try:
            self._decoder = get_decoder(syntax)
        except NotImplementedError:
            raise UnsupportedTransferSyntax("the transfer syntax is not supported") from None
        self._syntax = syntax
        self._plugin = ""
        self._compressed: list[bytes] = []
        if self._decoder.is_encapsulated:
            self._plugin = _plugin(self._decoder.available_plugins, syntax, self.form)
            self._compressed = _split(dataset, self.count)
            del dataset.PixelData
        elif len(dataset.PixelData) < self.form.frame_bytes * self.count:
            raise TruncatedImage("the DICOM object ends before its pixels do")

    def stored_values(self, frame: int) -> tuple[NDArray[Any], str]:
        """Decompresses a frame (from 1); unused bits are cleared, YBR becomes RGB.

        Returns:
            (rows, columns) or (rows, columns, 3), and the photometric interpretation it has now.

        Raises:
            TooManyPixels: compressed pixels would unpack to more than the object states.
            UndecodableImage: the compressed image has another size than the object states.
        """
        if not self._compressed:
            values, properties = self._decoder.as_array(self._dataset, index=frame - 1)
        else:
            compressed = self._compressed[frame - 1]
            _check_frame(compressed, self._syntax, self.form)
            # One frame at a time: among all of them, pydicom searches for each anew.
            values, properties = self._decoder.as_array(
                encapsulate([compressed], has_bot=False),
                index=0,
                decoding_plugin=self._plugin,
                **self._options(),
            )
        return values, str(properties["photometric_interpretation"])

    def _options(self) -> dict[str, Any]:
        """The image pixel module, as pydicom's decoders take it where there is no dataset."""
        form = self.form
        return {
            "rows": form.rows,
            "columns": form.columns,
            "number_of_frames": 1,
            "samples_per_pixel": form.samples,
            "planar_configuration": int(self._dataset.get("PlanarConfiguration") or 0),
            "bits_allocated": form.bits_allocated,
            "bits_stored": form.bits_stored,
            "pixel_representation": int(self._dataset.PixelRepresentation),
            "photometric_interpretation": form.photometric,
        }


def _check_format(dataset: FileDataset, policy: Policy) -> tuple[PixelFormat, int]:
    """The form of the pixels and the number of frames."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if min(rows, columns, frames) < 1:
        raise UndecodableImage("the DICOM object states an impossible image size")
    if rows * columns > policy.max_pixels:
        raise TooManyPixels(f"more than the {policy.max_pixels} pixels that are accepted")
    if frames > policy.max_frames:
        raise TooManyFrames(f"more than the {policy.max_frames} frames that are accepted")
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    high_bit = int(dataset.get("HighBit", stored - 1))
    if allocated not in {8, 16} or not 1 <= stored <= allocated or high_bit != stored - 1:
        raise UnsupportedPixels("only values in the low bits of 8 or 16 are read")
    samples = int(dataset.get("SamplesPerPixel", 1))
    if samples not in {1, 3}:
        raise UnsupportedPixels("only pixels of one or three values are read")
    photometric = str(dataset.PhotometricInterpretation).strip().upper()
    return PixelFormat(rows, columns, samples, allocated, stored, photometric), frames


def _split(dataset: FileDataset, count: int) -> list[bytes]:
    """The compressed frames, all of them, and never more bytes than the object has."""
    data = dataset.PixelData
    table = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
    extended = table if all(isinstance(part, bytes) and part for part in table) else None
    if extended and sum(np.frombuffer(extended[1], "<u8").tolist()) > len(data):
        raise UndecodableImage("the frames of the DICOM object overlap")
    found = generate_frames(data, number_of_frames=count, extended_offsets=extended)
    frames = list(islice(found, count))
    if len(frames) < count or not all(frames):
        raise TruncatedImage("the DICOM object has fewer frames than it states")
    return frames


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
