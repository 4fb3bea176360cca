import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from contract.decoding import Media, decode, sniff
from contract.errors import (
    DecodeError,
    TooManyPixels,
    TruncatedImage,
    UndecodableImage,
    UnsupportedMedia,
)
from contract.policy import DEFAULT_MAX_PIXELS, Policy
from contract.preprocessing import DEFAULT_SPEC
from tests.contract.samples import (
    OBJECTS,
    SLICES,
    SYNTAXES,
    deep_slice,
    encode,
    grey_slice,
    mr_object,
    png_chunk,
    raw_png,
)
from tests.support.threads import at_once

GREY = grey_slice()
ROWS, COLUMNS = GREY.shape


def image(mode: str = "L") -> Image.Image:
    return Image.fromarray(GREY).convert(mode)


TURNS = {
    1: GREY,
    2: GREY[:, ::-1],
    3: GREY[::-1, ::-1],
    4: GREY[::-1],
    5: GREY.T,
    6: GREY.T[:, ::-1],
    7: GREY.T[::-1, ::-1],
    8: GREY.T[::-1],
}
"""The upright slice by the orientation that EXIF states."""


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def exif_of(*fields: tuple[int, int, int, bytes]) -> bytes:
    """EXIF data of fields, (tag, type, count, value)."""
    content = b"".join(struct.pack(">HHI", *head) + value for *head, value in fields)
    return b"Exif\0\0MM\0*" + struct.pack(">IH", 8, len(fields)) + content + bytes(4)


ORIENTATION = (0x0112, 3, 1, b"\0\x06\0\0")
MAKER = (0x010F, 2, 4, b"MRI\0")


def with_chunk(png: bytes, chunk: bytes, before: bytes) -> bytes:
    start = png.index(before) - 4
    return png[:start] + chunk + png[start:]


def as_it_lies(data: bytes, plain: bytes) -> bool:
    """Whether a picture is read as one is that says nothing of how it lies."""
    decoded, expected = decode(data), decode(plain)
    return decoded.original_size == expected.original_size and np.array_equal(
        decoded.pixels, expected.pixels
    )


def with_alpha(mode: str, alpha: int) -> Image.Image:
    """The slice with a strip of another transparency at its top."""
    result = image(mode)
    mask = Image.new("L", result.size, 255)
    mask.paste(alpha, (0, 0, COLUMNS, 20))
    result.putalpha(mask)
    return result


def difference(pixels: NDArray[np.uint8], expected: NDArray[Any] = GREY) -> int:
    assert pixels.shape == expected.shape
    assert pixels.dtype == np.uint8
    return int(np.abs(pixels.astype(int) - expected).max())


OTHERS = {
    "nothing": b"",
    "two-bytes": b"\xff\xd8",
    "start-of-png": b"\x89PNG",
    "zeros": bytes(1000),
    "dicm-without-preamble": b"DICM",
    "html": b"<html></html>",
    "pdf": b"%PDF-1.7",
    "zip": b"PK\x03\x04",
    **{kind.lower(): encode(image(), kind) for kind in ("GIF", "BMP", "TIFF", "WEBP")},
}
WHOLE = {
    "jpeg": encode(image(), "JPEG", quality=97),
    "progressive": encode(image("RGB"), "JPEG", progressive=True),
    "png": encode(image(), "PNG"),
    "dicom": OBJECTS[0].read_bytes(),
    "deflated": mr_object(GREY, SYNTAXES["deflated"]),
}


class TestPng:
    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
    def test_grey_in_any_mode_is_that_grey(self, mode: str) -> None:
        decoded = decode(encode(image(mode), "PNG"))
        assert difference(decoded.pixels) == 0
        assert decoded.original_size == (ROWS, COLUMNS)
        assert decoded.dicom is None

    def test_a_palette_is_looked_up(self) -> None:
        palette = Image.fromarray(255 - GREY)
        palette.putpalette([level for grey in range(256) for level in (255 - grey,) * 3])
        assert palette.mode == "P"
        assert difference(decode(encode(palette, "PNG")).pixels) == 0

    @pytest.mark.parametrize("mode", ["LA", "RGBA"])
    @pytest.mark.parametrize("alpha", [0, 128], ids=["transparent", "half-transparent"])
    def test_what_is_transparent_is_dark(self, mode: str, alpha: int) -> None:
        expected = GREY.astype(float)
        expected[:20] *= alpha / 255
        assert difference(decode(encode(with_alpha(mode, alpha), "PNG")).pixels, expected) <= 1

    def test_a_transparent_palette_entry_is_black(self) -> None:
        palette = image("L")
        palette.putpalette([level for grey in range(256) for level in (grey,) * 3])
        expected = np.where(GREY == 200, 0, GREY)
        decoded = decode(encode(palette, "PNG", transparency=200))
        assert difference(decoded.pixels, expected) == 0

    @pytest.mark.parametrize(("mode", "grey"), [("L", 200), ("RGB", (200, 200, 200))])
    def test_a_transparent_grey_is_black(self, mode: str, grey: int | tuple[int, ...]) -> None:
        decoded = decode(encode(image(mode), "PNG", transparency=grey))
        assert difference(decoded.pixels, np.where(GREY == 200, 0, GREY)) == 0

    @pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
    def test_a_transparent_grey_of_any_depth_is_black(self, bits: int) -> None:
        highest = 2**bits - 1
        levels = np.rint(GREY * (highest / 255)).astype(np.uint16)
        absent = round(200 * highest / 255)
        whole, decoded = (decode(grey_png(levels, bits, level)).pixels for level in (None, absent))
        assert 0 < np.count_nonzero(levels == absent) < levels.size
        assert difference(decoded, np.where(levels == absent, 0, whole)) == 0

    @pytest.mark.parametrize("bits", [2, 4])
    def test_of_a_transparent_grey_the_lowest_bits_count(self, bits: int) -> None:
        levels = (GREY >> (8 - bits)).astype(np.uint16)
        decoded = decode(grey_png(levels, bits, 0x101)).pixels
        assert not decoded[levels == 1].any()
        assert decoded[levels > 1].all()

    def test_one_bit_is_black_and_white(self) -> None:
        decoded = decode(encode(Image.fromarray(GREY > 100), "PNG"))
        assert difference(decoded.pixels, np.where(GREY > 100, 255, 0)) == 0

    @pytest.mark.parametrize("top", [65535, 4095, 255, 1], ids="max-{}".format)
    def test_sixteen_bits_are_scaled_by_their_range(self, top: int) -> None:
        values = np.rint(GREY * (top / 255)).astype(np.uint16)
        decoded = decode(encode(values, "PNG"))
        assert difference(decoded.pixels, own_range(values)) == 0

    @pytest.mark.parametrize("kind", [0, 2, 4, 6], ids=["L", "RGB", "LA", "RGBA"])
    def test_sixteen_bits_are_shown_as_of_dicom_without_a_window(self, kind: int) -> None:
        """A few hot pixels leave the tissue its grey levels."""
        values = deep_slice().copy()
        cool = decode(deep_png(values, kind)).pixels
        values[10, 10:20] = 65535
        hot = decode(deep_png(values, kind)).pixels
        assert np.abs(cool.astype(int) - hot)[20:].max() <= 3
        assert difference(hot, decode(mr_object(values)).pixels) == 0

    @pytest.mark.parametrize("share", [0.0001, 0.0009, 0.4], ids=str)
    @pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 65535), (7, 9)])
    def test_sixteen_bits_of_two_levels_are_black_and_white(
        self, low: int, high: int, share: float
    ) -> None:
        """A mask stays one, however few its pixels are."""
        values = np.full((100, 200), low, np.uint16)
        values.ravel()[: round(share * values.size)] = high
        expected = np.where(values == high, 255, 0)
        assert difference(decode(encode(values, "PNG")).pixels, expected) == 0

    @pytest.mark.parametrize("level", [0, 77, 65535])
    def test_sixteen_bits_of_one_level_are_black(self, level: int) -> None:
        assert not decode(encode(np.full((8, 8), level, np.uint16), "PNG")).pixels.any()

    @pytest.mark.parametrize("top", [65535, 4095], ids="max-{}".format)
    @pytest.mark.parametrize("interlaced", [False, True], ids=["plain", "interlaced"])
    @pytest.mark.parametrize("kind", [2, 4, 6], ids=["RGB", "LA", "RGBA"])
    def test_sixteen_bits_of_other_kinds_keep_them(
        self, kind: int, interlaced: bool, top: int
    ) -> None:
        """As those of grey do; 12 bits of which the high bytes alone are read have 16 levels."""
        values = np.rint(GREY * (top / 255)).astype(np.uint16)
        plain = decode(encode(values, "PNG")).pixels
        assert len(np.unique(plain)) > 100
        decoded = decode(deep_png(values, kind, interlaced=interlaced))
        assert difference(decoded.pixels, plain) == 0
        assert decoded.original_size == (ROWS, COLUMNS)

    @pytest.mark.parametrize("kind", [4, 6], ids=["LA", "RGBA"])
    def test_sixteen_bits_that_are_transparent(self, kind: int) -> None:
        samples = np.repeat(GREY[..., None] * np.uint16(16), 2 if kind == 4 else 4, axis=2)
        samples[..., -1] = 65535
        samples[:20, :, -1] = 1000
        expected = np.where(np.arange(ROWS)[:, None] < 20, GREY * (1000 / 65535), GREY)
        assert difference(decode(raw_png(samples, kind)).pixels, own_range(expected)) <= 1

    def test_sixteen_bits_of_which_one_colour_is_transparent(self) -> None:
        samples = np.repeat(GREY[..., None] * np.uint16(16), 3, axis=2)
        data = raw_png(samples, 2)
        start = data.index(b"IDAT") - 4
        colour = png_chunk(b"tRNS", np.full(3, 200 * 16, ">u2").tobytes())
        decoded = decode(data[:start] + colour + data[start:])
        assert difference(decoded.pixels, own_range(np.where(GREY == 200, 0, GREY))) <= 1

    def test_sixteen_bits_of_colour_become_brightness(self) -> None:
        colour = np.zeros((600, 6, 3), np.uint16)
        colour[:, :2, 0] = colour[:, 2:4, 1] = colour[:, 4:, 2] = 4000
        # 0.299, 0.587 and 0.114, the last of which is the darkest.
        expected = np.repeat([[100, 100, 255, 255, 0, 0]], 600, axis=0)
        assert difference(decode(raw_png(colour, 2)).pixels, expected) <= 1

    @pytest.mark.parametrize("share", [0.3, 0.9])
    @pytest.mark.parametrize("kind", [2, 4, 6], ids=["RGB", "LA", "RGBA"])
    def test_sixteen_bits_cut_short(self, kind: int, share: float) -> None:
        samples = np.repeat(GREY[..., None] * np.uint16(16), {2: 3, 4: 2, 6: 4}[kind], axis=2)
        data = raw_png(samples, kind)
        with pytest.raises(TruncatedImage):
            decode(data[: int(share * len(data))])

    def test_colour_becomes_brightness(self) -> None:
        colour = np.zeros((4, 6, 3), np.uint8)
        colour[:, :2], colour[:, 2:4], colour[:, 4:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
        expected = np.repeat([[76, 76, 150, 150, 29, 29]], 4, axis=0)
        assert difference(decode(encode(colour, "PNG")).pixels, expected) <= 1

    def test_interlaced(self) -> None:
        data = raw_png(GREY, interlaced=True)
        with Image.open(io.BytesIO(data)) as opened:
            assert opened.info.get("interlace") == 1
        assert difference(decode(data).pixels) == 0

    def test_animated_gives_its_first_frame(self) -> None:
        frames = [Image.fromarray(255 - GREY)]
        data = encode(image(), "PNG", save_all=True, append_images=frames, duration=100)
        assert b"acTL" in data
        assert difference(decode(data).pixels) == 0

    @pytest.mark.parametrize("side", [(1, 1), (1, 300), (300, 1)], ids=str)
    def test_the_smallest(self, side: tuple[int, int]) -> None:
        assert decode(encode(np.full(side, 7, np.uint8), "PNG")).pixels.shape == side

    @pytest.mark.parametrize("orientation", [3, 6])
    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1", "I;16"])
    def test_one_that_lies_on_its_side(self, mode: str, orientation: int) -> None:
        picture = image(mode)
        upright = decode(encode(picture, "PNG")).pixels
        decoded = decode(encode(picture, "PNG", exif=turned(orientation)))
        expected = upright[::-1, ::-1] if orientation == 3 else upright.T[:, ::-1]
        assert difference(decoded.pixels, expected) == 0
        assert decoded.original_size == expected.shape

    @pytest.mark.parametrize("mode", ["L", "RGB", "LA", "I;16"])
    def test_one_that_says_so_behind_its_pixels(self, mode: str) -> None:
        """Viewers show it as it lies: EXIF data stand before the pixels (PNG, third edition, 5.6)."""
        data = encode(image(mode), "PNG")
        exif = png_chunk(b"eXIf", exif_of(ORIENTATION).removeprefix(b"Exif\0\0"))
        assert not as_it_lies(with_chunk(data, exif, b"IDAT"), data)
        assert as_it_lies(with_chunk(data, exif, b"IEND"), data)

    def test_one_whose_text_has_the_name_of_exif(self) -> None:
        data = encode(image(), "PNG")
        text = png_chunk(b"iTXt", b"exif" + bytes(5) + exif_of(ORIENTATION))
        assert as_it_lies(with_chunk(data, text, b"IDAT"), data)


class TestJpeg:
    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}], ids=str)
    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_grey_and_colour(self, mode: str, options: dict[str, Any]) -> None:
        decoded = decode(encode(image(mode), "JPEG", quality=97, **options))
        assert difference(decoded.pixels) <= 8
        assert decoded.original_size == (ROWS, COLUMNS)

    def test_cmyk(self) -> None:
        decoded = decode(encode(image("CMYK"), "JPEG", quality=97))
        assert difference(decoded.pixels) <= 8

    @pytest.mark.parametrize("orientation", TURNS)
    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_the_camera_held_sideways(self, mode: str, orientation: int) -> None:
        """The slice is upright, and its size is that of the upright slice."""
        decoded = decode(encode(image(mode), "JPEG", quality=97, exif=turned(orientation)))
        assert difference(decoded.pixels, TURNS[orientation]) <= 8
        assert decoded.original_size == TURNS[orientation].shape

    @pytest.mark.parametrize("orientation", [3, 6])
    def test_one_held_sideways_and_nearly_square(self, orientation: int) -> None:
        """At half its scale it is a square."""
        large = Image.fromarray(GREY).resize((514, 513))
        decoded = decode(encode(large, "JPEG", exif=turned(orientation)))
        assert decoded.pixels.shape == (257, 257)
        assert decoded.original_size == ((514, 513) if orientation == 6 else (513, 514))

    @pytest.mark.parametrize(
        "exif",
        {
            "empty": b"Exif\0\0",
            "no TIFF": b"Exif\0\0garbage",
            "twice": b"Exif\0\0" + exif_of(ORIENTATION),
            "cut": exif_of(ORIENTATION)[:-8],
            "nowhere": b"Exif\0\0MM\0*\xff\xff\xff\xff",
            "letter": exif_of((0x0112, 2, 1, b"6\0\0\0")),
            "LONG": exif_of((0x0112, 4, 1, b"\0\0\0\x06")),
            "two": exif_of((0x0112, 3, 2, b"\0\x06\0\x06")),
            "unknown": exif_of((0x0112, 3, 1, b"\0\x09\0\0")),
        }.items(),
        ids=lambda case: case[0],
    )
    def test_an_orientation_that_is_not_stated_right_turns_nothing(
        self, exif: tuple[str, bytes]
    ) -> None:
        """In browsers neither."""
        assert as_it_lies(encode(image(), "JPEG", exif=exif[1]), encode(image(), "JPEG"))

    def test_the_first_of_two_orientations_counts(self) -> None:
        """As in browsers."""
        both = exif_of(ORIENTATION, (0x0112, 3, 1, b"\0\x03\0\0"))
        decoded = decode(encode(image(), "JPEG", quality=97, exif=both))
        assert difference(decoded.pixels, TURNS[6]) <= 8

    @pytest.mark.parametrize("fields", [[], [MAKER]], ids=["alone", "beside EXIF"])
    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    def test_an_orientation_of_xmp_turns_nothing(self, kind: str, fields: list[Any]) -> None:
        """Viewers do not look at it, also where EXIF data state none."""
        xmp = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="2"/>'
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp.decode())
        options = {"xmp": xmp} if kind == "JPEG" else {"pnginfo": text}
        data = encode(image(), kind, exif=exif_of(*fields) if fields else b"", **options)
        assert b"tiff:Orientation" in data
        assert as_it_lies(data, encode(image(), kind))

    def test_damaged_exif_warns_of_nothing(self) -> None:
        """It would go to standard error as it is."""
        data = encode(image(), "JPEG", exif=exif_of(MAKER, ORIENTATION)[:-20])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert as_it_lies(data, encode(image(), "JPEG"))
        assert [str(warning.message) for warning in caught] == []

    def test_bytes_after_the_end_are_ignored(self) -> None:
        data = encode(image(), "JPEG")
        assert (decode(data + b"\0" * 1000 + b"trailing").pixels == decode(data).pixels).all()

    @pytest.mark.parametrize(
        ("side", "reduced"), [(1100, 275), (1024, 256), (512, 256), (511, 511), (256, 256)]
    )
    def test_scale_is_reduced_but_not_below_the_spec(self, side: int, reduced: int) -> None:
        large = Image.fromarray(GREY).resize((side, side))
        decoded = decode(encode(large, "JPEG"))
        assert decoded.pixels.shape == (reduced, reduced)
        assert min(decoded.pixels.shape) >= min(DEFAULT_SPEC.decode_min_side, side)
        assert decoded.original_size == (side, side)

    @pytest.mark.parametrize("path", SLICES, ids=lambda path: path.stem)
    def test_a_real_slice(self, path: Any) -> None:
        decoded = decode(path.read_bytes())
        assert decoded.original_size == (512, 512)
        assert decoded.pixels.std() > 15


class TestMedia:
    @pytest.mark.parametrize(
        ("data", "media"),
        [
            (encode(image(), "JPEG"), Media.JPEG),
            (encode(image(), "PNG"), Media.PNG),
            (mr_object(GREY), Media.DICOM),
        ],
        ids=["jpeg", "png", "dicom"],
    )
    def test_is_told_by_content(self, data: bytes, media: Media) -> None:
        assert sniff(data) is media
        assert decode(data).pixels.shape == GREY.shape

    @pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS.keys())
    def test_others_are_unsupported(self, data: bytes) -> None:
        with pytest.raises(UnsupportedMedia):
            decode(data)

    @pytest.mark.parametrize("kind", ["jpeg", "png"])
    def test_one_format_cannot_pose_as_another(self, kind: str) -> None:
        """The first bytes are of one format, the rest of another."""
        start = {"jpeg": b"\xff\xd8\xff\xe0", "png": b"\x89PNG\r\n\x1a\n"}[kind]
        for other in ("GIF", "TIFF", "BMP"):
            with pytest.raises((TruncatedImage, UndecodableImage)):
                decode(start + encode(image(), other))


class TestDamage:
    @pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97])
    @pytest.mark.parametrize("kind", WHOLE)
    def test_a_file_cut_short(self, kind: str, share: float) -> None:
        data = WHOLE[kind]
        with pytest.raises((TruncatedImage, UndecodableImage)) as caught:
            decode(data[: max(150, int(share * len(data)))])
        if share >= 0.5:
            assert isinstance(caught.value, TruncatedImage)

    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    def test_any_cut_gives_an_error_or_the_image(self, kind: str) -> None:
        data = encode(image(), kind)
        for length in range(len(data)):
            try:
                decoded = decode(data[:length])
            except DecodeError:
                continue
            assert length > len(data) - 25, "only marks after the last pixel may be missing"
            assert difference(decoded.pixels) <= 40

    def test_a_wrong_checksum_in_the_header(self) -> None:
        data = bytearray(encode(image(), "PNG"))
        data[16 + 3] ^= 0xFF
        with pytest.raises(UndecodableImage):
            decode(bytes(data))

    def test_a_damaged_compressed_stream(self) -> None:
        data = bytearray(encode(image(), "PNG"))
        start = data.index(b"IDAT") + 200
        data[start : start + 50] = bytes(50)
        with pytest.raises(UndecodableImage):
            decode(bytes(data))

    def test_a_chunk_of_an_impossible_length(self) -> None:
        """A length past the end does no harm as long as the compressed pixels are whole."""
        data = encode(image(), "PNG")
        start = data.index(b"IDAT") - 4
        lying = data[:start] + b"\x7f\xff\xff\xff" + data[start + 4 :]
        assert difference(decode(lying).pixels) == 0
        with pytest.raises((TruncatedImage, UndecodableImage)):
            decode(lying[: len(lying) // 2])

    def test_a_header_without_pixels(self) -> None:
        header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", COLUMNS, ROWS, 8, 0, 0, 0, 0))
        with pytest.raises((TruncatedImage, UndecodableImage)):
            decode(b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IEND", b""))

    @pytest.mark.parametrize("size", [(0, 10), (10, 0)], ids=str)
    def test_an_image_without_pixels(self, size: tuple[int, int]) -> None:
        header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))
        data = header + png_chunk(b"IDAT", zlib.compress(bytes(100))) + png_chunk(b"IEND", b"")
        with pytest.raises(UndecodableImage):
            decode(b"\x89PNG\r\n\x1a\n" + data)

    def test_the_message_says_nothing_of_the_content(self) -> None:
        data = encode(image(), "JPEG", comment=b"DOE^JANE")
        with pytest.raises(DecodeError) as caught:
            decode(data[: len(data) // 2])
        assert "DOE" not in caught.value.detail


class TestBombs:
    @pytest.mark.parametrize("side", [6_400, 10_000, 30_000, 2**31 - 1], ids="side-{}".format)
    def test_a_small_png_of_a_huge_size(self, side: int) -> None:
        header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        pixels = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
        with pytest.raises(TooManyPixels):
            decode(b"\x89PNG\r\n\x1a\n" + header + pixels + png_chunk(b"IEND", b""))

    @pytest.mark.parametrize("side", [6_400, 10_000, 65_500], ids="side-{}".format)
    def test_a_small_jpeg_of_a_huge_size(self, side: int) -> None:
        data = bytearray(encode(image(), "JPEG"))
        start = data.index(b"\xff\xc0") + 5
        data[start : start + 4] = struct.pack(">HH", side, side)
        with pytest.raises(TooManyPixels):
            decode(bytes(data))

    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    def test_the_limit_is_exact(self, kind: str) -> None:
        data = encode(image(), kind)
        assert decode(data, policy=Policy(max_pixels=ROWS * COLUMNS)).original_size == (
            ROWS,
            COLUMNS,
        )
        with pytest.raises(TooManyPixels) as caught:
            decode(data, policy=Policy(max_pixels=ROWS * COLUMNS - 1))
        assert caught.value.status == 413

    def test_the_default_limit_is_below_pillows_own(self) -> None:
        """Otherwise Pillow would warn, or refuse, first."""
        assert Image.MAX_IMAGE_PIXELS is not None
        assert DEFAULT_MAX_PIXELS < Image.MAX_IMAGE_PIXELS

    @pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"], ids=bytes.decode)
    def test_a_bomb_in_a_text_chunk(self, kind: bytes) -> None:
        data = encode(image(), "PNG")
        bomb = png_chunk(kind, b"name\0\0" + zlib.compress(bytes(64 * 2**20)))
        end_of_header = data.index(b"IHDR") + 21
        try:
            decoded = decode(data[:end_of_header] + bomb + data[end_of_header:])
        except UndecodableImage:
            return
        assert difference(decoded.pixels) == 0


def test_many_threads_decode_at_once() -> None:
    expected = [decode(path.read_bytes()).pixels for path in (*SLICES, *OBJECTS)]

    def run() -> list[bool]:
        return [
            np.array_equal(decode(path.read_bytes()).pixels, pixels)
            for path, pixels in zip((*SLICES, *OBJECTS), expected, strict=True)
        ]

    assert at_once(*[run] * 6) == [[True] * len(expected)] * 6


def own_range(values: NDArray[Any]) -> NDArray[np.float64]:
    """Grey levels of values from one in a thousand to all but one in a thousand."""
    low, high = np.quantile(values, [0.001, 0.999], method="inverted_cdf").astype(float)
    return np.asarray(np.rint(np.clip((values - low) / (high - low), 0, 1) * 255))


def deep_png(values: NDArray[np.uint16], kind: int, *, interlaced: bool = False) -> bytes:
    """Grey values as a PNG of any colour type, opaque where it has transparency."""
    samples = np.full((*values.shape, {0: 1, 2: 3, 4: 2, 6: 4}[kind]), 65535, np.uint16)
    samples[..., : 1 if kind in {0, 4} else 3] = values[..., None]
    return raw_png(samples, kind, interlaced=interlaced)


def grey_png(levels: NDArray[np.uint16], bits: int, absent: int | None = None) -> bytes:
    """A grey PNG of 1 to 16 bits, with a level that stands for transparency."""
    rows, columns = levels.shape
    as_bits = levels[..., None] >> np.arange(bits - 1, -1, -1, dtype=np.uint16) & 1
    packed = np.packbits(as_bits.astype(np.uint8).reshape(rows, -1), axis=1)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", columns, rows, bits, 0, 0, 0, 0),
        b"tRNS": b"" if absent is None else struct.pack(">H", absent),
        b"IDAT": zlib.compress(b"".join(b"\0" + line.tobytes() for line in packed)),
    }
    content = b"".join(png_chunk(kind, chunk) for kind, chunk in chunks.items() if chunk)
    return b"\x89PNG\r\n\x1a\n" + content + png_chunk(b"IEND", b"")
