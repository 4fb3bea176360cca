"""Pictures in colour are told from grey that was saved as colour, in every form of a file."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from contract.colour import MAX_COLOURED_SHARE, MIN_TINT, channels_of, is_grey
from contract.decoding import decode
from contract.preprocessing import DEFAULT_SPEC
from tests.contract.samples import SLICES, encode, raw_png

SIDE = 512
ORANGE = (255, 140, 0)

JPEGS: dict[str, dict[str, Any]] = {
    "best": {"quality": 97, "subsampling": 0},
    "4:2:0": {"quality": 75, "subsampling": 2},
    "poor": {"quality": 20, "subsampling": 2},
    "progressive": {"progressive": True},
    "components are RGB": {"quality": 90, "keep_rgb": True},
}
"""Options of Pillow's encoder."""

each_jpeg = pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)


def grey(mode: str = "RGB") -> Image.Image:
    """A real slice."""
    with Image.open(SLICES[0]) as image:
        return image.convert("L").resize((SIDE, SIDE)).convert(mode)


def marked(share: float, colour: tuple[int, int, int] = ORANGE) -> Image.Image:
    """The slice with a disc in the brain that covers a share of it."""
    image = grey()
    radius = SIDE * (share / np.pi) ** 0.5
    box = (233.3 - radius, 201.7 - radius, 233.3 + radius, 201.7 + radius)
    ImageDraw.Draw(image).ellipse(box, fill=colour)
    return image


def deep(image: Image.Image, scale: int, kind: int) -> NDArray[np.uint16]:
    """Samples of 16 bits of a PNG colour type; what has transparency is opaque."""
    samples = np.asarray(image) * np.uint16(scale)
    opaque = np.full((*samples.shape[:2], 1), 65535, np.uint16)
    return np.concatenate([samples, opaque], axis=2) if kind == 6 else samples


def unnamed(jpeg: bytes, components: bytes) -> bytes:
    """A JPEG file that states its colours by the names of its components alone."""
    head = jpeg.index(b"\xff\xdb")
    body = bytearray(jpeg[head:])
    frame, scan = body.index(b"\xff\xc0"), body.index(b"\xff\xda")
    for index, name in enumerate(components):
        body[frame + 10 + 3 * index] = name
        body[scan + 5 + 2 * index] = name
    return b"\xff\xd8" + bytes(body)


@each_jpeg
def test_grey_that_was_saved_as_colour_is_grey(options: dict[str, Any]) -> None:
    assert not decode(encode(grey(), "JPEG", **options)).coloured


@each_jpeg
@pytest.mark.parametrize("colour", [ORANGE, (255, 60, 60), (60, 60, 255), (40, 200, 90)], ids=str)
def test_a_spot_of_colour_is_found(colour: tuple[int, int, int], options: dict[str, Any]) -> None:
    image = marked(3 * MAX_COLOURED_SHARE, colour)
    assert decode(encode(image, "JPEG", **options)).coloured


@each_jpeg
def test_a_letter_in_colour_is_overlooked(options: dict[str, Any]) -> None:
    assert not decode(encode(marked(MAX_COLOURED_SHARE / 2), "JPEG", **options)).coloured


@pytest.mark.parametrize("offset", range(4))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_lines_of_colour_are_found_wherever_they_lie(kind: str, offset: int) -> None:
    """A crosshair, and hatching of every fourth row: a sample of pixels may miss both."""
    crossed, hatched = grey(), np.array(grey())
    draw = ImageDraw.Draw(crossed)
    draw.line((250 + offset, 0, 250 + offset, SIDE), fill=ORANGE)
    hatched[160 + offset : 240 : 4, 200:280] = ORANGE
    for image in (crossed, Image.fromarray(hatched)):
        options = {} if kind == "PNG" else {"quality": 95, "subsampling": 0}
        assert decode(encode(image, kind, **options)).coloured


def test_a_large_one_is_looked_at_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contract.decoding.STRIP_PIXELS", 20_000)
    for image, coloured in ((marked(3 * MAX_COLOURED_SHARE), True), (grey(), False)):
        assert decode(encode(image, "PNG")).coloured is coloured


@each_jpeg
def test_a_jpeg_that_is_too_long_for_its_colours_is_looked_at_at_a_smaller_scale(
    options: dict[str, Any],
) -> None:
    plain = Image.new("RGB", (300, 15_000), (90, 90, 90))
    image = plain.copy()
    ImageDraw.Draw(image).rectangle((100, 4000, 200, 4000 + 90), fill=ORANGE)
    decoded = decode(encode(image, "JPEG", **options))
    assert decoded.coloured
    assert decoded.pixels.shape == (15_000, 300)
    assert not decode(encode(plain, "JPEG", **options)).coloured


@pytest.mark.parametrize("distance", range(9))
def test_none_is_coloured_that_the_chroma_alone_excludes(distance: int) -> None:
    for blue, red in ((128 - distance, 128 + distance), (128 + distance, 128 - distance)):
        image = Image.new("YCbCr", (4, 4), (128, blue, red))
        apart = np.ptp(channels_of(image), axis=0).max()
        assert is_grey(image) == (distance <= 4)
        assert not is_grey(image) or apart < MIN_TINT


@pytest.mark.parametrize("colour", [(150, 120, 110), (110, 120, 150)], ids=str)
def test_a_tint_is_no_colour(colour: tuple[int, int, int]) -> None:
    """As of a slice that was photographed from a screen."""
    assert not decode(encode(marked(0.2, colour), "JPEG", quality=90)).coloured


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_png(mode: str) -> None:
    assert decode(encode(marked(3 * MAX_COLOURED_SHARE).convert(mode), "PNG")).coloured
    assert not decode(encode(grey().convert(mode), "PNG")).coloured


@pytest.mark.parametrize("interlaced", [False, True], ids=["plain", "interlaced"])
@pytest.mark.parametrize("kind", [2, 6], ids=["RGB", "RGBA"])
@pytest.mark.parametrize("scale", [1, 16, 257], ids=["8 bits", "12 bits", "16 bits"])
def test_png_of_sixteen_bits(scale: int, kind: int, interlaced: bool) -> None:
    for image, coloured in ((marked(3 * MAX_COLOURED_SHARE), True), (grey(), False)):
        samples = deep(image, scale, kind)
        # A hot pixel changes nothing.
        samples[7, 9] = 65535
        assert decode(raw_png(samples, kind, interlaced=interlaced)).coloured is coloured


@pytest.mark.parametrize("kind", [2, 6], ids=["RGB", "RGBA"])
def test_one_of_sixteen_bits_is_looked_at_in_strips(
    kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contract.png.STRIP_PIXELS", 20_000)
    for share, coloured in ((0.5, False), (3, True)):
        samples = deep(marked(share * MAX_COLOURED_SHARE), 257, kind)
        assert decode(raw_png(samples, kind)).coloured is coloured


def test_colour_of_sixteen_bits_that_is_transparent_is_not_seen() -> None:
    image = marked(0.05)
    samples = deep(image, 257, 6)
    samples[..., 3][np.any(np.asarray(image) != np.asarray(grey()), axis=-1)] = 0
    assert not decode(raw_png(samples, 6)).coloured
    absent = (np.array(ORANGE) * 257).astype(">u2").tobytes()
    assert not decode(raw_png(deep(image, 257, 2), 2, absent=absent)).coloured


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("brightness", [1, 0.5, 0.25, 0.15])
def test_a_dim_picture_is_measured_by_its_own_brightness(brightness: float, kind: str) -> None:
    """It is seen as bright as another."""
    drawn, tinted = marked(3 * MAX_COLOURED_SHARE), marked(0.2, (150, 120, 110))
    for image, coloured in ((drawn, True), (tinted, False)):
        dim = image.point([round(brightness * level) for level in range(256)] * 3)
        assert decode(encode(dim, kind)).coloured is coloured


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("distance", "coloured"), [(16, False), (17, True)])
def test_what_is_all_but_black_has_noise_and_no_colour(
    distance: int, coloured: bool, bits: int
) -> None:
    """However few bits its brightness needs."""
    samples = np.zeros((20, 20, 3), f"uint{bits}")
    samples[..., 0] = distance
    assert decode(raw_png(samples, 2)).coloured is coloured


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16"])
def test_what_has_no_colours(mode: str) -> None:
    assert not decode(encode(grey("L").convert(mode), "PNG")).coloured


def test_colour_that_is_transparent_is_not_seen() -> None:
    image = marked(0.05)
    seen = np.any(np.asarray(image) != np.asarray(grey()), axis=-1)
    image.putalpha(Image.fromarray(np.where(seen, 0, 255).astype(np.uint8)))
    assert not decode(encode(image, "PNG")).coloured


def test_cmyk() -> None:
    assert decode(encode(marked(0.05).convert("CMYK"), "JPEG")).coloured
    assert not decode(encode(grey("CMYK"), "JPEG")).coloured


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (90, 3000)], ids=str)
def test_of_any_shape(size: tuple[int, int]) -> None:
    assert decode(encode(Image.new("RGB", size, ORANGE), "PNG")).coloured
    assert decode(raw_png(deep(Image.new("RGB", size, ORANGE), 257, 2), 2)).coloured
    assert decode(encode(Image.new("RGB", size, ORANGE), "JPEG")).coloured
    assert not decode(encode(Image.new("RGB", size, (90, 90, 90)), "JPEG")).coloured


@pytest.mark.parametrize("is_marked", [False, True])
@each_jpeg
def test_the_slice_is_the_luma(is_marked: bool, options: dict[str, Any]) -> None:
    """As libjpeg itself has it, at the same reduced scale."""
    data = encode(marked(0.05) if is_marked else grey(), "JPEG", **options)
    image = Image.open(io.BytesIO(data))
    image.draft("L", (DEFAULT_SPEC.decode_min_side, DEFAULT_SPEC.decode_min_side))
    difference = np.asarray(image).astype(int) - decode(data).pixels
    assert np.abs(difference).max() <= (1 if "keep_rgb" in options else 0)


@pytest.mark.parametrize(
    ("components", "keep_rgb"), [(b"RGB", True), (bytes((1, 2, 3)), False), (b"YCC", False)]
)
def test_components_that_only_have_names(components: bytes, keep_rgb: bool) -> None:
    image = marked(0.05)
    data = unnamed(encode(image, "JPEG", quality=95, keep_rgb=keep_rgb), components)
    decoded = decode(data)
    assert decoded.coloured
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(opened.convert("L").reduce(2)).astype(int)
    assert np.abs(expected - decoded.pixels).mean() < 1
    assert not decode(
        unnamed(encode(grey(), "JPEG", quality=95, keep_rgb=keep_rgb), components)
    ).coloured
