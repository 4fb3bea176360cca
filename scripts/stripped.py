"""What a version makes of validation slices without the skull: ``python -m scripts.stripped FOLDER …``.

Many hospitals' pipelines strip it. Of the slices in which :func:`training.stripping.brain` finds one,
as they are and stripped, the latter preprocessed again as the service would.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from contract.answer import Rules
from contract.errors import StoreError
from contract.store import ModelStore
from training.answering import as_outputs
from training.catalogue import load_recipe
from training.convert import Predictor, litert_predictor
from training.errors import TrainingError
from training.names import NO_TUMOR
from training.prepare import prepare
from training.splits import Protocol
from training.synthesis import strip

STORE = Path(__file__).resolve().parents[1] / "model_store"
MODEL = "brain-tumor"
RECIPE = "efficientnet_lite0_mask"


def main() -> int:
    """Prints two lines; returns the process' exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.stripped", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="the data sets that trained it")
    parser.add_argument("--version", default="latest")
    arguments = parser.parse_args()
    try:
        compare(arguments.folders, arguments.version)
    except (TrainingError, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def compare(folders: Sequence[Path], version: str) -> None:
    """Prints what a version makes of the validation slices of some data sets.

    Raises:
        TrainingError: of the data sets.
        StoreError: the version cannot be had, or has no mask.
    """
    store = ModelStore(STORE)
    stored = store.load(MODEL, store.resolve(MODEL, version))
    rules = Rules.read(stored)
    if rules.region is None:
        raise StoreError(f"{MODEL} {version} has no mask")
    threshold = rules.region.threshold
    predict = litert_predictor(stored.path / stored.manifest.artifacts["litert"])
    prepared = prepare(load_recipe(RECIPE), folders, Protocol.GROUPED)
    images, empty = prepared.images, np.zeros(prepared.images.slices.shape[1:], np.uint8)
    rows, bare = [], []
    for row in prepared.parts.validation.tolist():
        made = strip(images.slices[row], images.masks.get(row, empty))
        if made is not None:
            rows.append(row)
            bare.append(made)
    labels = images.labels[rows]
    whole = np.stack([images.masks.get(row, empty) for row in rows])
    outlined = np.array([row in images.masks for row in rows])
    print(
        f"{len(rows)} slices, {(labels != NO_TUMOR).sum()} with a tumour, {outlined.sum()} outlined"
    )
    for name, slices, masks in (
        ("as they are", images.slices[rows], whole),
        ("stripped", np.stack([b[0] for b in bare]), np.stack([b[1] for b in bare])),
    ):
        tumor = labels != NO_TUMOR
        print(f"{name}: {_figures(slices, masks, tumor, outlined, rules, threshold, predict)}")


def _figures(
    slices: NDArray[np.uint8],
    masks: NDArray[np.uint8],
    tumor: NDArray[np.bool_],
    outlined: NDArray[np.bool_],
    rules: Rules,
    threshold: float,
    predict: Predictor,
) -> str:
    outputs = predict(slices)
    answers = rules.answer(as_outputs(outputs))
    probability = answers.tumor_probability
    found = outputs["mask"][outlined] > threshold
    side = masks.shape[1] // found.shape[1]
    cells = masks[outlined].reshape(len(found), found.shape[1], side, found.shape[2], side)
    truth = cells.mean((2, 4)) > 127
    overlap = (found & truth).sum((1, 2)) / np.maximum(1, found.sum((1, 2)) + truth.sum((1, 2)))
    return (
        f"AUC {roc_auc_score(tumor, probability):.3f}, "
        f"sensitivity {(probability[tumor] >= rules.tumor_threshold).mean():.1%}, "
        f"specificity {(probability[~tumor] < rules.tumor_threshold).mean():.1%}, "
        f"mean Dice of the masks {2 * overlap.mean():.3f}, "
        f"in distribution {np.mean(answers.in_distribution):.1%}"  # type: ignore[arg-type]
    )


if __name__ == "__main__":
    sys.exit(main())
