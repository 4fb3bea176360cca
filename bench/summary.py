"""Figures over rounds: medians with their spread, percentiles, ratios."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure over all rounds of a run.

    Attributes:
        median, low, high: of the rounds' values.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Figure":
        """The figure of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 0, scale: float = 1.0) -> str:
        """``median (low-high)``, or the value alone where there is no spread to see."""
        median, low, high = (
            f"{value * scale:.{digits}f}" for value in (self.median, self.low, self.high)
        )
        return median if low == high else f"{median} ({low}-{high})"


def percentile(ascending: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile: a value that occurred; not a number if there are none."""
    if not ascending:
        return math.nan
    return ascending[max(0, math.ceil(percent / 100 * len(ascending)) - 1)]


def ratio(one: float, other: float) -> float:
    """``one / other``; not a number if there is nothing to divide by."""
    return one / other if other else math.nan
