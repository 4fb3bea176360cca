"""A radiologist's mask on its slice: turned, cut and scaled as the slice was."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.preprocessing import Placement, PreprocessSpec, Slice
from training.errors import DatasetError
from training.names import NO_TUMOR
from training.outlines import MASK_LEVEL, load_outline

MOST_TUMOR: Final = 0.5
"""No more of a slice is tumour: the largest of figshare's 3064 outlines has a tenth of its image."""


def mask_of_slice(
    path: Path, label: str, decoded: Slice, placement: Placement, spec: PreprocessSpec
) -> NDArray[np.uint8] | None:
    """Share of tumour in each pixel of a slice, uint8 (height, width); None if nothing is outlined.

    Args:
        path: the mask, in the pixels of the slice's image as it is stored.
        label: the slice's class.
        decoded: the slice.
        placement: where preprocessing put it, once it lay upright.
        spec: of that preprocessing.

    Raises:
        DatasetError: the mask is damaged, or is none of that slice, or calls most of it tumour, or
            some of a slice without one.
    """
    outline = _outline_of(path, decoded)
    if outline is None:
        return None
    if label == NO_TUMOR:
        raise DatasetError(f"{path} outlines a tumour, and its image is filed as {NO_TUMOR}")
    upright = Image.fromarray(decoded.turn.apply(np.asarray(outline)))
    return place_mask(upright, placement, spec)


def _outline_of(path: Path, decoded: Slice) -> Image.Image | None:
    """A mask in the size of its decoded slice, 0 or 255 but for scaling; None if it outlines nothing.

    Raises:
        DatasetError: it is damaged, or is no mask of that slice, or calls most of it tumour.
    """
    mask = load_outline(path)
    rows, columns = decoded.original_size
    if mask.size != (columns, rows):
        raise DatasetError(
            f"{path} has {mask.width}x{mask.height} pixels and its image {columns}x{rows}"
        )
    share = (np.asarray(mask) > MASK_LEVEL).mean()
    if share > MOST_TUMOR:
        raise DatasetError(
            f"{path} calls {share:.0%} of its image tumour: is it inverted, or a mask of the brain?"
        )
    if not share:
        return None
    size = decoded.pixels.shape[::-1]
    if mask.size == size:
        return mask
    # A reduced JPEG's last pixels reach over its border, where there is no tumour.
    reach = zip(decoded.reach, (columns, rows) * 2, strict=True)
    left, top, right, bottom = (round(share * side) for share, side in reach)
    return mask.crop((left, top, right, bottom)).resize(size, Image.Resampling.BOX)


def place_mask(mask: Image.Image, placement: Placement, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Cuts and scales a mask as its slice was, to uint8 (height, width)."""
    left, top, right, bottom = placement.target
    output = np.zeros((spec.height, spec.width), np.uint8)
    output[top:bottom, left:right] = np.asarray(
        mask.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=placement.crop)
    )
    return output
