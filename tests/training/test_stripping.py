"""Finding the brain within the skull, on a head that is discs and on real slices."""

import numpy as np
import pytest
from PIL import Image

from contract.decoding import decode
from contract.preprocessing import preprocess
from tests.contract.samples import SLICES
from tests.support.textured import SIDE, head, with_skull
from training.perturb import PERTURBATIONS, perturbed
from training.stripping import brain

STRIPPED = PERTURBATIONS["skull stripped, where a brain is found"]


def test_the_brain_is_found_without_bone_and_scalp() -> None:
    pixels, truth = with_skull()
    found = brain(pixels)
    assert found is not None
    assert found.dtype == bool
    assert 2 * (found & truth).sum() > 0.97 * (found.sum() + truth.sum())
    assert not found[pixels == 210].any()


def test_a_bridge_from_the_brain_to_the_scalp_is_cut() -> None:
    pixels, truth = with_skull()
    pixels[105:113, :112] = np.where(pixels[105:113, :112] > 0, 90, 0)
    found = brain(pixels)
    assert found is not None
    # The bridge's ends are rounded off, and may touch the scalp.
    assert found[pixels == 210].mean() < 0.01
    assert found[truth].mean() > 0.95


@pytest.mark.parametrize(
    "pixels", [np.zeros((SIDE, SIDE), np.uint8), head()], ids=["black", "bare"]
)
def test_without_a_skull_nothing_is_found(pixels: np.ndarray) -> None:
    assert brain(pixels) is None


def test_of_real_slices_a_plausible_part_is_left_and_no_scalp() -> None:
    missed = []
    for path in SLICES:
        pixels = preprocess(decode(path.read_bytes()).pixels)
        found = brain(pixels)
        if found is None:
            missed.append(path.stem)
            continue
        assert 0.25 < found.sum() / (pixels > 25).sum() < 0.95, path.stem
        # The outermost lines of the crop are scalp.
        assert not found[:3].any(), path.stem
        assert not found[-3:].any(), path.stem
    # Wide ventricles leave no piece of tissue that is large enough.
    assert missed == ["Te-gl_0105"]


def test_a_stripped_picture_keeps_its_size_and_the_brain_where_it_was() -> None:
    pixels, truth = with_skull()
    large = np.asarray(Image.fromarray(np.pad(pixels, ((40, 10), (0, 70)))).resize((588, 548)))
    where = np.asarray(Image.fromarray(np.pad(truth, ((40, 10), (0, 70)))).resize((588, 548)))
    bare = perturbed(large, STRIPPED, np.random.default_rng(0))
    assert bare.shape == large.shape
    kept = bare > 0
    assert 2 * (kept & where).sum() > 0.97 * (kept.sum() + where.sum())
    assert np.array_equal(bare[kept], large[kept])


def test_a_picture_without_a_skull_stays_as_it_is() -> None:
    assert np.array_equal(perturbed(head(), STRIPPED, np.random.default_rng(0)), head())
