"""JPEG files of more scans than an image can need, each of which is a pass over all its blocks."""

import io

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from contract.codestream import (
    MAX_SCANS,
    MAX_SCANS_OF_LARGEST,
    has_more_scans,
    jpeg_header,
    max_scans,
)
from contract.decoding import decode
from contract.errors import UndecodableImage
from contract.policy import DEFAULT_MAX_PIXELS, Policy
from tests.contract.samples import RANGE, encode, grey_slice, mr_object

GREY = grey_slice()
PROGRESSIVE = encode(GREY, "JPEG", progressive=True)
SCANS = PROGRESSIVE.count(b"\xff\xda")

SCAN_HEADER_BYTES = 10
"""Of a scan of one component (ITU-T T.81 (09/92), B.2.3)."""


def with_scans(scans: int) -> bytes:
    """The slice with the header of its last scan again and again, with nothing behind it."""
    start = PROGRESSIVE.rindex(b"\xff\xda")
    empty = PROGRESSIVE[start : start + SCAN_HEADER_BYTES]
    return PROGRESSIVE[:-2] + empty * (scans - SCANS) + PROGRESSIVE[-2:]


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2) + content


def behind_start(content: bytes) -> bytes:
    return PROGRESSIVE[:2] + content + PROGRESSIVE[2:]


def test_as_many_as_the_limit_are_read() -> None:
    assert decode(with_scans(MAX_SCANS)).original_size == GREY.shape
    with pytest.raises(UndecodableImage, match="scans"):
        decode(with_scans(MAX_SCANS + 1))


def test_what_is_none_of_the_image_makes_its_own_scans_no_more() -> None:
    thumbnail = segment(0xE1, b"\xff\xda" * 10)
    data = with_scans(MAX_SCANS)
    assert not has_more_scans(data[:2] + thumbnail + data[2:], MAX_SCANS)
    data = with_scans(MAX_SCANS + 1)
    assert has_more_scans(data[:2] + thumbnail + data[2:], MAX_SCANS)


def test_a_large_image_may_have_fewer() -> None:
    policy = Policy(max_pixels=GREY.size)
    assert decode(with_scans(MAX_SCANS_OF_LARGEST), policy=policy).original_size == GREY.shape
    with pytest.raises(UndecodableImage, match="scans"):
        decode(with_scans(MAX_SCANS_OF_LARGEST + 1), policy=policy)


@pytest.mark.parametrize(
    ("pixels", "scans"),
    [(1, MAX_SCANS), (3000 * 3000, MAX_SCANS), (DEFAULT_MAX_PIXELS, MAX_SCANS_OF_LARGEST)],
)
def test_how_many_there_may_be(pixels: int, scans: int) -> None:
    assert max_scans(pixels, DEFAULT_MAX_PIXELS) == scans


def test_of_an_object_they_are_counted_too() -> None:
    def mr(stream: bytes) -> bytes:
        attributes = {"PixelData": encapsulate([stream]), **RANGE}
        return mr_object(GREY, JPEGBaseline8Bit, attributes=attributes)

    assert decode(mr(with_scans(MAX_SCANS_OF_LARGEST))).pixels.shape == GREY.shape
    with pytest.raises(UndecodableImage, match="scans"):
        decode(mr(with_scans(MAX_SCANS_OF_LARGEST + 1)))


@pytest.mark.parametrize(
    "data",
    [
        behind_start(segment(0xE2, b"\xff\xda" * 1000)),
        behind_start(segment(0xFE, with_scans(1000))),
        PROGRESSIVE + b"\xff\xda" * 1000,
        PROGRESSIVE + with_scans(1000),
    ],
    ids=["in a profile", "in a comment", "behind the end", "in a second image"],
)
def test_what_is_none_of_the_image_is_not_counted(data: bytes) -> None:
    expected = np.asarray(Image.open(io.BytesIO(PROGRESSIVE)))
    assert np.array_equal(decode(data).pixels, expected)


def restarting(reserved: bytes, scans: int) -> bytes:
    """A JPEG whose scan is to restart, but meets a marker in the place of the restart's.

    Behind it come two bytes that could be a length, and scans in what would be that segment.
    """
    tables = PROGRESSIVE[2 : PROGRESSIVE.index(b"\xff\xda")]
    scan = PROGRESSIVE[PROGRESSIVE.index(b"\xff\xda") :][:SCAN_HEADER_BYTES]
    start = PROGRESSIVE[:2] + tables + segment(0xDD, b"\0\1") + scan + b"\x7f"
    return start + reserved + b"\xfe\xfe" + scan * scans + bytes(0xFEFE) + PROGRESSIVE[-2:]


@pytest.mark.parametrize(
    "reserved", [b"\xff\x02", b"\xff\x4f", b"\xff\xbf", b"\xff\x01", b"\xff\xff\xff\x02"], ids=repr
)
def test_a_reserved_marker_hides_no_scans(reserved: bytes) -> None:
    data = restarting(reserved, MAX_SCANS)
    with pytest.raises(UndecodableImage, match="scans"):
        decode(data)
    assert has_more_scans(data, MAX_SCANS)
    assert not has_more_scans(data, MAX_SCANS + 1)
    attributes = {"PixelData": encapsulate([data]), **RANGE}
    with pytest.raises(UndecodableImage, match="scans"):
        decode(mr_object(GREY, JPEGBaseline8Bit, attributes=attributes))


@pytest.mark.parametrize("alone", [b"\xff\x01", b"\xff\xd3"], ids=repr)
def test_a_marker_without_a_segment_hides_no_frame(alone: bytes) -> None:
    """Its decoder finds the frame right behind it, and not where a length would lead."""
    frame = segment(0xC0, bytes.fromhex("08 ffff ffff 01 011100"))
    other = segment(0xC0, bytes.fromhex("08 0008 0008 01 011100"))
    stream = PROGRESSIVE[:2] + alone + frame + bytes(0xFFC0) + other
    header = jpeg_header(stream + bytes(2**16))
    assert header is None or header.rows == 0xFFFF
    assert jpeg_header(PROGRESSIVE[:2] + alone + frame) == (0xFFFF, 0xFFFF, 1, 8)


def test_segments_without_end_are_not_walked_through() -> None:
    assert has_more_scans(behind_start(segment(0xFE, b"") * 10**5 + b"\xff\xda" * 200), MAX_SCANS)
