"""How a model's outputs become answers: fitted on validation, but for the space of embeddings.

Every number here goes into the manifest, and :mod:`contract.answer` and :mod:`contract.region` apply
it, in the service as in the evaluation.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logit, logsumexp
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from contract.answer import mask_logit
from contract.manifest import ConformalRecord, OperatingPoint, TumorEvidence
from contract.space import ORIENTATION_ARRAYS, Orientation
from training.errors import DatasetError

COVERAGE: Final = 0.95
SENSITIVITY: Final = 0.98
"""Of the operating point, on validation."""
SPECIFICITY: Final = 0.98
"""From the tumour probability on that has it, on validation, nothing is referred."""
ACCEPTANCE: Final = 0.99
"""Share of the validation slices that count as in distribution."""
LIMIT: Final = (1 + ACCEPTANCE) / 2
"""Share that one of two reasons to be out of distribution leaves in, so that both leave enough."""
ORIENTATION_STRENGTH: Final = 0.1
"""C of the logistic regression that tells turned slices; of 0.01 and 0.1 the better on validation."""
MASK_CELLS: Final = (25, 50, 100, 200)
"""Numbers of highest cells that are tried as the mask's evidence."""
CLUSTERS: Final = 10
"""Of the training embeddings: sequences, planes and levels of the head differ."""
SHRINKAGE: Final = 0.01
"""Share of the mean variance that every direction gets, so that none is taken for constant."""


def fit_temperature(logits: NDArray[np.float32], allowed: NDArray[np.float32]) -> float:
    """The temperature with the lowest log loss (Guo et al., ICML 2017).

    Args:
        logits: (N, classes).
        allowed: classes that each slice may be, zeros and ones (N, classes).
    """

    def loss(log_temperature: float) -> float:
        logs = log_softmax(logits.astype(np.float64) / np.exp(log_temperature), axis=1)
        return float(-logsumexp(logs, b=allowed, axis=1).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-2.5, 2.5), method="bounded").x))


def fit_evidence(
    logits: NDArray[Any],
    mask: NDArray[np.float32],
    tumor: NDArray[np.bool_],
    is_tumor_class: NDArray[np.bool_],
    weights: NDArray[np.float64],
) -> TumorEvidence:
    """How much the class head and the mask weigh, by logistic regression.

    Both weights are kept from being negative: more evidence must never mean less tumour.

    Args:
        logits: over the temperature, (N, classes).
        mask: tumour probability of the cells, (N, h, w).
        tumor: the truth, (N,).
        is_tumor_class: which classes mean a tumour, (classes,).
        weights: how much each slice counts, (N,).
    """
    by_class = logsumexp(logits[:, is_tumor_class], axis=1) - logsumexp(
        logits[:, ~is_tumor_class], axis=1
    )
    best: tuple[float, TumorEvidence] | None = None
    for cells in MASK_CELLS:
        features = np.stack([by_class, mask_logit(mask, cells)], axis=1)
        found, used = np.zeros(2), np.array([True, True])
        # Where neither tells tumours, their share is all that is known.
        bias = float(logit(np.average(tumor, weights=weights)))
        while used.any():
            fit = LogisticRegression(C=1.0).fit(features[:, used], tumor, weights)
            if (fit.coef_[0] >= 0).all():
                found[used], bias = fit.coef_[0], float(fit.intercept_[0])
                break
            used[used] = fit.coef_[0] > 0
        shares = 1 / (1 + np.exp(-np.clip(features @ found + bias, -500, 500)))
        loss = float(log_loss(tumor, shares, sample_weight=weights, labels=[False, True]))
        if best is None or loss < best[0]:
            best = (
                loss,
                TumorEvidence(
                    mask_cells=cells,
                    bias=bias,
                    class_weight=float(found[0]),
                    mask_weight=float(found[1]),
                ),
            )
    assert best is not None
    return best[1]


def conformal(
    probabilities: NDArray[np.float64], truth: NDArray[np.intp], coverage: float = COVERAGE
) -> ConformalRecord:
    """The threshold of split conformal prediction with the class probability as score.

    Sadinle, Lei and Wasserman, JASA 2019 (least ambiguous sets): with calibration slices like those to
    come, sets of all classes at least that probable hold the true one with the stated probability.

    Args:
        probabilities: calibrated, (N, classes).
        truth: class indices, (N,).
        coverage: wanted share of sets that hold the true class.
    """
    of_truth = np.sort(probabilities[np.arange(len(truth)), truth])
    rank = int(np.floor((1 - coverage) * (len(truth) + 1)))
    threshold = float(of_truth[rank - 1]) if rank else 0.0
    return ConformalRecord(coverage=coverage, threshold=threshold)


def operating_point(
    tumor_probability: NDArray[np.float64], tumor: NDArray[np.bool_]
) -> tuple[float, OperatingPoint]:
    """The threshold for :data:`SENSITIVITY`, and the band above it that goes to a person.

    Args:
        tumor_probability: calibrated, (N,).
        tumor: the truth, (N,).

    Returns:
        The highest threshold that finds enough of the tumours; and with it the band, which ends where
        few enough of the slices without tumour lie above. A threshold is above 0, so tumours of
        probability 0 are missed by any: where those are too many, this is said, and the record has
        the sensitivity that is left.

    Raises:
        DatasetError: there are no slices with a tumour, or none without.
    """
    if not tumor.any() or tumor.all():
        raise DatasetError(
            "an operating point needs validation slices with a tumour and without: there are "
            f"{tumor.sum()} and {(~tumor).sum()}"
        )
    positive, negative = np.sort(tumor_probability[tumor]), np.sort(tumor_probability[~tumor])
    missed = int(np.floor((1 - SENSITIVITY) * len(positive)))
    threshold = float(np.clip(positive[missed], 1e-6, 1 - 1e-6))
    above = negative[int(np.ceil(SPECIFICITY * len(negative))) - 1]
    # A slice exactly at the end of the band is not referred any more.
    high = float(np.clip(np.nextafter(above, 1), threshold, 1))
    found = float((positive >= threshold).mean())
    if found < SENSITIVITY:
        print(
            f"warning: no threshold finds {SENSITIVITY:.0%} of the validation tumours: {threshold} "
            f"finds {found:.2%}, the others have a tumour probability of 0",
            flush=True,
        )
    return threshold, OperatingPoint(
        sensitivity=found, target_sensitivity=SENSITIVITY, refer_low=threshold, refer_high=high
    )


def embedding_space(
    embeddings: NDArray[np.float32], seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Means and whitening of the training embeddings, for Mahalanobis distances.

    Lee et al., NeurIPS 2018, with clusters in the place of classes: a slice of another class may well
    look alike, one of another sequence or plane does not.

    Returns:
        means, float32 (k, d), and whitening, float32 (d, d).

    Raises:
        DatasetError: there are fewer slices than clusters.
    """
    if len(embeddings) < CLUSTERS:
        raise DatasetError(
            f"what is in distribution needs {CLUSTERS} training slices: there are {len(embeddings)}"
        )
    scale = embeddings.std(axis=0) + 1e-6
    found = KMeans(CLUSTERS, n_init=4, random_state=seed).fit(embeddings / scale)
    means = np.stack([embeddings[found.labels_ == k].mean(axis=0) for k in range(CLUSTERS)])
    residuals = (embeddings - means[found.labels_]).astype(np.float64) / scale
    covariance = residuals.T @ residuals / len(residuals)
    size = len(covariance)
    covariance += SHRINKAGE * np.trace(covariance) / size * np.eye(size)
    values, vectors = np.linalg.eigh(covariance)
    whitening = (vectors / np.sqrt(values)) / scale[:, None]
    # Distances of the usual slice are then about one, whatever the number of features.
    return means.astype(np.float32), (whitening / np.sqrt(size)).astype(np.float32)


def fit_orientation(
    views: Sequence[NDArray[np.float32]],
    doubtful: NDArray[np.bool_],
    upright: NDArray[np.float32],
    distance: NDArray[Any],
) -> dict[str, NDArray[np.float32]]:
    """A linear classifier that tells turned slices, its odds in the unit of a distance.

    Fitted twice: on the slices that lie upright for certain, and then on all, each of the doubtful
    ones laid the way that the first fit finds more upright. Median and limit of the odds become those
    of the distance, on slices that are all in distribution, so that one threshold serves both.

    Args:
        views: embeddings of the same training slices, (N, d) each: as they lie, turned by one, two and
            three quarters, and then in any other way, as a mirror image from top to bottom.
        doubtful: slices that may lie upside down, (N,).
        upright: embeddings of validation slices that lie upright, (M, d).
        distance: theirs, (M,).

    Returns:
        The arrays of :class:`contract.answer.Orientation`, by their names in its file.

    Raises:
        DatasetError: there are no upright training slices, or the upright validation slices are too
            few to have a scale: fewer than two, or all alike.
    """
    if doubtful.all():
        raise DatasetError("how slices lie needs training slices that lie upright for certain")
    if len(upright) < 2:
        raise DatasetError(
            "what is in distribution needs two validation slices that lie upright for certain: there "
            f"are {len(upright)}"
        )
    first = _tell_turned([view[~doubtful] for view in views])
    upside_down = doubtful & (first.odds(views[0]) > first.odds(views[2]))
    laid = [
        np.where(upside_down[:, None], views[(quarters + 2) % 4], views[quarters])
        for quarters in range(4)
    ]
    fit = _tell_turned([*laid, *(view[~upside_down] for view in views[4:])])
    odds = fit.odds(upright)
    low, high = (np.quantile(odds, share) for share in (0.5, LIMIT))
    near, far = (np.quantile(distance, share) for share in (0.5, LIMIT))
    if high <= low or far <= near:
        raise DatasetError(
            "the validation slices that lie upright are all alike: they have no scale"
        )
    factor = (far - near) / (high - low)
    scale = np.array([factor, far - factor * high], np.float32)
    return dict(zip(ORIENTATION_ARRAYS, (fit.weights, fit.bias, scale), strict=True))


def _tell_turned(views: Sequence[NDArray[np.float32]]) -> Orientation:
    """Fitted on one view after the other, upright ones first; its distance is the odds."""
    features = np.concatenate(views).astype(np.float64)
    kinds = np.repeat(np.arange(len(views)), [len(view) for view in views])
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    fit = LogisticRegression(C=ORIENTATION_STRENGTH, max_iter=500)
    fit.fit((features - mean) / deviation, kinds)
    weights = (fit.coef_.T / deviation[:, None]).astype(np.float32)
    bias = (fit.intercept_ - mean @ weights).astype(np.float32)
    return Orientation(weights, bias, np.array([1, 0], np.float32))


def expected_calibration_error(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy over bins of equal width (Guo et al., ICML 2017).

    NaN of no slices: that is no perfect calibration.
    """
    if not len(confidence):
        return float("nan")
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.digitize(confidence, edges) - 1, 0, bins - 1)
    gaps = [
        abs(confidence[place == b].mean() - correct[place == b].mean()) * (place == b).mean()
        for b in np.unique(place)
    ]
    return float(sum(gaps))


def risk_coverage(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share answered and error rate among those, as the least sure are left out one by one."""
    order = np.argsort(-confidence, kind="stable")
    answered = np.arange(1, len(order) + 1)
    return answered / len(order), np.cumsum(~correct[order]) / answered


def class_indices(labels: NDArray[np.str_], classes: Sequence[str]) -> NDArray[np.intp]:
    """Index of each label, (N,); -1 for one that is no class."""
    table = {name: index for index, name in enumerate(classes)}
    return np.array([table.get(str(label), -1) for label in labels], np.intp)
