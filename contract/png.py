"""PNG files of which Pillow itself says too little.

Of samples of 16 bits with colour or transparency it keeps the high byte: of the 12-bit values that many
writers put into 16 bits, that is 16 grey levels. Grey of 2 or 4 bits it spreads over 8, but not
the level that stands for transparency.
"""

import io
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from contract.colour import DEEP_LEVELS, Tints
from contract.errors import TruncatedImage

LOW_BYTES: Final = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}
"""Pillow's name for such samples, and for those of the other byte order: it keeps our low byte."""

PAIRS: Final = "LA;16B"
"""Pillow's name for grey and transparency, whose four bytes it also reads as they are."""

COLOUR_TYPES: Final = {"RGB;16B": (2, 3), PAIRS: (4, 2), "RGBA;16B": (6, 4)}
"""What the header calls them (PNG, third edition, 11.2.1), and the samples of a pixel."""

PASSES: Final = (
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
    *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
)
"""First row and column of each pass of an interlaced image, and its steps down and across (8.1)."""

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

FEW_BITS: Final = {"L;2": 2, "L;4": 4}
"""Bits of Pillow's names for grey that it spreads over the levels of 8."""

LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in brightness (ITU-R BT.601-7, 2.5.1), as Pillow has them."""

STRIP_PIXELS: Final = 2**18
"""About as many pixels have their samples held as numbers at a time."""

BLOCK_BYTES: Final = 2**16
"""Compressed bytes that are taken at a time."""


class DeepPicture(NamedTuple):
    """What is read of such a file; transparency becomes black.

    Attributes:
        grey: uint16 (rows, columns), its brightness.
        coloured: whether it is in colour.
    """

    grey: NDArray[np.uint16]
    coloured: bool


def deep_picture(image: ImageFile, data: bytes) -> DeepPicture | None:
    """Reads a file of samples of 16 bits with colour or transparency.

    Whole, its samples would take up to sixteen bytes a pixel in Pillow: two images, of their high and
    of their low bytes.

    Args:
        image: as opened by Pillow, not loaded yet. It is loaded, and its pixels are none then.
        data: the file that it was opened from.

    Returns:
        None if the file is of another kind, and not loaded.

    Raises:
        TruncatedImage: the compressed pixels end too early.
        Exception: nearly any other, of Pillow and zlib, depending on where the damage is.
    """
    if not image.tile or image.tile[0].args not in COLOUR_TYPES:
        return None
    tile, absent = image.tile[0], image.info.get("transparency")
    raw_mode = str(tile.args)
    left, top, right, bottom = tile.extents or (0, 0, *image.size)
    grey = np.zeros((image.height, image.width), np.uint16)
    part = grey[top:bottom, left:right]
    steps = PASSES if image.info.pop("interlace", None) else ((0, 0, 1, 1),)
    lines = _Lines(data, tile.offset)
    tints = None if raw_mode == PAIRS else Tints(DEEP_LEVELS)
    for first_row, first_column, down, across in steps:
        target = part[first_row::down, first_column::across]
        start = 0
        for samples in _strips(lines, raw_mode, *target.shape):
            target[start : start + len(samples)] = _over_black(samples, absent)
            if tints is not None:
                tints.add(_colours(samples, absent))
            start += len(samples)
    # What it says behind its pixels is read with the first of them.
    image.tile = [tile._replace(extents=(0, 0, 1, 1))]
    image.load()
    return DeepPicture(grey, tints is not None and tints.coloured)


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


def _colours(samples: NDArray[np.uint16], absent: object) -> NDArray[np.uint16]:
    """Red, green and blue over black, (3, rows, columns), of samples as of :func:`_over_black`."""
    colours = samples[..., :3]
    if samples.shape[2] == 4:
        colours = (colours * (samples[..., 3:] / np.float32(65535))).astype(np.uint16)
    elif isinstance(absent, tuple):
        colours = np.where((samples == absent).all(2, keepdims=True), np.uint16(0), colours)
    return np.moveaxis(colours, 2, 0)


class _Lines:
    """The lines of a file, decompressed but filtered still."""

    def __init__(self, data: bytes, offset: int) -> None:
        self._blocks = _blocks(data, offset)
        self._inflate = zlib.decompressobj()
        self._any = False

    def read(self, lines: int, size: int) -> bytes:
        """The next lines, of so many bytes each; fewer where the stream ends with a line."""
        found: list[bytes] = []
        missing = lines * size
        while missing and not self._inflate.eof:
            block = self._inflate.unconsumed_tail or next(self._blocks, b"")
            found.append(self._inflate.decompress(block, missing))
            missing -= len(found[-1])
            self._any |= bool(found[-1])
            if not (block or found[-1]):
                break
        if missing and not (self._inflate.eof and self._any and missing % size == 0):
            raise TruncatedImage("the image ends before its pixels do")
        return b"".join(found)


def _blocks(data: bytes, offset: int) -> Iterator[bytes]:
    """The compressed pixels of a frame, as Pillow finds them, which begin at the offset."""
    start = offset - 8 if data.startswith(b"IDAT", offset - 4) else offset - 12
    while (kind := data[start + 4 : start + 8]) in {b"IDAT", b"DDAT", b"fdAT"}:
        end = start + 8 + int.from_bytes(data[start : start + 4])
        for at in range(start + (12 if kind == b"fdAT" else 8), min(end, len(data)), BLOCK_BYTES):
            yield data[at : min(end, at + BLOCK_BYTES)]
        start = end + 4


def _strips(lines: _Lines, raw_mode: str, rows: int, columns: int) -> Iterator[NDArray[np.uint16]]:
    """Samples of an image, or of one of its passes, (rows, columns, 2 to 4) of each strip.

    Each strip is given to Pillow as a file of its own, beneath the line above it, since filters go
    by that.
    """
    if not columns:
        return
    kind, samples = COLOUR_TYPES[raw_mode]
    size = 1 + 2 * samples * columns
    above = b""
    for start in range(0, rows, step := max(1, STRIP_PIXELS // columns)):
        filtered = lines.read(min(step, rows - start), size)
        if not filtered:
            return
        height = (len(above) + len(filtered)) // size
        header = columns.to_bytes(4) + height.to_bytes(4) + bytes([16, kind, 0, 0, 0])
        stored = zlib.compress(above + filtered, 0)
        chunks = _chunk(b"IHDR", header), _chunk(b"IDAT", stored), _chunk(b"IEND", b"")
        strip = _samples(SIGNATURE + b"".join(chunks), raw_mode)
        above = b"\0" + strip[-1].astype(">u2").tobytes()
        yield strip[height - len(filtered) // size :]


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return len(content).to_bytes(4) + kind + content + checksum.to_bytes(4)


def _samples(file: bytes, raw_mode: str) -> NDArray[np.uint16]:
    """Samples of 16 bits, (rows, columns, 2 to 4)."""
    if raw_mode == PAIRS:
        return np.asarray(_read_as(file, "RGBA")).view(">u2")
    high, low = (np.asarray(_read_as(file, mode)) for mode in (raw_mode, LOW_BYTES[raw_mode]))
    return np.asarray(high.astype(np.uint16) << 8 | low)


def _read_as(file: bytes, raw_mode: str) -> Image.Image:
    image = Image.open(io.BytesIO(file), formats=["PNG"])
    image.tile = [image.tile[0]._replace(args=raw_mode)]
    return image
