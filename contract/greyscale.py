"""Stored values to grey levels as a viewer shows them: rescale, window, colour, square pixels.

Attributes come flat, as in a classic DICOM object.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.datadict import dictionary_description
from pydicom.pixels import apply_color_lut

from contract.colour import DEEP_LEVELS, Tints
from contract.contrast import in_parts, own_range
from contract.errors import TooManyPixels, UndecodableImage, UnsupportedPixels

MAX_ENTRIES: Final = 2**16
"""Of a lookup table, which states them as 0."""


def grey_levels(
    stored: NDArray[Any], attributes: Dataset, *, inverted: bool = False
) -> NDArray[np.uint8]:
    """Applies the modality LUT or rescale, then the VOI LUT or the first window.

    It builds a table from the lowest to the highest stored value, so that each step is computed once
    for a value and not once for a pixel. Without a window that shows anything, the values' own range is
    used. Padding becomes black.

    Args:
        stored: integers (rows, columns).
        attributes: the frame's attributes.
        inverted: low values are bright (:func:`is_inverted`).

    Returns:
        uint8 (rows, columns), bright is bright.

    Raises:
        UndecodableImage: the rescale or the window is no number, or Rescale Slope is 0.
        UnsupportedPixels: colours are drawn over them.
    """
    _check_colours(stored, attributes)
    lowest = int(stored.min())
    index = np.subtract(stored, lowest, dtype=np.int32)
    levels = np.arange(lowest, int(stored.max()) + 1)
    padding = _padding(levels, attributes)
    values = _rescaled(levels, attributes)
    shares = _voi(values, attributes)
    if shares is None or shares.min() == shares.max():
        counts = np.bincount(index.ravel())
        counts[padding] = 0
        shares = own_range(values, counts)
    table = np.rint(255 * (1 - shares if inverted else shares)).astype(np.uint8)
    table[padding] = 0
    return np.asarray(table[index])


def is_inverted(photometric: str, attributes: Dataset) -> bool:
    """Whether low values are bright.

    MONOCHROME1 and the shape INVERSE say the same, and the standard wants them together (PS3.3 2024e,
    table C.7-9; C.11.6.1.2): where an object has both, it is still inverted once.
    """
    shape = term(attributes, "PresentationLUTShape")
    return photometric == "MONOCHROME1" or shape == "INVERSE"


def luma(
    stored: NDArray[Any], photometric: str, bits_stored: int, attributes: Dataset
) -> NDArray[np.uint8]:
    """Brightness of grey that is saved as colour.

    Raises:
        UnsupportedPixels: they are neither RGB nor PALETTE COLOR, or truly coloured.
    """
    if photometric == "PALETTE COLOR":
        stored, bits_stored = _coloured(stored, attributes)
    elif photometric != "RGB" or stored.ndim != 3:
        raise UnsupportedPixels("the photometric interpretation is not supported")
    tints = Tints(DEEP_LEVELS)
    for part in in_parts(stored):
        tints.add(np.moveaxis(part[..., :3].clip(0).astype(np.uint16), 2, 0))
    if tints.coloured:
        # An activation or a direction of fibres would look like tissue that is bright.
        raise UnsupportedPixels(
            "the pixels of the DICOM object are coloured, as those of a map are"
        )
    scaled = stored[..., :3].astype(np.float32) * (255 / (2**bits_stored - 1))
    colours = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    return np.array(Image.fromarray(colours).convert("L"))


def window(
    values: NDArray[np.float64], center: float, width: float, function: str = "LINEAR"
) -> NDArray[np.float64] | None:
    """Applies a window (DICOM PS3.3 2024e, C.11.2.1.2 and C.11.2.1.3).

    Args:
        values: after the modality LUT.
        center: window center.
        width: window width.
        function: LINEAR, LINEAR_EXACT or SIGMOID; another is taken for LINEAR.

    Returns:
        Shares of full brightness, 0 to 1; None if the function cannot have that width.
    """
    if not (math.isfinite(center) and math.isfinite(width)) or width <= 0:
        return None
    offset = values - center
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * offset / width, -700, 700))))
    if function != "LINEAR_EXACT":
        if width < 1:
            return None
        # A width of 1 is a step; the tiny divisor makes it one.
        offset, width = offset + 0.5, max(width - 1, 1e-6)
    return np.clip(offset / width + 0.5, 0, 1)


def square(pixels: NDArray[np.uint8], aspect: float, max_pixels: int) -> NDArray[np.uint8]:
    """Stretches the coarser axis until the pixels are square.

    Args:
        pixels: uint8 (rows, columns).
        aspect: a pixel's height over its width.
        max_pixels: that the result may have.

    Raises:
        TooManyPixels: it would have more.
    """
    rows, columns = pixels.shape
    size = round(columns * max(1 / aspect, 1)), round(rows * max(aspect, 1))
    if size == (columns, rows):
        return np.ascontiguousarray(pixels)
    if size[0] * size[1] > max_pixels:
        raise TooManyPixels(f"more than the {max_pixels} pixels that are accepted, once square")
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def floats(attributes: Dataset, keyword: str) -> list[float]:
    """The numbers of an attribute, whether it has none, one or many.

    Raises:
        ValueError: a value is no number; one with a decimal comma is none (PS3.5 2024e, table 6.2-1).
    """
    value = attributes.get(keyword)
    items = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return [float(item) for item in items if item is not None and item != ""]


def numbers(attributes: Dataset, keyword: str) -> list[float]:
    """:func:`floats` of an attribute that decides what the slice looks like.

    Raises:
        UndecodableImage: a value is no number.
    """
    try:
        return floats(attributes, keyword)
    except ValueError:
        name = dictionary_description(keyword)
        raise UndecodableImage(f"the DICOM object states a {name} that is no number") from None


def term(attributes: Dataset, keyword: str) -> str:
    """An attribute's single value of a fixed list, such as YES; empty if it is missing."""
    return str(attributes.get(keyword) or "").strip().upper()


def _check_colours(stored: NDArray[Any], attributes: Dataset) -> None:
    """Refuses grey levels with colours over them, by a supplemental palette (PS3.3 2024e, C.7.6.19).

    Their values, the highest ones, would look like the brightest tissue, and what lies under them is
    not known.
    """
    if term(attributes, "PixelPresentation") not in {"COLOR", "MIXED"}:
        return
    descriptor = attributes.get("RedPaletteColorLookupTableDescriptor")
    if descriptor and int(stored.max()) >= _first(descriptor, signed=_is_signed(attributes)):
        raise UnsupportedPixels("colours are drawn over the grey levels of the DICOM object")


def _padding(levels: NDArray[np.int64], attributes: Dataset) -> NDArray[np.bool_]:
    """Which values stand for no signal at all (PS3.3 2024e, C.7.5.1.1.2).

    A writer that states it with another sign than the pixels have means their bits, as long as there
    are as many of them. Cut to fewer, a negative one would be the brightest tissue: no pixel has it.
    """
    signed = _is_signed(attributes)
    first = _integer(attributes.get("PixelPaddingValue"), signed=signed)
    last = _integer(attributes.get("PixelPaddingRangeLimit"), signed=signed)
    if first is None:
        return np.zeros(levels.shape, np.bool_)
    ends, bits = [first, first if last is None else last], int(attributes.BitsStored)
    if bits <= 15:
        # It is negative, and the file does not say so.
        ends = [end - 0x10000 if end > 0x7FFF else end for end in ends]
    is_full = bits == int(attributes.BitsAllocated)
    # A range from below what pixels can have does not begin at their other end.
    if signed or (is_full and max(ends) < 0):
        ends = [_as_pixel(end, bits, signed=signed) for end in ends]
    return (levels >= min(ends)) & (levels <= max(ends))


def _as_pixel(number: int, bits: int, *, signed: bool) -> int:
    """The value of a pixel that has the bits of a number of the other sign.

    One that needs more bits than pixels have stays as it is, and is that of no pixel.
    """
    if not -(1 << (bits - 1)) <= number < 1 << bits:
        return number
    number %= 1 << bits
    return number - (1 << bits) if signed and number >= 1 << (bits - 1) else number


def _is_signed(attributes: Dataset) -> bool:
    return bool(attributes.get("PixelRepresentation") == 1)


def _integer(value: object, *, signed: bool) -> int | None:
    """A US or SS value; the file, and many a writer, leaves open which of the two it is."""
    if value is None or value in ("", b""):
        return None
    number = int.from_bytes(value, "little") if isinstance(value, bytes) else int(str(value))
    return number - 0x10000 if signed and number > 0x7FFF else number


def _rescaled(levels: NDArray[np.int64], attributes: Dataset) -> NDArray[np.float64]:
    """Stored values after the modality LUT or the rescale; one that is not stated changes nothing.

    Raises:
        UndecodableImage: the rescale cannot be applied.
    """
    for item in list(attributes.get("ModalityLUTSequence") or [])[:1]:
        table = _table(item.LUTDescriptor, item.LUTData, attributes)
        first = _first(item.LUTDescriptor, signed=_is_signed(attributes))
        return _looked_up(levels, first, table).astype(np.float64)
    slope, intercept = numbers(attributes, "RescaleSlope"), numbers(attributes, "RescaleIntercept")
    if slope == [0]:
        raise UndecodableImage("the DICOM object states a Rescale Slope of 0")
    (factor,), (offset,) = slope or [1.0], intercept or [0.0]
    with np.errstate(over="ignore", invalid="ignore"):
        values = levels * factor + offset
    if not np.isfinite(values).all():
        raise UndecodableImage("the DICOM object states an impossible rescale")
    return np.asarray(values, np.float64)


def _coloured(stored: NDArray[Any], attributes: Dataset) -> tuple[NDArray[Any], int]:
    """The colours of a palette, (rows, columns, 3), and how many bits they need."""
    descriptor = attributes.RedPaletteColorLookupTableDescriptor
    first = _first(descriptor, signed=_is_signed(attributes))
    if "RedPaletteColorLookupTableData" in attributes:
        tables = [
            _table(descriptor, attributes[f"{colour}PaletteColorLookupTableData"].value, attributes)
            for colour in ("Red", "Green", "Blue")
        ]
        palette = np.stack(tables, axis=-1)
    else:
        values = np.arange(first, first + _entries(descriptor))
        palette = apply_color_lut(values, attributes)[..., :3]
    return _looked_up(stored, first, palette), _bits(palette)


def _table(descriptor: Any, data: Any, attributes: Dataset) -> NDArray[np.uint16]:
    """The entries of a lookup table (PS3.3 2024e, C.7.6.3.1.6 and C.11.1.1).

    Those of 8 bits may be packed, two in a word, or have a word each.

    Raises:
        UndecodableImage: there are fewer than its descriptor states.
    """
    entries = _entries(descriptor)
    if isinstance(data, bytes):
        is_little_endian = attributes.file_meta.TransferSyntaxUID.is_little_endian
        words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if is_little_endian else ">u2")
    else:
        words = np.asarray(data, np.uint16).reshape(-1)
    if len(words) < entries:
        words = words.astype("<u2").view(np.uint8).astype(np.uint16)
    if len(words) < entries:
        raise UndecodableImage("a lookup table of the DICOM object is shorter than it states")
    return np.asarray(words[:entries], np.uint16)


def _looked_up(values: NDArray[Any], first: int, table: NDArray[Any]) -> NDArray[Any]:
    """Each value's entry; those below and above the table have its first and last one."""
    places = np.clip(np.rint(values) - first, 0, len(table) - 1)
    return np.asarray(table[places.astype(np.intp)])


def _entries(descriptor: Any) -> int:
    return int(descriptor[0]) or MAX_ENTRIES


def _first(descriptor: Any, *, signed: bool) -> int:
    """The value that has a table's first entry; signed, if the values that are looked up can be."""
    return _integer(descriptor[1], signed=signed) or 0


def _becomes_negative(attributes: Dataset) -> bool:
    """Whether any stored value does, by the modality LUT or the rescale."""
    bits = int(attributes.BitsStored)
    lowest = -(1 << (bits - 1)) if _is_signed(attributes) else 0
    ends = np.array([lowest, lowest + (1 << bits) - 1])
    return bool(_rescaled(ends, attributes).min() < 0)


def _bits(table: NDArray[Any]) -> int:
    """Bits of a table's entries: some writers state 16 for one that needs fewer."""
    return max(8, int(table.max()).bit_length())


def _voi(values: NDArray[np.float64], attributes: Dataset) -> NDArray[np.float64] | None:
    """Shares of full brightness by the VOI LUT or the first window, if there is one."""
    for item in list(attributes.get("VOILUTSequence") or [])[:1]:
        table = _table(item.LUTDescriptor, item.LUTData, attributes)
        # What goes into it decides on its sign, not the stored values (PS3.3 2024e, C.11.2.1.1).
        first = _first(item.LUTDescriptor, signed=_becomes_negative(attributes))
        looked_up = _looked_up(values, first, table)
        return np.asarray(looked_up / (2.0 ** _bits(table) - 1), np.float64)
    stated = numbers(attributes, "WindowCenter")[:1] + numbers(attributes, "WindowWidth")[:1]
    if len(stated) < 2:
        return None
    function = str(attributes.get("VOILUTFunction") or "LINEAR").strip()
    return window(values, stated[0], stated[1], function)
