"""Bytes to slices: JPEG, PNG and DICOM, told apart by their content and never by a header or name."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.codestream import has_more_scans, jpeg_is_read_as_ycbcr, max_scans
from contract.colour import Tints, channels_of, is_grey, on_black
from contract.contrast import stretched
from contract.errors import (
    DecodeError,
    MultiFrame,
    TooManyPixels,
    TruncatedImage,
    UndecodableImage,
    UnsupportedMedia,
)
from contract.metadata import is_excessive_jpeg, is_excessive_png
from contract.png import deep_picture, transparent_level
from contract.policy import DEFAULT_POLICY, Policy
from contract.preprocessing import DEFAULT_SPEC, WHOLE, DicomReference, PreprocessSpec, Reach, Slice
from contract.quiet import quieten
from contract.source import Source

if TYPE_CHECKING:
    from pydicom import Dataset

DICOM_PREAMBLE_BYTES: Final = 128
"""Length of the preamble before ``DICM`` (DICOM PS3.10 2024e, section 7.1)."""

TURNS: Final[Mapping[object, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of an EXIF orientation upright (CIPA DC-008-2019, 4.6.4, tag 0x0112)."""

EXIF_ORDERS: Final[Mapping[bytes, Literal["little", "big"]]] = {
    b"Exif\0\0II*\0": "little",
    b"Exif\0\0MM\0*": "big",
}
"""Byte order of EXIF data that begin so (CIPA DC-008-2019, 4.5.2 and 4.7.2)."""

TIFF_OFFSET: Final = 6
"""Where addresses within EXIF data count from."""

ONE_ORIENTATION: Final = (0x0112, 3, 1)
"""Tag, type (SHORT) and count of the field that states it (4.6.4), of 12 bytes (4.6.2)."""

SIDEWAYS: Final = frozenset(TURNS[orientation] for orientation in (5, 6, 7, 8))
"""Those that make columns of rows. Sizes do not tell it: a reduced scale rounds them up."""

LEFT_TO_RIGHT: Final = frozenset(TURNS[orientation] for orientation in (2, 3, 6, 7))
"""Those that lay what was first in a row, or in a column, at the right."""

TOP_TO_BOTTOM: Final = frozenset(TURNS[orientation] for orientation in (3, 4, 7, 8))
"""Likewise, at the bottom."""

MAX_SIDE: Final = 2**16 - 1
"""Of a picture, as of a JPEG or DICOM object (US, PS3.5 2024e, 6.2): some of its lines are in memory
several times."""

STRIP_PIXELS: Final = 2**20
"""About as many pixels are converted at a time, since each takes four bytes for that, or twelve."""

MAX_COLOUR_PIXELS: Final = 2**22
"""So many pixels of a JPEG are decoded with their colours, which take three bytes more for each.

A JPEG that has more after scaling is longer than any slice; memory does not suffice for its colours
beside its coefficients. They are then looked at by themselves, at a smaller scale.
"""


class Media(StrEnum):
    """What the service reads; the value is the media type."""

    JPEG = "image/jpeg"
    PNG = "image/png"
    DICOM = "application/dicom"


def sniff(data: bytes) -> Media:
    """Tells the format by its first bytes.

    Raises:
        UnsupportedMedia: it is none of :class:`Media`.
    """
    if data[:3] == b"\xff\xd8\xff":
        return Media.JPEG
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return Media.PNG
    if data[DICOM_PREAMBLE_BYTES : DICOM_PREAMBLE_BYTES + 4] == b"DICM":
        return Media.DICOM
    raise UnsupportedMedia("neither JPEG, PNG nor DICOM" if data else "the file is empty")


def open_source(
    data: bytes,
    spec: PreprocessSpec = DEFAULT_SPEC,
    policy: Policy = DEFAULT_POLICY,
    *,
    keep: Sequence[str] = (),
) -> Source:
    """Opens a file whose slices are then decoded one at a time.

    Args:
        data: the whole file.
        spec: its ``decode_min_side`` allows a JPEG to be decoded at reduced scale.
        policy: what is accepted.
        keep: keywords of the attributes of a DICOM object that are kept in its header, those of its
            patient among them, for those who write objects that refer to it.

    Returns:
        The slices of a DICOM object, whose headers have been checked by now, or the only one of a JPEG
        or PNG, of which nothing is looked at before its slice is decoded.

    Raises:
        DecodeError: one of its kinds; no other exception leaves this function.
    """
    media = sniff(data)
    if media is Media.DICOM:
        # pydicom costs a quarter of a second to import, which a JPEG client need not wait for.
        from contract.dicom import open_dicom

        return open_dicom(data, policy, keep=keep)
    return _Picture(data, media, spec, policy)


def decode(
    data: bytes, spec: PreprocessSpec = DEFAULT_SPEC, policy: Policy = DEFAULT_POLICY
) -> Slice:
    """Decodes a file of one slice; for the arguments see :func:`open_source`.

    Raises:
        MultiFrame: it has several.
        DecodeError: another of its kinds; no other exception leaves this function.
    """
    source = open_source(data, spec, policy)
    if source.frames > 1:
        raise MultiFrame("the DICOM object holds several frames")
    return source.slice(1)


@dataclass(frozen=True, slots=True)
class _Picture:
    """A JPEG or PNG file, the :class:`Source` of one slice."""

    data: bytes
    media: Media
    spec: PreprocessSpec
    policy: Policy

    @property
    def frames(self) -> int:
        return 1

    @property
    def header(self) -> Dataset | None:
        return None

    @property
    def isolated(self) -> bool:
        return False

    @property
    def held_bytes(self) -> int:
        return 0

    @property
    def study_instance_uid(self) -> str | None:
        return None

    def reference(self, frame: int) -> DicomReference | None:  # noqa: ARG002 - it has but one
        return None

    def slice(self, frame: int) -> Slice:  # noqa: ARG002
        max_pixels = self.policy.max_pixels
        try:
            return _decode_pillow(self.data, self.media, self.spec, max_pixels)
        except DecodeError:
            raise
        except Image.DecompressionBombError as error:
            raise TooManyPixels(f"more than the {max_pixels} pixels that are accepted") from error
        except (
            Exception
        ) as error:  # Pillow raises nearly anything, depending on where the damage is
            if "truncated" in str(error).lower():
                raise TruncatedImage("the image ends before its pixels do") from error
            raise UndecodableImage("the image is damaged and cannot be decoded") from error


def _decode_pillow(data: bytes, media: Media, spec: PreprocessSpec, max_pixels: int) -> Slice:
    if is_excessive_jpeg(data) if media is Media.JPEG else is_excessive_png(data):
        raise UndecodableImage("the file has more beside its pixels than an image can need")
    quieten()
    image = Image.open(io.BytesIO(data), formats=[media.name])
    # As viewers do, before what a PNG may have behind its pixels.
    turn = _turn(image.info.get("exif", b""))
    columns, rows = image.size
    # Of a JPEG of several scans all values are in memory, in two bytes each.
    accepted = 3 * max_pixels // 4 if image.mode == "CMYK" else max_pixels
    if columns * rows > accepted:
        raise TooManyPixels(f"{columns} x {rows} pixels; at most {accepted} are accepted")
    if max(columns, rows) > MAX_SIDE:
        raise TooManyPixels(f"{columns} x {rows} pixels; at most {MAX_SIDE} to a side are accepted")
    reach, coloured = WHOLE, False
    if media is Media.JPEG:
        if has_more_scans(data, max_scans(columns * rows, max_pixels)):
            raise UndecodableImage("the JPEG has more scans than an image can need")
        mode, least = _mode(image, data), spec.decode_min_side
        if image.mode == "RGB" and _scaled_pixels(image, least) > MAX_COLOUR_PIXELS:
            coloured = _has_colours(_smaller(data, mode, least))
            mode = "L"
        drafted = image.draft(mode, (least, least))
        if drafted is not None:
            # At 1/8, 2049 columns are 256.125 of the 257 that there are then.
            _, (_, _, width, height) = drafted
            reach = (0.0, 0.0, image.width / width, image.height / height)
    absent = transparent_level(image)
    if absent is not None:
        image.info["transparency"] = absent
    deep = deep_picture(image, data) if media is Media.PNG else None
    image.load()
    if deep is None:
        coloured = coloured or _has_colours(image)
        grey = to_grey(image)
    else:
        coloured = deep.coloured
        grey = Image.fromarray(stretched(deep.grey))
    # They are as large as the slice, or larger.
    del image, deep
    if turn is not None:
        grey = grey.transpose(turn)
    if turn in SIDEWAYS:
        rows, columns = columns, rows
    return Slice(_levels(grey), (rows, columns), reach=_turned(reach, turn), coloured=coloured)


def _mode(image: Image.Image, data: bytes) -> str:
    """The mode in which a JPEG is decoded with its colours, of which luma is the first of three."""
    return "YCbCr" if image.mode == "RGB" and jpeg_is_read_as_ycbcr(data) else "RGB"


def _scaled_pixels(image: Image.Image, least: int) -> int:
    """How many pixels of a JPEG are decoded if no side may fall below ``least``."""
    scale = 1 << min(3, max(1, min(image.size) // least).bit_length() - 1)
    return image.width * image.height // scale**2


def _smaller(data: bytes, mode: str, least: int) -> Image.Image:
    """A JPEG at the largest scale that leaves few enough pixels for their colours."""
    image = Image.open(io.BytesIO(data), formats=[Media.JPEG.name])
    while least > 1 and _scaled_pixels(image, least) > MAX_COLOUR_PIXELS:
        least //= 2
    image.draft(mode, (least, least))
    return image


def _has_colours(image: Image.Image) -> bool:
    if is_grey(image):
        return False
    tints = Tints()
    for strip in [image] if _is_one_strip(image) else map(image.crop, _boxes(image)):
        tints.add(channels_of(strip))
    return tints.coloured


def _turned(reach: Reach, turn: Image.Transpose | None) -> Reach:
    left, top, right, bottom = reach
    if turn in SIDEWAYS:
        left, top, right, bottom = top, left, bottom, right
    if turn in LEFT_TO_RIGHT:
        left, right = 1 - right, 1 - left
    if turn in TOP_TO_BOTTOM:
        top, bottom = 1 - bottom, 1 - top
    return left, top, right, bottom


def _turn(exif: bytes) -> Image.Transpose | None:
    """What makes a picture upright, as far as its EXIF data say so in the one way of the standard.

    Pillow takes a number of any type for it and, where there is none, what XMP says: viewers show such
    a picture as it lies.
    """
    order = EXIF_ORDERS.get(exif[:10])
    if order is None:
        return None

    def number(at: int, size: int) -> int:
        return int.from_bytes(exif[at : at + size], order)

    first = TIFF_OFFSET + number(TIFF_OFFSET + 4, 4) + 2
    end = min(first + 12 * number(first - 2, 2), len(exif) - 11)
    for field in range(first, end, 12):
        if (number(field, 2), number(field + 2, 2), number(field + 4, 4)) == ONE_ORIENTATION:
            return TURNS.get(number(field + 8, 2))
    return None


def to_grey(image: Image.Image) -> Image.Image:
    """Any Pillow mode to 8-bit grey; transparency becomes black, as MR background is.

    16-bit grey is scaled by its own range, since 12-bit data in 16-bit files is common; for that of
    colour or with transparency, see :mod:`contract.png`.
    """
    if image.mode == "L" and "transparency" not in image.info:
        return image
    if image.mode in {"I;16", "I;16B", "I"}:
        levels = np.require(_levels(image), np.uint16, "W")
        levels[levels == image.info.get("transparency", -1)] = 0
        return Image.fromarray(stretched(levels))
    if _is_one_strip(image):
        return on_black(image).convert("L")
    grey = Image.new("L", image.size)
    for box in _boxes(image):
        grey.paste(on_black(image.crop(box)).convert("L"), box)
    return grey


def _levels(image: Image.Image) -> NDArray[Any]:
    """The values of a grey image, (rows, columns); of a large one without Pillow's two copies."""
    if _is_one_strip(image):
        return np.asarray(image)
    levels = np.empty((image.height, image.width), np.uint8 if image.mode == "L" else np.uint16)
    for box in _boxes(image):
        levels[box[1] : box[3]] = np.asarray(image.crop(box))
    return levels


def _is_one_strip(image: Image.Image) -> bool:
    return image.width * image.height <= STRIP_PIXELS


def _boxes(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Left, top, right and bottom of strips that an image is made of, from top to bottom."""
    step = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, step):
        yield 0, top, image.width, min(image.height, top + step)
