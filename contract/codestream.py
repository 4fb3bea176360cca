"""What a compressed image says of itself, read before a decoder is trusted with it."""

import struct
from typing import Final, NamedTuple

_START: Final = b"\xff\x4f\xff\x51"
"""Start of codestream, then image and tile size (ITU-T T.800 (08/2002), A.4.1 and A.5.1)."""

_JP2: Final = b"\0\0\0\x0cjP  "
"""Length and type of a JP2 file's first box (ITU-T T.800 (08/2002), I.5.1)."""


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
    """The frame header of a JPEG or JPEG-LS stream, if it has one.

    Source: ITU-T T.81 (09/92), B.2.2; ITU-T T.87 (06/98), C.2.2.
    """
    position = 2
    while position + 10 <= len(stream) and stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}):
            precision, rows, columns, samples = struct.unpack_from(">BHHB", stream, position + 4)
            return Codestream(rows, columns, samples, precision)
        else:
            position += 2 + int.from_bytes(stream[position + 2 : position + 4])
    return None


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
