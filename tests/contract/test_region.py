"""The mask, to a region of the original image: by hand, by another algorithm, through real files."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy import ndimage

from contract.decoding import decode
from contract.manifest import RegionRecord
from contract.preprocessing import DEFAULT_SPEC, Placement, preprocess_placed
from contract.region import Geometry, Region, cell_grid, find_region, spread
from tests.contract.samples import RANGE, encode, mr_object
from tests.support.masks import run_length_mask

many = settings(max_examples=200, deadline=None, derandomize=True, database=None)

CELLS = 112
"""The default model's, for an input of 224."""


def record(**changes: Any) -> RegionRecord:
    return RegionRecord(**{"threshold": 0.5, "min_cells": 1, "min_tumor_probability": 0, **changes})


def plain(size: int, spacing: tuple[float, float] | None = None) -> Geometry:
    """An image that is the model's input as it is."""
    box = (0, 0, size, size)
    sizes = (size, size)
    return Geometry(Placement(box, box), sizes, sizes, sizes, spacing)


def block(threshold: float, spacing: tuple[float, float] | None = None) -> Region:
    """Of 4 x 4 cells on 8 x 8 pixels, the inner 2 x 2 are certain.

    Along an axis, the probability is 0, 0.25, 0.75, 1 and back, since pixel centres lie a quarter of a
    cell from cell centres.
    """
    mask = np.zeros((4, 4), np.float32)
    mask[1:3, 1:3] = 1
    region = find_region(mask, plain(8, spacing), record(threshold=threshold))
    assert region is not None
    return region


class TestByHand:
    def test_box_score_and_area(self) -> None:
        region = block(0.5)
        assert region.box == (2, 2, 6, 6)
        assert region.area_pixels == 16
        assert region.score == 0.7656  # the square of (0.75 + 1 + 1 + 0.75) / 4
        assert region.area_mm2 is None
        assert region.inside.all()

    def test_the_threshold_is_between_cells_too(self) -> None:
        """The corners have 0.75 squared, 0.5625."""
        region = block(0.6)
        assert region.box == (2, 2, 6, 6)
        assert region.area_pixels == 12
        assert region.score == 0.8333  # (16 * 0.765625 - 4 * 0.5625) / 12
        assert region.inside[0].tolist() == [False, True, True, False]

    def test_area_in_square_millimetres(self) -> None:
        assert block(0.6, (0.5, 2.0)).area_mm2 == pytest.approx(12)
        assert block(0.6, (0.5, 0.25)).area_mm2 == pytest.approx(1.5)

    def test_run_lengths_go_down_the_columns(self) -> None:
        lengths = block(0.6).run_lengths()
        assert lengths == {"size": [8, 8], "counts": [19, 2, 5, 4, 4, 4, 5, 2, 19]}

    def test_run_lengths_begin_outside(self) -> None:
        everything = find_region(np.ones((2, 2), np.float32), plain(4), record())
        assert everything is not None
        assert everything.run_lengths() == {"size": [4, 4], "counts": [0, 16]}

    def test_mask_has_the_size_of_the_original(self) -> None:
        mask = block(0.6).mask()
        assert mask.shape == (8, 8)
        assert mask.dtype == np.bool_
        assert mask.sum() == 12
        assert mask[3:5, 2:6].all()

    @pytest.mark.parametrize(
        ("cells", "found"), [(1, True), (4, True), (5, False)], ids=["1", "4", "5"]
    )
    def test_too_few_cells_are_no_region(self, cells: int, found: bool) -> None:
        mask = np.zeros((4, 4), np.float32)
        mask[1:3, 1:3] = 1
        assert (find_region(mask, plain(8), record(min_cells=cells)) is not None) is found

    def test_the_heaviest_counts_not_the_largest(self) -> None:
        mask = np.zeros((16, 16), np.float32)
        mask[1:3, 1:6] = 0.6  # 10 cells, 6 in all
        mask[10:13, 10:13] = 0.9  # 9 cells, 8.1 in all
        region = find_region(mask, plain(16), record())
        assert region is not None
        assert region.box == (10, 10, 13, 13)
        assert region.mask().sum() == 9

    def test_cells_that_touch_at_a_corner_belong_together(self) -> None:
        mask = np.zeros((8, 8), np.float32)
        mask[2, 2] = mask[3, 3] = mask[2, 4] = 1
        region = find_region(mask, plain(8), record())
        assert region is not None
        assert region.box == (2, 2, 5, 4)

    def test_the_black_margin_takes_no_part(self) -> None:
        """Rows 0 to 3 and 12 to 15 of the input show nothing of the slice."""
        placement = Placement((0, 0, 32, 16), (0, 4, 16, 12))
        geometry = Geometry(placement, (16, 16), (16, 32), (16, 32))
        mask = np.zeros((8, 8), np.float32)
        mask[:2] = 1
        assert find_region(mask, geometry, record()) is None
        mask[2, 3] = 1
        region = find_region(mask, geometry, record())
        assert region is not None
        assert region.box == (12, 0, 16, 4)

    @pytest.mark.parametrize("magnified", [1, 2])
    def test_cells_lie_on_the_crop_and_nowhere_else(self, magnified: int) -> None:
        """A crop of 20 x 40 pixels, 4 x 8 of the input's, which 2 x 4 of its 4 x 4 cells show."""
        placement = Placement((10, 20, 30, 60), (2, 0, 6, 8))
        size = (100 * magnified, 70 * magnified)
        geometry = Geometry(placement, (8, 8), (100, 70), size)
        mask = np.arange(16, dtype=np.float32).reshape(4, 4)
        grid = cell_grid(mask, geometry)
        assert grid.values.tolist() == mask[:, 1:3].tolist()
        left, top, right, bottom = np.multiply((10, 20, 30, 60), magnified).tolist()
        assert grid.box == pytest.approx((left, top, right, bottom))
        shown = spread(np.ones((4, 4), np.float32), geometry)
        assert shown.shape == size
        assert (shown[top:bottom, left:right] == 1).all()
        assert shown.sum() == (bottom - top) * (right - left)

    def test_pixels_larger_than_cells_lose_no_region(self) -> None:
        mask = np.zeros((64, 64), np.float32)
        mask[24, 40] = 1
        geometry = Geometry(
            Placement((0, 0, 4, 4), (0, 0, 128, 128)), (128, 128), (4, 4), (4, 4), (10.0, 10.0)
        )
        region = find_region(mask, geometry, record())
        assert region is not None
        assert region.box == (2, 1, 3, 2)
        assert region.area_mm2 == 100
        assert region.score == 1

    def test_nothing_is_no_region(self) -> None:
        assert find_region(np.zeros((4, 4), np.float32), plain(8), record()) is None


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.float32], Geometry, RegionRecord]:
    """Any mask on any geometry: blobs or noise, crops, margins, reduced and enlarged slices."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cells = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    mask = random.random(cells, np.float32)
    if draw(st.booleans()):
        mask = ndimage.gaussian_filter(mask, 1.5)
        mask = (mask - mask.min()) / max(float(np.ptp(mask)), 1e-6)
    factor = draw(st.integers(1, 3))
    boxes = []
    for axis in range(2):
        sizes = draw(st.integers(1, 60)), cells[axis] * factor
        for size in sizes:
            start = draw(st.integers(0, size - 1))
            boxes.append((start, draw(st.integers(start + 1, size)), size))
    (top, bottom, rows), (y0, y1, height), (left, right, columns), (x0, x1, width) = boxes
    placement = Placement((left, top, right, bottom), (x0, y0, x1, y1))
    original = draw(st.integers(1, 120)), draw(st.integers(1, 120))
    geometry = Geometry(placement, (height, width), (rows, columns), original)
    threshold = draw(st.sampled_from([0.3, 0.5, 0.8]))
    return mask, geometry, record(threshold=threshold, min_cells=draw(st.integers(1, 6)))


def one_by_one(
    mask: NDArray[np.float32], geometry: Geometry, rule: RegionRecord
) -> NDArray[np.bool_] | None:
    """The region's pixels, each looked up for itself; parts by scipy. None if there is no part."""
    (left, top, right, bottom), (x0, y0, x1, y1) = geometry.placement
    height, width = geometry.input_size
    y = (np.arange(mask.shape[0]) + 0.5) * height / mask.shape[0]
    x = (np.arange(mask.shape[1]) + 0.5) * width / mask.shape[1]
    seen = np.ix_((y >= y0) & (y < y1), (x >= x0) & (x < x1))
    first = int(np.argmax(y >= y0)), int(np.argmax(x >= x0))
    cells = mask[seen].astype(np.float64)
    parts, count = ndimage.label(mask[seen] >= rule.threshold, np.ones((3, 3)))
    numbers = [part for part in range(1, count + 1) if (parts == part).sum() >= rule.min_cells]
    if not numbers:
        return None
    best = max(numbers, key=lambda part: float(cells[parts == part].sum()))
    cells[(parts != best) & (parts > 0)] = 0
    pixels = np.zeros(geometry.original_size, np.bool_)
    for row, column in np.ndindex(pixels.shape):
        v = (row + 0.5) * geometry.decoded_size[0] / geometry.original_size[0]
        u = (column + 0.5) * geometry.decoded_size[1] / geometry.original_size[1]
        if not (top <= v < bottom and left <= u < right):
            continue
        v = (y0 + (v - top) * (y1 - y0) / (bottom - top)) * mask.shape[0] / height - 0.5 - first[0]
        u = (x0 + (u - left) * (x1 - x0) / (right - left)) * mask.shape[1] / width - 0.5 - first[1]
        # scipy's, which knows nothing of this project's interpolation
        value = ndimage.map_coordinates(cells, [[v], [u]], order=1, mode="nearest")[0]
        pixels[row, column] = value >= rule.threshold
    return pixels


class TestEveryCase:
    @many
    @given(cases())
    def test_it_is_what_a_slow_and_simple_algorithm_finds(
        self, case: tuple[NDArray[np.float32], Geometry, RegionRecord]
    ) -> None:
        expected, region = one_by_one(*case), find_region(*case)
        if expected is None:
            assert region is None
            return
        assert region is not None
        if expected.any():
            # A value may be one rounding from the threshold.
            assert (region.mask() ^ expected).sum() <= 1
        else:
            # The model sees no pixel's centre along an axis: its nearest pixel stands for it.
            assert 1 in region.inside.shape

    @many
    @given(cases())
    def test_box_area_and_run_lengths_are_those_of_the_mask(
        self, case: tuple[NDArray[np.float32], Geometry, RegionRecord]
    ) -> None:
        region = find_region(*case)
        if region is None:
            return
        mask = region.mask()
        assert mask.shape == case[1].original_size
        assert mask.sum() == region.area_pixels > 0
        left, top, right, bottom = region.box
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert (left, right) == (columns[0], columns[-1] + 1)
        assert (top, bottom) == (rows[0], rows[-1] + 1)
        assert case[2].threshold - 1e-4 <= region.score <= 1
        lengths = region.run_lengths()
        np.testing.assert_array_equal(run_length_mask(lengths), mask)
        assert all(count > 0 for count in lengths["counts"][1:])


ROWS, COLUMNS = 640, 900


def scene() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A head off the centre, not square, on black, and where its tumour is."""
    y, x = np.mgrid[0:ROWS, 0:COLUMNS]
    head = ((y - 300) / 220) ** 2 + ((x - 500) / 300) ** 2 < 1
    tumor = ((y - 240) / 55) ** 2 + ((x - 620) / 80) ** 2 < 1
    texture = 70 + 25 * np.sin(y / 29) * np.cos(x / 23)
    return np.where(tumor, 230, np.where(head, texture, 2)).astype(np.uint8), tumor


def as_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    return encode(pixels, "JPEG", quality=90)


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    return encode(pixels, "PNG")


def as_rotated_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # rows run right to left, columns top to bottom
    return encode(np.rot90(pixels).copy(), "JPEG", quality=90, exif=exif)


def as_dicom(*spacing: float) -> Callable[[NDArray[np.uint8]], bytes]:
    attributes = RANGE | {"PixelSpacing": list(spacing)}
    return lambda pixels: mr_object(pixels, attributes=attributes)


@pytest.mark.parametrize(
    ("form", "reduced", "spacing"),
    [
        pytest.param(as_png, 1, None, id="png"),
        pytest.param(as_jpeg, 2, None, id="jpeg at half scale"),
        pytest.param(as_rotated_jpeg, 2, None, id="jpeg that lies on its side"),
        pytest.param(as_dicom(0.5, 0.5), 1, (0.5, 0.5), id="dicom"),
        pytest.param(as_dicom(1.0, 0.5), (0.5, 1), (1.0, 0.5), id="dicom with high pixels"),
        pytest.param(as_dicom(0.5, 0.8), (1, 0.625), (0.5, 0.8), id="dicom with wide pixels"),
    ],
)
def test_a_tumor_comes_back_where_it_was(
    form: Callable[[NDArray[np.uint8]], bytes],
    reduced: float | tuple[float, float],
    spacing: tuple[float, float] | None,
) -> None:
    """What the preprocessing does to the slice is done to its tumour; the region must undo it."""
    pixels, tumor = scene()
    decoded = decode(form(pixels))
    factors = reduced if isinstance(reduced, tuple) else (reduced, reduced)
    assert decoded.original_size == (ROWS, COLUMNS)
    assert decoded.pixels.shape == tuple(
        round(size / factor) for size, factor in zip((ROWS, COLUMNS), factors, strict=True)
    )
    _, placement = preprocess_placed(decoded.pixels)
    crop, (left, top, right, bottom) = placement
    assert crop[0] > 0
    assert (right - left, bottom - top) != (DEFAULT_SPEC.width, DEFAULT_SPEC.height)
    at_decoded = Image.fromarray(tumor.astype(np.float32)).resize(decoded.pixels.shape[::-1])
    seen = np.zeros((DEFAULT_SPEC.height, DEFAULT_SPEC.width), np.float32)
    seen[top:bottom, left:right] = np.asarray(
        at_decoded.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=crop)
    )
    cells = seen.reshape(CELLS, 2, CELLS, 2).mean(axis=(1, 3))
    geometry = Geometry.of(decoded, placement, DEFAULT_SPEC)
    region = find_region(cells, geometry, record(min_cells=20, min_tumor_probability=0.5))
    assert region is not None
    mask = region.mask()
    dice = 2 * (mask & tumor).sum() / (mask.sum() + tumor.sum())
    assert dice > 0.985
    cell = max((crop[2] - crop[0]) / (right - left), (crop[3] - crop[1]) / (bottom - top)) * 2
    tolerance = cell * max(*factors, 1)
    expected = (620 - 80, 240 - 55, 620 + 80, 240 + 55)
    assert np.abs(np.subtract(region.box, expected)).max() <= tolerance
    centre = np.subtract(ndimage.center_of_mass(mask), ndimage.center_of_mass(tumor))
    assert np.abs(centre).max() < 1
    if spacing is None:
        assert region.area_mm2 is None
    else:
        assert region.area_mm2 == pytest.approx(region.area_pixels * spacing[0] * spacing[1])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("side", [2049, 2055, 1030])
def test_a_reduced_scale_that_does_not_divide_the_sides(side: int, orientation: int) -> None:
    """Its last pixels reach over the border, which a turn may lay at the left or the top."""
    stored = np.zeros((side, side - 1), np.uint8)
    stored[808:824, side // 8 * 8 - 144 :][:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encode(stored, "JPEG", quality=95, exif=exif))
    there = np.argwhere(np.asarray(ImageOps.exif_transpose(as_image(stored, exif))))
    (top, left), (bottom, right) = there.min(axis=0), there.max(axis=0) + 1
    rows, columns = image.pixels.shape
    assert rows < side // 3
    spec = DEFAULT_SPEC.model_copy(update={"height": rows, "width": columns})
    whole = (0, 0, columns, rows)
    geometry = Geometry.of(image, Placement(whole, whole), spec)
    cells = image.pixels.astype(np.float32) / np.float32(255)
    region = find_region(cells, geometry, record())
    assert region is not None
    assert np.abs(np.subtract(region.box, (left, top, right, bottom))).max() <= 1
    assert spread(cells, geometry).shape == image.original_size


def as_image(pixels: NDArray[np.uint8], exif: Image.Exif) -> Image.Image:
    image = Image.fromarray(pixels)
    image.getexif().update(exif)
    return image


def test_what_reaches_over_the_border_is_no_part_of_a_region() -> None:
    image = decode(encode(np.full((2049, 2055), 255, np.uint8), "JPEG"))
    rows, columns = image.pixels.shape
    whole = (0, 0, columns, rows)
    spec = DEFAULT_SPEC.model_copy(update={"height": rows, "width": columns})
    geometry = Geometry.of(image, Placement(whole, whole), spec)
    region = find_region(np.ones((rows, columns), np.float32), geometry, record())
    assert region is not None
    assert region.box == (0, 0, 2055, 2049)
    assert cell_grid(image.pixels.astype(np.float32), geometry).box == (0, 0, 2056, 2056)
