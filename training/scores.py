"""Figures of a classifier, with intervals; see :mod:`training.interval`."""

from collections.abc import Mapping, Sequence
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

from training.interval import Basis, bootstrap

_RESERVED: Final = frozenset({"testing", "testing_unleaked", "all", "interval"})
"""What stands beside the names of data sets in a report; a folder may be called so as well."""


def by_source(sources: NDArray[np.str_]) -> dict[str, NDArray[np.bool_]]:
    """Which rows are of each data set, (N,); a report calls their figures so, and loses no others.

    Args:
        sources: the rows' data sets, (N,).
    """
    return {
        f"{name} (data set)" if name in _RESERVED else name: np.asarray(sources == name)
        for name in np.unique(sources).tolist()
    }


def scores(
    probabilities: NDArray[Any],
    truth: NDArray[np.intp],
    groups: NDArray[np.intp],
    classes: Sequence[str],
    tumor_classes: Sequence[str],
    threshold: float = 0.5,
) -> dict[str, Any]:
    """Everything that is reported of one model on one set of images.

    Args:
        probabilities: (N, classes), rows add up to one.
        truth: class indices, (N,).
        groups: of each image, (N,), by the audit: the bootstrap draws whole groups, since copies of one
            slice are one observation, and so are the slices of a person, where the data name persons.
        classes: names in the order of the columns.
        tumor_classes: those that mean a tumour.
        threshold: tumour probability from which a slice is taken for one with a tumour.

    Returns:
        JSON-ready figures; ``tumor`` names the threshold, ``interval`` holds 95 % bootstrap intervals
        of the main ones.
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
            | finite(
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
        "tumor": {"threshold": threshold, **finite(_binary(is_tumor, tumor, threshold))},
    }

    def resampled(rows: NDArray[np.intp]) -> dict[str, float]:
        found = _quick(truth[rows], predicted[rows], classes)
        binary = _binary(is_tumor[rows], tumor[rows], threshold)
        return found | {f"tumor.{name}": value for name, value in binary.items()}

    result["interval"] = bootstrap(resampled, groups, _bases(truth, predicted, is_tumor, classes))
    return result


def _bases(
    truth: NDArray[np.intp],
    predicted: NDArray[np.intp],
    is_tumor: NDArray[np.bool_],
    classes: Sequence[str],
) -> dict[str, Basis]:
    """What the figures that have intervals are of."""
    found = {"accuracy": Basis((np.ones(len(truth), np.bool_),), share=True)}
    for i, name in enumerate(classes):
        ours = truth == i
        found |= {
            f"{name}.recall": Basis((ours,), share=True),
            # Of a class that does not occur there is no figure, whatever is taken for it.
            f"{name}.precision": Basis((predicted == i, ours), share=True),
            f"{name}.f1": Basis((ours,)),
        }
    return found | {f"tumor.{name}": basis for name, basis in _tumor_bases(is_tumor).items()}


def _tumor_bases(is_tumor: NDArray[np.bool_]) -> dict[str, Basis]:
    """What the figures of :func:`_binary` are of."""
    return {
        "sensitivity": Basis((is_tumor,), share=True),
        "specificity": Basis((~is_tumor,), share=True),
        "f1": Basis((is_tumor,)),
        "auc": Basis((is_tumor, ~is_tumor)),
    }


def tumor_probability(
    probabilities: NDArray[Any], classes: Sequence[str], tumor_classes: Sequence[str]
) -> NDArray[Any]:
    """Sum over the classes that mean a tumour, (N,)."""
    total: NDArray[Any] = probabilities[:, np.isin(classes, tumor_classes)].sum(axis=1)
    return total


def tumor_scores(
    tumor: NDArray[np.float64],
    is_tumor: NDArray[np.bool_],
    groups: NDArray[np.intp],
    threshold: float = 0.5,
) -> dict[str, Any]:
    """Figures of tumour or not, with 95 % intervals.

    Args:
        tumor: tumour probabilities, (N,).
        is_tumor: the truth, (N,).
        groups: of each image, (N,), by the audit.
        threshold: probability from which a slice is taken for one with a tumour.
    """

    def figures(rows: NDArray[Any]) -> dict[str, float]:
        return _binary(is_tumor[rows], tumor[rows], threshold)

    return {
        "images": len(tumor),
        "tumors": int(is_tumor.sum()),
        **finite(figures(np.arange(len(tumor)))),
        "interval": bootstrap(figures, groups, _tumor_bases(is_tumor)),
    }


def shares(
    counted: Mapping[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]], groups: NDArray[np.intp]
) -> dict[str, Any]:
    """Shares of rows, with 95 % intervals; of no rows there is none.

    Args:
        counted: name to the rows that count, (N,), and those that they are a share of, (N,).
        groups: of each row, (N,), by the audit.

    Returns:
        Each share by its name, and ``interval``.
    """
    known = {name: (hits & of, of) for name, (hits, of) in counted.items() if of.any()}

    def figures(rows: NDArray[np.intp]) -> dict[str, float]:
        with np.errstate(invalid="ignore"):
            return {
                name: float(np.divide(hits[rows].sum(), of[rows].sum()))
                for name, (hits, of) in known.items()
            }

    bases = {name: Basis((of,), share=True) for name, (_, of) in known.items()}
    return {**figures(np.arange(len(groups))), "interval": bootstrap(figures, groups, bases)}


def finite(figures: Mapping[str, float]) -> dict[str, float]:
    """Without those that are of nothing: slices with a tumour alone have no specificity."""
    return {name: value for name, value in figures.items() if np.isfinite(value)}


def _quick(
    truth: NDArray[np.intp],
    predicted: NDArray[np.intp],
    classes: Sequence[str],
) -> dict[str, float]:
    """The figures of the classes that have intervals: the bootstrap asks for thousands of them."""
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
    return figures


def _binary(
    is_tumor: NDArray[np.bool_], tumor: NDArray[Any], threshold: float = 0.5
) -> dict[str, float]:
    """Tumour or not, from a threshold on and over all of them; NaN where a figure is of nothing."""
    positive = tumor >= threshold
    hits = float((positive & is_tumor).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "sensitivity": float(np.divide(hits, is_tumor.sum())),
            "specificity": float(np.divide((~positive & ~is_tumor).sum(), (~is_tumor).sum())),
            # Where there is no tumour to find, it would be 0 whatever is found.
            "f1": float(np.divide(2 * hits, positive.sum() + is_tumor.sum()))
            if is_tumor.any()
            else float("nan"),
            "auc": _auc(is_tumor, tumor),
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
