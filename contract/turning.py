"""How a slice is turned for the model, to lie as it is read, and how what was found turns back.

Models are trained on slices as radiologists read them: the patient's right on the left; nose or crown
at the top. A DICOM object may store them in another way and say so in its orientation.
"""

from functools import lru_cache
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

ACROSS: Final = ((0, 1, 0), (1, 0, 0), (1, 0, 0))
"""Where rows of pixels run in sagittal, coronal and axial slices as they are read, in the patient's
coordinates: x to the left, y to the back, z to the head (PS3.3 2024e, C.7.6.2.1.1)."""

DOWN: Final = ((0, 0, -1), (0, 0, -1), (0, 1, 0))
"""Where their columns run."""

NEAR: Final = 0.5**0.5
"""Cosine between the normals of a slice and of the plane that it is taken for: within 45 degrees."""

BETTER: Final = 0.01
"""By how much a turned slice has to lie better than it was stored, in the sum of two cosines; of one
that is turned by 45 degrees, rounding would decide."""

Edge = TypeVar("Edge", int, float)
Value = TypeVar("Value", bound=np.generic)


class Turn(NamedTuple):
    """One of the eight ways to lay a slice down; each is exact.

    Attributes:
        transposed: rows become columns, first of all.
        upside_down: then the last row becomes the first.
        mirrored: then the last column becomes the first.
    """

    transposed: bool = False
    upside_down: bool = False
    mirrored: bool = False

    def apply(self, pixels: NDArray[Value]) -> NDArray[Value]:
        """Stored pixels (rows, columns) as they are read."""
        return self._flipped(pixels.T if self.transposed else pixels)

    def undo(self, pixels: NDArray[Value]) -> NDArray[Value]:
        """The inverse of :meth:`apply`."""
        pixels = self._flipped(pixels)
        return pixels.T if self.transposed else pixels

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns after it, or before it."""
        return (size[1], size[0]) if self.transposed else size

    def undo_box(
        self, box: tuple[Edge, Edge, Edge, Edge], size: tuple[int, int]
    ) -> tuple[Edge, Edge, Edge, Edge]:
        """Left, top, right and bottom before it, of a box in a slice with ``size`` before it."""
        left, top, right, bottom = box
        rows, columns = self.size(size)
        if self.upside_down:
            top, bottom = rows - bottom, rows - top
        if self.mirrored:
            left, right = columns - right, columns - left
        return (top, left, bottom, right) if self.transposed else (left, top, right, bottom)

    def _flipped(self, pixels: NDArray[Value]) -> NDArray[Value]:
        return pixels[:: -1 if self.upside_down else 1, :: -1 if self.mirrored else 1]


AS_STORED: Final = Turn()

TURNS: Final = tuple(
    Turn(transposed, upside_down, mirrored)
    for transposed in (False, True)
    for upside_down in (False, True)
    for mirrored in (False, True)
)


@lru_cache(maxsize=1024)
def upright(orientation: tuple[float, float, float, float, float, float] | None) -> Turn:
    """What makes a slice of an orientation (0020,0037) lie as it is read.

    A slice is taken for the nearest of axial, coronal and sagittal. One that is not within 45 degrees
    of any, or does not say how it lies, stays as it is.
    """
    if orientation is None:
        return AS_STORED
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.abs(np.cross(row, column))
    plane = int(normal.argmax())
    if normal[plane] < NEAR * np.linalg.norm(normal):
        return AS_STORED

    def fit(turn: Turn) -> float:
        across, down = (column, row) if turn.transposed else (row, column)
        return float(
            (-1 if turn.mirrored else 1) * (across @ ACROSS[plane])
            + (-1 if turn.upside_down else 1) * (down @ DOWN[plane])
        )

    best = max(TURNS, key=fit)
    return best if fit(best) > fit(AS_STORED) + BETTER else AS_STORED
