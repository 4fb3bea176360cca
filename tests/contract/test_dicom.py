"""Whole objects: those of real scanners, those that come with pydicom, and enhanced ones."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedMRImageStorage

from contract.decoding import decode, open_source
from contract.dicom_pixels import Frames
from contract.errors import (
    DecodeError,
    NoPixelData,
    NotAnImage,
    NotHead,
    NotMr,
    TruncatedImage,
    UnsupportedPixels,
)
from contract.policy import Checks, Policy
from contract.preprocessing import Slice
from contract.source import Source
from tests.contract.rendering import ANY, decoded, difference, linear
from tests.contract.samples import (
    DATA,
    OBJECTS,
    SHIPPED,
    SYNTAXES,
    deep_slice,
    grey_slice,
    mr_frames,
    mr_object,
)

GREY = grey_slice()
DEEP = deep_slice()

MR_SMALL = {path.stem for path in SHIPPED if path.stem.startswith("MR_small")}


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
    @pytest.mark.parametrize("checks", Checks)
    def test_gives_a_slice_or_says_why_not(self, path: Path, checks: Checks) -> None:
        outcome: Slice | DecodeError
        try:
            outcome = decoded(path.read_bytes(), Policy(checks=checks))
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

    @pytest.mark.parametrize("stem", sorted(MR_SMALL))
    def test_one_mr_slice_in_every_syntax_gives_the_same_pixels(self, stem: str) -> None:
        folder = Path(pydicom.__file__).parent / "data" / "test_files"
        reference = decoded((folder / "MR_small.dcm").read_bytes()).pixels
        assert difference(decoded((folder / f"{stem}.dcm").read_bytes()).pixels, reference) == 0

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("CT_small.dcm", NotMr),
            ("rtplan.dcm", NotAnImage),
            ("test-SR.dcm", NotAnImage),
            ("waveform_ecg.dcm", NotAnImage),
            ("examples_overlay.dcm", NotHead),
            ("DICOMDIR", NotAnImage),
            ("IM000000", NotMr),
            ("SC_rgb_rle.dcm", NotMr),
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
            ("rtplan.dcm", NotAnImage),
            ("test-SR.dcm", NotAnImage),
            ("IM000000", NoPixelData),
            ("rtdose.dcm", UnsupportedPixels),
            ("rtdose_1frame.dcm", UnsupportedPixels),
        ],
    )
    def test_the_error_is_the_right_one_of_any_modality(
        self, name: str, error: type[DecodeError]
    ) -> None:
        path = next(path for path in SHIPPED if path.name == name)
        with pytest.raises(error):
            decoded(path.read_bytes(), ANY)

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
        """Before its colours are refused: how they are read decides what grey in them is."""
        dataset = dcmread(next(path for path in SHIPPED if path.name == name))
        values, photometric = Frames(dataset, ANY).stored_values(1)
        assert photometric == "RGB"
        # Its stripes, from the top: red, pink, green, light green, blue, light blue, black to white.
        expected = [76, 166, 150, 202, 29, 142, 0, 64, 192, 255]
        stripes = values[5::10, 50] * (255 / (2**dataset.BitsStored - 1))
        assert np.abs(stripes @ [0.299, 0.587, 0.114] - expected).max() <= 4


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


@pytest.mark.parametrize("syntax", ["explicit", "deflated"])
def test_what_a_deflated_object_holds_is_known(syntax: str) -> None:
    comments = {"ImageComments": "x" * 5000}

    def opened(frames: int) -> Source:
        data = mr_frames([GREY] * frames, SYNTAXES[syntax], attributes=comments)
        return open_source(data, keep=["SOPInstanceUID"])

    one, two = opened(1), opened(2)
    assert one.held_bytes == 0
    if syntax == "explicit":
        assert two.held_bytes == 0
    else:
        assert two.held_bytes > 2 * GREY.size + 5000
    assert one.header is not None
    assert one.header.SOPInstanceUID
