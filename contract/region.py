"""The model's mask, to a region of the original image: box, score, area, pixels.

Of a model without one, an activation map. Its cells cover the model's input evenly, and
:class:`contract.preprocessing.Placement` says which part of the slice lies where in that input. A
pixel's tumour probability is interpolated between the centres of the four cells around its own
centre; it belongs to the region from the threshold on. Cells of the input's black margin take no part.

Two cells of at least the threshold that touch, by a side or a corner, belong together. So the four
cells around a pixel never belong to two regions, and each pixel to one at most.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from contract.components import heaviest
from contract.manifest import RegionRecord
from contract.preprocessing import WHOLE, Placement, PreprocessSpec, Reach, Slice
from contract.turning import AS_STORED, Turn

SCORE_DECIMALS: Final = 4
"""Of a region's score."""

MAP_SHARE: Final = 0.7
"""Share of an activation map's highest value from which a cell belongs to its region.

The best of 0.2 to 0.8 on validation slices with an outline, with class activation maps
(``efficientnet_lite0_plain``, mean Dice 0.26) as with Grad-CAM (``vgg16_binary_joined``, 0.16).
"""


class RegionSource(StrEnum):
    """What a region is made of.

    Attributes:
        MASK: the tumour probability of each cell.
        CAM: the activation map of the most probable tumour class, which is coarse.
    """

    MASK = "mask"
    CAM = "cam"


class RunLengths(TypedDict):
    """A mask as COCO writes it, uncompressed.

    Attributes:
        size: rows and columns.
        counts: lengths of runs in column-major order (down the first column, then the next),
            alternating between pixels outside and inside; the first run is outside, and may be 0.
    """

    size: list[int]
    counts: list[int]


@dataclass(frozen=True, slots=True)
class Geometry:
    """How the model's input, a decoded slice and its original image lie on each other.

    Attributes:
        placement: of the decoded slice, once turned, in the model's input.
        input_size: rows and columns of the model's input.
        decoded_size: rows and columns that were preprocessed: fewer than the original's where a JPEG
            was decoded at reduced scale, more where DICOM pixels were made square.
        original_size: rows and columns of the original image; of DICOM, the stored ones.
        pixel_spacing_mm: of the original image, from row to row and from column to column.
        turn: of the decoded slice, before it was preprocessed; sizes and spacing are those before it.
        reach: of the original, what the decoded slice shows; one that is turned shows all of it.
    """

    placement: Placement
    input_size: tuple[int, int]
    decoded_size: tuple[int, int]
    original_size: tuple[int, int]
    pixel_spacing_mm: tuple[float, float] | None = None
    turn: Turn = AS_STORED
    reach: Reach = WHOLE

    @classmethod
    def of(cls, image: Slice, placement: Placement, spec: PreprocessSpec) -> Self:
        """The geometry of a slice of which ``preprocess_placed`` placed the upright pixels."""
        rows, columns = image.pixels.shape
        return cls(
            placement,
            (spec.height, spec.width),
            (rows, columns),
            image.original_size,
            image.dicom.pixel_spacing_mm if image.dicom else None,
            image.turn,
            image.reach,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One region of the original image.

    Attributes:
        box: left, top, right, bottom in the original's pixels, right and bottom exclusive.
        score: mean of its pixels: of their tumour probability, or of their share of an activation
            map's highest value.
        inside: bool (bottom - top, right - left): which pixels of the box belong to it.
        size: rows and columns of the original image.
        area_mm2: where the pixel spacing is known.
        source: what the cells were.
    """

    box: tuple[int, int, int, int]
    score: float
    inside: NDArray[np.bool_]
    size: tuple[int, int]
    area_mm2: float | None
    source: RegionSource = RegionSource.MASK

    @property
    def area_pixels(self) -> int:
        """Number of pixels that belong to it."""
        return int(np.count_nonzero(self.inside))

    def mask(self) -> NDArray[np.bool_]:
        """Bool (rows, columns) of the original image."""
        full = np.zeros(self.size, np.bool_)
        left, top, right, bottom = self.box
        full[top:bottom, left:right] = self.inside
        return full

    def run_lengths(self) -> RunLengths:
        """The mask in COCO's run lengths."""
        rows, columns = self.size
        left, top, _, _ = self.box
        # Transposed, a column of the image lies in one piece.
        edges = np.diff(np.pad(self.inside.T, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        places = [
            (left + column) * rows + top + row
            for column, row in (np.nonzero(edges == edge) for edge in (1, -1))
        ]
        starts, ends = places
        # A run to the bottom of one column goes on at the top of the next.
        joined = starts[1:] == ends[:-1]
        starts = starts[np.concatenate([[True], ~joined])]
        ends = ends[np.concatenate([~joined, [True]])]
        borders = np.concatenate([[0], np.stack([starts, ends], axis=1).ravel(), [rows * columns]])
        counts = np.diff(borders)
        return {
            "size": [rows, columns],
            "counts": (counts if counts[-1] else counts[:-1]).tolist(),
        }


def find_region(
    mask: NDArray[np.float32],
    geometry: Geometry,
    record: RegionRecord,
    source: RegionSource = RegionSource.MASK,
) -> Region | None:
    """The region with the highest summed probability.

    Whether the slice's ``tumor_probability`` allows one at all is the caller's to ask.

    Args:
        mask: float32 (h, w), tumour probability of each cell, or its share of a map's highest value.
        geometry: where the cells lie.
        record: the threshold, and how many connected cells a region needs.
        source: what the cells are.

    Returns:
        None if there is none.
    """
    vertical, horizontal = _axes(geometry, mask.shape)
    cells = mask[vertical.first : vertical.last, horizontal.first : horizontal.last]
    found = cells >= record.threshold
    # Most slices have no tumour, so most calls end here.
    if not found.any():
        return None
    best = heaviest(cells, found, record.min_cells)
    if best is None:
        return None
    rows = vertical.pixels(np.flatnonzero(best.any(axis=1)))
    columns = horizontal.pixels(np.flatnonzero(best.any(axis=0)))
    down, across = vertical.places(rows), horizontal.places(columns)
    top, left = int(down[0]), int(across[0])
    # Between these cells the region lies, and what it is interpolated with.
    window = np.s_[top : int(down[-1]) + 2, left : int(across[-1]) + 2]
    # Other regions become nothing; cells below the threshold stay, to interpolate with.
    values = np.where(best[window] | ~found[window], cells[window], 0).astype(np.float64)
    probability = _interpolated(values, down - top, across - left)
    inside = probability >= record.threshold
    if not inside.any():
        # Pixels larger than cells may all have their centres beside it: the one with its peak is it.
        row, column = np.unravel_index(np.where(best, cells, 0).argmax(), cells.shape)
        rows, columns = vertical.pixel(int(row)), horizontal.pixel(int(column))
        peak = cells[row : row + 1, column : column + 1].astype(np.float64)
        inside, probability = np.ones((1, 1), np.bool_), peak
    return _region(inside, probability, (int(columns[0]), int(rows[0])), geometry, source)


class CellGrid(NamedTuple):
    """The cells that show the slice, without the black margin.

    Attributes:
        values: (rows, columns) of cells.
        box: left, top, right, bottom of their outer edges in pixels of the original image; it may reach
            over the border.
    """

    values: NDArray[np.float32]
    box: tuple[float, float, float, float]


def cell_grid(cells: NDArray[np.float32], geometry: Geometry) -> CellGrid:
    """Where cells (h, w) lie in the original image."""
    vertical, horizontal = _axes(geometry, cells.shape)
    top, bottom = vertical.edges
    left, right = horizontal.edges
    values = cells[vertical.first : vertical.last, horizontal.first : horizontal.last]
    box = geometry.turn.undo_box((left, top, right, bottom), geometry.original_size)
    return CellGrid(geometry.turn.undo(values), box)


def spread(cells: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    """Cells (h, w), interpolated at every pixel of the original: (rows, columns); 0 where none lie."""
    vertical, horizontal = _axes(geometry, cells.shape)
    full = np.zeros(geometry.turn.size(geometry.original_size), np.float32)
    values = cells[vertical.first : vertical.last, horizontal.first : horizontal.last]
    if values.size:
        rows = vertical.places(np.arange(vertical.start, vertical.end))
        columns = horizontal.places(np.arange(horizontal.start, horizontal.end))
        full[vertical.start : vertical.end, horizontal.start : horizontal.end] = _interpolated(
            values.astype(np.float64), rows, columns
        )
    return geometry.turn.undo(full)


def _region(
    inside: NDArray[np.bool_],
    probability: NDArray[np.float64],
    corner: tuple[int, int],
    geometry: Geometry,
    source: RegionSource,
) -> Region:
    """The region of the pixels inside, in a window of the turned slice that begins at ``corner``."""
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    spacing = geometry.pixel_spacing_mm
    count = int(np.count_nonzero(inside))
    box = (
        corner[0] + int(left),
        corner[1] + int(top),
        corner[0] + int(right),
        corner[1] + int(bottom),
    )
    return Region(
        geometry.turn.undo_box(box, geometry.original_size),
        round(float(probability[inside].mean()), SCORE_DECIMALS),
        geometry.turn.undo(inside[top:bottom, left:right]),
        geometry.original_size,
        count * spacing[0] * spacing[1] if spacing else None,
        source,
    )


class _Axis(NamedTuple):
    """One axis of the geometry: cells that show the slice, counted from ``first`` on, and pixels.

    A coordinate of cells is 0 in the centre of the cell ``first``; one of pixels is 0 at the edge of
    the first pixel.

    Attributes:
        first, last: those cells, the second exclusive, among all cells of the mask.
        start, end: pixels of the original whose centres the model sees, the second exclusive.
        offset, scale: a pixel coordinate, times ``scale``, plus ``offset``, is one of cells.
        length: pixels of the original.
    """

    first: int
    last: int
    start: int
    end: int
    offset: float
    scale: float
    length: int

    @property
    def edges(self) -> tuple[float, float]:
        """Pixel coordinates of the outer edges of the first and the last cell."""
        cells = self.last - self.first
        return (-0.5 - self.offset) / self.scale, (cells - 0.5 - self.offset) / self.scale

    def pixels(self, cells: NDArray[np.intp]) -> NDArray[np.intp]:
        """Every pixel that an ascending selection of cells could reach."""
        low = math.floor((int(cells[0]) - 1 - self.offset) / self.scale)
        high = math.ceil((int(cells[-1]) + 1 - self.offset) / self.scale)
        start = min(max(low, self.start), self.length - 1)
        return np.arange(start, max(min(high, self.end), start + 1))

    def pixel(self, cell: int) -> NDArray[np.intp]:
        """The one with the centre of a cell."""
        place = math.floor((cell - self.offset) / self.scale)
        return np.array([min(max(place, 0), self.length - 1)])

    def places(self, pixels: NDArray[np.intp]) -> NDArray[np.float64]:
        """Cell coordinates of the centres of pixels, kept between the first and the last centre."""
        return np.clip((pixels + 0.5) * self.scale + self.offset, 0, self.last - self.first - 1)


def _axes(geometry: Geometry, cells: tuple[int, ...]) -> tuple[_Axis, _Axis]:
    """The vertical and the horizontal axis, of the turned slice."""
    (left, top, right, bottom), target = geometry.placement
    boxes = ((top, bottom, target[1], target[3]), (left, right, target[0], target[2]))
    sizes = geometry.turn.size(geometry.original_size), geometry.turn.size(geometry.decoded_size)
    axes = []
    for axis, (crop_start, crop_end, target_start, target_end) in enumerate(boxes):
        reach_start, reach_end = geometry.reach[1 - axis], geometry.reach[3 - axis]
        density = cells[axis] / geometry.input_size[axis]
        original, decoded = (size[axis] for size in sizes)
        # In pixels of the original, where the decoded slice begins and how long it is.
        begin, span = original * reach_start, original * (reach_end - reach_start)
        magnification = (target_end - target_start) / (crop_end - crop_start)
        first, last = (math.ceil(edge * density - 0.5) for edge in (target_start, target_end))
        axes.append(
            _Axis(
                first=first,
                last=last,
                start=max(math.ceil(crop_start * span / decoded + begin - 0.5), 0),
                end=min(math.ceil(crop_end * span / decoded + begin - 0.5), original),
                offset=(target_start - (crop_start + begin * decoded / span) * magnification)
                * density
                - 0.5
                - first,
                scale=decoded / span * magnification * density,
                length=original,
            )
        )
    return axes[0], axes[1]


def _interpolated(
    values: NDArray[np.float64], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Bilinear interpolation of cells at every crossing of rows and columns."""
    for places in (rows, columns):
        # The second axis has its turn when it has become the first.
        below = np.floor(places).astype(np.intp)
        above = np.minimum(below + 1, len(values) - 1)
        part = (places - below)[:, None]
        values = (values[below] + (values[above] - values[below]) * part).T
    return values
