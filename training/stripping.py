"""The brain without the skull, roughly: what many hospitals' pipelines leave of a slice.

A slice alone holds too little for the tools that strip whole volumes. This finds the largest piece of
tissue that narrow bridges do not tie to the scalp, and often keeps parts of the skull base, the neck or
the scalp, as such tools do too where they fail. Good enough to train and to test on, not to measure by.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

HEAD_LEVEL: Final = 25
"""Grey level, of 255, above which a pixel of a preprocessed slice belongs to the head."""
TISSUE_LEVEL: Final = 0.55
"""Share of the median grey level deep in the head above which a pixel is tissue, not bone or fluid."""
DEEP: Final = 18.0
"""Pixels from the head's edge beyond which there is hardly any skull."""
SCALP: Final = 7.0
"""Pixels from the head's edge that are scalp and bone."""
LARGEST_SCALP: Final = 0.03
"""Share of what was found that may lie within the scalp."""
BRIDGES: Final = (3, 4, 5, 6, 7, 8)
"""Half widths, in pixels, of the bridges that are cut, until what is left looks like a brain."""
GAP: Final = 8.0
"""Half width, in pixels, of the furrows and vessels that are closed."""
PLAUSIBLE: Final = (0.25, 0.85)
"""Share of the head that a brain takes."""
SMALLEST_HEAD: Final = 3000
"""Pixels."""


def brain(pixels: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """Which pixels of a slice are brain.

    Args:
        pixels: a preprocessed slice, uint8 (H, W), about 224 pixels wide.

    Returns:
        bool (H, W); None where nothing looks like a brain inside a head, as in a slice whose skull has
        been stripped.
    """
    head = ndimage.binary_fill_holes(pixels > HEAD_LEVEL)
    depth = _depth(head)
    deep = pixels[depth > DEEP]
    if head.sum() < SMALLEST_HEAD or not deep.size:
        return None
    smooth = ndimage.gaussian_filter(pixels.astype(np.float32), 0.7)
    width = _depth((smooth > TISSUE_LEVEL * np.median(deep)) & (depth > 5))
    for bridge in BRIDGES:
        pieces, count = ndimage.label(width > bridge)
        if not count:
            return None
        core = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
        found = _closed(_grown(core, bridge + 1) & head)
        share = found.sum() / head.sum()
        if PLAUSIBLE[0] < share < PLAUSIBLE[1] and (depth[found] < SCALP).mean() < LARGEST_SCALP:
            return found
    return None


def _closed(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without gaps and holes."""
    margin = int(GAP) + 2
    closed = _depth(_grown(np.pad(region, margin), GAP)) > GAP
    filled = ndimage.binary_fill_holes(closed[margin:-margin, margin:-margin])
    return np.asarray(filled, bool)


def _grown(region: NDArray[np.bool_], by: float) -> NDArray[np.bool_]:
    return np.asarray(_depth(~region) <= by)


def _depth(region: NDArray[np.bool_]) -> NDArray[Any]:
    """Distance of each pixel to the nearest one outside the region, in pixels."""
    return np.asarray(ndimage.distance_transform_edt(region))
