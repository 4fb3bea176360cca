"""The stored values of a DICOM object: which transfer syntaxes are read, by what, and how safely."""

import io
import json
import struct
from collections.abc import Mapping
from itertools import islice, pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import FileDataset
from pydicom.encaps import encapsulate, generate_frames, parse_basic_offsets, parse_fragments
from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

from contract.codestream import (
    MAX_SCANS_OF_LARGEST,
    Codestream,
    bare_jpeg2000,
    has_more_scans,
    jpeg2000_header,
    jpeg2000_is_transformed,
    jpeg_header,
    jpeg_is_ycbcr,
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
from contract.sandbox import DECODERS

_JPEG2000: Final = frozenset({JPEG2000Lossless, JPEG2000})

_COLOURS: Final = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"})
"""Photometric interpretations of pixels of three values that are read."""

IN_PROCESS: Final = {RLELossless: "pydicom", JPEGBaseline8Bit: "pillow"}
"""pydicom's plugin for each compressed transfer syntax that is read here: its own and Pillow, whatever
else is installed."""

SANDBOXED: Final = frozenset(
    {
        JPEGExtended12Bit,
        JPEGLossless,
        JPEGLosslessSV1,
        *JPEGLSTransferSyntaxes,
        *_JPEG2000,
    }
)
"""Compressed transfer syntaxes that GDCM reads, in a process of its own. On hostile input it is not
safe within the service's: among mutations of pydicom's test files are some that end the process
(``terminate called after throwing an instance of 'gdcm::Exception'``)."""

_ITEM_HEADER_BYTES: Final = 8

_JPEG_START: Final = b"\xff\xd8\xff"
"""No compressed data holds it: after 0xFF, what is no marker is at most 0x8F."""

_CODESTREAM_START: Final = b"\xff\x4f\xff\x51"
"""Likewise of JPEG 2000; the boxes of a JP2 file may lie before it, in fragments of their own."""

_JP2_START: Final = b"\0\0\0\x0cjP  "

_RLE_HEADER: Final = struct.Struct("<II")
"""What an RLE header begins with: number of segments, and where the first one lies, which is behind the
header (PS3.5 2024e, G.5)."""

_RLE_HEADER_BYTES: Final = 64

MAX_RLE_SEGMENTS: Final = 15

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
        UndecodableImage: the size is impossible, or there are more values than pixels, or more frames
            than stated.
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
        self._seconds = policy.decoder_seconds
        self._compressed: list[bytes] = []
        if self._decoder.is_encapsulated:
            if syntax not in SANDBOXED and syntax not in IN_PROCESS:
                raise UnsupportedTransferSyntax("there is no decoder for the transfer syntax")
            self._compressed = _split(dataset, self.count)
            del dataset.PixelData
        else:
            _check_length(len(dataset.PixelData), self.form, self.count)

    @property
    def isolated(self) -> bool:
        """Whether a process of its own decompresses them."""
        return self._syntax in SANDBOXED

    def stored_values(self, frame: int) -> tuple[NDArray[Any], str]:
        """Decompresses a frame (from 1); unused bits are cleared, YBR becomes RGB.

        Returns:
            (rows, columns) or (rows, columns, 3), and the photometric interpretation it has now.

        Raises:
            TooManyPixels: compressed pixels would unpack to more than the object states.
            UndecodableImage: the compressed image has another size than the object states.
            DecoderFailed: its decoder crashed, or takes too much time or memory.
        """
        properties: Mapping[str, Any]
        if not self._compressed:
            values, properties = self._decoder.as_array(self._dataset, index=frame - 1)
        elif self._syntax in SANDBOXED:
            values, properties = self._sandboxed(self._compressed[frame - 1])
        else:
            stream = self._compressed[frame - 1]
            _check_frame(stream, self._syntax, self.form)
            # One frame at a time: among all of them, pydicom searches for each anew.
            values, properties = self._decoder.as_array(
                encapsulate([stream], has_bot=False),
                index=0,
                decoding_plugin=IN_PROCESS[self._syntax],
                **self._options(),
            )
        return values, str(properties["photometric_interpretation"])

    def _sandboxed(self, stream: bytes) -> tuple[NDArray[Any], Mapping[str, Any]]:
        """Decompresses elsewhere, and reads what comes back as a frame that never was compressed."""
        form = self.form
        if self._syntax in _JPEG2000:
            stream = bare_jpeg2000(stream)
        found = _check_frame(stream, self._syntax, form)
        # Decoders fill as many bytes as the stream's own depth needs; the object may state more.
        bits_allocated = 8 if found.precision <= 8 else 16
        options = self._options() | {
            "bits_allocated": bits_allocated,
            "bits_stored": min(form.bits_stored, found.precision),
        }
        description = {
            "syntax": str(self._syntax),
            "rows": form.rows,
            "columns": form.columns,
            "samples": form.samples,
            "planar": options["planar_configuration"],
            "bits_allocated": bits_allocated,
            "bits_stored": found.precision,
            "signed": options["pixel_representation"] == 1,
            # What GDCM gives is of full size, whatever it was.
            "photometric": "YBR_FULL" if form.photometric == "YBR_FULL_422" else form.photometric,
        }
        size = form.rows * form.columns * form.samples * bits_allocated // 8
        message = json.dumps(description).encode() + b"\n" + stream
        decoded = DECODERS.call(message, size, seconds=self._seconds)
        if len(decoded) != size:
            raise UndecodableImage("the compressed pixels have another size than the object states")
        options |= {"planar_configuration": 0, "pixel_keyword": "PixelData"}
        options["photometric_interpretation"] = self._decoded_photometric(stream)
        return get_decoder(ExplicitVRLittleEndian).as_array(decoded, index=0, **options)

    def _decoded_photometric(self, stream: bytes) -> str:
        """Photometric interpretation of what GDCM makes of a stream.

        It undoes a transform of JPEG 2000 and none of JPEG. A stream knows its colours better than the
        object, whose attribute is what converters forget.
        """
        stated = self.form.photometric
        if stated not in _COLOURS:
            return stated
        if self._syntax in _JPEG2000 and jpeg2000_is_transformed(stream):
            return "RGB"
        # Of lossless JPEG alone such segments say nothing: writers put the same one before RGB.
        if self._syntax == JPEGExtended12Bit and (ycbcr := jpeg_is_ycbcr(stream)) is not None:
            return "YBR_FULL" if ycbcr else "RGB"
        return {"YBR_FULL_422": "YBR_FULL", "YBR_RCT": "RGB", "YBR_ICT": "RGB"}.get(stated, stated)

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


def _check_length(length: int, form: PixelFormat, count: int) -> None:
    """Refuses uncompressed pixels that are not those stated.

    Of more than stated, a part would be shown as if it were all: one slice of three, the upper part of
    a head, or noise where the bits are wrong. A row more than stated is padding, as some writers have.
    """
    surplus = length - form.frame_bytes * count
    if surplus < 0:
        raise TruncatedImage("the DICOM object ends before its pixels do")
    if surplus > max(form.frame_bytes // form.rows, 1):
        raise UndecodableImage("the DICOM object holds more pixels than it states")


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
    if _images_begun(data, UID(dataset.file_meta.TransferSyntaxUID)) > count:
        raise UndecodableImage("the DICOM object has more frames than it states")
    return frames


def _images_begun(data: bytes, syntax: UID) -> int:
    """Fragments that begin a frame: it may have more, and empty ones (PS3.5 2024e, A.4)."""
    reader = io.BytesIO(data)
    parse_basic_offsets(reader)
    _, offsets = parse_fragments(reader)
    starts = [offset + _ITEM_HEADER_BYTES for offset in offsets]
    if syntax == RLELossless:
        return sum(_begins_rle(data, start) for start in starts)
    if syntax not in _JPEG2000:
        return sum(data.startswith(_JPEG_START, start) for start in starts)
    count, is_boxes_alone = 0, False
    for start, end in pairwise([*starts, len(data)]):
        is_file = data.startswith(_JP2_START, start)
        count += is_file or (data.startswith(_CODESTREAM_START, start) and not is_boxes_alone)
        is_boxes_alone = (is_file or is_boxes_alone) and data.find(
            _CODESTREAM_START, start, end
        ) < 0
    return count


def _begins_rle(data: bytes, start: int) -> bool:
    if start + _RLE_HEADER.size > len(data):
        return False
    segments, first = _RLE_HEADER.unpack_from(data, start)
    return bool(1 <= segments <= MAX_RLE_SEGMENTS and first == _RLE_HEADER_BYTES)


def _check_frame(frame: bytes, syntax: UID, form: PixelFormat) -> Codestream:
    """Keeps a small object from holding a huge compressed image, which a decoder would believe."""
    if syntax == RLELossless:
        if len(frame) > min(2 * form.frame_bytes + 1024, MAX_RLE_BYTES):
            raise TooManyPixels("the RLE frame is longer than its pixels can need")
        return Codestream(form.rows, form.columns, form.samples, form.bits_stored)
    found = jpeg2000_header(frame) if syntax in _JPEG2000 else jpeg_header(frame)
    if found is None:
        raise UndecodableImage("the compressed pixels have no readable header")
    if found[:3] != (form.rows, form.columns, form.samples):
        raise UndecodableImage("the compressed pixels have another size than the object states")
    if syntax not in _JPEG2000 and has_more_scans(frame, MAX_SCANS_OF_LARGEST):
        raise UndecodableImage("the JPEG has more scans than an image can need")
    depths = {8, 12} if syntax == JPEGExtended12Bit else range(2, form.bits_allocated + 1)
    if found.precision not in depths or found.precision > form.bits_allocated:
        raise UndecodableImage("the compressed pixels have another depth than the object states")
    return found
