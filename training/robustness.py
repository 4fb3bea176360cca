"""How well test slices are answered after what other scanners, archives and exports do to them."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

from contract.answer import Answers, Rules
from contract.decoding import decode
from contract.preprocessing import DEFAULT_SPEC, preprocess_placed
from contract.region import Geometry
from training.answering import as_outputs
from training.calibrate import class_indices, expected_calibration_error
from training.convert import Predictor
from training.images import ImageSet
from training.outlines import MASK_LEVEL
from training.perturb import PERTURBATIONS, ROTATED, Change, perturbed
from training.recipe import Recipe
from training.regions import compare, read_mask, reported
from training.scores import finite
from training.trust import Tested


def robustness(
    images: ImageSet,
    test: Tested,
    rules: Rules,
    predict: Predictor,
    recipe: Recipe,
) -> dict[str, dict[str, float]]:
    """Accuracy, Dice and calibration of the test slices after each perturbation; ``none`` is first.

    What the slices cannot show is not there: a data set that was left out may hold one kind of slice,
    and may have no masks.
    """
    known = class_indices(test.labels, recipe.classes)
    named = known >= 0
    several = len(np.unique(known[named])) > 1
    both = len(np.unique(test.tumor)) == 2
    table: dict[str, dict[str, float]] = {}
    for name, change in {"none": _unchanged, **PERTURBATIONS}.items():
        rng = np.random.default_rng(recipe.seed)
        slices, geometries = _changed(images, test.rows, change, rng)
        outputs = predict(slices)
        answers = rules.answer(as_outputs(outputs))
        moved = change if name == ROTATED else _unchanged
        masks = _masks(images, test.rows, moved, rng)
        dice = _dice(masks, outputs["mask"], geometries, answers, rules)
        tumor = answers.tumor_probability
        correct = answers.labels[named] == known[named]
        errors = {"ece": expected_calibration_error(answers.probabilities[named].max(1), correct)}
        assert answers.in_distribution is not None
        table[name] = {
            **({"accuracy": float(correct.mean())} if several else {}),
            **({"tumor_auc": float(roc_auc_score(test.tumor, tumor))} if both else {}),
            **({"dice": float(np.mean(dice))} if dice else {}),
            **finite(errors if several else {}),
            "in_distribution": float(answers.in_distribution.mean()),
        }
        print(f"{name}: {table[name]}", flush=True)
    return table


def _unchanged(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image


def _changed(
    images: ImageSet, rows: NDArray[np.intp], change: Change, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], list[Geometry]]:
    """Slices as a service would see them after a change, uint8 (N, H, W), and where each lies."""
    slices, geometries = [], []
    for row in rows:
        decoded = decode(images.files[int(row)].path.read_bytes())
        prepared, placement = preprocess_placed(perturbed(decoded.upright, change, rng))
        slices.append(prepared)
        geometries.append(Geometry.of(decoded, placement, DEFAULT_SPEC))
    return np.stack(slices), geometries


def _masks(
    images: ImageSet, rows: NDArray[np.intp], change: Change, rng: np.random.Generator
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """The radiologist's masks, bool (rows, columns), after a change, each with its slice's place."""
    for index, row in enumerate(rows):
        path = images.files[int(row)].mask
        if path is not None:
            turn = images.geometries[int(row)].turn
            # As it is read, which is how the slice is changed: stored, it may be a mirror image.
            mask = turn.apply(read_mask(path)).astype(np.uint8) * np.uint8(255)
            yield index, turn.undo(perturbed(mask, change, rng) > MASK_LEVEL)


def _dice(
    truths: Iterable[tuple[int, NDArray[np.bool_]]],
    masks: NDArray[np.float32],
    geometries: Sequence[Geometry],
    answers: Answers,
    rules: Rules,
) -> list[float]:
    """Dice of the region that is answered for each slice with a mask.

    Args:
        truths: these masks, by the slice's place among the others.
        masks: tumour probability of the cells, (N, h, w).
        geometries: where each slice lies in its original image, (N,).
        answers: to the slices.
        rules: which regions are answered.
    """
    assert rules.region is not None
    found = []
    for index, truth in truths:
        probability = float(answers.tumor_probability[index])
        region = reported(masks[index], geometries[index], probability, rules.region)
        found.append(compare(region, truth, probability).dice)
    return found
