"""Files of more segments or chunks than an image can need, and what large ones take of memory."""

import io
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from contract.decoding import MAX_SIDE, decode
from contract.errors import TooManyPixels, UndecodableImage
from contract.metadata import (
    MAX_CHUNKS,
    MAX_COMPRESSED_CHUNKS,
    MAX_EXIF_SEGMENTS,
    MAX_METADATA_BYTES,
    MAX_PIXEL_CHUNKS,
    MAX_SEGMENTS,
    SMALL_BYTES,
    is_excessive_jpeg,
    is_excessive_png,
)
from contract.png import deep_picture
from contract.policy import Policy
from tests.contract.samples import RANGE, encode, grey_slice, mr_object, png_chunk
from tests.contract.test_decoding import grey_png

GREY = grey_slice()
JPEG = encode(GREY, "JPEG")
PNG = encode(GREY, "PNG")
HEADER_END = 33
"""Of a PNG: the signature and IHDR."""

PIXELS = PNG.index(b"IDAT") - 4
FILL = b"\xff\xfe\xff\xff" + bytes(2**16 - 3)
"""A comment that makes no file a small one."""


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2) + content


PROFILE = b"ICC_PROFILE\0"
EXIF = segment(0xE1, b"Exif\0\0MM")


def jpeg(content: bytes) -> bytes:
    return JPEG[:2] + FILL + content + JPEG[2:]


def png(before: bytes = b"", between: bytes = b"", behind: bytes = b"") -> bytes:
    """The slice with chunks before, amid and behind its pixels, and no small file."""
    padding = png_chunk(b"prVt", bytes(SMALL_BYTES))
    end = len(PNG) - 12
    pixels = PNG[PIXELS + 8 : end - 4]
    halves = png_chunk(b"IDAT", pixels[:100]) + between + png_chunk(b"IDAT", pixels[100:])
    return PNG[:HEADER_END] + padding + before + halves + behind + PNG[end:]


def mr(stream: bytes) -> bytes:
    attributes = {"PixelData": encapsulate([stream + bytes(len(stream) % 2)]), **RANGE}
    return mr_object(GREY, JPEGBaseline8Bit, attributes=attributes)


JPEGS = {
    "application data": segment(0xE5, b"") * (MAX_SEGMENTS + 1),
    "comments": segment(0xFE, b"a") * (MAX_SEGMENTS + 1),
    "restarts": b"\xff\xd0" * (MAX_SEGMENTS + 1),
    "EXIF": EXIF * (MAX_EXIF_SEGMENTS + 1),
    "metadata": segment(0xE2, bytes(65_000)) * (MAX_METADATA_BYTES // 65_000 + 1),
    "tables": segment(0xDB, (b"\0" + b"\1" * 64) * 1000) * 2,
    "frames": segment(0xC0, b"\x08\0\x10\0\x10\1" + bytes(3 * 15_000)) * 2,
    "what is no segment": bytes(70_000),
    "fill bytes": b"\xff" * 70_000,
}
"""What is too much before the first scan of a JPEG."""

PNGS = {
    "private ones": (png_chunk(b"prVt", b"") * (MAX_CHUNKS + 1), b""),
    "texts": (png_chunk(b"tEXt", b"a\0b") * (MAX_CHUNKS + 1), b""),
    "compressed texts": (png_chunk(b"zTXt", b"\0\0") * (MAX_COMPRESSED_CHUNKS + 1), b""),
    "profiles": (png_chunk(b"iCCP", b"a\0\0") * (MAX_COMPRESSED_CHUNKS + 1), b""),
    "metadata": (png_chunk(b"prVt", bytes(MAX_METADATA_BYTES + 1)), b""),
    "pixels": (b"", png_chunk(b"IDAT", b"") * (MAX_PIXEL_CHUNKS + 1)),
}
"""What is too much around, or amid, the pixels of a PNG."""


@pytest.mark.parametrize("name", JPEGS)
def test_a_header_of_too_much(name: str) -> None:
    with pytest.raises(UndecodableImage, match="beside its pixels"):
        decode(jpeg(JPEGS[name]))
    with pytest.raises(UndecodableImage, match="readable header"):
        decode(mr(jpeg(JPEGS[name])))


def test_it_may_lie_behind_the_size() -> None:
    frame = JPEG.index(b"\xff\xc0")
    end = frame + 2 + int.from_bytes(JPEG[frame + 2 : frame + 4])
    data = JPEG[:end] + FILL + EXIF * (MAX_EXIF_SEGMENTS + 1) + JPEG[end:]
    with pytest.raises(UndecodableImage, match="beside its pixels"):
        decode(data)
    with pytest.raises(UndecodableImage, match="readable header"):
        decode(mr(data))


@pytest.mark.parametrize("name", PNGS)
def test_chunks_of_too_much(name: str) -> None:
    content, between = PNGS[name]
    for data in (png(content, between), png(b"", between, content)):
        with pytest.raises(UndecodableImage, match="beside its pixels"):
            decode(data)


def test_a_million_are_not_walked_through() -> None:
    """Nothing of them is looked at behind the limit: damage there goes unseen."""
    assert is_excessive_jpeg(jpeg(segment(0xFE, b"") * 10**6))
    assert is_excessive_png(png(png_chunk(b"prVt", b"") * 10**6))


@pytest.mark.parametrize(
    "content",
    [
        b"".join(segment(0xE2, PROFILE + bytes([n, 40]) + bytes(65_000)) for n in range(1, 41)),
        segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000)) * 120,
        segment(0xED, b"Photoshop 3.0\0" + bytes(60_000)) * 20,
        segment(0xFE, b"a scanner's remark") * 1500,
        b"\xff" * 1000,
    ],
    ids=["a profile of 2.6 MB", "XMP of 7.8 MB", "Photoshop", "remarks", "fill bytes"],
)
def test_metadata_of_photographs_are_no_obstacle(content: bytes) -> None:
    assert np.array_equal(decode(jpeg(content)).pixels, decode(JPEG).pixels)


def test_chunks_of_pictures_are_no_obstacle() -> None:
    texts = b"".join(png_chunk(b"tEXt", b"key%d\0text" % n) for n in range(400))
    profile = png_chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(500_000)))
    data = png(profile + texts, png_chunk(b"IDAT", b"") * 10_000, texts)
    assert np.array_equal(decode(data).pixels, GREY)


def test_of_a_jpeg_of_four_colours_fewer_pixels_are_accepted() -> None:
    data = encode(Image.fromarray(GREY).convert("CMYK"), "JPEG")
    most = Policy(max_pixels=-(-GREY.size * 4 // 3))
    assert decode(data, policy=most).original_size == GREY.shape
    with pytest.raises(TooManyPixels):
        decode(data, policy=Policy(max_pixels=most.max_pixels - 2))


def test_a_side_that_no_other_format_can_have() -> None:
    assert decode(encode(np.zeros((1, MAX_SIDE), np.uint8), "PNG")).original_size == (1, MAX_SIDE)
    for shape in [(1, MAX_SIDE + 1), (MAX_SIDE + 1, 1)]:
        with pytest.raises(TooManyPixels, match="side"):
            decode(encode(np.zeros(shape, np.uint8), "PNG"))


def filtered(columns: int, rows: int, kind: int, *, interlaced: bool) -> bytes:
    """A PNG of noise of 16 bits, each line of it filtered in one of the five ways."""
    random = np.random.default_rng(kind)
    size = {2: 6, 4: 4, 6: 8}[kind]
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2)]
        passes += [(0, 1, 2, 2), (1, 0, 2, 1)]
    raw = b""
    for top, left, down, across in passes:
        width = len(range(left, columns, across))
        for _ in range(top, rows, down) if width else ():
            raw += bytes([random.integers(0, 5)]) + random.bytes(width * size)
    form = columns.to_bytes(4) + rows.to_bytes(4) + bytes([16, kind, 0, 0, interlaced])
    stream = zlib.compress(raw)
    pixels = png_chunk(b"IDAT", stream[:50]) + png_chunk(b"IDAT", b"")
    pixels += png_chunk(b"IDAT", stream[50:])
    return PNG[:8] + png_chunk(b"IHDR", form) + pixels + png_chunk(b"IEND", b"")


def eight_bits(mode: str) -> bytes:
    """A PNG of noise in a mode of Pillow; those with "t" have a level or colour for transparency."""
    random = np.random.default_rng(1)
    samples = {"LA": 2, "RGB": 3, "RGBt": 3, "RGBA": 4}.get(mode, 1)
    noise = random.integers(0, 256, (70, 50, samples)).astype(np.uint8)
    if mode == "P":
        palette = Image.fromarray(noise[..., 0]).copy()
        palette.putpalette(random.bytes(768))
        return encode(palette, "PNG", transparency=random.bytes(256))
    if mode == "Lt":
        return encode(noise[..., 0], "PNG", transparency=7)
    if mode == "RGBt":
        noise[::2] = 9, 10, 11
        return encode(noise, "PNG", transparency=(9, 10, 11))
    return encode(noise, "PNG")


class TestStrips:
    @pytest.mark.parametrize("interlaced", [False, True], ids=["plain", "interlaced"])
    @pytest.mark.parametrize("columns", [1, 5, 50])
    @pytest.mark.parametrize("kind", [2, 4, 6], ids=["RGB", "LA", "RGBA"])
    def test_of_sixteen_bits_are_filtered_by_the_line_above(
        self, kind: int, columns: int, interlaced: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = filtered(columns, 70, kind, interlaced=interlaced)
        with Image.open(io.BytesIO(data)) as image:
            whole = deep_picture(image, data)
        assert whole is not None
        monkeypatch.setattr("contract.png.STRIP_PIXELS", 100)
        with Image.open(io.BytesIO(data)) as image:
            stripped = deep_picture(image, data)
        assert stripped is not None
        assert np.array_equal(stripped.grey, whole.grey)
        assert stripped.coloured == whole.coloured == (kind != 4)
        with Image.open(io.BytesIO(data)) as image:
            high = np.asarray(image).astype(float)
        bright = high[..., :3] @ [0.299, 0.587, 0.114]
        shown = bright * (high[..., 3] / 255 if kind != 2 else 1)
        assert np.abs(whole.grey / 256 - shown).max() < 2

    @pytest.mark.parametrize("mode", ["Lt", "RGB", "RGBt", "RGBA", "LA", "P"])
    def test_are_as_the_whole(self, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
        data = eight_bits(mode)
        whole = decode(data).pixels
        monkeypatch.setattr("contract.decoding.STRIP_PIXELS", 120)
        assert np.array_equal(decode(data).pixels, whole)

    @pytest.mark.parametrize("absent", [None, 77])
    def test_of_grey_of_sixteen_bits(
        self, absent: int | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        levels = np.random.default_rng(1).integers(0, 4096, (70, 50)).astype(np.uint16)
        data = grey_png(levels, 16, absent)
        whole = decode(data).pixels
        monkeypatch.setattr("contract.decoding.STRIP_PIXELS", 120)
        monkeypatch.setattr("contract.contrast.PART_PIXELS", 99)
        assert np.array_equal(decode(data).pixels, whole)


SIDE = 3600
MEASURED = """
import sys
from pathlib import Path
from contract.decoding import decode
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
data = sys.stdin.buffer.read()
before = peak()
decode(data)
print(1024 * (peak() - before))
"""
"""Of a process of its own; what ``getrusage`` tells of one is at least what its parent had."""


def measured(data: bytes) -> int:
    """By how many bytes decoding raises the peak of a process."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURED], input=data, capture_output=True, check=True
    )
    return int(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells it")
def test_a_pixel_of_a_long_jpeg_takes_no_colours_beside_its_coefficients() -> None:
    """Six bytes of coefficients, one of grey: with the colours it would be ten."""
    strip = Image.new("RGB", (450, 24_000), (255, 140, 0))
    data = encode(strip, "JPEG", progressive=True, subsampling=0)
    assert measured(data) < 8 * 450 * 24_000 + 10 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells it")
@pytest.mark.parametrize(
    ("bits", "kind", "absent"),
    [(8, 6, b""), (8, 4, b""), (8, 2, bytes(6)), (16, 0, b"\0\1"), (16, 2, b""), (16, 6, b"")],
    ids=["RGBA", "LA", "RGB and a colour", "16 bits and a level", "16 bits of RGB", "of RGBA"],
)
def test_a_pixel_takes_six_bytes_at_most(bits: int, kind: int, absent: bytes) -> None:
    """And the strips that are worked on some MB, whatever the size."""
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    packer = zlib.compressobj(1)
    lines = b"".join(packer.compress(bytes(1 + SIDE * samples * bits // 8)) for _ in range(SIDE))
    form = SIDE.to_bytes(4) * 2 + bytes([bits, kind, 0, 0, 0])
    content = png_chunk(b"IHDR", form) + (png_chunk(b"tRNS", absent) if absent else b"")
    content += png_chunk(b"IDAT", lines + packer.flush()) + png_chunk(b"IEND", b"")
    assert measured(PNG[:8] + content) < 6 * SIDE**2 + 30 * 2**20
