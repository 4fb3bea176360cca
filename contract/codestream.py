"""What a compressed image says of itself, read before a decoder is trusted with it."""

import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from contract.metadata import MAX_SEGMENTS, is_excessive_jpeg

_START: Final = b"\xff\x4f\xff\x51"
"""Start of codestream, then image and tile size (ITU-T T.800 (08/2002), A.4.1 and A.5.1)."""

_JP2: Final = b"\0\0\0\x0cjP  "
"""Length and type of a JP2 file's first box (ITU-T T.800 (08/2002), I.5.1)."""

MAX_SCANS: Final = 100
"""Of a JPEG; a progressive one has about ten. Each scan is a pass over all blocks, even one of a few
bytes, so that thousands of them in a small file take minutes."""

MAX_SCANS_OF_LARGEST: Final = 25
"""Of a JPEG with as many pixels as are accepted, where a pass takes a tenth of a second."""

_JPEG_LS: Final = 0xF7
"""Start of frame of JPEG-LS (ITU-T T.87 (06/98), C.2.2)."""

_SCAN: Final = re.compile(rb"\xff\xda")
_SEGMENT: Final = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
"""A marker that starts a segment, or ends the image (ITU-T T.81 (09/92), B.1.1.3 and B.1.1.4).

Reserved ones, below 0xC0, start none: where a scan is to restart libjpeg passes over them, and reads on
behind their two bytes. In the scans of JPEG-LS they are no markers at all.
"""

_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers without a segment that may come in a header."""

_END: Final = 0xD9
_START_OF_SCAN: Final = 0xDA
_JFIF: Final = 0xE0
_ADOBE: Final = 0xEE
"""Application segments that say something of the colours (JFIF 1.02; Adobe TN 5116, section 18)."""

_CODING_STYLE: Final = 0x52
_START_OF_TILE: Final = 0x90
"""Marker segments of JPEG 2000 (ITU-T T.800 (08/2002), A.6.1 and A.4.2)."""


class Codestream(NamedTuple):
    """The size of a compressed image.

    Attributes:
        rows, columns: in pixels.
        samples: values of a pixel.
        precision: bits of a value, of the first component in JPEG 2000.
    """

    rows: int
    columns: int
    samples: int
    precision: int


def jpeg_header(stream: bytes) -> Codestream | None:
    """The frame header of a JPEG or JPEG-LS stream, if it has one, and of JPEG a sane one.

    Source: ITU-T T.81 (09/92), B.2.2; ITU-T T.87 (06/98), C.2.2.
    """
    for marker, start in _segments(stream):
        if marker == _JPEG_LS or _is_frame(marker):
            if len(stream) < start + 6 or (marker != _JPEG_LS and is_excessive_jpeg(stream)):
                return None
            precision, rows, columns, samples = struct.unpack_from(">BHHB", stream, start)
            return Codestream(rows, columns, samples, precision)
    return None


def jpeg_is_ycbcr(stream: bytes) -> bool | None:
    """Whether a JPEG stream of three components says that they are YCbCr, or else RGB; None if neither.

    JFIF goes before Adobe's segment, as in libjpeg.
    """
    adobe = None
    for marker, start in _segments(stream):
        if marker == _START_OF_SCAN:
            break
        content = stream[start : start - 2 + int.from_bytes(stream[start - 2 : start])]
        if marker == _JFIF and content.startswith(b"JFIF\0"):
            return True
        if marker == _ADOBE and content.startswith(b"Adobe") and len(content) >= 12:
            adobe = content[11] != 0
    return adobe


def jpeg_is_read_as_ycbcr(stream: bytes) -> bool:
    """What libjpeg takes three components for: without such a segment, for RGB if they are so named."""
    stated = jpeg_is_ycbcr(stream)
    if stated is not None:
        return stated
    for marker, start in _segments(stream):
        if _is_frame(marker):
            # Behind precision, rows, columns and their number, three bytes each: the first names it.
            return stream[start + 6 : start + 15 : 3] != b"RGB"
    return True


def _is_frame(marker: int) -> bool:
    return 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}


def _segments(stream: bytes) -> Iterator[tuple[int, int]]:
    """Marker of each segment of a header, and where what follows its length begins.

    JPEG's, and JPEG 2000's main header, up to the first thing that is no segment with a length.
    """
    position = 2
    for _ in range(MAX_SEGMENTS):
        if position + 4 > len(stream) or stream[position] != 0xFF:
            return
        marker = stream[position + 1]
        if marker == 0xFF or marker in _ALONE:
            # The first may be repeated (B.1.1.2).
            position += 1 if marker == 0xFF else 2
            continue
        yield marker, position + 4
        position += 2 + int.from_bytes(stream[position + 2 : position + 4])


def max_scans(pixels: int, max_pixels: int) -> int:
    """How many scans a JPEG of so many pixels may have, if at most ``max_pixels`` are accepted."""
    return min(MAX_SCANS, MAX_SCANS_OF_LARGEST * max_pixels // max(1, pixels))


def has_more_scans(stream: bytes, limit: int) -> bool:
    """Whether a JPEG or JPEG-LS stream has more scans than that, or too many segments to be told."""
    if len(list(islice(_SCAN.finditer(stream), limit + 1))) <= limit:
        return False
    # Some of these may lie in an embedded thumbnail or profile, or behind the end.
    position, scans = 2, 0
    for _ in range(MAX_SEGMENTS):
        segment = _SEGMENT.search(stream, position)
        if segment is None or stream[segment.end() - 1] == _END:
            return False
        position = segment.end()
        if stream[position - 1] == _START_OF_SCAN:
            scans += 1
            if scans > limit:
                return True
        position += max(2, int.from_bytes(stream[position : position + 2]))
    return True


def bare_jpeg2000(stream: bytes) -> bytes:
    """The codestream of a JP2 file, which some writers leave around it against PS3.5, A.4.4."""
    if not stream.startswith(_JP2):
        return stream
    return stream[max(0, stream.find(_START)) :]


def jpeg2000_header(stream: bytes) -> Codestream | None:
    """The size marker segment of a JPEG 2000 codestream, if it is one.

    Source: ITU-T T.800 (08/2002), A.5.1.
    """
    if not stream.startswith(_START) or len(stream) < 43:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", stream, 8)
    (samples,) = struct.unpack_from(">H", stream, 40)
    return Codestream(bottom - top, right - left, samples, (stream[42] & 0x7F) + 1)


def jpeg2000_is_transformed(stream: bytes) -> bool:
    """Whether a JPEG 2000 codestream states a transform of its components, which its decoder undoes.

    Source: ITU-T T.800 (08/2002), table A.14.
    """
    for marker, start in _segments(stream):
        if marker == _CODING_STYLE:
            return stream[start + 4 : start + 5] == b"\x01"
        if marker == _START_OF_TILE:
            break
    return False
