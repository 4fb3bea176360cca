"""How much there is to parse in a DICOM object.

Pydicom takes microseconds for an element and holds the interpreter's lock meanwhile, so that a few
hundred megabytes of empty ones would stop everything for minutes.
"""

import io
import struct
from typing import Final

from pydicom.uid import ExplicitVRBigEndian

from contract.errors import UndecodableImage

MAX_ITEMS: Final = 100_000
"""Sequence items in an object: thousands of frames have fewer, and a bomb of them takes minutes."""

MAX_ELEMENTS: Final = 300_000
"""Data elements and items in an object. A frame of an enhanced object has some forty."""

_READS_PER_ELEMENT: Final = 4
"""Tag, long length, value, and the look ahead of a sequence."""

_MIN_ELEMENT_BYTES: Final = 8
_DATASET: Final = 132
"""Offset behind the preamble (PS3.10 2024e, 7.1)."""

_META_GROUP: Final = b"\x02\x00"
_ITEM_GROUP: Final = 0xFFFE
_ITEM_TAG: Final = b"\xfe\xff\x00\xe0"
_PIXEL_DATA: Final = (0x7FE0, 0x0010)
_TRANSFER_SYNTAX: Final = (0x0002, 0x0010)
_UNDEFINED: Final = 0xFFFFFFFF
_LONG_VRS: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""With a length of 32 bits (PS3.5 2024e, 7.1.2)."""

_FRAGMENTED_VRS: Final = frozenset(b"OB OD OF OL OV OW".split())


class BoundedReader(io.BytesIO):
    """A file for pydicom, which remembers whether it was asked for more than there is.

    Raises:
        UndecodableImage: it is read from so often that it has more than :data:`MAX_ELEMENTS`.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._size = len(data)
        self._short = False
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """As of a file."""
        self._reads += 1
        if self._reads > MAX_ELEMENTS * _READS_PER_ELEMENT:
            raise UndecodableImage("the DICOM object has too many data elements")
        data = super().read(size)
        self._short |= 0 < len(data) < (size or 0)
        return data

    @property
    def overrun(self) -> bool:
        """Whether it ended too early."""
        return self._short or self.tell() > self._size


def check_size(data: bytes) -> None:
    """Counts items and elements, those in sequences too.

    Args:
        data: a whole DICOM file that is not deflated.

    Raises:
        UndecodableImage: there are too many.
    """
    if data.count(_ITEM_TAG) > MAX_ITEMS:
        raise UndecodableImage("the DICOM object has too many sequence items")
    if len(data) > MAX_ELEMENTS * _MIN_ELEMENT_BYTES:
        _check_elements(data)


def _check_elements(data: bytes) -> None:
    """Goes from element to element as pydicom does, into sequences and over all other values."""
    end = len(data) - 12
    at, count, order = _DATASET, 0, "<"
    in_meta, implicit, syntax = True, False, b""
    while at <= end:
        count += 1
        if count > MAX_ELEMENTS:
            raise UndecodableImage("the DICOM object has too many data elements")
        if in_meta and data[at : at + 2] != _META_GROUP:
            in_meta = False
            implicit = not _is_vr(data[at + 4 : at + 6])
            order = ">" if syntax == ExplicitVRBigEndian.encode() else "<"
        tag = struct.unpack_from(f"{order}HH", data, at)
        vr = b"" if implicit else data[at + 4 : at + 6]
        start = at + 8
        if tag[0] == _ITEM_GROUP:
            at = start
            continue
        if vr in _LONG_VRS:
            start += 4
            (length,) = struct.unpack_from(f"{order}L", data, at + 8)
        elif _is_vr(vr):
            (length,) = struct.unpack_from(f"{order}H", data, at + 6)
        else:
            vr = b""
            (length,) = struct.unpack_from(f"{order}L", data, at + 4)
        if in_meta and tag == _TRANSFER_SYNTAX:
            syntax = data[start : start + length].rstrip(b"\0 ")
        if length == _UNDEFINED:
            fragmented = vr in _FRAGMENTED_VRS or tag == _PIXEL_DATA
            at = _behind_fragments(data, start, order) if fragmented else start
        elif vr in {b"", b"SQ", b"UN"} and _is_item(data, start, order):
            at = start
        else:
            at = start + length


def _is_vr(text: bytes) -> bool:
    return b"AA" <= text <= b"ZZ"


def _is_item(data: bytes, at: int, order: str) -> bool:
    return data[at : at + 4] == (_ITEM_TAG if order == "<" else b"\xff\xfe\xe0\x00")


def _behind_fragments(data: bytes, at: int, order: str) -> int:
    while _is_item(data, at, order) and at + 8 <= len(data):
        (length,) = struct.unpack_from(f"{order}L", data, at + 4)
        at += 8 + length
    return at
