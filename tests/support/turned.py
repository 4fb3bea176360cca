"""Slices that are stored in another way than they are read, with the orientation that says so."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from contract.turning import ACROSS, DOWN, Turn

PLANES: Final = {"sagittal": 0, "coronal": 1, "axial": 2}


def orientation(
    turn: Turn, plane: str = "axial", rotation: NDArray[np.float64] | None = None
) -> list[float]:
    """Image Orientation (Patient) of a slice that has to be turned to be read.

    Args:
        turn: what it takes.
        plane: of the slice.
        rotation: (3, 3), of the head, or the scanner's planes.
    """
    across = np.array(ACROSS[PLANES[plane]], float) * (-1 if turn.mirrored else 1)
    down = np.array(DOWN[PLANES[plane]], float) * (-1 if turn.upside_down else 1)
    row, column = (down, across) if turn.transposed else (across, down)
    turned = np.eye(3) if rotation is None else rotation
    return [float(value) for value in (*(turned @ row), *(turned @ column))]


def tilted(degrees: float, axis: int) -> NDArray[np.float64]:
    """A rotation around one of the patient's axes."""
    angle = np.radians(degrees)
    rotation = np.eye(3)
    first, second = (number for number in range(3) if number != axis)
    rotation[first, first] = rotation[second, second] = np.cos(angle)
    rotation[first, second], rotation[second, first] = -np.sin(angle), np.sin(angle)
    return rotation
