"""Trains a recipe several times, each on another part of the data, and tests it on the rest.

Data sets that name patient-wise folds are tested fold by fold; others by repeated splits in whole
near-duplicate groups. What is tested neither trains nor validates, nor does any image that shares a
group with it. Data sets that the recipe has for training alone are never tested. What validates, and so
chooses an epoch, is whole near-duplicate groups of what is not tested: where folds are of patients,
other slices of the same patient may train, and ``validation_accuracy`` is no figure of new patients.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.convert import keras_predictor, trained_model
from training.departure import departs, overridden
from training.duplicates import Audit
from training.errors import DatasetError, RecipeError
from training.files import load_arrays, save_arrays, write_aside
from training.fit import train
from training.images import ImageSet
from training.patients import persons_named
from training.prepare import as_begun, configure, read, require_masks, start
from training.recipe import SEEDS, Recipe
from training.run import RUN_FILE, Run, held
from training.scores import scores
from training.splits import Protocol, Split, divisible, left_out, pick, require_classes
from training.truth import allowed, require_kinds

CROSSVAL_FILE: Final = "crossval.json"
_PREDICTIONS: Final = "predictions.npz"


class Part(NamedTuple):
    """One training and test.

    Attributes:
        name: its folder below the output folder.
        recipe: the recipe, with a seed of its own.
        split: who trains, validates and is tested.
    """

    name: str
    recipe: Recipe
    split: Split


def crossval(
    recipe: Recipe,
    roots: Sequence[Path],
    out: Path,
    repeats: int,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Runs what is not done yet and writes ``crossval.json``.

    Args:
        recipe: what is trained, each time with another seed.
        roots: the data sets.
        out: a folder; each training is a run below it, and is resumed if it was begun.
        repeats: how many splits data without folds get.
        overrides: those that the recipe was loaded with.

    Returns:
        What the file holds: figures of each part, and of all tested images together.

    Raises:
        DatasetError: of the data to be tested, some name folds and others do not; or they show one
            class, or what is no class of the recipe's; or a class is left without training or
            validation images, or a mask head without outlines.
        RecipeError: the parts' seeds, which follow the recipe's, would be too large.
        RunError: what is there is damaged, or of other data or another recipe.
    """
    begun = next((p.parent for p in sorted(out.glob(f"*/{RUN_FILE}")) if Run.begun(p.parent)), out)
    roots = as_begun(begun, roots)
    images, audit = read(recipe, roots)
    _check(images.labels[divisible(images, recipe)], recipe)
    probabilities: list[NDArray[np.float32]] = []
    tested: list[NDArray[np.intp]] = []
    rows: list[dict[str, Any]] = []
    # All of them before the first trains: one of them may lack a class, or outlines.
    every = [*parts(recipe, images, audit, repeats)]
    for part in every if recipe.mask is not None else ():
        require_masks(images, part.split)
    for part in every:
        print(f"{part.name}: {part.split.counts()}", flush=True)
        for remark in part.split.remarks:
            print(f"  {remark}", flush=True)
        config = configure(part.recipe, roots, images, part.split, Protocol.GROUPED)
        with held(out / part.name):
            run = start(out / part.name, config, resume=True)
            train(run, images, audit.alike, part.split)
        found = _predicted(run, images, part.split)
        right = _right(found, images, part.split.test, recipe)
        progress = run.require_finished()
        rows.append(
            {
                "name": part.name,
                "split": part.split.counts(),
                "best_epoch": progress.best_epoch,
                "epochs": progress.total_epochs,
                "validation_accuracy": progress.best_accuracy,
                "accuracy": float(right.mean()),
            }
        )
        print(f"{part.name}: {rows[-1]}", flush=True)
        probabilities.append(found)
        tested.append(part.split.test)
    spread = deviation(rows)
    result = {
        "recipe": recipe.name,
        "recipe_digest": recipe.digest,
        "overridden": overridden(recipe, overrides),
        "another_recipe": departs(recipe),
        "weights": recipe.weights_name,
        "data": [source.model_dump() for source in images.sources()],
        "persons_named": persons_named(images, np.concatenate(tested)),
        "parts": rows,
        "mean_accuracy": float(np.mean([row["accuracy"] for row in rows])),
        **({} if spread is None else {"accuracy_deviation": spread}),
        "together": _together(
            np.concatenate(probabilities), np.concatenate(tested), images, audit, recipe
        ),
    }
    write_aside(out / CROSSVAL_FILE, (json.dumps(result, indent=1) + "\n").encode())
    told = f"accuracy {result['mean_accuracy']:.4f}"
    if spread is not None:
        told += f", standard deviation over {len(rows)} parts {spread:.4f}"
    print(told)
    return result


def deviation(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Standard deviation of parts' accuracy, as a sample of all there could be; one part has none."""
    if len(rows) < 2:
        return None
    return float(np.std([row["accuracy"] for row in rows], ddof=1))


def _check(labels: NDArray[np.str_], recipe: Recipe) -> None:
    found = set(labels.tolist())
    if not found <= set(recipe.classes):
        names = ", ".join(sorted(found - set(recipe.classes)))
        raise DatasetError(
            f"{recipe.name} cannot be tested on images of {names}: it has no such class"
        )
    require_kinds(labels)


def parts(recipe: Recipe, images: ImageSet, audit: Audit, repeats: int) -> Iterator[Part]:
    """Who trains and who is tested, each time.

    Raises:
        DatasetError: of the data to be tested, some name folds and others do not; or a class is left
            without training or validation images.
        RecipeError: the parts' seeds, which follow the recipe's, would be too large.
    """
    free = divisible(images, recipe)
    folds = sorted({str(part) for part in images.parts[free]})
    if all(fold.startswith("fold") for fold in folds):
        tests = [(fold, free & (images.parts == fold)) for fold in folds]
    elif any(fold.startswith("fold") for fold in folds):
        raise DatasetError("some of the data name folds and others do not; test them apart")
    else:
        tests = [
            (
                f"repeat{number}",
                pick(
                    images.labels,
                    audit.groups,
                    free,
                    recipe.test_share,
                    np.random.default_rng((recipe.seed, number)),
                    audit.persons,
                ),
            )
            for number in range(1, repeats + 1)
        ]
    if recipe.seed + len(tests) >= SEEDS:
        raise RecipeError(f"seed {recipe.seed} leaves no room below {SEEDS} for {len(tests)} more")
    for number, (name, test) in enumerate(tests, start=1):
        # Not validated again: hence the check above.
        own = recipe.model_copy(update={"seed": recipe.seed + number})
        yield Part(name, own, _around(images, audit, test, own))


def _around(images: ImageSet, audit: Audit, test: NDArray[np.bool_], recipe: Recipe) -> Split:
    """Of what shares no group with the test images, a share validates and the rest trains."""
    groups = audit.groups
    usable = ~np.isin(groups, groups[test])
    usable[audit.conflicting] = False
    whole = divisible(images, recipe)
    rng = np.random.default_rng(recipe.seed)
    validates = pick(
        images.labels, groups, usable & whole, recipe.validation_share, rng, audit.persons
    )
    trains = usable & ~np.isin(groups, groups[validates])
    result = Split(np.flatnonzero(trains), np.flatnonzero(validates), np.flatnonzero(test))
    require_classes(result, images, recipe, whole)
    return replace(result, remarks=tuple(left_out(result, audit)))


def _predicted(run: Run, images: ImageSet, split: Split) -> NDArray[np.float32]:
    """Probabilities of the test images, (N, classes); kept, so that a resumed run has them.

    Raises:
        RunError: what was kept is damaged.
    """
    path = run.path / _PREDICTIONS
    weights = run.weights_digest()
    kept = load_arrays(path) or {}
    # A part that was trained anew, or another part's file, has other weights.
    if str(kept.get("weights")) != weights:
        predict = keras_predictor(trained_model(run), run.config.recipe)
        found = predict(images.slices[split.test])["probabilities"]
        kept = {"probabilities": found, "weights": np.array(weights)}
        save_arrays(path, kept)
    return kept["probabilities"]


def _right(
    probabilities: NDArray[np.float32], images: ImageSet, rows: NDArray[np.intp], recipe: Recipe
) -> NDArray[np.float32]:
    truth = allowed(images.labels[rows], recipe.classes, recipe.tumor_classes)
    right: NDArray[np.float32] = truth[np.arange(len(rows)), probabilities.argmax(1)]
    return right


def _together(
    probabilities: NDArray[np.float32],
    rows: NDArray[np.intp],
    images: ImageSet,
    audit: Audit,
    recipe: Recipe,
) -> dict[str, Any]:
    """Figures over all tested images, as :func:`training.scores.scores` gives them.

    Classes that the data lack are left out; what they were given counts as an error.
    """
    labels = images.labels[rows]
    present = [name for name in recipe.classes if name in labels]
    truth = np.array([recipe.classes.index(str(label)) for label in labels])
    with warnings.catch_warnings():
        # Data that are all tumours have no specificity.
        warnings.simplefilter("ignore", RuntimeWarning)
        found = scores(
            probabilities,
            truth,
            audit.groups[rows],
            recipe.classes,
            recipe.tumor_classes,
            recipe.tumor_threshold,
        )
    found["classes"] = {name: found["classes"][name] for name in present}
    found["macro_f1"] = float(np.mean([entry["f1"] for entry in found["classes"].values()]))
    found["macro_auc"] = float(np.mean([entry["auc"] for entry in found["classes"].values()]))
    if set(present) <= set(recipe.tumor_classes):
        del found["tumor"]
        found["interval"] = {k: v for k, v in found["interval"].items() if "tumor." not in k}
    absent = set(recipe.classes) - set(present)
    found["interval"] = {
        name: limits
        for name, limits in found["interval"].items()
        if name.split(".")[0] not in absent
    }
    return found
