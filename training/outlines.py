"""Masks as radiologists' tools write them: white on black, zeros and ones, coloured, transparent."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.errors import DatasetError
from training.names import printable

MASK_LEVEL: Final = 127
"""Above this grey level a mask's pixel is tumour."""
_GREY_NOISE: Final = 16
"""Channels that differ by no more are of a grey picture that was compressed as a coloured one."""
_FEW_VALUES: Final = 8
"""No more than so many, but for two, are numbers of classes (0, 85, 170, 255), not a scaled mask's."""
_NAMED_VALUES: Final = 6
"""So many of a mask's values are named in a message."""


def load_outline(path: Path) -> Image.Image:
    """A mask as an image of mode L, tumour above :data:`MASK_LEVEL`.

    Where it has two values, what is neither black nor transparent is tumour, and becomes 255. A mask
    of many grey levels, as scaling and compression make them, is left as it is where they are on both
    sides of :data:`MASK_LEVEL`; a few levels are rather classes.

    Raises:
        DatasetError: it is damaged; or its values do not say what is tumour.
    """
    try:
        with Image.open(path) as image:
            image.load()
            plain = image.mode in {"1", "L"} and "transparency" not in image.info
            # Of 16 or 32 bits: 8 would cut them off.
            if plain or image.mode.startswith(("I", "F")):
                levels = np.asarray(image.convert("L") if plain else image)
            else:
                levels = _levels(np.asarray(image.convert("RGBA")))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{_shown(path)} is no readable mask: {error}") from error
    if levels.ndim == 3:
        raise _unknown(path, np.unique(levels.reshape(-1, levels.shape[-1]), axis=0))
    values = np.unique(levels)
    if len(values) <= 2 and values[0] == 0:
        return Image.fromarray(np.uint8(255) * (levels != 0))
    scaled = len(values) == 2 or len(values) > _FEW_VALUES
    both_sides = scaled and values[0] <= MASK_LEVEL < values[-1]
    if levels.dtype == np.uint8 and (values.tolist() == [255] or both_sides):
        return Image.fromarray(levels)
    raise _unknown(path, values)


def _levels(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA (rows, columns, 4) as one value a pixel, (rows, columns), 0 for black or transparent.

    The pixels themselves, opaque colours of which only two may be told apart, where that cannot be.
    """
    colour, alpha = pixels[..., :3].copy(), pixels[..., 3]
    visible = alpha > 0
    colour[~visible] = 0
    shown = np.unique(colour[visible], axis=0)
    if not visible.all() and len(shown) == 1:
        # Drawn in one colour, black maybe, on nothing.
        return alpha
    if (np.ptp(shown.astype(np.int16), axis=1) <= _GREY_NOISE).all():
        # Upwards, and the greatest channel: what is nearly black is not black.
        grey = colour.max(-1).astype(np.uint16)
        return np.asarray((grey * alpha + 254) // 255, np.uint8)
    if len(shown) <= 2 and not shown[0].any():
        # One colour on black.
        return np.asarray(colour.any(-1) * np.uint8(255))
    return colour


def _unknown(path: Path, values: NDArray[Any]) -> DatasetError:
    """What a mask holds, values (N,) or colours (N, 3), instead of what is expected."""
    named = [tuple(v) if isinstance(v, list) else v for v in values[:_NAMED_VALUES].tolist()]
    more = " …" if len(values) > len(named) else ""
    return DatasetError(
        f"{_shown(path)} does not say which of its values are tumour: it holds "
        f"{', '.join(map(str, named))}{more}; expected are black and one other value, or more "
        f"than {_FEW_VALUES} grey levels of which those above {MASK_LEVEL} are tumour"
    )


def _shown(path: Path) -> str:
    return printable(str(path))
