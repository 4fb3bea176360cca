"""Stored values become grey levels: rescale, windows, tables and padding."""

import io
import math
import re
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels import apply_windowing
from pydicom.uid import ExplicitVRBigEndian

from contract.errors import DecodeError, UndecodableImage, UnsupportedPixels
from contract.greyscale import window
from tests.contract.rendering import decoded, difference, linear
from tests.contract.samples import (
    RANGE,
    SYNTAXES,
    deep_slice,
    grey_slice,
    mr_frames,
    mr_object,
    write,
)

GREY = grey_slice()
DEEP = deep_slice()


class TestGreyscale:
    @pytest.mark.parametrize(
        ("center", "width"),
        [(128, 256), (100, 50), (0, 400), (200.5, 33.25), (50, 2), (128, 1)],
        ids=str,
    )
    def test_linear_window(self, center: float, width: float) -> None:
        attributes = {"WindowCenter": center, "WindowWidth": width}
        result = decoded(mr_object(GREY, attributes=attributes))
        assert difference(result.pixels, np.rint(linear_or_step(GREY, center, width))) <= 1

    def test_a_window_against_values_from_the_standard(self) -> None:
        """PS3.3 C.11.2.1.2.1: c=2048, w=4096 maps 0 to 4095 onto the whole range; and its Note 2."""
        values = np.array([0.0, 1.0, 2047.0, 2048.0, 4094.0, 4095.0])
        shares = window(values, 2048, 4096)
        assert shares is not None
        assert np.allclose(shares * 4095, values)
        exact = window(values, 2048, 4096, "LINEAR_EXACT")
        assert exact is not None
        assert np.allclose(exact * 4096, values)

    def test_sigmoid_against_values_by_hand(self) -> None:
        shares = window(np.array([100.0, 150.0, 50.0, 1e9, -1e9]), 100, 100, "SIGMOID")
        assert shares is not None
        expected = [0.5, 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2)), 1, 0]
        assert np.allclose(shares, expected)

    @pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
    @pytest.mark.parametrize(("center", "width"), [(100, 80), (300, 700), (-20.5, 3.5)], ids=str)
    def test_windows_are_those_of_pydicom(self, function: str, center: float, width: float) -> None:
        values = np.arange(-100, 1000)
        dataset = Dataset()
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsStored, dataset.PixelRepresentation = 12, 0
        dataset.WindowCenter, dataset.WindowWidth = center, width
        dataset.VOILUTFunction = function
        shares = window(values.astype(float), center, width, function)
        assert shares is not None
        assert np.abs(shares - apply_windowing(values, dataset) / 4095).max() < 1e-9

    @pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
    def test_the_function_of_the_object_is_used(self, function: str) -> None:
        attributes = {"WindowCenter": 90, "WindowWidth": 60, "VOILUTFunction": function}
        shares = window(GREY.astype(float), 90, 60, function)
        assert shares is not None
        result = decoded(mr_object(GREY, attributes=attributes))
        assert difference(result.pixels, np.rint(255 * shares)) == 0

    def test_the_first_of_several_windows(self) -> None:
        attributes = {"WindowCenter": [100, 20], "WindowWidth": [50, 10]}
        result = decoded(mr_object(GREY, attributes=attributes))
        assert difference(result.pixels, linear(GREY, 100, 50)) <= 1

    @pytest.mark.parametrize(
        "attributes",
        [
            {},
            {"WindowCenter": 100},
            {"WindowCenter": None, "WindowWidth": None},
            {"WindowCenter": 100, "WindowWidth": 0},
            {"WindowCenter": 100, "WindowWidth": -5},
            {"WindowCenter": 90_000, "WindowWidth": 10},
            {"WindowCenter": -90_000, "WindowWidth": 10},
            {"VOILUTFunction": "SIGMOID"},
        ],
        ids=str,
    )
    def test_without_a_window_that_shows_anything_its_own_range(
        self, attributes: dict[str, Any]
    ) -> None:
        values = GREY // 2 + 17
        data = mr_object(values, attributes={k: v for k, v in attributes.items() if v is not None})
        low, high = np.quantile(values, [0.001, 0.999], method="inverted_cdf")
        expected = np.clip((values - float(low)) / (float(high) - float(low)), 0, 1) * 255
        assert difference(decoded(data).pixels, expected) <= 1

    def test_hot_pixels_leave_the_tissue_its_grey_levels(self) -> None:
        values = DEEP.copy()
        values[10, 10:20] = 65535
        cool, hot = decoded(mr_object(DEEP)).pixels, decoded(mr_object(values)).pixels
        assert np.abs(cool.astype(int) - hot)[20:].max() <= 3

    @pytest.mark.parametrize("level", [0, 77, 255])
    def test_a_flat_slice_is_black(self, level: int) -> None:
        assert not decoded(mr_object(np.full((8, 8), level, np.uint8))).pixels.any()

    def test_monochrome1_is_inverted(self) -> None:
        attributes = RANGE | {"PhotometricInterpretation": "MONOCHROME1"}
        result = decoded(mr_object(255 - GREY, attributes=attributes))
        assert difference(result.pixels, GREY) <= 1

    def test_monochrome1_without_a_window(self) -> None:
        attributes = {"PhotometricInterpretation": "MONOCHROME1"}
        inverted = decoded(mr_object(255 - GREY, attributes=attributes))
        assert difference(inverted.pixels, decoded(mr_object(GREY)).pixels) <= 1

    @pytest.mark.parametrize("window", [RANGE, {}], ids=["window", "own range"])
    @pytest.mark.parametrize("frames", ["classic", "multi-frame"])
    @pytest.mark.parametrize(
        ("photometric", "shape", "inverted"),
        [
            ("MONOCHROME2", "INVERSE", True),
            ("MONOCHROME2", "IDENTITY", False),
            ("MONOCHROME2", "", False),
            # A pair that means one inversion, not two.
            ("MONOCHROME1", "INVERSE", True),
            ("MONOCHROME1", "IDENTITY", True),
        ],
    )
    def test_presentation_lut_shape(
        self, photometric: str, shape: str, inverted: bool, frames: str, window: dict[str, int]
    ) -> None:
        attributes: dict[str, Any] = {"PhotometricInterpretation": photometric, **window}
        attributes["PresentationLUTShape"] = shape
        count = 1 if frames == "classic" else 2
        result = decoded(mr_frames([GREY] * count, attributes=attributes))
        plain = decoded(mr_object(GREY, attributes=window)).pixels
        assert difference(result.pixels, 255 - plain if inverted else plain) <= 1

    def test_presentation_lut_shape_leaves_colour_alone(self) -> None:
        colours = np.stack([GREY] * 3, axis=-1)
        result = decoded(mr_object(colours, attributes={"PresentationLUTShape": "INVERSE"}))
        assert difference(result.pixels, GREY) <= 1

    @pytest.mark.parametrize(
        ("slope", "intercept"), [(2, 0), (0.5, 10), (0.001, -1), (1, 1000), (-1, 255)], ids=str
    )
    def test_rescale_comes_before_the_window(self, slope: float, intercept: float) -> None:
        values = GREY.astype(float) * slope + intercept
        center, width = float(values.mean()), float(np.ptp(values))
        attributes: dict[str, Any] = {"RescaleSlope": slope, "RescaleIntercept": intercept}
        attributes |= {"WindowCenter": center, "WindowWidth": width}
        attributes["VOILUTFunction"] = "LINEAR_EXACT"
        result = decoded(mr_object(GREY, attributes=attributes))
        expected = np.clip((values - center) / width + 0.5, 0, 1) * 255
        assert difference(result.pixels, expected) <= 1

    def test_a_modality_table(self) -> None:
        table = np.arange(255, -1, -1, dtype=np.uint16) * 16
        item = lookup_table(table, 16)
        item.ModalityLUTType = "US"
        attributes = {"ModalityLUTSequence": [item], "WindowCenter": 2048, "WindowWidth": 4096}
        result = decoded(mr_object(GREY, attributes=attributes))
        assert difference(result.pixels, linear(table[GREY], 2048, 4096)) <= 1

    @pytest.mark.parametrize("stated_bits", [12, 16])
    def test_a_voi_table_wins_over_the_window(self, stated_bits: int) -> None:
        table = (4095 * (np.arange(256) / 255) ** 0.5).astype(np.uint16)
        attributes = {"VOILUTSequence": [lookup_table(table, stated_bits)]} | RANGE
        result = decoded(mr_object(GREY, attributes=attributes))
        assert difference(result.pixels, table[GREY] / 4095 * 255) <= 1

    @pytest.mark.parametrize("sequence", ["ModalityLUTSequence", "VOILUTSequence"])
    @pytest.mark.parametrize("stored", ["US", "OW", "packed US", "packed OW"])
    @pytest.mark.parametrize("syntax", ["explicit", "implicit", "big-endian", "deflated"])
    def test_a_table_of_8_bits_for_values_of_more(
        self, sequence: str, stored: str, syntax: str
    ) -> None:
        table = (255 * (np.arange(4096) / 4095) ** 0.5).astype(np.uint16)
        is_big_endian = SYNTAXES[syntax] == ExplicitVRBigEndian
        item = lookup_table(table, 8, stored, ">" if is_big_endian else "<")
        attributes: dict[str, Any] = {sequence: [item]}
        if sequence == "ModalityLUTSequence":
            item.ModalityLUTType = "US"
            attributes |= RANGE
        values = (DEEP >> 4).astype(np.uint16)
        result = decoded(mr_object(values, SYNTAXES[syntax], attributes=attributes))
        assert difference(result.pixels, table[values]) <= 1

    @pytest.mark.parametrize("bits", [9, 12, 16])
    def test_values_beyond_a_table_have_its_ends(self, bits: int) -> None:
        table = np.linspace(0, 2**bits - 1, 100).astype(np.uint16)
        item = lookup_table(table, bits)
        item.LUTDescriptor = [len(table), 80, bits]
        result = decoded(mr_object(GREY, attributes={"VOILUTSequence": [item]}))
        expected = table[np.clip(GREY.astype(int) - 80, 0, 99)] / (2**bits - 1) * 255
        assert difference(result.pixels, expected) <= 1

    @pytest.mark.parametrize("stated", [("SS", -2000), ("US", 63536)], ids=str)
    @pytest.mark.parametrize("syntax", ["explicit", "implicit", "big-endian", "deflated"])
    def test_a_voi_table_from_a_negative_value_on(
        self, syntax: str, stated: tuple[str, int]
    ) -> None:
        """Its values are those after the rescale, which decides, and not the pixels, on their sign."""
        table = np.minimum(np.arange(4096) * 54, 65535).astype(np.uint16)
        item = lookup_table(table, 16)
        item.add_new("LUTDescriptor", stated[0], [4096, stated[1], 16])
        attributes = {"RescaleSlope": 1, "RescaleIntercept": -2000, "VOILUTSequence": [item]}
        values = (DEEP >> 4).astype(np.uint16)
        data = mr_object(values, SYNTAXES[syntax], bits_stored=12, attributes=attributes)
        assert difference(decoded(data).pixels, table[values] / 65535 * 255) <= 1

    @pytest.mark.parametrize("first", [40_000, 65_535])
    def test_a_voi_table_from_a_large_value_on(self, first: int) -> None:
        """Of values that are never negative, as signed pixels are after such a rescale."""
        table = np.arange(0, 65536, 257, dtype=np.uint16)
        item = lookup_table(table, 16)
        item.LUTDescriptor = [256, first, 16]
        attributes = {"RescaleSlope": 1, "RescaleIntercept": first, "VOILUTSequence": [item]}
        values = (GREY // 2).astype(np.int16)
        data = mr_object(values, attributes=attributes)
        assert difference(decoded(data).pixels, values) <= 1

    def test_a_dark_slice_is_dark_by_a_table(self) -> None:
        table = np.arange(0, 65536, 257, dtype=np.uint16)
        attributes = {"VOILUTSequence": [lookup_table(table, 16)]}
        bright, dark = (
            decoded(mr_object(values, attributes=attributes)) for values in (GREY, GREY // 8)
        )
        assert difference(bright.pixels, GREY) <= 1
        assert difference(dark.pixels, GREY // 8) <= 1

    def test_a_table_that_is_too_short(self) -> None:
        item = lookup_table(np.arange(256, dtype=np.uint16), 16)
        item.LUTDescriptor = [600, 0, 16]
        with pytest.raises(DecodeError, match="shorter than it states"):
            decoded(mr_object(GREY, attributes={"VOILUTSequence": [item]}))

    @pytest.mark.parametrize("limit", [None, -1990], ids=["one-value", "range"])
    def test_padding_is_black_and_not_in_the_range(self, limit: int | None) -> None:
        values = GREY.astype(np.int16)
        values[:10] = -2000
        attributes: dict[str, Any] = {"PixelPaddingValue": -2000}
        if limit is not None:
            values[3:6] = limit
            attributes["PixelPaddingRangeLimit"] = limit
        pixels = decoded(mr_object(values, attributes=attributes)).pixels
        assert not pixels[:10].any()
        alone = decoded(mr_object(GREY[10:].astype(np.int16))).pixels
        assert difference(pixels[10:], alone) <= 1

    @pytest.mark.parametrize("syntax", ["explicit", "implicit", "big-endian", "rle"])
    @pytest.mark.parametrize(
        ("dtype", "bits", "stated", "padding"),
        [
            ("u2", 16, ("SS", -1), 65535),
            ("u2", 16, ("US", 65535), 65535),
            ("i2", 16, ("US", 63536), -2000),
            ("i2", 16, ("SS", -2000), -2000),
            ("i2", 12, ("US", 2048), -2048),
            ("i2", 12, ("US", 63488), -2048),
            ("u1", 8, ("SS", -1), 255),
        ],
        ids=str,
    )
    def test_padding_is_that_of_the_pixels_whatever_type_states_it(
        self, dtype: str, bits: int, stated: tuple[str, int], padding: int, syntax: str
    ) -> None:
        values = (GREY // 2).astype(dtype)
        alone = decoded(mr_object(values[10:])).pixels
        values[:10] = padding
        data = mr_object(values, SYNTAXES[syntax], bits_stored=bits)
        pixels = decoded(with_values(data, {"PixelPaddingValue": stated})).pixels
        assert not pixels[:10].any()
        assert difference(pixels[10:], alone) <= 1

    @pytest.mark.parametrize(
        ("bits", "padding", "limit", "dark"),
        [
            (16, ("SS", -1), ("SS", -536), {65000: True, 65535: True, 64999: False}),
            (16, ("US", 65000), ("US", 65535), {65000: True, 65535: True, 64999: False}),
            # From below what the pixels can have: not from the other end of their range.
            (16, ("SS", -10), ("SS", 5), {5: True, 0: True, 400: False, 65530: False}),
            # No sign of 12 bits: it stands for no pixel, least of all for 0.
            (12, ("SS", -4096), None, {4000: False}),
            # Nor does it for the brightest tissue, whatever type states it.
            (12, ("SS", -1), None, {4095: False}),
            (12, ("US", 65535), None, {4095: False}),
            (12, ("US", 63536), None, {2096: False}),
            (12, ("SS", -2000), ("SS", -1000), {2096: False, 3000: False, 3096: False}),
            (12, ("US", 65526), ("US", 5), {5: True, 0: True, 400: False, 4090: False}),
            (8, ("SS", -1), None, {255: False}),
        ],
        ids=str,
    )
    def test_a_padding_of_another_sign(
        self,
        bits: int,
        padding: tuple[str, int],
        limit: tuple[str, int] | None,
        dark: dict[int, bool],
    ) -> None:
        values = np.full((40, 20), 300, np.uint16)
        values[20:] = 100
        for row, value in enumerate(dark):
            values[row] = value
        stated = {"PixelPaddingValue": padding}
        if limit is not None:
            stated["PixelPaddingRangeLimit"] = limit
        window = {"WindowCenter": 0, "WindowWidth": 2}
        data = mr_object(values, bits_stored=bits, attributes=window | {"RescaleIntercept": 1})
        pixels = decoded(with_values(data, stated)).pixels
        found = {value: not pixels[row].any() for row, value in enumerate(dark)}
        assert found == dark

    def test_nothing_but_padding_is_black(self) -> None:
        data = mr_object(np.full((8, 8), 9, np.uint8), attributes={"PixelPaddingValue": 9})
        assert not decoded(data).pixels.any()

    @pytest.mark.parametrize(
        ("presentation", "drawn", "refused"),
        [
            ("COLOR", True, True),
            ("COLOR", False, False),
            ("MIXED", True, True),
            ("MONOCHROME", True, False),
            (None, True, False),
        ],
        ids=str,
    )
    def test_colours_over_the_grey_levels(
        self, presentation: str | None, drawn: bool, refused: bool
    ) -> None:
        """A supplemental palette (PS3.3 C.7.6.19): what is under the colours, nobody knows."""
        values = GREY.astype(np.uint16)
        if drawn:
            values[30:40, 30:40] = 40_000
        attributes: dict[str, Any] = {"PixelPresentation": presentation, **RANGE}
        for colour in ("Red", "Green", "Blue"):
            attributes[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 40_000, 16]
            table = (np.arange(256) * 257).astype("<u2").tobytes()
            attributes[f"{colour}PaletteColorLookupTableData"] = table
        data = mr_object(values, attributes=attributes)
        with pytest.raises(UnsupportedPixels) if refused else nullcontext():
            assert decoded(data).pixels.shape == GREY.shape

    @pytest.mark.parametrize("value", ["nan", "inf", "1e999"])
    def test_a_rescale_that_is_no_number(self, value: str) -> None:
        data = mr_object(GREY, attributes={"RescaleSlope": 1.25, "RescaleIntercept": 0})
        data = data.replace(b"DS\x04\x001.25", b"DS" + bytes([6, 0]) + value.encode().ljust(6))
        with pytest.raises(UndecodableImage, match="impossible rescale"):
            decoded(data)

    @pytest.mark.parametrize(
        ("slope", "intercept", "expected"),
        [("", "", (1, 0)), ("2", "", (2, 0)), ("", "30", (1, 30)), (None, "30", (1, 30))],
        ids=str,
    )
    def test_a_rescale_that_is_empty_changes_nothing(
        self, slope: str | None, intercept: str, expected: tuple[int, int]
    ) -> None:
        attributes = {"RescaleSlope": slope, "RescaleIntercept": intercept}
        result = decoded(mr_object(GREY, attributes=RANGE | attributes))
        values = GREY.astype(float) * expected[0] + expected[1]
        assert difference(result.pixels, linear(values, 128, 256)) <= 1

    @pytest.mark.parametrize("slope", ["0", "0.0", "-0"])
    def test_a_slope_of_0_is_refused(self, slope: str) -> None:
        attributes = {"RescaleSlope": slope, "RescaleIntercept": "7"}
        with pytest.raises(UndecodableImage, match="Rescale Slope of 0"):
            decoded(mr_object(GREY, attributes=attributes))

    @pytest.mark.parametrize(
        "keyword",
        ["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "PixelSpacing"],
    )
    def test_a_decimal_comma_is_refused_wherever_it_is(self, keyword: str) -> None:
        values = [1.25, 1.25] if keyword == "PixelSpacing" else 1.25
        data = mr_object(GREY, attributes=RANGE | {keyword: values}).replace(b"1.25", b"1,25")
        with pytest.raises(UndecodableImage, match=f"a {spaced(keyword)} that is no number"):
            decoded(data)


def with_values(data: bytes, stated: Mapping[str, tuple[str, int]]) -> bytes:
    """An object with attributes of given types, whichever its Pixel Representation asks for."""
    dataset = dcmread(io.BytesIO(data))
    for keyword, (vr, value) in stated.items():
        dataset.add_new(keyword, vr, value)
    return write(dataset, dataset.file_meta.TransferSyntaxUID)


def spaced(keyword: str) -> str:
    """The name of an attribute of two words."""
    return re.sub("(?<=[a-z])(?=[A-Z])", " ", keyword)


def linear_or_step(values: NDArray[Any], center: float, width: float) -> NDArray[np.float64]:
    if width > 1:
        return linear(values, center, width)
    return np.where(values > center - 0.5, 255.0, 0.0)


def lookup_table(
    table: NDArray[np.uint16], bits: int, stored: str = "US", order: str = "<"
) -> Dataset:
    """An item of a LUT sequence.

    Args:
        table: the entries.
        bits: that it states.
        stored: the VR of its data, and ``packed`` for two entries of 8 bits in a word.
        order: ``<`` or ``>``, of the words in the file.
    """
    words = table if "packed" not in stored else table.astype(np.uint8).view("<u2")
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(table), 0, bits])
    if "OW" in stored:
        item.add_new("LUTData", "OW", words.astype(f"{order}u2").tobytes())
    else:
        item.add_new("LUTData", "US", words.tolist())
    return item
