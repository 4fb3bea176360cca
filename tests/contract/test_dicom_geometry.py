"""Where the pixels lie: square ones, their spacing, and the object's identifiers."""

import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contract.errors import TooManyPixels
from contract.policy import Policy
from tests.contract.rendering import decoded, difference
from tests.contract.samples import RANGE, grey_slice, mr_object

GREY = grey_slice()


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
            ({"ImagerPixelSpacing": [1.8, 0.9]}, (160, 96)),
            ({"NominalScannedPixelSpacing": [1.8, 0.9]}, (160, 96)),
            ({"PixelSpacing": [1, 1], "ImagerPixelSpacing": [1.8, 0.9]}, (80, 96)),
            ({"PixelSpacing": [2000, 1000]}, (160, 96)),
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

    @pytest.mark.parametrize("keyword", ["ImagerPixelSpacing", "NominalScannedPixelSpacing"])
    def test_what_is_not_of_the_patient_is_no_measure(self, keyword: str) -> None:
        dicom = decoded(mr_object(GREY, attributes={keyword: [0.9, 0.9]})).dicom
        assert dicom is not None
        assert dicom.pixel_spacing_mm is None

    def test_a_circle_becomes_round(self) -> None:
        """What was scanned with rows 2 mm apart is as high as it is wide afterwards."""
        y, x = np.mgrid[0:50, 0:100]
        values = np.where(((y - 25) * 2) ** 2 + (x - 50) ** 2 < 900, 200, 0).astype(np.uint8)
        pixels = decoded(mr_object(values, attributes=RANGE | {"PixelSpacing": [2, 1]})).pixels
        assert abs((pixels > 100).any(axis=1).sum() - (pixels > 100).any(axis=0).sum()) <= 2

    def test_the_limit_counts_square_pixels(self) -> None:
        data = mr_object(GREY, attributes={"PixelSpacing": [9, 1]})
        with pytest.raises(TooManyPixels):
            decoded(data, Policy(max_pixels=8 * GREY.size))

    @pytest.mark.parametrize(
        ("spacing", "expected"),
        [
            ([0.5, 0.25], (0.5, 0.25)),
            (None, None),
            ([1, 0], None),
            ([1, 1, 1], None),
            ([1, math.inf], None),
            ([5, 0.5], (5, 0.5)),
            ([50, 0.5], None),
            ([0.5, 50], None),
            ([0.01, 0.01], (0.01, 0.01)),
            ([0.009, 0.009], None),
            ([1e-300, 1e-300], None),
            ([100, 100], (100, 100)),
            ([100, 101], None),
            ([9e160, 9e160], None),
        ],
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
            ("1." * 31 + "12", "1." * 31 + "12"),
            ("1." * 32 + "1", None),
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
