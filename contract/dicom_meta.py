"""The beginning of a DICOM file: what it says of its own form, before its data set begins.

Pydicom reads a header without end like any other, and inflates without end whatever says that it is
deflated; so neither is left to it.
"""

import io
import struct
import zlib
from typing import Final, NamedTuple

from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from contract.errors import TruncatedImage, UndecodableImage

MAX_META_BYTES: Final = 64 * 2**10
"""Of a header: most have some hundred bytes, and private information in it some thousand."""

LONG_VRS: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Value representations with a length of 32 bits (PS3.5 2024e, 7.1.2)."""

UNDEFINED: Final = 0xFFFFFFFF
"""A length of what goes on to its delimiter (PS3.5 2024e, 7.1.1)."""

EXPLICIT_HEADER: Final = (
    bytes(128)
    + b"DICM"
    + struct.pack("<HH2sH", 0x0002, 0x0010, b"UI", len(ExplicitVRLittleEndian) + 1)
    + f"{ExplicitVRLittleEndian}\0".encode()
)
"""Preamble and file meta information of an object that is not deflated (PS3.10 2024e, 7.1)."""

_META_GROUP: Final = b"\x02\x00"
_COMMAND_GROUP: Final = b"\x00\x00"
_ITEM_DELIMITER: Final = b"\xfe\xff\x0d\xe0"


class Meta(NamedTuple):
    """A file's header.

    Attributes:
        syntax: UID of the transfer syntax, if it says one.
        end: offset behind it.
    """

    syntax: str | None
    end: int


class Inflated(NamedTuple):
    """A file that is not deflated, or no longer.

    Attributes:
        data: the file, from the preamble on.
        meta: its header.
        syntax: of the file before it was inflated.
        is_longer: whether it inflates to more than was asked for.
        is_whole: whether all of the deflated file was there.
    """

    data: bytes
    meta: Meta
    syntax: str | None
    is_longer: bool = False
    is_whole: bool = True


def inflate(data: bytes, limit: int) -> Inflated:
    """A file itself or, of a deflated one, the explicit little endian form of its beginning.

    Args:
        data: a DICOM file, from the preamble on.
        limit: bytes of a deflated data set that are inflated.

    Raises:
        DecodeError: the header is damaged.
        Exception: likewise, of pydicom or zlib; its text may quote attribute values.
    """
    meta = _read_meta(data)
    if meta.syntax != DeflatedExplicitVRLittleEndian:
        return Inflated(data, meta, meta.syntax)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(memoryview(data)[meta.end :], limit)
    if inflated[:2] == _META_GROUP:
        # Pydicom would go by this second header, and inflate what is in it without a limit.
        raise UndecodableImage("the deflated DICOM object has a header of its own")
    return Inflated(
        EXPLICIT_HEADER + inflated,
        Meta(ExplicitVRLittleEndian, len(EXPLICIT_HEADER)),
        meta.syntax,
        bool(inflater.unconsumed_tail),
        inflater.eof,
    )


def behind_command_set(data: bytes, meta: Meta) -> int:
    """Offset of the data set: some writers put the elements of a message before it.

    Raises:
        DecodeError: they are damaged.
    """
    return _behind_group(data, meta.end, _COMMAND_GROUP)


def _read_meta(data: bytes) -> Meta:
    reader = io.BytesIO(data[: len(EXPLICIT_HEADER)])
    read_preamble(reader, force=False)
    start = reader.tell()
    end = _behind_group(data, start, _META_GROUP)
    header = io.BytesIO(data[start:end])
    meta = read_dataset(header, is_implicit_VR=False, is_little_endian=True)
    syntax = meta.get("TransferSyntaxUID")
    return Meta(None if syntax is None else str(syntax), end)


def _behind_group(data: bytes, at: int, group: bytes) -> int:
    """Where the elements of a group end: read as pydicom does, and of defined lengths only."""
    limit = at + MAX_META_BYTES
    is_implicit = not is_vr(data[at + 4 : at + 6])
    while data[at : at + 2] == group:
        vr = b"" if is_implicit else data[at + 4 : at + 6]
        form, offset, size = ("<H", 6, 8) if looks_like_vr(vr) else ("<L", 4, 8)
        if vr in LONG_VRS:
            form, offset, size = "<L", 8, 12
        start = at + size
        if start > len(data):
            raise TruncatedImage("the DICOM object ends in its header")
        (length,) = struct.unpack_from(form, data, at + offset)
        if length == UNDEFINED or vr == b"SQ":
            raise UndecodableImage("the header of the DICOM object holds a sequence")
        at = start + length
        if at > len(data):
            raise TruncatedImage("the DICOM object ends in its header")
        if at > limit:
            raise UndecodableImage("the header of the DICOM object is too long")
    if data[at : at + 4] == _ITEM_DELIMITER:
        # Pydicom takes this for the header's end, and what follows for the data set.
        raise UndecodableImage("the header of the DICOM object is damaged")
    return at


def is_vr(text: bytes) -> bool:
    """Whether a data set whose first element has this where a representation may be is explicit."""
    return len(text) == 2 and all(0x40 < letter < 0x5B for letter in text)


def looks_like_vr(text: bytes) -> bool:
    """Whether an element of an explicit data set has a representation, for pydicom."""
    return b"AA" <= text <= b"ZZ"
