"""A request's body to its files: multipart or raw, streamed, bounded, and never on disk."""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator
from time import monotonic
from typing import Final
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.requests import Request

from service.buffers import Claim
from service.errors import (
    BodyTimeout,
    BodyTooLarge,
    CompressedBody,
    MalformedMultipart,
    NoInput,
    TooManyFiles,
    UnexpectedField,
    UnsupportedRequestMedia,
)
from service.jobs import Upload

FIELD: Final = "files"
"""The multipart field that holds images, as often as there are images."""

MULTIPART: Final = b"multipart/form-data"
RAW_MEDIA: Final = (
    b"image/jpeg",
    b"image/png",
    b"application/dicom",
    b"application/zip",
    b"application/octet-stream",
)
"""Media types of a raw body. Which of them it says does not matter: the content is sniffed."""

OTHER_MEDIA: Final = (b"image/jpg", b"application/x-zip-compressed", b"")
"""What clients say besides; a body may have no type at all (RFC 9110, 8.3)."""

MAX_PART_HEADERS: Final = 32
"""Headers of a part of a form; two or three are usual."""

_PARAMETER: Final = re.compile(rb';[ \t]*([^=;" \t]+)=("(?:\\.|[^"\\])*"?|[^;" \t]*)')
"""A parameter of a header (RFC 9110, 5.6.6); a quoted string may hold what looks like others."""

_IDENTITY: Final = frozenset({b"binary", b"8bit", b"7bit"})
"""Transfer encodings that leave a part's bytes as they are (RFC 2045, 6.2)."""

MOST_JOINED_AT_ONCE: Final = 2**22
"""Bytes that are put together on the event loop; that takes some milliseconds."""

MIN_BYTES_PER_SECOND: Final = 64 * 1024
"""Beside the time that every body has, each so many bytes earn another second."""


async def arriving(request: Request, seconds: float) -> AsyncIterator[bytes]:
    """The pieces of a body, as they come.

    Args:
        request: whose body has not been read.
        seconds: for the body, besides what its bytes earn; and for each silence.

    Raises:
        BodyTimeout: it takes longer.
    """
    start, received = monotonic(), 0
    stream = request.stream()
    while True:
        left = start + seconds + received / MIN_BYTES_PER_SECOND - monotonic()
        try:
            # What was earned is for a slow client, and not for one that has stopped.
            async with asyncio.timeout(min(left, seconds)):
                piece = await anext(stream, None)
        except TimeoutError as error:
            raise BodyTimeout("the body did not arrive in time") from error
        if piece is None:
            return
        received += len(piece)
        yield piece


async def read_uploads(
    request: Request, max_body_bytes: int, max_files: int, claim: Claim, seconds: float
) -> list[Upload]:
    """The files of a request, at least one.

    Raises:
        BodyTimeout: it takes longer than :func:`arriving` lets it.
        UnsupportedRequestMedia: the body is declared to be something else, or to be compressed.
        BodyTooLarge, TooManyFiles: over the limits; the rest of the body is not read.
        QueueFull: there is no memory for it now, likewise.
        MalformedMultipart, UnexpectedField, NoInput: the body is not what it should be.
    """
    media, options = parse_options_header(request.headers.get("content-type"))
    check_coding(request.headers)
    if media != MULTIPART and media not in RAW_MEDIA and media not in OTHER_MEDIA:
        accepted = ", ".join(name.decode() for name in (MULTIPART, *RAW_MEDIA))
        raise UnsupportedRequestMedia(f"the body must be one of {accepted}")
    check_length(request.headers, max_body_bytes)
    chunks = _bounded(arriving(request, seconds), max_body_bytes, claim)
    if media != MULTIPART:
        data = await _joined([chunk async for chunk in chunks])
        if not data:
            raise NoInput("the body is empty")
        return [Upload(None, data)]
    return await _read_multipart(chunks, options.get(b"boundary", b""), max_files)


def check_coding(headers: Headers) -> None:
    """Refuses a body that its content coding would have to be taken off, before it is read.

    Raises:
        CompressedBody: there is one.
    """
    codings = ",".join(headers.getlist("content-encoding")).lower().split(",")
    if not {coding.strip() for coding in codings} <= {"", "identity"}:
        raise CompressedBody("the body must not be compressed (Content-Encoding)")


def check_length(headers: Headers, max_body_bytes: int) -> None:
    """Refuses a body that says that it is too large, before it is read.

    Raises:
        BodyTooLarge: it does.
    """
    # Of zeros before it there may be any number, more than an int is made of.
    declared = headers.get("content-length", "").lstrip("0")
    if declared.isdecimal() and int(declared) > max_body_bytes:
        raise _too_large(max_body_bytes)


def check_encoding(encoding: bytes) -> None:
    """Refuses a part whose Content-Transfer-Encoding changes its bytes, such as base64.

    Raises:
        MalformedMultipart: it does; nothing in HTTP needs it (RFC 7578, 4.7).
    """
    if encoding.strip().lower() not in _IDENTITY:
        raise MalformedMultipart("a part's Content-Transfer-Encoding must be binary")


async def _read_multipart(
    chunks: AsyncIterator[bytes], boundary: bytes, max_files: int
) -> list[Upload]:
    form = _Form(max_files)
    try:
        if not boundary:
            raise MalformedMultipart("the Content-Type names no boundary")
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": form.begin_part,
                "on_header_field": form.add_header_name,
                "on_header_value": form.add_header_value,
                "on_header_end": form.end_header,
                "on_headers_finished": form.end_headers,
                "on_part_data": form.add_data,
                "on_part_end": form.end_part,
                "on_end": form.end,
            },
            max_header_count=MAX_PART_HEADERS,
        )
        first = await anext(chunks, b"")
        if not first:
            raise NoInput("the body is empty")
        parser.write(first)
        async for chunk in chunks:
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise MalformedMultipart("the body is no well-formed multipart/form-data") from error
    if not form.ended:
        raise MalformedMultipart("the body ends before its last boundary")
    if not form.files:
        raise NoInput(f"the form has no field {FIELD!r}")
    uploads = []
    while form.files:
        # File by file: the pieces of each are let go before the next one is joined.
        name, pieces = form.files.popleft()
        uploads.append(Upload(name, await _joined(pieces)))
    return uploads


async def _joined(pieces: list[bytes]) -> bytes:
    if sum(map(len, pieces)) <= MOST_JOINED_AT_ONCE:
        return b"".join(pieces)
    # Large joins release the interpreter's lock, so that the event loop answers others meanwhile.
    return await asyncio.to_thread(b"".join, pieces)


async def _bounded(
    body: AsyncIterator[bytes], max_body_bytes: int, claim: Claim
) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in body:
        size += len(chunk)
        if size > max_body_bytes:
            raise _too_large(max_body_bytes)
        claim.add(len(chunk))
        yield chunk


def _too_large(max_body_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than the {max_body_bytes} bytes that are accepted")


def _extended_name(disposition: bytes) -> bytes | None:
    """What ``filename*`` says (RFC 8187), in UTF-8; None without one.

    RFC 7578, section 4.2, has none of it in forms. .NET sends it all the same, beside a ``filename``
    that is encoded as in mail where it is not all ASCII, and some older clients send it alone.
    """
    for name, value in _PARAMETER.findall(disposition):
        charset, *rest = value.strip(b'"').split(b"'", 2)
        if name.lower() == b"filename*" and len(rest) == 2:
            decoded = unquote_to_bytes(rest[1])
            match charset.lower():
                case b"utf-8":
                    return decoded
                case b"iso-8859-1":
                    return decoded.decode("latin-1").encode()
    return None


class _Form:
    """Collects what the multipart parser finds; its methods are the parser's callbacks.

    Attributes:
        files: name and pieces of each.
        ended: the last boundary has come.
    """

    def __init__(self, max_files: int) -> None:
        self.files: deque[tuple[str | None, list[bytes]]] = deque()
        self.ended = False
        self._max_files = max_files
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._file_name: str | None = None
        self._pieces: list[bytes] = []

    def begin_part(self) -> None:
        self._disposition = b""
        self._pieces = []

    def add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def end_header(self) -> None:
        name = self._header_name.lower()
        if name == b"content-disposition":
            self._disposition = self._header_value
        elif name == b"content-transfer-encoding":
            check_encoding(self._header_value)
        self._header_name = self._header_value = b""

    def end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        if options.get(b"name") != FIELD.encode():
            raise UnexpectedField(f"images belong into the field {FIELD!r}, and there is no other")
        if len(self.files) == self._max_files:
            raise TooManyFiles.of("a request", self._max_files)
        name = _extended_name(self._disposition) or options.get(b"filename")
        self._file_name = None if name is None else name.decode("utf-8", "replace")

    def add_data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def end_part(self) -> None:
        self.files.append((self._file_name, self._pieces))
        self._pieces = []

    def end(self) -> None:
        self.ended = True
