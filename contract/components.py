"""Connected components of a grid of cells: cells that touch by a side or a corner belong together."""

import numpy as np
from numpy.typing import NDArray


def heaviest(
    cells: NDArray[np.float32], found: NDArray[np.bool_], min_cells: int
) -> NDArray[np.bool_] | None:
    """Of the connected parts of ``found`` with enough cells, the one with the highest sum of cells.

    Args:
        cells: float32 (h, w).
        found: bool (h, w), at least one of them true.
        min_cells: that a part needs.

    Returns:
        Bool (h, w), the cells of that part; None if none has enough cells, or a sum above 0.
    """
    # Around them only, as a tumour is a small part of a slice.
    window = tuple(
        slice(places[0], places[-1] + 1)
        for places in (np.flatnonzero(found.any(axis=axis)) for axis in (1, 0))
    )
    lines, starts, ends = _runs(found[window])
    parts = np.array(_joined(lines.tolist(), starts.tolist(), ends.tolist()))
    height, width = found[window].shape
    sums = np.zeros((height, width + 1))
    np.cumsum(cells[window], axis=1, dtype=np.float64, out=sums[:, 1:])
    sizes = np.bincount(parts, ends - starts)
    weights = np.bincount(parts, sums[lines, ends] - sums[lines, starts])
    weights[sizes < min_cells] = 0
    best = weights.argmax()
    if weights[best] <= 0:
        return None
    part = np.zeros(found.shape, np.bool_)
    inner = part[window]
    for run in np.flatnonzero(parts == best):
        inner[lines[run], starts[run] : ends[run]] = True
    return part


def _runs(found: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Line, start and end of every run of cells, in reading order."""
    height, width = found.shape
    padded = np.zeros((height, width + 2), np.bool_)
    padded[:, 1:-1] = found
    # In reading order, what changes is a start, an end, a start, and so on.
    lines, places = np.nonzero(padded[:, 1:] != padded[:, :-1])
    return lines[::2], places[::2], places[1::2]


def _joined(lines: list[int], starts: list[int], ends: list[int]) -> list[int]:
    """For each run of cells, in reading order, a number that all runs connected with it share."""
    parent = list(range(len(lines)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    above = 0
    for run, line in enumerate(lines):
        # Runs that end before this one, or lie further up, touch no later one of its line.
        while lines[above] < line - 1 or (lines[above] == line - 1 and ends[above] < starts[run]):
            above += 1
        other = above
        while lines[other] == line - 1 and starts[other] <= ends[run]:
            parent[root(run)] = root(other)
            other += 1
    return [root(run) for run in range(len(lines))]
