import io
import logging
import math
import threading
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_windowing
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    MRSpectroscopyStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from contract.decoding import DEFAULT_MAX_PIXELS, decode
from contract.dicom import MAX_ITEMS, decode_dicom
from contract.dicom_pixels import jpeg2000_size, jpeg_size
from contract.errors import (
    DecodeError,
    MultiFrame,
    NoPixelData,
    NotMr,
    TooManyPixels,
    TruncatedImage,
    UndecodableImage,
    UnsupportedPixels,
    UnsupportedTransferSyntax,
)
from contract.greyscale import window
from contract.preprocessing import Slice
from tests.contract.samples import (
    DATA,
    OBJECTS,
    SYNTAXES,
    deep_slice,
    encode,
    grey_slice,
    mr_object,
    write,
)

GREY = grey_slice()
DEEP = deep_slice()
RANGE = {"WindowCenter": 128, "WindowWidth": 256}
"""A window that leaves 8-bit values as they are."""

SHIPPED = sorted(
    path
    for path in (Path(pydicom.__file__).parent / "data" / "test_files").rglob("*")
    if path.is_file() and path.read_bytes()[128:132] == b"DICM"
)
"""What comes with pydicom itself; the rest of its test data would have to be downloaded."""

MR_SMALL = {path.stem for path in SHIPPED if path.stem.startswith("MR_small")}


def decoded(data: bytes, **options: Any) -> Slice:
    return decode_dicom(data, DEFAULT_MAX_PIXELS, **options)


def difference(pixels: NDArray[np.uint8], expected: NDArray[Any]) -> float:
    assert pixels.shape == expected.shape
    assert pixels.dtype == np.uint8
    return float(np.abs(pixels.astype(float) - expected).max())


def linear(values: NDArray[Any], center: float, width: float) -> NDArray[np.float64]:
    """PS3.3 C.11.2.1.2.1, word for word, one value at a time."""

    def one(x: float) -> float:
        if x <= center - 0.5 - (width - 1) / 2:
            return 0.0
        if x > center - 0.5 + (width - 1) / 2:
            return 255.0
        return ((x - (center - 0.5)) / (width - 1) + 0.5) * 255

    return np.asarray(np.vectorize(one, otypes=[np.float64])(values))


class TestRealObjects:
    def test_siemens_with_a_window(self) -> None:
        path = DATA / "dicom" / "siemens_mprage_sagittal_0096.dcm"
        result = decode(path.read_bytes())
        assert result.original_size == (256, 256)
        assert difference(result.pixels, linear(DEEP, 277, 617)) <= 1
        assert result.dicom is not None
        assert result.dicom.sop_instance_uid == str(dcmread(path).SOPInstanceUID)
        assert result.dicom.series_instance_uid == str(dcmread(path).SeriesInstanceUID)
        assert result.dicom.frame == 1
        assert result.dicom.pixel_spacing_mm == (0.859375, 0.859375)

    def test_without_a_window_and_not_square(self) -> None:
        path = DATA / "dicom" / "axial_t1_defaced_0220.dcm"
        result = decode(path.read_bytes())
        assert result.original_size == (384, 274)
        assert result.pixels.shape == (384, round(274 * 0.699987828731537 / 0.666666686534882))
        values = dcmread(path).pixel_array.astype(float)
        expected = np.clip(values / np.quantile(values, 0.999) * 255, 0, 255).astype(np.uint8)
        square = np.asarray(Image.fromarray(expected).resize((288, 384), Image.Resampling.BILINEAR))
        assert difference(result.pixels, square) <= 2

    @pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.stem)
    def test_the_background_is_dark_and_the_head_is_not(self, path: Path) -> None:
        pixels = decode(path.read_bytes()).pixels
        assert np.median(pixels[:8, :8]) < 20
        assert np.percentile(pixels, 90) > 80


class TestShippedObjects:
    @pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
    @pytest.mark.parametrize("any_modality", [False, True], ids=["mr", "any"])
    def test_gives_a_slice_or_says_why_not(self, path: Path, any_modality: bool) -> None:
        outcome: Slice | DecodeError
        try:
            outcome = decoded(path.read_bytes(), any_modality=any_modality)
        except DecodeError as error:
            outcome = error
        if isinstance(outcome, DecodeError):
            assert type(outcome) is not DecodeError
        else:
            assert outcome.pixels.dtype == np.uint8
            assert outcome.pixels.ndim == 2
            assert outcome.pixels.flags.c_contiguous

    def test_there_are_many(self) -> None:
        assert len(SHIPPED) > 60
        assert len(MR_SMALL) >= 7

    @pytest.mark.parametrize("stem", sorted(MR_SMALL - {"MR_small_jpeg_ls_lossless"}))
    def test_one_mr_slice_in_every_syntax_gives_the_same_pixels(self, stem: str) -> None:
        folder = Path(pydicom.__file__).parent / "data" / "test_files"
        reference = decoded((folder / "MR_small.dcm").read_bytes()).pixels
        assert difference(decoded((folder / f"{stem}.dcm").read_bytes()).pixels, reference) == 0

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("CT_small.dcm", NotMr),
            ("rtplan.dcm", NotMr),
            ("test-SR.dcm", NotMr),
            ("waveform_ecg.dcm", NotMr),
            ("SC_rgb_rle.dcm", NotMr),
            ("MR_small_jpeg_ls_lossless.dcm", UnsupportedTransferSyntax),
            ("MR_truncated.dcm", TruncatedImage),
            ("rtplan_truncated.dcm", TruncatedImage),
        ],
    )
    def test_the_error_is_the_right_one(self, name: str, error: type[DecodeError]) -> None:
        path = next(path for path in SHIPPED if path.name == name)
        with pytest.raises(error):
            decoded(path.read_bytes())

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("rtplan.dcm", NoPixelData),
            ("test-SR.dcm", NoPixelData),
            ("SC_rgb_rle_2frame.dcm", MultiFrame),
            ("rtdose.dcm", MultiFrame),
            ("rtdose_1frame.dcm", UnsupportedPixels),
            ("JPGExtended.dcm", UnsupportedTransferSyntax),
        ],
    )
    def test_the_error_is_the_right_one_of_any_modality(
        self, name: str, error: type[DecodeError]
    ) -> None:
        path = next(path for path in SHIPPED if path.name == name)
        with pytest.raises(error):
            decoded(path.read_bytes(), any_modality=True)

    @pytest.mark.parametrize(
        "name",
        [
            "SC_rgb_rle.dcm",
            "SC_rgb_rle_16bit.dcm",
            "SC_rgb_gdcm_KY.dcm",
            "SC_rgb_dcmtk_+eb+cr.dcm",
            "SC_rgb_dcmtk_+eb+cy+np.dcm",
            "SC_ybr_full_422_uncompressed.dcm",
        ],
    )
    def test_one_test_chart_in_every_colour_space_gives_one_brightness(self, name: str) -> None:
        path = next(path for path in SHIPPED if path.name == name)
        pixels = decoded(path.read_bytes(), any_modality=True).pixels
        # Its stripes, from the top: red, pink, green, light green, blue, light blue, black to white.
        expected = [76, 166, 150, 202, 29, 142, 0, 64, 192, 255]
        assert difference(pixels[5::10, 50][None], np.array([expected])) <= 4


class TestRoundTrip:
    @pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES.keys())
    def test_eight_bits(self, syntax: UID) -> None:
        result = decoded(mr_object(GREY, syntax, attributes=RANGE))
        assert difference(result.pixels, GREY) <= 1
        assert result.original_size == GREY.shape

    @pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES.keys())
    def test_twelve_bits(self, syntax: UID) -> None:
        attributes = {"WindowCenter": 300, "WindowWidth": 600}
        result = decoded(mr_object(DEEP, syntax, bits_stored=12, attributes=attributes))
        assert difference(result.pixels, linear(DEEP, 300, 600)) <= 1

    @pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES.keys())
    def test_sixteen_bits(self, syntax: UID) -> None:
        values = (GREY * np.uint16(257)).astype(np.uint16)
        attributes = {"WindowCenter": 32768, "WindowWidth": 65536}
        result = decoded(mr_object(values, syntax, attributes=attributes))
        assert difference(result.pixels, GREY) <= 1

    @pytest.mark.parametrize("name", set(SYNTAXES) - {"jpeg2000"})
    @pytest.mark.parametrize("bits_stored", [12, 16])
    def test_signed(self, name: str, bits_stored: int) -> None:
        values = DEEP.astype(np.int16) - 200
        attributes = {"WindowCenter": 100, "WindowWidth": 600}
        data = mr_object(values, SYNTAXES[name], bits_stored=bits_stored, attributes=attributes)
        assert difference(decoded(data).pixels, linear(values, 100, 600)) <= 1

    def test_signed_eight_bits(self) -> None:
        values = (GREY.astype(np.int16) - 128).astype(np.int8)
        data = mr_object(values, attributes={"WindowCenter": 0, "WindowWidth": 256})
        assert difference(decoded(data).pixels, GREY) <= 1

    @pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 7)], ids=str)
    def test_odd_sizes(self, shape: tuple[int, int]) -> None:
        values = np.arange(math.prod(shape), dtype=np.uint8).reshape(shape) * 7
        assert difference(decoded(mr_object(values, attributes=RANGE)).pixels, values) <= 1

    def test_jpeg_baseline(self) -> None:
        result = decoded(mr_object(GREY, JPEGBaseline8Bit, attributes=RANGE))
        assert difference(result.pixels, GREY) <= 12
        assert np.abs(result.pixels.astype(int) - GREY).mean() < 1

    @pytest.mark.parametrize(
        "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian], ids=["implicit", "explicit"]
    )
    def test_overlays_in_unused_bits_are_ignored(self, syntax: UID) -> None:
        values = DEEP | np.uint16(0xF000)
        attributes = {"WindowCenter": 300, "WindowWidth": 600}
        result = decoded(mr_object(values, syntax, bits_stored=12, attributes=attributes))
        assert difference(result.pixels, linear(DEEP, 300, 600)) <= 1

    def test_a_missing_transfer_syntax_is_guessed(self) -> None:
        path = next(path for path in SHIPPED if path.name == "MR_small.dcm")
        dataset = dcmread(path)
        del dataset.file_meta.TransferSyntaxUID
        file = io.BytesIO()
        dataset.save_as(file, implicit_vr=False, little_endian=True)
        assert difference(decoded(file.getvalue()).pixels, decoded(path.read_bytes()).pixels) == 0


class TestColour:
    COLOURS = np.repeat(
        np.array([[(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]], np.uint8), 4, axis=0
    )
    LUMA = np.repeat([[76, 150, 29, 255]], 4, axis=0)

    @pytest.mark.parametrize("name", ["explicit", "big-endian", "deflated", "rle"])
    def test_rgb(self, name: str) -> None:
        assert difference(decoded(mr_object(self.COLOURS, SYNTAXES[name])).pixels, self.LUMA) <= 1

    def test_palette(self) -> None:
        ramp = np.arange(256, dtype=np.uint16)[::-1] * 257
        attributes: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
        for colour in ("Red", "Green", "Blue"):
            attributes[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
            attributes[f"{colour}PaletteColorLookupTableData"] = ramp.tobytes()
        assert difference(decoded(mr_object(GREY, attributes=attributes)).pixels, 255 - GREY) <= 1

    @pytest.mark.parametrize("photometric", ["HSV", "CMYK", "YBR_PARTIAL_420", ""])
    def test_others_are_unsupported(self, photometric: str) -> None:
        attributes = {"PhotometricInterpretation": photometric}
        with pytest.raises((UnsupportedPixels, UndecodableImage)):
            decoded(mr_object(self.COLOURS, attributes=attributes))


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

    def test_nothing_but_padding_is_black(self) -> None:
        data = mr_object(np.full((8, 8), 9, np.uint8), attributes={"PixelPaddingValue": 9})
        assert not decoded(data).pixels.any()

    @pytest.mark.parametrize("value", ["nan", "inf", "1e999"])
    def test_a_rescale_that_is_no_number(self, value: str) -> None:
        data = mr_object(GREY, attributes={"RescaleSlope": 1.25, "RescaleIntercept": 0})
        data = data.replace(b"DS\x04\x001.25", b"DS" + bytes([6, 0]) + value.encode().ljust(6))
        with pytest.raises(DecodeError):
            decoded(data)


class TestGeometry:
    @pytest.mark.parametrize(
        ("attributes", "shape"),
        [
            ({"PixelSpacing": [1, 1]}, (80, 96)),
            ({"PixelSpacing": [2, 1]}, (160, 96)),
            ({"PixelSpacing": [1, 2]}, (80, 192)),
            ({"PixelSpacing": [0.7, 0.5]}, (112, 96)),
            ({"PixelSpacing": [0.5, 0.501]}, (80, 96)),
            ({"PixelAspectRatio": [2, 1]}, (160, 96)),
            ({"PixelAspectRatio": [1, 2]}, (80, 192)),
            ({"PixelSpacing": [1, 1], "PixelAspectRatio": [2, 1]}, (80, 96)),
            ({"PixelSpacing": [1, 100]}, (80, 96)),
            ({"PixelSpacing": [0, 1]}, (80, 96)),
            ({"PixelSpacing": [-1, 1]}, (80, 96)),
            ({"PixelSpacing": [1]}, (80, 96)),
            ({"PixelAspectRatio": [0, 0]}, (80, 96)),
        ],
        ids=str,
    )
    def test_pixels_become_square(self, attributes: dict[str, Any], shape: tuple[int, int]) -> None:
        result = decoded(mr_object(GREY, attributes=RANGE | attributes))
        assert result.pixels.shape == shape
        assert result.original_size == GREY.shape
        resized = Image.fromarray(GREY).resize(shape[::-1], Image.Resampling.BILINEAR)
        assert difference(result.pixels, np.asarray(resized)) <= 1

    def test_a_circle_becomes_round(self) -> None:
        """What was scanned with rows 2 mm apart is as high as it is wide afterwards."""
        y, x = np.mgrid[0:50, 0:100]
        values = np.where(((y - 25) * 2) ** 2 + (x - 50) ** 2 < 900, 200, 0).astype(np.uint8)
        pixels = decoded(mr_object(values, attributes=RANGE | {"PixelSpacing": [2, 1]})).pixels
        assert abs((pixels > 100).any(axis=1).sum() - (pixels > 100).any(axis=0).sum()) <= 2

    def test_the_limit_counts_square_pixels(self) -> None:
        data = mr_object(GREY, attributes={"PixelSpacing": [9, 1]})
        with pytest.raises(TooManyPixels):
            decode_dicom(data, 8 * GREY.size)

    @pytest.mark.parametrize(
        ("spacing", "expected"),
        [([0.5, 0.25], (0.5, 0.25)), (None, None), ([1, 0], None), ([1, 1, 1], None)],
        ids=str,
    )
    def test_spacing_in_the_reference(self, spacing: Any, expected: Any) -> None:
        attributes = {} if spacing is None else {"PixelSpacing": spacing}
        reference = decoded(mr_object(GREY, attributes=attributes)).dicom
        assert reference is not None
        assert reference.pixel_spacing_mm == expected

    @pytest.mark.parametrize(
        ("uid", "expected"),
        [
            ("1.2.3", "1.2.3"),
            ("1.2.03", "1.2.03"),
            ("", None),
            ("DOE^JANE", None),
            ("1..2", None),
            ("1." * 33 + "1", None),
            ("1.2\n3", None),
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SeriesInstanceUID"])
    def test_uids_are_uids(self, keyword: str, uid: str, expected: str | None) -> None:
        data = mr_object(GREY, attributes={keyword: "9.9.9.9"})
        data = data.replace(
            b"UI\x08\x009.9.9.9\0", b"UI" + len(uid).to_bytes(2, "little") + uid.encode()
        )
        reference = decoded(data).dicom
        assert reference is not None
        found = {
            "SOPInstanceUID": reference.sop_instance_uid,
            "SeriesInstanceUID": reference.series_instance_uid,
        }
        assert found[keyword] == expected


class TestEnhanced:
    def test_one_frame_is_read_with_its_functional_groups(self) -> None:
        measures, transformation, voi = Dataset(), Dataset(), Dataset()
        measures.PixelSpacing = [2, 1]
        transformation.RescaleSlope, transformation.RescaleIntercept = 2, 10
        voi.WindowCenter, voi.WindowWidth = 265, 511
        shared, own = Dataset(), Dataset()
        shared.PixelMeasuresSequence = [measures]
        shared.FrameVOILUTSequence = [Dataset()]
        own.PixelValueTransformationSequence = [transformation]
        own.FrameVOILUTSequence = [voi]
        attributes = {
            "SOPClassUID": EnhancedMRImageStorage,
            "NumberOfFrames": 1,
            "SharedFunctionalGroupsSequence": [shared],
            "PerFrameFunctionalGroupsSequence": [own],
        }
        result = decoded(mr_object(GREY, attributes=attributes))
        assert result.pixels.shape == (160, 96)
        tall = Image.fromarray(GREY).resize((96, 160), Image.Resampling.BILINEAR)
        assert difference(result.pixels, np.asarray(tall)) <= 1
        assert result.dicom is not None
        assert result.dicom.pixel_spacing_mm == (2, 1)

    def test_several_frames_are_for_later(self) -> None:
        attributes = {"SOPClassUID": EnhancedMRImageStorage, "NumberOfFrames": 2}
        with pytest.raises(MultiFrame):
            decoded(mr_object(np.concatenate([GREY, GREY]), attributes={"Rows": 80} | attributes))


class TestRefused:
    @pytest.mark.parametrize(
        "attributes",
        [
            {"Modality": "CT"},
            {"Modality": None},
            {"SOPClassUID": CTImageStorage},
            {"SOPClassUID": SecondaryCaptureImageStorage},
            {"SOPClassUID": MRSpectroscopyStorage},
            {"SOPClassUID": None},
        ],
        ids=str,
    )
    def test_what_is_no_mr(self, attributes: dict[str, Any]) -> None:
        data = mr_object(GREY, attributes=attributes)
        with pytest.raises(NotMr):
            decoded(data)
        assert decoded(data, any_modality=True).pixels.shape == GREY.shape

    @pytest.mark.parametrize("attributes", [{"PixelData": None}, {"PixelData": b""}], ids=str)
    def test_no_pixels(self, attributes: dict[str, Any]) -> None:
        with pytest.raises(NoPixelData):
            decoded(mr_object(GREY, attributes=attributes))

    @pytest.mark.parametrize(
        "attributes",
        [
            {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31},
            {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0},
            {"BitsStored": 9},
            {"BitsStored": 0},
            {"HighBit": 15},
            {"SamplesPerPixel": 2},
            {"SamplesPerPixel": 0},
        ],
        ids=str,
    )
    def test_pixels_of_another_kind(self, attributes: dict[str, Any]) -> None:
        with pytest.raises(UnsupportedPixels):
            decoded(mr_object(GREY, attributes=attributes))

    @pytest.mark.parametrize(
        "attributes",
        [
            {"Rows": 0},
            {"Columns": 0},
            {"Rows": None},
            {"BitsAllocated": None},
            {"PhotometricInterpretation": None},
            {"PixelRepresentation": None},
            {"NumberOfFrames": -1},
            {"Rows": [1, 2]},
        ],
        ids=str,
    )
    def test_a_size_that_cannot_be(self, attributes: dict[str, Any]) -> None:
        with pytest.raises(UndecodableImage):
            decoded(mr_object(GREY, attributes=attributes))

    @pytest.mark.parametrize(
        "uid",
        ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.201", "1.2.3.4.5", "1.2.840.113619.5.2"],
    )
    def test_a_syntax_that_is_not_read(self, uid: str) -> None:
        data = mr_object(GREY)
        old = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"
        assert old in data
        value = uid.encode() + b"\0" * (len(uid) % 2)
        new = b"\x02\x00\x10\x00UI" + len(value).to_bytes(2, "little") + value
        with pytest.raises((UnsupportedTransferSyntax, UndecodableImage, NotMr)) as caught:
            decoded(data.replace(old, new))
        if uid != "1.2.840.113619.5.2":
            assert isinstance(caught.value, UnsupportedTransferSyntax)

    @pytest.mark.parametrize("missing", [1, 100, GREY.size - 100])
    def test_fewer_values_than_pixels(self, missing: int) -> None:
        with pytest.raises(TruncatedImage):
            decoded(mr_object(GREY, attributes={"PixelData": GREY.tobytes()[missing:][:-1]}))

    @pytest.mark.parametrize("name", SYNTAXES)
    def test_any_cut_gives_a_decode_error(self, name: str) -> None:
        data = mr_object(GREY, SYNTAXES[name], attributes=RANGE)
        for length in range(132, len(data) - 16, max(1, len(data) // 200)):
            with pytest.raises(DecodeError):
                decode(data[:length])

    def test_a_cut_is_called_a_cut(self) -> None:
        data = OBJECTS[0].read_bytes()
        with pytest.raises(TruncatedImage):
            decoded(data[:-1000])

    @pytest.mark.parametrize("size", [0, 1, 131, 132, 140], ids="{}-bytes".format)
    def test_hardly_anything(self, size: int) -> None:
        with pytest.raises(DecodeError):
            decoded(mr_object(GREY)[:size])


class TestBombs:
    def test_the_limit_is_exact(self) -> None:
        data = mr_object(GREY)
        assert decode_dicom(data, GREY.size).original_size == GREY.shape
        with pytest.raises(TooManyPixels):
            decode_dicom(data, GREY.size - 1)

    def test_frames_count(self) -> None:
        with pytest.raises(TooManyPixels):
            decode_dicom(mr_object(GREY, attributes={"NumberOfFrames": 10**6}), 10**7)

    def test_a_deflated_object_of_zeros(self) -> None:
        dataset = dcmread(io.BytesIO(mr_object(GREY)))
        dataset.add_new(0x00091010, "OB", bytes(64 * 2**20))
        data = write(dataset, SYNTAXES["deflated"])
        assert len(data) < 200_000
        with pytest.raises(TooManyPixels):
            decode_dicom(data, 1_000_000)

    @pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless], ids=["jpeg", "j2k"])
    def test_a_compressed_image_of_another_size(self, syntax: UID) -> None:
        large = Image.new("L", (3000, 3000))
        stream = (
            encode(large, "JPEG")
            if syntax == JPEGBaseline8Bit
            else encode(large, "JPEG2000", no_jp2=True)
        )
        with pytest.raises(UndecodableImage):
            decoded(mr_object(GREY, syntax, attributes={"PixelData": encapsulate([stream])}))

    def test_an_rle_frame_that_unpacks_to_too_much(self) -> None:
        header = np.array([1, 64] + [0] * 14, "<u4").tobytes()
        frame = header + b"\x81\x00" * 1_000_000
        with pytest.raises(TooManyPixels):
            decoded(mr_object(GREY, RLELossless, attributes={"PixelData": encapsulate([frame])}))

    def test_sequence_items_without_end(self) -> None:
        data = mr_object(GREY)
        items = b"\xfe\xff\x00\xe0\0\0\0\0" * (MAX_ITEMS + 1)
        sequence = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff" + items
        with pytest.raises(UndecodableImage):
            decoded(data + sequence)

    def test_sequences_without_bottom(self) -> None:
        nested = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
        with pytest.raises(DecodeError):
            decoded(mr_object(GREY)[:200] + nested * 20_000)

    def test_size_of_a_jpeg_stream(self) -> None:
        assert jpeg_size(encode(GREY, "JPEG", comment=b"x" * 500)) == GREY.shape
        assert jpeg_size(encode(GREY, "JPEG", progressive=True)) == GREY.shape
        assert jpeg_size(b"\xff\xd8\xff\xff\xff\xc0\0\x0b\x08\0\x05\0\x07\x01") == (5, 7)
        for stream in (b"", b"\xff\xd8", b"\xff\xd8\xff\xda\0\x02", b"\xff\xd8" + b"\xff" * 99):
            assert jpeg_size(stream) is None

    def test_size_of_a_jpeg2000_stream(self) -> None:
        assert jpeg2000_size(encode(GREY, "JPEG2000", no_jp2=True)) == GREY.shape
        assert jpeg2000_size(encode(GREY, "JPEG2000")) is None, "a JP2 file is no codestream"
        assert jpeg2000_size(b"\xff\x4f\xff\x51") is None


class TestPatientData:
    PLANTED = "PLANTED^JANE"

    def planted(self) -> bytes:
        """An MR object whose patient's name is wherever one could stray to."""
        dataset = dcmread(OBJECTS[-1])
        dataset.PatientName = dataset.PatientID = dataset.InstitutionName = self.PLANTED
        dataset.StudyDescription = dataset.ImageComments = self.PLANTED
        return write(dataset, ExplicitVRLittleEndian)

    def damaged(self) -> list[bytes]:
        whole = self.planted()
        name = self.PLANTED.encode()
        text = b"LO" + len(name).to_bytes(2, "little") + name
        result = [whole, whole[: len(whole) // 2]]
        for tag, vr in [
            (b"\x28\x00\x10\x00", b"US"),  # Rows
            (b"\x28\x00\x50\x10", b"DS"),  # Window Center
            (b"\x28\x00\x30\x00", b"DS"),  # Pixel Spacing
            (b"\x28\x00\x04\x00", b"CS"),  # Photometric Interpretation
            (b"\x08\x00\x16\x00", b"UI"),  # SOP Class UID
            (b"\x08\x00\x18\x00", b"UI"),  # SOP Instance UID
            (b"\x08\x00\x60\x00", b"CS"),  # Modality
            (b"\x08\x00\x05\x00", b"CS"),  # Specific Character Set
            (b"\x02\x00\x10\x00", b"UI"),  # Transfer Syntax UID
        ]:
            start = whole.find(tag + vr)
            if start >= 0:
                end = start + 8 + int.from_bytes(whole[start + 6 : start + 8], "little")
                result.extend(
                    whole[:start] + tag + kind + text[2:] + whole[end:] for kind in (vr, b"LO")
                )
        return result

    def test_reaches_neither_errors_nor_logs_nor_warnings(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        root = logging.getLogger()
        level = root.level
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        told: list[str] = []
        objects = self.damaged()
        assert len(objects) >= 15
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                for data in objects:
                    try:
                        told.append(repr(decoded(data).dicom))
                    except DecodeError as error:
                        told.extend(traceback.format_exception(error))
            told.extend(str(warning.message) for warning in caught)
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
        told.extend([stream.getvalue(), *capfd.readouterr()])
        assert "PLANTED" not in "".join(told)
        assert "JANE" not in "".join(told)

    def test_is_not_in_the_slice(self) -> None:
        result = decoded(self.planted())
        assert "PLANTED" not in repr(result.dicom)

    def test_warnings_stay_quiet_in_threads(self) -> None:
        """pydicom warns about these objects; not one warning may get out, or become an error."""
        data = next(path for path in SHIPPED if path.name == "MR_small_padded.dcm").read_bytes()
        expected = decoded(data).pixels
        wrong: list[str] = []

        def run() -> None:
            for _ in range(40):
                try:
                    if not np.array_equal(decoded(data).pixels, expected):
                        wrong.append("pixels")
                except DecodeError as error:
                    wrong.append(repr(error))

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            threads = [threading.Thread(target=run) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(timeout=60)
        assert wrong == []
        assert [str(warning.message) for warning in caught] == []


def linear_or_step(values: NDArray[Any], center: float, width: float) -> NDArray[np.float64]:
    if width > 1:
        return linear(values, center, width)
    return np.where(values > center - 0.5, 255.0, 0.0)


def lookup_table(table: NDArray[np.uint16], bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(table), 0, bits])
    item.add_new("LUTData", "US", table.tolist())
    return item
