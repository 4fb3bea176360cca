"""Decoded slice to model input: the one function that training and service share.

The steps are fixed, their numbers are a frozen :class:`PreprocessSpec`, and its hash travels in every
manifest. A version is served only where :func:`reproduce` shows that this installation computes the
very pixels its model was trained on.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.errors import PreprocessMismatch
from contract.turning import AS_STORED, Turn

Reach = tuple[float, float, float, float]
"""Left, top, right and bottom of what some pixels show, as shares of the sides of an image."""

WHOLE: Final[Reach] = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class DicomReference:
    """Where in a DICOM study a slice comes from; no patient attributes.

    Attributes:
        sop_instance_uid: (0008,0018); None if missing or malformed.
        series_instance_uid: (0020,000E), likewise.
        frame: frame number from 1, as in (0008,1160).
        pixel_spacing_mm: row and column spacing (0028,0030), if stated.
        position_mm: centre of the first pixel in the patient, (0020,0032), if stated.
        orientation: direction of the rows, then of the columns, (0020,0037), if stated.
        instance_number: (0020,0013), if stated.
    """

    sop_instance_uid: str | None
    series_instance_uid: str | None
    frame: int
    pixel_spacing_mm: tuple[float, float] | None
    position_mm: tuple[float, float, float] | None = None
    orientation: tuple[float, float, float, float, float, float] | None = None
    instance_number: int | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """One decoded 2D slice.

    Attributes:
        pixels: grey levels, uint8 (rows, columns), bright is bright.
        original_size: rows and columns of the source image, before any reduced-scale decoding.
        dicom: its place in a study, for DICOM input.
        turn: what makes it lie as slices are read; of what does not say how it lies, nothing.
        reach: of the source image, what the pixels show: those at a border may reach over it, as a
            reduced scale has whole pixels only.
        coloured: the source image is in colour, of which the grey levels are the brightness. A DICOM
            object that is has no slice.
    """

    pixels: NDArray[np.uint8]
    original_size: tuple[int, int]
    dicom: DicomReference | None = None
    turn: Turn = AS_STORED
    reach: Reach = WHOLE
    coloured: bool = False

    @property
    def upright(self) -> NDArray[np.uint8]:
        """The pixels as they are read: what is preprocessed for a model."""
        return self.turn.apply(self.pixels)


class PreprocessSpec(BaseModel):
    """The numbers of the preprocessing; two specs with one hash give equal pixels.

    Attributes:
        algorithm: version of the steps in :func:`preprocess`; raised when they change.
        height, width: model input in pixels.
        decode_min_side: a JPEG may be decoded at 1/2, 1/4 or 1/8 as long as neither side falls below
            this many pixels (DCT scaling).
        low_percentile, high_percentile: grey levels that become 0 and 255, in percent of all pixels.
        foreground_level: a pixel belongs to the head above this share of the stretched range.
        foreground_share: a row or column belongs to the head when at least this share of it does;
            keeps burned-in text and specks from widening the crop.
        min_foreground: a crop narrower than this share of the slice is not believed, and the whole
            slice is used.
        resample: Pillow's antialiased filter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    algorithm: Literal[1] = 1
    height: int = Field(224, ge=32, le=1024)
    width: int = Field(224, ge=32, le=1024)
    decode_min_side: int = Field(256, ge=32)
    low_percentile: float = Field(1.0, ge=0, lt=50)
    high_percentile: float = Field(99.5, gt=50, le=100)
    foreground_level: float = Field(0.1, ge=0, lt=1)
    foreground_share: float = Field(0.02, ge=0, lt=1)
    min_foreground: float = Field(0.2, ge=0, lt=1)
    resample: Literal["bilinear"] = "bilinear"

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON form, in hex."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


DEFAULT_SPEC = PreprocessSpec()

MAX_BYTE = 255
"""Most lines of ones whose sum still is a byte."""


class Placement(NamedTuple):
    """Where the crop of a slice lies in the model input.

    Attributes:
        crop: left, top, right, bottom in the decoded slice's pixels, right and bottom exclusive.
        target: left, top, right, bottom in the model input's pixels, likewise.
    """

    crop: tuple[int, int, int, int]
    target: tuple[int, int, int, int]


def preprocess(pixels: NDArray[np.uint8], spec: PreprocessSpec = DEFAULT_SPEC) -> NDArray[np.uint8]:
    """Turns one decoded slice into the model's input.

    Stretches the grey levels between two percentiles, crops to the head, scales it with its aspect
    ratio kept, and centres it on black.

    Args:
        pixels: uint8 (rows, columns), as in :attr:`Slice.upright`.
        spec: the numbers to use.

    Returns:
        uint8 (spec.height, spec.width), C-contiguous.

    Raises:
        ValueError: ``pixels`` is not uint8, not 2D, or empty.
    """
    return preprocess_placed(pixels, spec)[0]


def preprocess_placed(
    pixels: NDArray[np.uint8], spec: PreprocessSpec = DEFAULT_SPEC
) -> tuple[NDArray[np.uint8], Placement]:
    """:func:`preprocess`, and where its output lies in the slice: to map regions back."""
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.size == 0:
        raise ValueError(f"expected uint8 (rows, columns), got {pixels.dtype} {pixels.shape}")
    pixels = np.ascontiguousarray(pixels)
    image = Image.fromarray(pixels)
    low, high = _grey_range(image, spec)
    crop = _head_box(pixels, low + spec.foreground_level * (high - low), spec)
    target = _fit(crop[2] - crop[0], crop[3] - crop[1], spec)
    scaled = image.resize(
        (target[2] - target[0], target[3] - target[1]), Image.Resampling.BILINEAR, box=crop
    ).point(_stretch_table(low, high))
    output = np.zeros((spec.height, spec.width), np.uint8)
    output[target[1] : target[3], target[0] : target[2]] = np.asarray(scaled)
    return output, Placement(crop, target)


def _grey_range(image: Image.Image, spec: PreprocessSpec) -> tuple[int, int]:
    """Grey levels at the two percentiles; the upper is above the lower."""
    cumulated = np.cumsum(image.histogram())
    shares = np.array([spec.low_percentile, spec.high_percentile]) / 100 * cumulated[-1]
    low, high = (int(level) for level in np.searchsorted(cumulated, shares))
    return (low, high) if high > low else (0, 255)


@lru_cache(maxsize=1024)
def _stretch_table(low: int, high: int) -> list[int]:
    levels = (np.arange(256) - low) * (255.0 / (high - low))
    return [int(level) for level in np.clip(np.rint(levels), 0, 255)]


def _head_box(
    pixels: NDArray[np.uint8], level: float, spec: PreprocessSpec
) -> tuple[int, int, int, int]:
    rows, columns = pixels.shape
    foreground = pixels > np.uint8(level)
    top, bottom = _extent(_count_in_rows(foreground), columns, spec)
    left, right = _extent(_count_in_columns(foreground), rows, spec)
    if bottom - top < spec.min_foreground * rows or right - left < spec.min_foreground * columns:
        return 0, 0, columns, rows
    return left, top, right, bottom


def _count_in_rows(foreground: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """As ``count_nonzero(axis=1)``, in a third of its time."""
    counts = np.bitwise_count(np.packbits(foreground, axis=1))
    return np.asarray(counts.sum(axis=1, dtype=np.uint64))


def _count_in_columns(foreground: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """As ``count_nonzero(axis=0)``, likewise: bytes are added as bytes as long as none overflows."""
    lines = foreground.view(np.uint8)
    counts = np.zeros(lines.shape[1], np.uint64)
    for start in range(0, len(lines), MAX_BYTE):
        counts += np.add.reduce(lines[start : start + MAX_BYTE], axis=0, dtype=np.uint8)
    return counts


def _extent(counts: NDArray[np.uint64], length: int, spec: PreprocessSpec) -> tuple[int, int]:
    """First and one past the last line that belongs to the head; (0, 0) if there is none."""
    lines = np.flatnonzero(counts > spec.foreground_share * length)
    return (int(lines[0]), int(lines[-1]) + 1) if lines.size else (0, 0)


def _fit(columns: int, rows: int, spec: PreprocessSpec) -> tuple[int, int, int, int]:
    """Box of the input's size or smaller with the crop's aspect ratio, centred."""
    scale = min(spec.width / columns, spec.height / rows)
    width = min(spec.width, max(1, round(columns * scale)))
    height = min(spec.height, max(1, round(rows * scale)))
    left, top = (spec.width - width) // 2, (spec.height - height) // 2
    return left, top, left + width, top + height


def probe_digest(spec: PreprocessSpec) -> str:
    """sha256 of what this installation makes of a fixed synthetic slice.

    The slice is an off-centre, non-square ramp with texture on black, so that the percentiles, the
    crop, the scaling and the padding all take part.
    """
    rows, columns = np.mgrid[0:311, 0:277]
    head = ((rows - 150) / 120.0) ** 2 + ((columns - 120) / 84.0) ** 2 < 1
    texture = 40 + (rows * 5 + columns * 3) % 97 + (rows * columns) % 31
    pixels = np.where(head, texture, 3).astype(np.uint8)
    return hashlib.sha256(preprocess(pixels, spec).tobytes()).hexdigest()


def reproduce(parameters: Mapping[str, Any], digest: str, probe: str) -> PreprocessSpec:
    """The spec of a stored version, if this installation computes the same pixels.

    Args:
        parameters: the spec's fields, as the manifest holds them.
        digest: the spec's hash in the manifest.
        probe: the :func:`probe_digest` at the time of export.

    Raises:
        PreprocessMismatch: unknown parameters or algorithm, another hash, or other pixels.
    """
    try:
        spec = PreprocessSpec.model_validate(dict(parameters))
    except ValidationError as error:
        names = ", ".join(".".join(map(str, item["loc"])) for item in error.errors())
        raise PreprocessMismatch(
            f"the version's preprocessing is unknown to this release: {names}"
        ) from error
    if spec.digest != digest:
        raise PreprocessMismatch("the preprocessing parameters do not match their hash")
    if probe_digest(spec) != probe:
        raise PreprocessMismatch(
            "this installation's image library gives other pixels than the version was trained on"
        )
    return spec
