"""How much there is to parse in a DICOM object.

Pydicom takes microseconds for an element, ten times that for an item of a sequence, and holds the
interpreter's lock meanwhile, so that a few hundred megabytes of empty ones would stop everything for
minutes. It takes any eight bytes for an item where it expects one. And of each number that an element
lists it makes an object of a hundred times its bytes.
"""

import io
import struct
import sys
from typing import Final, NamedTuple

from pydicom.datadict import DicomDictionary, dictionary_VR
from pydicom.uid import ExplicitVRBigEndian
from pydicom.values import converters

from contract.dicom_meta import (
    LONG_VRS,
    UNDEFINED,
    Meta,
    behind_command_set,
    is_vr,
    looks_like_vr,
)
from contract.dicom_values import PRIVATE
from contract.errors import TruncatedImage, UndecodableImage

MAX_ITEMS: Final = 100_000
"""Sequence items in an object: thousands of frames have fewer, and a bomb of them takes minutes."""

MAX_ELEMENTS: Final = 300_000
"""Data elements, items and fragments in an object. A frame of an enhanced object has some forty."""

MAX_VALUES: Final = 500_000
"""Values that are listed in elements beside their first. A frame of an enhanced object has some
twenty; each takes up to 300 bytes."""

MAX_VALUE_BYTES: Final = 2**17
"""Of an element that pydicom converts, but one. The longest is a look-up table of 65,536 entries of 16
bits (PS3.3 2024e, C.11.1.1); with a stated value representation, texts and numbers have 65,534 at most.
"""

REAL_WORLD_LUT: Final = 0x00409212
"""Real World Value LUT Data: as many entries, of 64 bits (PS3.3 2024e, C.7.6.16.2.11)."""

_BY_THE_TAG: Final = frozenset({b"", b"UN", b"FD"})
"""Value representations with which its values are what the tag says; with others there may be more."""

_BULK: Final = frozenset(
    {
        "SQ",
        "OB",
        "OW",
        "OB or OW",
        "OD",
        "OF",
        "OL",
        "OV",
        "UN",
        "NONE",
        "UT",
        "UR",
        "UC",
        "LT",
        "ST",
    }
)
"""Value representations of what pydicom leaves as it is, or of texts that no element read here has."""

_NUMBERS: Final = frozenset(
    {"AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV", "US or SS", "US or OW", "US or SS or OW"}
)

_CONVERTED: Final = {
    tag: entry[0] in _NUMBERS for tag, entry in DicomDictionary.items() if entry[0] not in _BULK
} | dict.fromkeys(PRIVATE, False)
"""Tags of what pydicom makes objects of, whatever value representation is stated; whether numbers of a
fixed size, or texts with a backslash between them."""

_READS_PER_ELEMENT: Final = 4
"""Tag, long length, value, and the look ahead of a sequence."""

_ITEM: Final = 0xFFFEE000
_ITEM_DELIMITER: Final = 0xFFFEE00D
_SEQUENCE_DELIMITER: Final = 0xFFFEE0DD

_SEQUENCES: Final = frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")
"""Tags that are sequences where nothing else is said of them."""

_REPEATING: Final = 0xFF00FFFF
_REPEATED_SEQUENCE: Final = 0x50002600
"""The one sequence of repeating groups, which the mask leaves alike (PS3.5 2024e, 7.6)."""

_ANY: Final = 0xFFFFFFFF

_ENDLESS: Final = sys.maxsize
"""Where a sequence of undefined length ends."""

_BIG_ENDIAN_GROUP: Final = 1024
"""From this group on, pydicom takes a data set of no stated transfer syntax for big endian."""


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


def check_size(data: bytes, meta: Meta, last: int = _ANY) -> None:
    """Counts items, elements and their values, those in sequences too.

    Args:
        data: a DICOM file that is not deflated, or its beginning.
        meta: its header.
        last: tag of the last element that is read of it.

    Raises:
        UndecodableImage: there are too many, or too many values in them, or one is too long.
        TruncatedImage: it ends within a sequence, or a value in one; or a sequence within an item.
    """
    start = behind_command_set(data, meta)
    vr = data[start + 4 : start + 6]
    is_big = meta.syntax == ExplicitVRBigEndian
    if meta.syntax is None and vr.decode("latin-1") in converters:
        is_big = int.from_bytes(data[start : start + 2], "little") >= _BIG_ENDIAN_GROUP
    _Walk(data, start, ">" if is_big else "<", last).count(is_implicit=not is_vr(vr))


class _Level(NamedTuple):
    """What is being read: a data set or, if it consists of items, a sequence.

    Attributes:
        is_sequence: which of them.
        is_implicit: whether its elements have no value representations.
        end: no element or item of it begins here or behind; :data:`_ENDLESS` of a sequence that goes
            on to its delimiter.
        limit: nothing of it is read from here on, as it is the end of the file or of a value.
        resume: where reading goes on behind it; 0 if that is where its last element ended.
    """

    is_sequence: bool
    is_implicit: bool
    end: int
    limit: int
    resume: int = 0


class _Walk:
    """Goes from element to element as pydicom does, into sequences and over all other values.

    It must not go by another way than pydicom does anywhere, or something would hide from it. So an
    item without its tag is an item, and an element that reaches over the end of its item moves what
    follows; but a sequence of defined length cannot reach over its own end.
    """

    def __init__(self, data: bytes, start: int, order: str, last: int) -> None:
        self._data = data
        self._last = last
        self._at = start
        self._elements = self._items = self._values = 0
        self._levels: list[_Level] = []
        self._tag_length = struct.Struct(f"{order}HHL").unpack_from
        self._tag_vr_length = struct.Struct(f"{order}HH2sH").unpack_from
        self._length = struct.Struct(f"{order}L").unpack_from
        self._delimiter = struct.pack(f"{order}HH", 0xFFFE, _SEQUENCE_DELIMITER & 0xFFFF)

    def count(self, *, is_implicit: bool) -> None:
        """Reads all of it; raises as :func:`check_size`."""
        size = len(self._data)
        self._levels.append(_Level(False, is_implicit, size, size))
        while self._levels:
            level = self._levels[-1]
            inner = self._next_item(level) if level.is_sequence else self._next_sequence(level)
            if inner:
                self._levels.append(inner)
            else:
                self._levels.pop()
                self._at = level.resume or self._at

    def _next_item(self, level: _Level) -> _Level | None:
        """Of a sequence, its next item; None behind the last."""
        at = self._at
        if at >= level.end:
            return None
        if at + 8 > level.limit:
            # Pydicom would make all items before, find no tag, and do so at each access.
            raise TruncatedImage("the DICOM object ends within a sequence")
        self._items += 1
        if self._items > MAX_ITEMS:
            raise UndecodableImage("the DICOM object has too many sequence items")
        self._add()
        group, element, length = self._tag_length(self._data, at)
        self._at = at + 8
        if group << 16 | element == _SEQUENCE_DELIMITER:
            return None
        # Behind the tag of its first element.
        vr = self._data[at + 12 : min(at + 14, level.limit)]
        is_implicit = level.is_implicit or (len(vr) == 2 and not is_vr(vr))
        end = level.limit if length == UNDEFINED else at + 8 + length
        return _Level(False, is_implicit, end, level.limit)

    def _next_sequence(self, level: _Level) -> _Level | None:
        """Of a data set, its next sequence, with what is before it read; None behind its end."""
        _, is_dataset_implicit, end, limit, _ = level
        data, at = self._data, self._at
        last = min(end - 1, limit - 8)
        while at <= last:
            self._add()
            group, element, vr, length = self._tag_vr_length(data, at)
            start = at + 8
            if is_dataset_implicit or not looks_like_vr(vr):
                vr = b""
                (length,) = self._length(data, at + 4)
            elif vr in LONG_VRS:
                start += 4
                if start > limit:
                    break
                (length,) = self._length(data, at + 8)
            tag = group << 16 | element
            if tag == _ITEM_DELIMITER:
                at = start
                break
            if tag > self._last and len(self._levels) == 1:
                break
            if length != UNDEFINED:
                at = start + length
                self._add_values(tag, vr, start, min(length, limit - start))
                if length and self._may_be_sequence(tag, vr, start):
                    self._at = start
                    inner = min(at, limit)
                    # What may be no sequence, but private bytes, may have some left behind its items.
                    is_guess = vr != b"SQ" and tag >> 16 & 1
                    until = inner - 7 if is_guess else inner
                    return _Level(True, is_dataset_implicit, until, inner, at)
            elif self._is_endless_sequence(tag, vr, start):
                self._at = start
                return _Level(True, is_dataset_implicit, _ENDLESS, limit)
            else:
                behind = self._behind_value(start, limit)
                if behind is None:
                    at = limit
                    break
                self._add_values(tag, vr, start, behind - start)
                at = behind
        self._at = at
        return None

    def _add(self) -> None:
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise UndecodableImage("the DICOM object has too many data elements")

    def _add_values(self, tag: int, vr: bytes, start: int, length: int) -> None:
        if tag not in _CONVERTED:
            return
        value_bytes = 8 if tag == REAL_WORLD_LUT and vr in _BY_THE_TAG else 2
        if length > MAX_VALUE_BYTES // 2 * value_bytes:
            raise UndecodableImage("a data element of the DICOM object is too long")
        if _CONVERTED[tag]:
            self._values += length // value_bytes
        else:
            self._values += self._data.count(b"\\", start, start + length)
        if self._values > MAX_VALUES:
            raise UndecodableImage("the DICOM object has too many values")

    def _may_be_sequence(self, tag: int, vr: bytes, start: int) -> bool:
        """Whether pydicom may convert a value of defined length to a sequence."""
        if vr == b"SQ":
            return True
        if vr not in {b"", b"UN"}:
            return False
        if tag in _SEQUENCES or tag & _REPEATING == _REPEATED_SEQUENCE:
            return True
        return bool(tag >> 16 & 1) and self._is_item(start)

    def _is_endless_sequence(self, tag: int, vr: bytes, start: int) -> bool:
        """Whether pydicom reads a value of undefined length as a sequence."""
        if vr:
            return vr in {b"SQ", b"UN"}
        try:
            return dictionary_VR(tag) == "SQ"
        except KeyError:
            return self._is_item(start)

    def _is_item(self, at: int) -> bool:
        if at + 8 > len(self._data):
            return False
        group, element, _ = self._tag_length(self._data, at)
        return bool(group << 16 | element == _ITEM)

    def _behind_value(self, start: int, limit: int) -> int | None:
        """Where a value of undefined length ends that is no sequence; None if the file ends in it."""
        at = start
        # Fragments (PS3.5 2024e, A.4), which may hold any bytes; or else anything up to a delimiter.
        while at + 8 <= limit and self._is_item(at):
            self._add()
            at += 8 + self._length(self._data, at + 4)[0]
        if self._data[at : min(at + 4, limit)] != self._delimiter:
            at = self._data.find(self._delimiter, start, limit)
        if at >= 0:
            return at + 8
        if len(self._levels) > 1:
            # Pydicom would go on to read from the value's beginning, as if that were an item.
            raise TruncatedImage("the DICOM object ends within a value")
        return None
