"""PNG files of which Pillow itself says too little.

Of samples of 16 bits with colour or transparency it keeps the high byte: of the 12-bit values that many
writers put into 16 bits, that is 16 grey levels. Grey of 2 or 4 bits it spreads over 8, but not
the level that stands for transparency.
"""

import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

LOW_BYTES: Final = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}
"""Pillow's name for such samples, and for those of the other byte order: it keeps our low byte."""

PAIRS: Final = "LA;16B"
"""Pillow's name for grey and transparency, whose four bytes it also reads as they are."""

FEW_BITS: Final = {"L;2": 2, "L;4": 4}
"""Bits of Pillow's names for grey that it spreads over the levels of 8."""

LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in brightness (ITU-R BT.601-7, 2.5.1), as Pillow has them."""

STRIP_ROWS: Final = 256
"""Rows whose samples are held as numbers at a time."""


def deep_grey(image: ImageFile, data: bytes) -> NDArray[np.uint16] | None:
    """The grey levels of such a file; transparency becomes black.

    Args:
        image: as opened by Pillow, not loaded yet. It is loaded, and may not be fit to be shown then.
        data: the file that it was opened from.

    Returns:
        Uint16 (rows, columns), or None if the file is of another kind, and not loaded.
    """
    raw_mode = image.tile[0].args if image.tile else None
    other = image
    if raw_mode == PAIRS:
        image.tile = [image.tile[0]._replace(args="RGBA")]
    elif isinstance(raw_mode, str) and raw_mode in LOW_BYTES:
        other = Image.open(io.BytesIO(data), formats=["PNG"])
        other.tile = [other.tile[0]._replace(args=LOW_BYTES[raw_mode])]
    else:
        return None
    columns, rows = image.size
    grey = np.empty((rows, columns), np.uint16)
    for top in range(0, rows, STRIP_ROWS):
        bottom = min(rows, top + STRIP_ROWS)
        box = (0, top, columns, bottom)
        samples = np.asarray(image.crop(box))
        if raw_mode == PAIRS:
            samples = samples.view(">u2")
        else:
            samples = samples.astype(np.uint16) << 8 | np.asarray(other.crop(box))
        grey[top:bottom] = _over_black(samples, image.info.get("transparency"))
    return grey


def transparent_level(image: ImageFile) -> object:
    """The grey level, palette entry or colour that stands for transparency, as Pillow's pixels have it.

    Args:
        image: as opened by Pillow, not loaded yet, since that forgets how many bits the file has.

    Returns:
        What ``image.info`` has under ``transparency``, but for grey of 2 and 4 bits; None if nothing.
    """
    level: object = image.info.get("transparency")
    bits = FEW_BITS.get(str(image.tile[0].args)) if image.tile else None
    if bits is None or not isinstance(level, int):
        return level
    highest = 2**bits - 1
    # It is stated in 16 bits, of which the lowest count (PNG, third edition, 11.3.1.1).
    return (level & highest) * (255 // highest)


def _over_black(samples: NDArray[np.uint16], absent: object) -> NDArray[np.uint16]:
    """Brightness of samples (rows, columns, 2 to 4), where a colour may stand for transparency."""
    count = samples.shape[2]
    # Rounded, so that grey pixels of three equal samples stay what they are.
    grey = np.asarray(
        samples[..., 0] if count == 2 else np.rint(samples[..., :3] @ LUMA), np.float32
    )
    if count != 3:
        grey *= samples[..., -1] / np.float32(65535)
    elif isinstance(absent, tuple):
        grey[(samples == absent).all(2)] = 0
    return np.rint(grey).astype(np.uint16)
