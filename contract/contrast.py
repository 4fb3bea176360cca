"""The grey levels of values that come without a window: their own range."""

from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

_Level = TypeVar("_Level", bound=np.generic)

TRIMMED_SHARE: Final = 0.001
"""Share of the pixels, at either end, that may clip where nothing states a window: a few hot pixels
must not leave the tissue a handful of the 256 grey levels."""

PART_PIXELS: Final = 2**18
"""About as many are worked on at a time."""


def own_range(values: NDArray[np.float64], counts: NDArray[np.intp]) -> NDArray[np.float64]:
    """Shares of the range of the values that occur, but for :data:`TRIMMED_SHARE` at either end.

    Where that leaves a single value, as of a few bright pixels on black, nothing is trimmed.

    Args:
        values: (levels,), in any order.
        counts: how many pixels have each; those of none have no part in the range.

    Returns:
        Shares of full brightness, 0 to 1; 0 of values that are all equal.
    """
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(counts[order])
    total = int(cumulated[-1])
    for trimmed in (int(TRIMMED_SHARE * total), 0):
        ends = np.searchsorted(cumulated, [trimmed + 1, total - trimmed])
        low, high = values[order[np.minimum(ends, order.size - 1)]]
        if high > low:
            return np.asarray(np.clip((values - low) / (high - low), 0, 1))
    return np.zeros(values.shape)


def in_parts(pixels: NDArray[_Level]) -> list[NDArray[_Level]]:
    """Pixels in parts of about :data:`PART_PIXELS` each, along the first axis."""
    return np.array_split(pixels, 1 + pixels.size // PART_PIXELS)


def stretched(levels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """The grey levels of a picture, (rows, columns), by :func:`own_range`."""
    # As an index or counted, each level takes eight bytes.
    parts = in_parts(levels.ravel())
    counts = np.zeros(int(levels.max()) + 1, np.intp)
    for part in parts:
        counts += np.bincount(part, minlength=counts.size)
    shares = own_range(np.arange(counts.size, dtype=np.float64), counts)
    greys = np.rint(255 * shares).astype(np.uint8)
    return np.concatenate([greys[part] for part in parts]).reshape(levels.shape)
