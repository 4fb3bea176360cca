"""What a model is fitted on, and what each of its rows teaches."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.support.textured import SIDE, head, with_tumor
from training.catalogue import load_recipe
from training.duplicates import audit
from training.examples import Examples, training_examples
from training.images import ImageFile, ImageSet
from training.recipe import Recipe
from training.splits import Split


def made_with(**changes: float) -> tuple[Recipe, Examples]:
    """The recipe of the mask with some settings changed, and the examples of a tumour and of none."""
    recipe = load_recipe("efficientnet_lite0_mask")
    assert recipe.mask is not None
    recipe = recipe.model_copy(update={"mask": recipe.mask.model_copy(update=changes)})
    tumor, mask = with_tumor()
    files = tuple(ImageFile(Path(f"{name}.png"), "s", "", name) for name in ("glioma", "notumor"))
    images = ImageSet(files, ("a", "b"), np.stack([tumor, head(1)]), {0: mask})
    rows = np.array([0, 1])
    return recipe, training_examples(images, rows, Split(rows, rows[:0], rows[:0]), recipe)


@pytest.mark.parametrize("teaches", [True, False], ids=["classes too", "mask alone"])
def test_what_synthetic_slices_teach(teaches: bool) -> None:
    recipe, made = made_with(removed=1.0, pasted=1.0, removed_area=1.0, synthetic_classes=teaches)
    real, synthetic = made.allowed[:2], made.allowed[2:]
    glioma, no_tumor = (recipe.classes.index(name) for name in ("glioma", "notumor"))
    assert real.argmax(axis=1).tolist() == [glioma, no_tumor]
    assert (real.sum(axis=1) == 1).all()
    # One without its tumour, one with a patch beside it, and one with a tumour pasted in.
    assert sorted(synthetic.sum(axis=1).tolist()) == ([1, 1, 3] if teaches else [4, 4, 4])
    assert made.masks is not None
    assert made.masks.shape == (5, SIDE, SIDE)
    assert made.known.all()


def test_how_likely_a_row_is_drawn() -> None:
    recipe = load_recipe("efficientnet_lite0_mask")
    assert recipe.mask is not None
    mask = recipe.mask.model_copy(
        update={"removed": 0, "pasted": 1.0, "mask_weight": 3.0, "synthetic_weight": 0.5}
    )
    recipe = recipe.model_copy(
        update={"mask": mask, "copy_weight": 0.25, "source_weights": {"other": 2.0}}
    )
    tumor, outline = with_tumor()
    # An outlined tumour, a copy of it, another slice of the same person; a set of its own.
    labels = {"s": ("glioma", "glioma", "glioma", "notumor"), "other": ("glioma", "notumor")}
    files = tuple(
        ImageFile(
            Path(f"{source}{number}.png"), source, "", label, person="A" if number < 3 else ""
        )
        for source, names in labels.items()
        for number, label in enumerate(names)
    )
    rng = np.random.default_rng(0)
    others = [np.kron(rng.integers(0, 200, (8, 8)), np.ones((28, 28))) for _ in range(4)]
    shown = np.stack([tumor, tumor, *others]).astype(np.uint8)
    images = ImageSet(files, tuple("aabcde"), shown, {0: outline})
    found = audit(images)
    assert found.groups[0] == found.groups[2]
    rows = np.arange(len(files))
    made = training_examples(images, found.alike, Split(rows, rows[:0], rows[:0]), recipe)
    assert made.weights.tolist() == [3, 0.25, 1, 1, 2, 2, *[0.5] * (len(made.slices) - len(files))]
    assert len(made.slices) > len(files)


def test_a_mask_head_may_do_without_synthetic_slices() -> None:
    recipe, made = made_with(removed=0, pasted=0, stripped=0)
    assert made.allowed.shape == (2, len(recipe.classes))


def test_an_epoch_has_every_kind_from_its_beginning_to_its_end() -> None:
    kinds = np.repeat([0, 1], 2000)
    rows = np.zeros((len(kinds), 1, 1), np.uint8)
    weights = np.where(kinds == 0, 4.0, 1.0)
    known = np.ones(len(kinds), bool)
    allowed = np.ones((len(kinds), 2), np.float32)
    examples = Examples(rows, allowed, None, known, weights, 2400, Counter())
    drawn = examples.draw(np.random.default_rng(5))
    assert len(set(drawn.tolist())) == 2400
    first, *_, last = np.split(kinds[drawn], 4)
    # Of 600 each, 0.05 is 2.5 standard deviations.
    assert first.mean() == pytest.approx(last.mean(), abs=0.07)
    assert kinds[drawn].mean() < 0.45
