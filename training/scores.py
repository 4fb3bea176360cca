"""Figures of a classifier, with intervals that respect near duplicates."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
)

BOOTSTRAP_SAMPLES: Final = 1000
BOOTSTRAP_SEED: Final = 20261122
INTERVAL_PERCENT: Final = (2.5, 97.5)


def scores(
    probabilities: NDArray[Any],
    truth: NDArray[np.intp],
    groups: NDArray[np.intp],
    classes: Sequence[str],
    tumor_classes: Sequence[str],
) -> dict[str, Any]:
    """Everything that is reported of one model on one set of images.

    Args:
        probabilities: (N, classes), rows add up to one.
        truth: class indices, (N,).
        groups: near-duplicate group of each image, (N,): the bootstrap draws whole groups, since
            copies of one slice are one observation.
        classes: names in the order of the columns.
        tumor_classes: those that mean a tumour.

    Returns:
        JSON-ready figures; ``interval`` holds 95 % bootstrap intervals of the main ones.
    """
    predicted = probabilities.argmax(1)
    labels = list(range(len(classes)))
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, predicted, labels=labels, zero_division=0
    )
    is_tumor = np.isin(np.asarray(classes)[truth], tumor_classes)
    tumor = tumor_probability(probabilities, classes, tumor_classes)
    result: dict[str, Any] = {
        "images": len(truth),
        "accuracy": float(accuracy_score(truth, predicted)),
        # Of the classes that occur: one data set may not show them all.
        "macro_f1": float(np.mean(f1[support > 0])),
        "log_loss": float(log_loss(truth, _proper(probabilities), labels=labels)),
        "confusion": confusion_matrix(truth, predicted, labels=labels).tolist(),
        "classes": {
            name: {"images": int(support[i])}
            | _finite(
                {
                    "precision": float(precision[i]),
                    "recall": float(recall[i]),
                    "f1": float(f1[i]),
                    "auc": _auc(truth == i, probabilities[:, i]),
                }
            )
            for i, name in enumerate(classes)
            if support[i]
        },
        "tumor": _finite(_binary(is_tumor, tumor) | {"auc": _auc(is_tumor, tumor)}),
    }

    def resampled(rows: NDArray[np.intp]) -> dict[str, float]:
        return _quick(truth[rows], predicted[rows], is_tumor[rows], tumor[rows], classes)

    result["interval"] = bootstrap(resampled, groups)
    return result


def tumor_probability(
    probabilities: NDArray[Any], classes: Sequence[str], tumor_classes: Sequence[str]
) -> NDArray[Any]:
    """Sum over the classes that mean a tumour, (N,)."""
    total: NDArray[Any] = probabilities[:, np.isin(classes, tumor_classes)].sum(axis=1)
    return total


def tumor_scores(
    tumor: NDArray[np.float64], is_tumor: NDArray[np.bool_], groups: NDArray[np.intp]
) -> dict[str, Any]:
    """Figures of tumour or not at a probability of one half, with 95 % intervals.

    Args:
        tumor: tumour probabilities, (N,).
        is_tumor: the truth, (N,).
        groups: near-duplicate groups, (N,).
    """

    def figures(rows: NDArray[Any]) -> dict[str, float]:
        return _binary(is_tumor[rows], tumor[rows]) | {"auc": _auc(is_tumor[rows], tumor[rows])}

    return {
        "images": len(tumor),
        "tumors": int(is_tumor.sum()),
        **_finite(figures(np.arange(len(tumor)))),
        "interval": bootstrap(figures, groups),
    }


def _finite(figures: dict[str, float]) -> dict[str, float]:
    """Without those that are of nothing: slices with a tumour alone have no specificity."""
    return {name: value for name, value in figures.items() if np.isfinite(value)}


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], dict[str, float]],
    groups: NDArray[np.intp],
    samples: int = BOOTSTRAP_SAMPLES,
) -> dict[str, list[float]]:
    """95 % percentile intervals of a statistic of row indices, drawing groups with replacement.

    A figure that no draw has, because the rows lack what it is of, has no interval.
    """
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    names = np.unique(groups)
    members = [np.flatnonzero(groups == name) for name in names]
    draws: list[dict[str, float]] = []
    for _ in range(samples):
        picked = rng.integers(0, len(members), len(members))
        draws.append(statistic(np.concatenate([members[i] for i in picked])))
    intervals = {}
    for name in draws[0]:
        # A draw without a class has no figure for it.
        values = np.array([draw[name] for draw in draws])
        if np.isfinite(values).any():
            low, high = np.nanpercentile(values, INTERVAL_PERCENT)
            intervals[name] = [float(low), float(high)]
    return intervals


def _quick(
    truth: NDArray[np.intp],
    predicted: NDArray[np.intp],
    is_tumor: NDArray[np.bool_],
    tumor: NDArray[Any],
    classes: Sequence[str],
) -> dict[str, float]:
    count = len(classes)
    matrix = np.bincount(truth * count + predicted, minlength=count**2).reshape(count, count)
    hits, rows, columns = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = np.where(rows > 0, 2 * hits / (rows + columns), np.nan)
        recall = hits / rows
        precision = hits / columns
    figures = {"accuracy": float(hits.sum() / matrix.sum()), "macro_f1": float(np.nanmean(f1))}
    for i, name in enumerate(classes):
        figures |= {
            f"{name}.precision": float(precision[i]),
            f"{name}.recall": float(recall[i]),
            f"{name}.f1": float(f1[i]),
        }
    return (
        figures
        | {f"tumor.{k}": v for k, v in _binary(is_tumor, tumor).items()}
        | {"tumor.auc": _auc(is_tumor, tumor)}
    )


def _binary(is_tumor: NDArray[np.bool_], tumor: NDArray[Any]) -> dict[str, float]:
    positive = tumor >= 0.5
    hits = float((positive & is_tumor).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "sensitivity": float(np.divide(hits, is_tumor.sum())),
            "specificity": float(np.divide((~positive & ~is_tumor).sum(), (~is_tumor).sum())),
            "f1": float(np.divide(2 * hits, positive.sum() + is_tumor.sum())),
        }


def _auc(positive: NDArray[np.bool_], score: NDArray[Any]) -> float:
    """Area under the ROC curve; NaN where one side is empty.

    From ranks, as Mann and Whitney's U: what scikit-learn's ``roc_auc_score`` gives in a twentieth
    of its time, and the bootstrap asks for thousands.
    """
    hits = int(positive.sum())
    others = len(positive) - hits
    if not hits or not others:
        return float("nan")
    above = rankdata(score)[positive].sum() - hits * (hits + 1) / 2
    return float(above / (hits * others))


def _proper(probabilities: NDArray[Any]) -> NDArray[np.float64]:
    # An 8-bit softmax adds up to one but for its rounding.
    clipped = np.clip(probabilities.astype(np.float64), 1e-7, 1)
    return np.asarray(clipped / clipped.sum(axis=1, keepdims=True))
