"""Whether a picture has colours that say something, or is grey that was saved as colour."""

from collections.abc import Iterable
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_TINT: Final = 64
"""How far the channels of a pixel may lie apart, of 255, before it counts as coloured.

Grey that was saved as RGB has no difference, in a JPEG of any quality and subsampling either. Of two
slices in the public data sets that were photographed from a screen, it is 44 at most, and after another
JPEG compression (quality 5 to 80, 4:4:4, 4:2:2 and 4:2:0) above 64 in fewer than 0.02 % of the pixels.
What is drawn in colour there, as the banner of a publisher, has up to 214.
"""

MAX_TINT_SHARE: Final = 0.5
"""Likewise, of the picture's own brightness, where that is less: a model sees a dim picture stretched
to full brightness, and what is drawn over it in dim colours as bright tissue.

Of the 10,599 slices of the public data sets the same are coloured with any share of 0.3 to 0.6.
"""

MIN_TINT: Final = 16
"""However dim it is: what is less apart is the noise of a picture that is all but black."""

BRIGHT_SHARE: Final = 0.995
"""Of the pixels, those that are no brighter than the picture is said to be: as
:class:`contract.preprocessing.PreprocessSpec` stretches it."""

MAX_COLOURED_SHARE: Final = 0.0005
"""Of a slice's pixels: a letter or two, and no more than the model overlooks.

Of 120 test slices without a tumour, an orange disc in the brain made version 4 call a tumour: none at
0.05 % of the pixels, 4 at 0.1 %, 19 at 0.2 %, 59 at 0.5 %, and 79 at 1.5 %.
"""

DEEP_LEVELS: Final = 2**16
"""That a channel of 16 bits may have."""

_GREY: Final = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F"})
"""Modes of Pillow that have no colours."""

_MAX_CHROMA: Final = 4
"""No pixel is coloured whose Cb and Cr are both this close to 128: its red and blue are 1.402 Cr and
1.772 Cb above the luma (JFIF 1.02), and so at most 15 apart, less than :data:`MIN_TINT`."""


class Tints:
    """How bright the pixels of a picture are, and how far the channels of each lie apart.

    It is filled in strip by strip. All pixels are looked at: lines and hatching may lie where a sample
    would miss them.

    Args:
        levels: that a channel may have. Of more than 256, full brightness is that of the bits which the
            picture's own brightness needs: values of 12 bits in 16 are common.
    """

    def __init__(self, levels: int = 256) -> None:
        self._brightness = np.zeros(levels, np.intp)
        self._distances = np.zeros(levels, np.intp)

    def add(self, channels: Iterable[NDArray[np.unsignedinteger]]) -> None:
        """Counts pixels.

        Args:
            channels: red, green and blue, of one shape each; what is transparent is black.
        """
        red, green, blue = channels
        highest = np.maximum(np.maximum(red, green), blue)
        lowest = np.minimum(np.minimum(red, green), blue)
        self._brightness += _counts(highest, self._brightness.size)
        self._distances += _counts(highest - lowest, self._distances.size)

    @property
    def coloured(self) -> bool:
        """Whether the picture is truly coloured, as a map is."""
        cumulated = np.cumsum(self._brightness)
        pixels = int(cumulated[-1])
        high = int(np.searchsorted(cumulated, BRIGHT_SHARE * pixels))
        unit = (2 ** max(8, high.bit_length()) - 1) / 255
        limit = max(MIN_TINT * unit, min(MAX_TINT * unit, MAX_TINT_SHARE * high))
        return int(self._distances[int(limit) + 1 :].sum()) > MAX_COLOURED_SHARE * pixels


def is_grey(image: Image.Image) -> bool:
    """Whether a picture in any mode of Pillow has no colours, as far as that is seen at a glance."""
    if image.mode in _GREY:
        return True
    if image.mode != "YCbCr":
        return False
    chroma = (image.getchannel(band).getextrema() for band in (1, 2))
    return all(
        abs(level - 128) <= _MAX_CHROMA
        for ends in cast("Iterable[tuple[int, int]]", chroma)
        for level in ends
    )


def channels_of(image: Image.Image) -> NDArray[np.uint8]:
    """Red, green and blue of a picture in any mode of Pillow, (3, rows, columns)."""
    return np.asarray(on_black(image).convert("RGB")).transpose(2, 0, 1)


def _counts(values: NDArray[np.unsignedinteger], levels: int) -> NDArray[np.intp]:
    """How many of the values (rows, columns) are of each level."""
    if values.dtype == np.uint8:
        # NumPy would make eight bytes of each.
        return np.array(Image.fromarray(values).histogram(), np.intp)
    return np.bincount(values.ravel(), minlength=levels)


def on_black(image: Image.Image) -> Image.Image:
    """A picture of 8 bits over black, as MR background is; one without transparency as it is."""
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    return image
