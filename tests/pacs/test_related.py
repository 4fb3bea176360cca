"""multipart/related bodies: binary parts, whatever the size of the pieces in which they come."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import MalformedMultipart
from service.pacs.related import (
    MAX_HEADER_BYTES,
    MAX_PREAMBLE_BYTES,
    RelatedParser,
    new_boundary,
    related_body,
)

BOUNDARY = b"b0undary"
START, END = b"--b0undary\r\n", b"\r\n--b0undary--\r\n"


class Parts:
    """Collects them."""

    def __init__(self) -> None:
        self.found: list[tuple[Mapping[bytes, bytes], bytes]] = []
        self._headers: Mapping[bytes, bytes] = {}
        self._pieces: list[bytes] = []

    def begin_part(self, headers: Mapping[bytes, bytes]) -> None:
        self._headers, self._pieces = headers, []

    def add_data(self, data: bytes) -> None:
        self._pieces.append(data)

    def end_part(self) -> None:
        self.found.append((self._headers, b"".join(self._pieces)))


def parse(pieces: Sequence[bytes], boundary: bytes = BOUNDARY) -> list[bytes]:
    parts = Parts()
    parser = RelatedParser(boundary, parts)
    for piece in pieces:
        parser.feed(piece)
    parser.close()
    return [content for _, content in parts.found]


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


CONTENTS = [b"", b"\r\n", b"--", b"\r\n--b0undar", b"\r\n--", b"\0\xff\r", b"a\r\nb", b"-" * 100]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 13, 4096])
def test_parts_come_out_as_they_went_in(size: int) -> None:
    body = b"".join(related_body(BOUNDARY.decode(), CONTENTS))
    assert parse(cut(body, size)) == CONTENTS


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(
    contents=st.lists(
        st.lists(st.sampled_from([b"\r", b"\n", b"-", b"\r\n--", b"b0undar", b"\0", b"x"])).map(
            b"".join
        ),
        min_size=1,
        max_size=4,
    ),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=20),
)
def test_any_binary_parts_in_any_pieces(contents: list[bytes], cuts: list[int]) -> None:
    boundary = new_boundary()
    body = b"".join(related_body(boundary, contents))
    pieces: list[bytes] = []
    while body:
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(body[:size])
        body = body[size:]
    assert parse(pieces, boundary.encode()) == contents


@pytest.mark.parametrize(
    ("body", "contents"),
    [
        (b"Hello\r\nthere\r\n" + START + b"\r\nx" + END, [b"x"]),
        (START + b"\r\nx" + END + b"and the rest\r\n--b0undary\r\n", [b"x"]),
        (START + b"\r\nx\r\n--b0undary \t\r\n\r\ny" + END, [b"x", b"y"]),
        (START + b"\r\n\r\n--b0undary--", [b""]),
        (START + b"A: 1\r\nB:2\r\n\r\nx" + END, [b"x"]),
    ],
    ids=["preamble", "epilogue", "padding", "empty part", "headers"],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_what_the_standard_allows(body: bytes, contents: list[bytes], size: int) -> None:
    assert parse(cut(body, size)) == contents


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("fold", [b" ", b"\r\n ", b"\r\n\t", b"\r\n \r\n\t "])
def test_headers_of_a_part(fold: bytes, size: int) -> None:
    parts = Parts()
    parser = RelatedParser(BOUNDARY, parts)
    head = b"Content-Type: application/dicom;" + fold + b"a=b \r\nContent-ID:<1>\r\n\r\nx"
    for piece in cut(START + head + END, size):
        parser.feed(piece)
    headers = {b"content-type": b"application/dicom; a=b", b"content-id": b"<1>"}
    assert parts.found == [(headers, b"x")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        START,
        START + b"A: 1\r\n",
        START + b"\r\nx",
        START + b"\r\nx\r\n--b0undary",
        START + b"\r\nx\r\n--b0undary-",
        START + b"\r\nx\r\n--b0undaryABC\r\n\r\ny" + END,
        START + b"no header\r\n\r\nx" + END,
        START + b": x\r\n\r\nx" + END,
        START + b"A: " + b"x" * MAX_HEADER_BYTES + b"\r\n\r\nx" + END,
        b"x" * (MAX_PREAMBLE_BYTES + 100) + b"\r\n" + START + b"\r\nx" + END,
        b"DICM without any boundary",
    ],
    ids=[
        "nothing",
        "boundary alone",
        "cut in headers",
        "cut in content",
        "cut in last boundary",
        "cut in last hyphens",
        "longer boundary",
        "header without colon",
        "header without name",
        "long headers",
        "long preamble",
        "no multipart",
    ],
)
@pytest.mark.parametrize("size", [1, 100_000])
def test_malformed_bodies_are_refused(body: bytes, size: int) -> None:
    with pytest.raises(MalformedMultipart):
        parse(cut(body, size))


@pytest.mark.parametrize("boundary", [b"", b"x" * 300])
def test_malformed_boundaries_are_refused(boundary: bytes) -> None:
    with pytest.raises(MalformedMultipart):
        RelatedParser(boundary, Parts())


def test_a_long_part_is_passed_on_as_it_comes() -> None:
    class Counting(Parts):
        largest = 0
        total = 0

        def add_data(self, data: bytes) -> None:
            self.largest = max(self.largest, len(data))
            self.total += len(data)

    parts = Counting()
    parser = RelatedParser(BOUNDARY, parts)
    parser.feed(START + b"\r\n")
    for _ in range(100):
        parser.feed(bytes(65536))
    parser.feed(END)
    parser.close()
    assert parts.total == 100 * 65536
    assert parts.largest <= 65536 + 20
