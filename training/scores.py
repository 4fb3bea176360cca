"""Figures of a classifier, with intervals that respect near duplicates, and persons where named."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, rankdata
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
)

from training.images import ImageSet

BOOTSTRAP_SAMPLES: Final = 1000
BOOTSTRAP_SEED: Final = 20261122
INTERVAL_PERCENT: Final = (2.5, 97.5)
MIN_GROUPS: Final = 5
"""Of fewer groups there is no interval: what was drawn again and again would be too little."""
EDGE_TRIALS: Final = 5
"""A share is near 0 or 1 where so many of its trials or fewer make the difference, as for the normal
approximation of a binomial."""
_RESERVED: Final = frozenset({"testing", "testing_unleaked", "all", "interval"})
"""What stands beside the names of data sets in a report; a folder may be called so as well."""


class Basis(NamedTuple):
    """What a figure is of.

    Attributes:
        rows: masks, (N,) each; it needs groups in every one of them: an area under a curve has two.
        share: whether it is a share of these rows, with limits at and near 0 and 1 as well.
    """

    rows: tuple[NDArray[np.bool_], ...]
    share: bool = False


def by_source(sources: NDArray[np.str_]) -> dict[str, NDArray[np.bool_]]:
    """Which rows are of each data set, (N,); a report calls their figures so, and loses no others.

    Args:
        sources: the rows' data sets, (N,).
    """
    return {
        f"{name} (data set)" if name in _RESERVED else name: np.asarray(sources == name)
        for name in np.unique(sources).tolist()
    }


def persons_named(images: ImageSet, rows: NDArray[np.intp]) -> dict[str, bool]:
    """The data sets of some images, and whether each names the person of every one of them.

    The audit then has a person's slices in one group. A patient-wise fold keeps them together as well,
    and does not say which are whose; a DICOM study does, but a person may have several.
    """
    found: dict[str, bool] = {}
    for row in rows.tolist():
        file = images.files[row]
        found[file.source] = found.get(file.source, True) and file.named
    return dict(sorted(found.items()))


def known_persons(images: ImageSet, test: NDArray[np.intp]) -> dict[str, Any]:
    """What keeps the slices of a person together, by data set, as a report has it.

    Returns:
        ``by_patient``: the data sets each of whose slices has a person's name or a patient-wise fold;
        ``by_fold``: those with such folds; ``by_study``: those where a DICOM study or series links
        slices of persons whom nothing names; ``persons_named``: of the test images, see
        :func:`persons_named`.
    """
    files = images.files
    nameless = {file.source for file in files if not file.patient}
    return {
        "by_patient": sorted({file.source for file in files} - nameless),
        "by_fold": sorted({file.source for file in files if file.part.startswith("fold")}),
        "by_study": sorted({files[row].source for row in np.flatnonzero(images.linked)}),
        "persons_named": persons_named(images, test),
    }


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
        groups: of each image, (N,), by the audit: the bootstrap draws whole groups, since copies of one
            slice are one observation, and so are the slices of a person, where the data name persons.
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
        "tumor": finite(_binary(is_tumor, tumor) | {"auc": _auc(is_tumor, tumor)}),
    }

    def resampled(rows: NDArray[np.intp]) -> dict[str, float]:
        return _quick(truth[rows], predicted[rows], is_tumor[rows], tumor[rows], classes)

    result["interval"] = bootstrap(resampled, groups, _bases(truth, predicted, is_tumor, classes))
    return result


def _bases(
    truth: NDArray[np.intp],
    predicted: NDArray[np.intp],
    is_tumor: NDArray[np.bool_],
    classes: Sequence[str],
) -> dict[str, Basis]:
    """What the figures of :func:`_quick` are of."""
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
        return _binary(is_tumor[rows], tumor[rows], threshold) | {
            "auc": _auc(is_tumor[rows], tumor[rows])
        }

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


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], dict[str, float]],
    groups: NDArray[np.intp],
    bases: Mapping[str, Basis] | None = None,
    samples: int = BOOTSTRAP_SAMPLES,
) -> dict[str, list[float]]:
    """95 % percentile intervals of a statistic of row indices, drawing groups with replacement.

    A figure has none where the rows lack what it is of, where that is fewer than :data:`MIN_GROUPS`
    groups, and where all draws agree: what did not vary here says nothing of how it may vary. A share
    of exactly 0 or 1 does not vary either, and one near them too little: there it has at least the
    limits of Clopper and Pearson (Biometrika 1934). Their trials are the groups' effective number,
    ``(sum m)^2 / sum m^2`` of groups of m rows (Kish, Survey Sampling, 1965), as a group of many rows
    is one observation that weighs as much as many. From 0 or 1 on, these limits move with the share.

    Args:
        statistic: figures by name; NaN where the rows lack what one is of.
        groups: of each row, (N,), by the audit.
        bases: what a figure is of; those without an entry are of all rows, and no shares.
        samples: how often is drawn.
    """
    names = np.unique(groups)
    if len(names) < MIN_GROUPS:
        return {}
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    members = [np.flatnonzero(groups == name) for name in names]
    draws: list[dict[str, float]] = []
    for _ in range(samples):
        picked = rng.integers(0, len(members), len(members))
        draws.append(statistic(np.concatenate([members[i] for i in picked])))
    intervals = {}
    everything = Basis((np.ones(len(groups), np.bool_),))
    for name, whole in statistic(np.arange(len(groups))).items():
        basis = (bases or {}).get(name, everything)
        count = min(len(np.unique(groups[rows])) for rows in basis.rows)
        if count < MIN_GROUPS or not np.isfinite(whole):
            continue
        # A draw without a class has no figure for it.
        low, high = np.nanpercentile([draw[name] for draw in draws], INTERVAL_PERCENT)
        if low == high and not (basis.share and whole in {0.0, 1.0}):
            continue
        if basis.share:
            trials = min(_effective(groups[rows]) for rows in basis.rows)
            edge = EDGE_TRIALS / trials
            low = min(low, _at_least(max(whole, 1 - edge), trials))
            high = max(high, 1 - _at_least(max(1 - whole, 1 - edge), trials))
        intervals[name] = [float(low), float(high)]
    return intervals


def _effective(groups: NDArray[np.intp]) -> float:
    """The number of groups of one size that say as much as these."""
    _, sizes = np.unique(groups, return_counts=True)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _at_least(share: float, trials: float) -> float:
    """Clopper and Pearson's lower limit of a share of trials, of which there may be a part of one."""
    hits = share * trials
    if hits <= 0:
        return 0.0
    return float(beta.ppf(INTERVAL_PERCENT[0] / 100, hits, trials - hits + 1))


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


def _binary(
    is_tumor: NDArray[np.bool_], tumor: NDArray[Any], threshold: float = 0.5
) -> dict[str, float]:
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
