"""Cutting out and pasting tumours, on a head that is a textured disc."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.textured import SIDE, head, with_skull, with_tumor
from training.images import ImageFile, ImageSet
from training.recipe import Mask
from training.splits import Split
from training.synthesis import fill, paste, strip, stripped_slices, synthesise

LABELS = ("glioma", "notumor")
SETTINGS = Mask(weight=1, cell_weight=5, channels=32, removed=1.0, pasted=1.0)


def test_what_is_cut_out_looks_like_its_surroundings() -> None:
    pixels, mask = with_tumor()
    emptied = fill(pixels, mask > 0, mask > 0, np.random.default_rng(1))
    assert emptied is not None
    assert emptied.dtype == np.uint8
    assert abs(float(emptied[mask > 0].mean()) - 90) < 5
    far = np.hypot(*(np.indices((SIDE, SIDE)) - np.array([90, 70])[:, None, None])) > 35
    assert np.array_equal(emptied[far], pixels[far])


def test_a_pasted_tumor_stands_out_inside_the_head_where_its_mask_says() -> None:
    donor, mask = with_tumor()
    target = head(5)
    made = paste(target, donor, mask, np.random.default_rng(2))
    assert made is not None
    pasted, where = made
    inside = where > 200
    assert inside.sum() > 200
    assert (target[inside] > 0).mean() > 0.9
    assert pasted[inside].mean() > target[inside].mean() + 60
    assert np.abs(pasted.astype(int) - target)[where == 0].mean() < 1


def test_a_slice_without_a_head_takes_no_tumor() -> None:
    donor, mask = with_tumor()
    assert paste(np.zeros_like(donor), donor, mask, np.random.default_rng(0)) is None


def test_only_training_slices_are_used_and_labels_follow_what_was_done() -> None:
    tumor, mask = with_tumor()
    labels = ["glioma", "notumor", "glioma", "notumor"]
    files = tuple(ImageFile(Path(f"{n}.png"), "s", "", name) for n, name in enumerate(labels))
    slices = np.stack([tumor, head(1), np.full_like(tumor, 255), np.full_like(tumor, 255)])
    images = ImageSet(files, ("a", "b", "c", "d"), slices, {0: mask, 2: np.full_like(mask, 255)})
    parts = Split(np.array([0, 1]), np.array([2]), np.array([3]))
    made = synthesise(images, parts, SETTINGS, seed=3)
    assert sorted(made.labels) == ["glioma", "notumor", "tumor"]
    by_label = dict(zip(made.labels.tolist(), made.masks, strict=True))
    assert not by_label["notumor"].any()
    assert np.array_equal(by_label["glioma"], mask)
    assert by_label["tumor"].any()
    # Nothing of the validation or test slices, which are white, got in.
    assert (made.slices == 255).mean() < 0.01
    again = synthesise(images, parts, SETTINGS, seed=3)
    assert np.array_equal(made.slices, again.slices)


def test_without_an_outlined_tumour_none_is_pasted() -> None:
    files = tuple(ImageFile(Path(f"{n}.png"), "s", "", name) for n, name in enumerate(LABELS))
    slices = np.stack([with_tumor()[0], head(1)])
    nobody = np.zeros(0, np.intp)
    made = synthesise(
        ImageSet(files, ("a", "b"), slices), Split(np.arange(2), nobody, nobody), SETTINGS, seed=3
    )
    assert made.slices.shape == made.masks.shape == (0, SIDE, SIDE)
    assert made.labels.shape == (0,)


def test_a_stripped_slice_is_filled_by_its_brain_and_its_mask_goes_along() -> None:
    pixels, truth = with_skull()
    tumour = np.hypot(*(np.indices((SIDE, SIDE)) - np.array([90, 70])[:, None, None])) < 15
    pixels[tumour] = 200
    made = strip(pixels, np.where(tumour, 255, 0).astype(np.uint8))
    assert made is not None
    bare, where = made
    rows = np.flatnonzero((bare > 25).sum(axis=1) > 5)
    assert rows[0] <= 2
    assert rows[-1] >= SIDE - 3
    growth = SIDE / np.ptp(np.flatnonzero(truth.any(axis=1)))
    assert (where > 127).sum() == pytest.approx(tumour.sum() * growth**2, rel=0.05)
    assert bare[where > 250].mean() > bare[(where == 0) & (bare > 25)].mean() + 50


def test_a_slice_whose_tumour_lies_outside_the_brain_is_not_stripped() -> None:
    pixels, truth = with_skull()
    assert strip(pixels, np.where(truth, 0, 255).astype(np.uint8)) is None


def test_all_kinds_of_slices_are_stripped_alike() -> None:
    files = tuple(ImageFile(Path(f"{n}.png"), "s", "", name) for n, name in enumerate(LABELS))
    pixels, _ = with_skull()
    tumour = np.hypot(*(np.indices((SIDE, SIDE)) - np.array([90, 70])[:, None, None])) < 15
    slices = np.stack([np.where(tumour, np.uint8(200), pixels), with_skull(1)[0]])
    images = ImageSet(files, ("a", "b"), slices, {0: np.where(tumour, 255, 0).astype(np.uint8)})
    parts = Split(np.array([0, 1]), np.array([], int), np.array([], int))
    before = synthesise(images, parts, SETTINGS, seed=3)
    after = synthesise(images, parts, SETTINGS.model_copy(update={"stripped": 1.0}), seed=3)
    count = len(before.labels)
    # What was made before comes first and is the same.
    assert np.array_equal(after.slices[:count], before.slices)
    assert sorted(after.labels[count:]) == sorted([*LABELS, *before.labels])
    assert (after.slices[count:] == 210).mean() < 0.001
    assert (before.slices == 210).mean() > 0.05


def test_real_slices_are_stripped_where_all_of_the_tumour_is_known() -> None:
    labels = ["glioma", "notumor", "glioma", "notumor"]
    files = tuple(ImageFile(Path(f"{n}.png"), "s", "", name) for n, name in enumerate(labels))
    pixels, truth = with_skull()
    # The last has no skull to strip, the third no mask.
    slices = np.stack([pixels, with_skull(1)[0], pixels, head()])
    tumour = np.where(truth & (np.indices(truth.shape)[0] < 90), 255, 0).astype(np.uint8)
    images = ImageSet(files, ("a", "b", "c", "d"), slices, {0: tumour})
    made, of = stripped_slices(images, np.arange(4), 1.0, seed=3)
    assert sorted(of) == [0, 1]
    assert made.shape == (2, SIDE, SIDE)
    assert (made == 210).mean() < 0.001
    none, of = stripped_slices(images, np.arange(4), 0.0, seed=3)
    assert none.shape == (0, SIDE, SIDE)
    assert none.dtype == np.uint8
    assert not len(of)
