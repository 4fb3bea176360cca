"""The picture of the Secondary Capture: the slice, the region on it, and text above and below."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from service.dicom.findings import Box

MIN_SIDE: Final = 512
"""Pixels that the slice's longer side has at least, so that the text can be read."""

MAX_SIDE: Final = 2048
"""And at most: a picture need not be larger than a screen."""

OUTLINE: Final = (255, 64, 64)
BOX: Final = (255, 208, 0)
WARNING: Final = (255, 208, 0)
TEXT: Final = (255, 255, 255)


class Caption(NamedTuple):
    """A line of text in its colour."""

    text: str
    colour: tuple[int, int, int] = TEXT


def draw(
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_] | None,
    box: Box | None,
    stored: tuple[int, int],
    above: Sequence[Caption],
    below: Sequence[Caption],
) -> NDArray[np.uint8]:
    """A slice with its region, between lines of text that cover nothing of it.

    Args:
        pixels: uint8 grey levels (rows, columns).
        mask: bool, of the size ``stored``; its outline is drawn.
        box: in pixels of the stored matrix.
        stored: rows and columns of the stored matrix, from which the slice's size may differ.
        above: lines of text.
        below: more of them.

    Returns:
        uint8 (rows, columns, 3), on the slice's longer side :data:`MIN_SIDE` to :data:`MAX_SIDE`.
    """
    rows, columns = pixels.shape
    longest = max(rows, columns)
    scale = min(max(1.0, MIN_SIDE / longest), MAX_SIDE / longest)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert("RGB")
    width = max(2, round(max(size) / 256))
    if mask is not None:
        shape = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
        picture.paste(OUTLINE, mask=Image.fromarray(outline(np.asarray(shape), width)))
    if box is not None:
        across, down = size[0] / stored[1], size[1] / stored[0]
        # Around the box, so that it does not cover the outline of a mask that fills it.
        corners = (
            round(box.left * across) - width,
            round(box.top * down) - width,
            round(box.right * across) + width - 1,
            round(box.bottom * down) + width - 1,
        )
        ImageDraw.Draw(picture).rectangle(corners, outline=BOX, width=width)
    return _framed(picture, above, below)


def outline(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Pixels of a mask that are at most ``width`` from its edge."""
    inner = np.pad(mask, 1)
    for _ in range(width):
        eroded = inner.copy()
        eroded[1:] &= inner[:-1]
        eroded[:-1] &= inner[1:]
        eroded[:, 1:] &= inner[:, :-1]
        eroded[:, :-1] &= inner[:, 1:]
        inner = eroded
    return mask & ~inner[1:-1, 1:-1]


def _framed(
    picture: Image.Image, above: Sequence[Caption], below: Sequence[Caption]
) -> NDArray[np.uint8]:
    width = max(picture.width, MIN_SIDE)
    size = max(16, round(width / 32))
    font = _fitting([*above, *below], size, width - size)
    line = round(size * 1.4)
    top, bottom = line * len(above), line * len(below)
    framed = Image.new("RGB", (width, top + picture.height + bottom))
    framed.paste(picture, ((width - picture.width) // 2, top))
    pen = ImageDraw.Draw(framed)
    for captions, start in ((above, 0), (below, top + picture.height)):
        for number, caption in enumerate(captions):
            place = (size // 2, start + number * line + line // 2)
            pen.text(place, caption.text, caption.colour, font, anchor="lm")
    return np.asarray(framed)


def _fitting(
    captions: Sequence[Caption], size: int, width: int
) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, at most so large and small enough for the longest line."""
    font = ImageFont.load_default(size)
    longest = max(font.getlength(caption.text) for caption in captions)
    return font if longest <= width else ImageFont.load_default(size * width / longest)
