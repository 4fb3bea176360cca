"""Intervals of figures that respect near duplicates, and persons where the data name them."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

BOOTSTRAP_SAMPLES: Final = 1000
BOOTSTRAP_SEED: Final = 20261122
INTERVAL_PERCENT: Final = (2.5, 97.5)
MIN_GROUPS: Final = 5
"""Of fewer groups there is no interval: what was drawn again and again would be too little."""
EDGE_TRIALS: Final = 5
"""A share is near 0 or 1 where so many of its trials or fewer make the difference, as for the normal
approximation of a binomial."""
ROUNDING: Final = 1e-9
"""Share times trials is off by so much at most: five misses are as near to 1 as five hits are to 0."""


class Basis(NamedTuple):
    """What a figure is of.

    Attributes:
        rows: masks, (N,) each; it needs groups in every one of them: an area under a curve has two.
        share: whether it is a share of these rows, with limits at and near 0 and 1 as well.
    """

    rows: tuple[NDArray[np.bool_], ...]
    share: bool = False


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], dict[str, float]],
    groups: NDArray[np.intp],
    bases: Mapping[str, Basis] | None = None,
    samples: int = BOOTSTRAP_SAMPLES,
) -> dict[str, list[float]]:
    """95 % percentile intervals of a statistic of row indices, drawing groups with replacement.

    A figure has none where the rows lack what it is of, where that is fewer than :data:`MIN_GROUPS`
    groups, and where all draws agree: what did not vary here says nothing of how it may vary. A share
    of exactly 0 or 1 does not vary either, and one near them too little: there it has at least both
    limits of Clopper and Pearson (Biometrika 1934). Their trials are the groups' effective number,
    ``(sum m)^2 / sum m^2`` of groups of m rows (Kish, Survey Sampling, 1965), as a group of many rows
    is one observation that weighs as much as many. From 0 or 1 on, these limits move with the share; an
    interval of one farther off reaches at least as far as where they end.

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
            near = min(whole, 1 - whole) * trials <= EDGE_TRIALS + ROUNDING
            edge = 1 - EDGE_TRIALS / trials
            low = min(low, _at_least(whole if near else edge, trials))
            high = max(high, 1 - _at_least(1 - whole if near else edge, trials))
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
