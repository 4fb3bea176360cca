"""``multipart/related`` as DICOMweb uses it (RFC 2387, RFC 2046 section 5.1), read as a stream.

The parts are binary and large, so nothing of their content is kept: it goes to a sink in pieces.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Protocol

from service.errors import MalformedMultipart

MAX_HEADER_BYTES: Final = 16 * 1024
"""Headers of a part; those of DICOMweb are a line or two."""

MAX_BOUNDARY_BYTES: Final = 256
"""RFC 2046, section 5.1.1, allows 70; Orthanc's have 73."""

MAX_PREAMBLE_BYTES: Final = 16 * 1024
"""What may stand before the first boundary, where some clients greet."""

_PADDING: Final = b" \t"

_FOLD: Final = re.compile(rb"(?:\r\n[ \t]+)+")
"""Where a long header goes on in the next line (RFC 5322, 2.2.3); libraries of mail write it."""


class Sink(Protocol):
    """Where parts go."""

    def begin_part(self, headers: Mapping[bytes, bytes]) -> None:
        """A part begins; its headers' names are in lower case."""

    def add_data(self, data: bytes) -> None:
        """A piece of its content."""

    def end_part(self) -> None:
        """It is complete."""


class RelatedParser:
    """Takes a body in pieces of any size.

    Args:
        boundary: of the Content-Type, without the leading hyphens.
        sink: is told what is found.

    Raises:
        MalformedMultipart: the boundary is none.
    """

    def __init__(self, boundary: bytes, sink: Sink) -> None:
        if not 0 < len(boundary) <= MAX_BOUNDARY_BYTES:
            raise MalformedMultipart("the Content-Type names no usable boundary")
        self._delimiter = b"\r\n--" + boundary
        self._sink = sink
        # The first boundary needs no line break before it.
        self._buffer = b"\r\n"
        self._step = self._skip_preamble
        self._skipped = 0
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Takes the next piece.

        Raises:
            MalformedMultipart: this is no multipart body.
        """
        self._buffer += data
        while self._step():
            pass

    def close(self) -> None:
        """The body has ended.

        Raises:
            MalformedMultipart: it should not have.
        """
        if not self._ended:
            raise MalformedMultipart("the body ends before its last boundary")

    def _skip_preamble(self) -> bool:
        at = self._buffer.find(self._delimiter)
        # Without one, the end of the buffer may be the beginning of one.
        skipped = at if at >= 0 else max(0, len(self._buffer) - len(self._delimiter) + 1)
        self._skipped += skipped
        if self._skipped > MAX_PREAMBLE_BYTES:
            raise MalformedMultipart("the body does not begin with its boundary")
        if at < 0:
            self._buffer = self._buffer[skipped:]
            return False
        self._buffer = self._buffer[at + len(self._delimiter) :]
        self._step = self._after_delimiter
        return True

    def _after_delimiter(self) -> bool:
        """What follows tells whether it was the last one; padding is allowed before the line's end."""
        if len(self._buffer) < 2:
            return False
        if self._buffer.startswith(b"--"):
            self._step = self._skip_epilogue
            self._ended = True
            return True
        end = self._buffer.find(b"\r\n")
        if self._buffer[: end if end >= 0 else None].strip(_PADDING).rstrip(b"\r"):
            raise MalformedMultipart("a boundary is followed by something else than a new line")
        if end < 0:
            return self._wait_for_headers()
        # The line break stays: headers may be absent, and then an empty line follows at once.
        self._buffer = self._buffer[end:]
        self._step = self._read_headers
        return True

    def _read_headers(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return self._wait_for_headers()
        if end > MAX_HEADER_BYTES:
            raise MalformedMultipart("a part's headers are too long")
        headers = dict(_headers(self._buffer[2:end]))
        self._sink.begin_part(headers)
        # The delimiter of an empty part begins with the line break that ends its headers.
        self._buffer = self._buffer[end + 2 :]
        self._step = self._begin_content
        return True

    def _begin_content(self) -> bool:
        if len(self._buffer) < len(self._delimiter):
            return False
        if not self._buffer.startswith(self._delimiter):
            self._buffer = self._buffer[2:]
        self._step = self._read_content
        return True

    def _read_content(self) -> bool:
        at = self._buffer.find(self._delimiter)
        if at < 0:
            # The rest may be the beginning of a delimiter.
            ready = len(self._buffer) - len(self._delimiter) + 1
            if ready > 0:
                self._sink.add_data(self._buffer[:ready])
                self._buffer = self._buffer[ready:]
            return False
        if at:
            self._sink.add_data(self._buffer[:at])
        self._sink.end_part()
        self._buffer = self._buffer[at + len(self._delimiter) :]
        self._step = self._after_delimiter
        return True

    def _skip_epilogue(self) -> bool:
        self._buffer = b""
        return False

    def _wait_for_headers(self) -> bool:
        if len(self._buffer) > MAX_HEADER_BYTES:
            raise MalformedMultipart("a part's headers are too long")
        return False


def _headers(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    for line in _FOLD.sub(b" ", block).split(b"\r\n"):
        if not line:
            continue
        name, colon, value = line.partition(b":")
        if not colon or not name.strip():
            raise MalformedMultipart("a part's header is not of the form NAME: VALUE")
        yield name.strip().lower(), value.strip()


def related_type(boundary: str) -> str:
    """The Content-Type of a body of :func:`related_body`."""
    return f'multipart/related; type="application/dicom"; boundary={boundary}'


def new_boundary() -> str:
    """A boundary that is in no object."""
    return os.urandom(24).hex()


def related_body(boundary: str, objects: Iterable[bytes]) -> Iterator[bytes]:
    """DICOM files as a multipart body, piece by piece."""
    for content in objects:
        yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        yield content
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()
