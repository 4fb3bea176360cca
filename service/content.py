"""What tells the content of a DICOM file from that of others, however the file came here.

Before the data set, a file says who wrote or sent it (group 0002, PS3.10 2024e, 7.1). The same image
has other file meta information after each archive that it went through. Of that, the transfer syntax
alone counts, as it says what the bytes of the data set mean.
"""

from hashlib import sha256
from typing import Final

META_BYTES: Final = 64 * 1024
"""File meta information may have so many with what is before it; some 200 are usual."""

_FIRST: Final = 132
"""Where it begins, behind preamble and ``DICM``."""

_LENGTH: Final = b"\x02\0\0\0UL\x04\0"
"""Beginning of its first element: how many bytes follow that (0002,0000)."""

_TRANSFER_SYNTAX: Final = b"\x02\0\x10\0"
"""Tag of the Transfer Syntax UID (0002,0010)."""

_LONG: Final = frozenset({b"OB", b"OW", b"UN", b"UT", b"SQ"})
"""Value representations with four bytes of length behind two empty ones (PS3.5 2024e, 7.1.2)."""


class ContentHash:
    """SHA-256 of a file's transfer syntax and data set, as it comes piece by piece.

    Of the whole file where it cannot be told where the data set begins.
    """

    def __init__(self) -> None:
        self._beginning = bytearray()
        self._hash = sha256()
        self._is_begun = False

    def update(self, data: bytes | memoryview) -> None:
        """Takes the next piece."""
        if self._is_begun:
            self._hash.update(data)
            return
        self._beginning += data
        if len(self._beginning) > META_BYTES:
            self._begin()

    def digest(self) -> bytes:
        """Of all pieces; none may follow."""
        if not self._is_begun:
            self._begin()
        return self._hash.digest()

    def _begin(self) -> None:
        self._is_begun = True
        syntax, start = _look(self._beginning)
        self._hash.update(syntax + self._beginning[start:])
        self._beginning.clear()


def content_digest(data: bytes) -> bytes:
    """The same of a whole file."""
    found = ContentHash()
    found.update(memoryview(data)[: META_BYTES + 1])
    found.update(memoryview(data)[META_BYTES + 1 :])
    return found.digest()


def _look(data: bytes | bytearray) -> tuple[bytes, int]:
    """The transfer syntax, and where the data set begins; at 0 where that cannot be told.

    A wrong length must hide nothing of the image, so the elements have to end where it says.
    """
    syntax = b""
    at = _FIRST
    if data[_FIRST - 4 : at] != b"DICM" or data[at : at + len(_LENGTH)] != _LENGTH:
        return b"", 0
    end = at + 12 + int.from_bytes(data[at + 8 : at + 12], "little")
    if end > META_BYTES or end >= len(data):
        return b"", 0
    while at < end and data[at : at + 2] == b"\x02\0":
        if bytes(data[at + 4 : at + 6]) in _LONG:
            at += 12 + int.from_bytes(data[at + 8 : at + 12], "little")
        else:
            size = int.from_bytes(data[at + 6 : at + 8], "little")
            if data[at : at + 4] == _TRANSFER_SYNTAX:
                syntax = bytes(data[at + 8 : at + 8 + size])
            at += 8 + size
    return (syntax, end) if at == end else (b"", 0)
