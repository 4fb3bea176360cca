import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from contract.decoding import decode
from contract.errors import PreprocessMismatch
from contract.preprocessing import (
    DEFAULT_SPEC,
    PreprocessSpec,
    preprocess,
    preprocess_placed,
    probe_digest,
    reproduce,
)
from tests.contract.samples import GOLDEN, SLICES

GOLDEN_DIGESTS: dict[str, str] = json.loads((GOLDEN / "digests.json").read_bytes())
"""sha256 of the model input that each golden slice gives; ``tests/contract/golden.py`` wrote them."""

SPEC_DIGEST = "0bd5a09083058eeff55cfc8ec063ab782794dfc51db6d200ac7a83aa8c79da6b"
PROBE_DIGEST = "c3eebbf71aec43b6af3ed78329b3b59ce9a793d8b6e7ad4f607129a86a0c4322"

many = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def sha256(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def head(rows: int, columns: int, gain: float = 1.0) -> NDArray[np.uint8]:
    """A textured ellipse on black, off the centre."""
    y, x = np.mgrid[0:rows, 0:columns]
    inside = ((y - 0.45 * rows) / (0.36 * rows)) ** 2 + (
        (x - 0.55 * columns) / (0.3 * columns)
    ) ** 2
    texture = 50 + 28 * np.sin(y / 29) * np.cos(x / 23)
    return np.where(inside < 1, texture * gain, 2 * gain).astype(np.uint8)


@st.composite
def slices(draw: st.DrawFn) -> NDArray[np.uint8]:
    """Any slice from 1x1 to 700x300: noise, flat, a few points, a ramp, black and white."""
    rows, columns = draw(st.integers(1, 700)), draw(st.integers(1, 300))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    low, high = sorted((draw(st.integers(0, 255)), draw(st.integers(0, 255))))
    kind = draw(st.sampled_from(["noise", "flat", "points", "ramp", "halves"]))
    pixels = np.full((rows, columns), low, np.uint8)
    if kind == "noise":
        pixels = random.integers(low, high, (rows, columns), np.uint8, endpoint=True)
    elif kind == "points":
        pixels[random.integers(0, rows, 3), random.integers(0, columns, 3)] = high
    elif kind == "ramp":
        pixels = np.linspace(low, high, rows * columns).reshape(rows, columns).astype(np.uint8)
    elif kind == "halves":
        pixels[:, columns // 2 :] = high
    return pixels


class TestGolden:
    @pytest.mark.parametrize("path", SLICES, ids=lambda path: path.stem)
    def test_a_golden_slice_gives_the_golden_input(self, path: Path) -> None:
        with Image.open(GOLDEN / f"{path.stem}.png") as image:
            pixels = np.asarray(image)
        assert sha256(preprocess(pixels)) == GOLDEN_DIGESTS[path.stem]

    @pytest.mark.parametrize("path", SLICES, ids=lambda path: path.stem)
    def test_a_real_jpeg_gives_the_golden_slice(self, path: Path) -> None:
        """Within one grey level: builds of libjpeg may round differently."""
        decoded = decode(path.read_bytes())
        with Image.open(GOLDEN / f"{path.stem}.png") as image:
            golden = np.asarray(image)
        assert decoded.original_size == (512, 512)
        assert decoded.pixels.shape == golden.shape == (256, 256)
        assert np.abs(decoded.pixels.astype(int) - golden).max() <= 1

    def test_the_probe_is_frozen(self) -> None:
        assert probe_digest(DEFAULT_SPEC) == PROBE_DIGEST

    @pytest.mark.parametrize("path", SLICES, ids=lambda path: path.stem)
    def test_reduced_scale_decoding_keeps_the_image(self, path: Path) -> None:
        """Half the scale is softer where the head is small (measured: 1.2 to 5.2 grey levels in the
        mean, correlation 0.977 to 0.9995), but shows the same at the same place."""
        full = DEFAULT_SPEC.model_copy(update={"decode_min_side": 4096})
        data = path.read_bytes()
        assert decode(data, full).pixels.shape == (512, 512)
        reduced, (crop, target) = preprocess_placed(decode(data).pixels)
        sharp, (full_crop, full_target) = preprocess_placed(decode(data, full).pixels)
        assert np.abs(2 * np.array(crop) - full_crop).max() <= 3
        assert np.abs(np.array(target) - full_target).max() <= 1
        assert np.abs(reduced.astype(int) - sharp).mean() < 7
        assert np.corrcoef(reduced.ravel(), sharp.ravel())[0, 1] > 0.97


class TestSpec:
    def test_the_digest_is_frozen(self) -> None:
        assert DEFAULT_SPEC.digest == SPEC_DIGEST

    @pytest.mark.parametrize(
        "change",
        [
            {"height": 225},
            {"width": 225},
            {"decode_min_side": 255},
            {"low_percentile": 1.5},
            {"high_percentile": 99.0},
            {"foreground_level": 0.11},
            {"foreground_share": 0.03},
            {"min_foreground": 0.25},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_each_parameter_changes_the_digest(self, change: dict[str, float]) -> None:
        changed = PreprocessSpec(**(DEFAULT_SPEC.model_dump() | change))
        assert changed.digest != DEFAULT_SPEC.digest

    def test_every_parameter_is_in_the_digest_test(self) -> None:
        assert len(PreprocessSpec.model_fields) == 8 + len({"algorithm", "resample"})

    def test_a_spec_survives_json(self) -> None:
        restored = PreprocessSpec.model_validate(json.loads(DEFAULT_SPEC.model_dump_json()))
        assert restored.digest == DEFAULT_SPEC.digest

    def test_equal_numbers_have_one_digest(self) -> None:
        parameters = DEFAULT_SPEC.model_dump() | {"low_percentile": 1, "height": 224.0}
        assert PreprocessSpec.model_validate(parameters).digest == DEFAULT_SPEC.digest


class TestReproduce:
    def test_what_was_exported_here_is_reproduced(self) -> None:
        parameters = json.loads(DEFAULT_SPEC.model_dump_json())
        assert reproduce(parameters, DEFAULT_SPEC.digest, PROBE_DIGEST) == DEFAULT_SPEC

    @pytest.mark.parametrize(
        "change",
        [
            {"gamma": 2.2},
            {"algorithm": 2},
            {"resample": "lanczos"},
            {"height": 8},
            {"height": "tall"},
            {"low_percentile": None},
        ],
        ids=repr,
    )
    def test_what_is_unknown_here_is_a_mismatch(self, change: dict[str, Any]) -> None:
        parameters = DEFAULT_SPEC.model_dump() | change
        with pytest.raises(PreprocessMismatch, match=next(iter(change))):
            reproduce(parameters, DEFAULT_SPEC.digest, PROBE_DIGEST)

    def test_other_parameters_than_hashed_are_a_mismatch(self) -> None:
        parameters = DEFAULT_SPEC.model_dump() | {"low_percentile": 2.0}
        with pytest.raises(PreprocessMismatch, match="hash"):
            reproduce(parameters, DEFAULT_SPEC.digest, PROBE_DIGEST)

    def test_other_pixels_are_a_mismatch(self) -> None:
        with pytest.raises(PreprocessMismatch, match="other pixels"):
            reproduce(DEFAULT_SPEC.model_dump(), DEFAULT_SPEC.digest, "0" * 64)


class TestPreprocess:
    @many
    @given(slices())
    def test_any_slice_becomes_an_input(self, pixels: NDArray[np.uint8]) -> None:
        before = pixels.copy()
        output, (crop, target) = preprocess_placed(pixels)
        assert output.shape == (224, 224)
        assert output.dtype == np.uint8
        assert output.flags.c_contiguous
        assert (pixels == before).all(), "the slice itself is not touched"
        rows, columns = pixels.shape
        assert 0 <= crop[0] < crop[2] <= columns
        assert 0 <= crop[1] < crop[3] <= rows
        assert 0 <= target[0] < target[2] <= 224
        assert 0 <= target[1] < target[3] <= 224
        assert 224 in {target[2] - target[0], target[3] - target[1]}, "it fills one axis"
        outside = output.copy()
        outside[target[1] : target[3], target[0] : target[2]] = 0
        assert not outside.any()

    @many
    @given(slices())
    def test_the_layout_in_memory_does_not_matter(self, pixels: NDArray[np.uint8]) -> None:
        strided = np.zeros((pixels.shape[0] * 2, pixels.shape[1] * 3), np.uint8)[::2, ::3]
        strided[...] = pixels
        expected = preprocess(pixels)
        assert (preprocess(strided) == expected).all()
        assert (preprocess(np.asfortranarray(pixels)) == expected).all()

    @pytest.mark.parametrize("gain", [2, 3], ids="x{}".format)
    @pytest.mark.parametrize("shape", [(224, 224), (311, 277), (180, 420)], ids=str)
    def test_the_grey_scale_does_not_matter(self, shape: tuple[int, int], gain: int) -> None:
        """A dim and a bright scan of one head give one input, but for the rounding of the dim one."""
        dim, dim_placement = preprocess_placed(head(*shape))
        bright, bright_placement = preprocess_placed(head(*shape, gain=gain))
        assert dim_placement == bright_placement
        rounding = math.ceil(255 / 56) + 1
        assert np.abs(dim.astype(int) - bright).max() <= rounding

    @pytest.mark.parametrize("offset", [10, 100], ids="+{}".format)
    def test_the_black_level_does_not_matter(self, offset: int) -> None:
        pixels = head(311, 277)
        raised = (pixels + offset).astype(np.uint8)
        assert np.abs(preprocess(pixels).astype(int) - preprocess(raised)).max() <= 3

    def test_a_few_hot_pixels_do_not_matter(self) -> None:
        pixels = head(256, 256)
        hot = pixels.copy()
        hot[100, 100:110] = 255
        assert np.median(np.abs(preprocess(pixels).astype(int) - preprocess(hot))) == 0

    def test_a_flat_slice_stays_flat(self) -> None:
        for level in (0, 128, 255):
            output = preprocess(np.full((50, 50), level, np.uint8))
            assert (output == level).all()

    def test_grey_spans_the_whole_range(self) -> None:
        output = preprocess(head(400, 300))
        assert (output.min(), output.max()) == (0, 255)

    @pytest.mark.parametrize(
        "point", [(150, 120), (100, 160), (230, 140)], ids=lambda point: f"row{point[0]}"
    )
    def test_the_placement_maps_back(self, point: tuple[int, int]) -> None:
        """A bright spot in the input lies where the placement says that it lies in the slice."""
        pixels = head(400, 300)
        row, column = point
        pixels[row - 13 : row + 14, column - 13 : column + 14] = 255
        output, (crop, target) = preprocess_placed(pixels)
        rows, columns = np.nonzero(output > 220)
        scale = (crop[2] - crop[0]) / (target[2] - target[0])
        found_row = crop[1] + (rows.mean() + 0.5 - target[1]) * scale
        found_column = crop[0] + (columns.mean() + 0.5 - target[0]) * scale
        assert abs(found_row - (row + 0.5)) < 1.5
        assert abs(found_column - (column + 0.5)) < 1.5

    def test_the_crop_is_the_head(self) -> None:
        pixels = np.zeros((400, 300), np.uint8)
        pixels[100:300, 60:210] = 120
        _, (crop, target) = preprocess_placed(pixels)
        assert crop == (60, 100, 210, 300)
        assert target == (28, 0, 196, 224), "150 x 200 in its aspect ratio, centred"

    @pytest.mark.parametrize("lines", [255, 256, 257, 512])
    def test_a_head_that_fills_many_lines_is_seen(self, lines: int) -> None:
        """As many as a byte counts, and more."""
        pixels = np.zeros((lines, 300), np.uint8)
        pixels[:, 60:210] = 120
        assert preprocess_placed(pixels)[1].crop == (60, 0, 210, lines)
        assert preprocess_placed(pixels.T)[1].crop == (0, 60, lines, 210)

    def test_of_an_odd_margin_the_larger_part_is_below_and_to_the_right(self) -> None:
        pixels = np.zeros((400, 400), np.uint8)
        pixels[100:201, 60:284] = 120
        assert preprocess_placed(pixels)[1].target == (0, 61, 224, 162)
        assert preprocess_placed(pixels.T)[1].target == (61, 0, 162, 224)

    def test_burned_in_text_does_not_widen_the_crop(self) -> None:
        pixels = np.zeros((400, 300), np.uint8)
        pixels[100:300, 60:210] = 120
        pixels[5:9, 3:7] = 255
        assert preprocess_placed(pixels)[1].crop == (60, 100, 210, 300)

    def test_a_speck_is_not_taken_for_the_head(self) -> None:
        pixels = np.zeros((400, 300), np.uint8)
        pixels[100:140, 60:100] = 200
        assert preprocess_placed(pixels)[1].crop == (0, 0, 300, 400)

    @pytest.mark.parametrize(
        "pixels",
        [
            np.zeros((4, 4), np.uint16),
            np.zeros((4, 4), np.float32),
            np.zeros((4, 4), np.bool_),
            np.zeros((4, 4, 3), np.uint8),
            np.zeros(4, np.uint8),
            np.zeros((0, 4), np.uint8),
            np.zeros((4, 0), np.uint8),
        ],
        ids=lambda pixels: f"{pixels.dtype}-{pixels.shape}",
    )
    def test_what_is_no_slice_is_refused(self, pixels: NDArray[Any]) -> None:
        with pytest.raises(ValueError, match="uint8"):
            preprocess(pixels)

    def test_another_size_of_input(self) -> None:
        spec = PreprocessSpec(height=96, width=160)
        output, (_, target) = preprocess_placed(head(400, 300), spec)
        assert output.shape == (96, 160)
        assert target[3] - target[1] == 96
