"""A head that is a textured disc, for what changes pixels."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

SIDE: Final = 224


def head(seed: int = 0) -> NDArray[np.uint8]:
    """Grey levels around 90, and black around the head."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    texture = 90 + np.random.default_rng(seed).integers(-8, 9, (SIDE, SIDE))
    inside = ((rows - 112) / 105) ** 2 + ((columns - 112) / 85) ** 2 < 1
    return np.where(inside, texture, 0).astype(np.uint8)


def with_tumor() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A head with a bright spot, and the mask of that."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    spot = (rows - 90) ** 2 + (columns - 70) ** 2 < 15**2
    pixels = head()
    pixels[spot] = 220
    return pixels, np.where(spot, 255, 0).astype(np.uint8)


def with_skull(seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A brain within dark bone within a bright scalp, and which pixels are brain."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    radius = np.hypot((rows - 112) / 105, (columns - 112) / 85)
    pixels = head(seed)
    pixels[radius > 0.82] = 5
    pixels[(radius > 0.92) & (radius < 1)] = 210
    return pixels, radius <= 0.82
