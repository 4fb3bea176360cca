"""Where the model sees a tumour against where the radiologist drew it, in the original's pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.manifest import RegionRecord
from contract.region import Geometry, Region, find_region
from training.images import ImageSet
from training.outlines import MASK_LEVEL, load_outline

THRESHOLDS: Final = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
MIN_CELLS: Final = (8, 16, 32)
MAX_FALSE_REGIONS: Final = 0.02
"""Share of validation slices without tumour that may get a region; test is held to 3 %."""


class Found(NamedTuple):
    """One slice's region against its mask.

    Attributes:
        dice: of the two masks; 0 without a region.
        overlap: intersection over union of the two boxes; 0 without a region.
        centred: whether the centre of the region's box, or of its pixels, lies inside the mask.
        score: tumour probability of the slice times that of the region, by which boxes are ranked.
    """

    dice: float
    overlap: float
    centred: bool
    score: float


def read_mask(path: Path) -> NDArray[np.bool_]:
    """A radiologist's mask, bool (rows, columns).

    Raises:
        DatasetError: see :func:`training.outlines.load_outline`.
    """
    return np.asarray(load_outline(path)) > MASK_LEVEL


def regions(
    images: ImageSet,
    rows: Sequence[int],
    masks: NDArray[np.float32],
    tumor_probability: NDArray[np.float64],
    record: RegionRecord,
) -> list[Region | None]:
    """The region that is answered for each slice, if any.

    Args:
        images: what was read.
        rows: which of them the masks are of.
        masks: tumour probability of the cells, (len(rows), h, w).
        tumor_probability: of the slices, (len(rows),).
        record: when a region is reported.
    """
    return [
        reported(mask, images.geometries[row], float(probability), record)
        for row, mask, probability in zip(rows, masks, tumor_probability, strict=True)
    ]


def reported(
    mask: NDArray[np.float32], geometry: Geometry, probability: float, record: RegionRecord
) -> Region | None:
    """The region of one slice, where its tumour probability allows one."""
    if probability < record.min_tumor_probability:
        return None
    return find_region(mask, geometry, record)


def compare(region: Region | None, truth: NDArray[np.bool_], probability: float) -> Found:
    """A slice's region against its mask, bool (rows, columns) in the original's pixels.

    A mask that outlines nothing, as one may that was turned out of the slice, has no region's overlap.
    """
    if region is None or not truth.any():
        return Found(0.0, 0.0, False, 0.0)
    found = region.mask()
    dice = 2 * float((found & truth).sum()) / float(found.sum() + truth.sum())
    left, top, right, bottom = region.box
    middle = ((top + bottom - 1) // 2, (left + right - 1) // 2)
    centroid = tuple(round(c) for c in np.argwhere(found).mean(0))
    centred = bool(truth[middle] or truth[centroid])
    return Found(dice, _overlap(region.box, box(truth)), centred, probability * region.score)


def box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a mask's pixels, right and bottom exclusive."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _overlap(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return shared / (sum(areas) - shared)


def average_precision(found: Sequence[Found], false_scores: Sequence[float] = ()) -> float:
    """AP at an overlap of one half: area under the precision-recall curve, made monotone.

    Args:
        found: one for each slice with a tumour; a slice without a region counts as missed.
        false_scores: scores of regions on slices without tumour.
    """
    boxes = [(f.score, f.overlap >= 0.5) for f in found if f.score > 0]
    boxes += [(score, False) for score in false_scores]
    boxes.sort(key=lambda b: -b[0])
    hits = np.array([hit for _, hit in boxes], bool)
    if not hits.any():
        return 0.0
    scores = np.array([score for score, _ in boxes])
    # No threshold parts boxes of one score: which of them comes first must not count.
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    right = np.cumsum(hits)[last]
    recall, precision = right / len(found), right / (last + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def summary(found: Sequence[Found]) -> dict[str, float]:
    """Mean figures of slices with a tumour."""
    dice = np.array([f.dice for f in found])
    return {
        "images": float(len(found)),
        "dice": float(dice.mean()),
        "dice_median": float(np.median(dice)),
        "ap50": average_precision(found),
        "centre_inside": float(np.mean([f.centred for f in found])),
        "without_region": float(np.mean([f.score == 0 for f in found])),
    }


@dataclass(frozen=True)
class Judged:
    """Validation slices, and what the model says of them.

    Attributes:
        images: what was read.
        rows: which of them these are, (N,).
        masks: tumour probability of their cells, (N, h, w).
        tumor_probability: theirs, (N,).
        tumor: whether they show a tumour, (N,).
    """

    images: ImageSet
    rows: NDArray[np.intp]
    masks: NDArray[np.float32]
    tumor_probability: NDArray[np.float64]
    tumor: NDArray[np.bool_]

    @cached_property
    def truths(self) -> dict[int, NDArray[np.bool_]]:
        """The radiologist's masks by place in the rows, of the slices that have one."""
        paths = {i: self.images.files[int(row)].mask for i, row in enumerate(self.rows)}
        return {i: read_mask(path) for i, path in paths.items() if path is not None}

    def regions(self, record: RegionRecord) -> list[Region | None]:
        """The region that a record gives each slice, if any."""
        return regions(self.images, self.rows.tolist(), self.masks, self.tumor_probability, record)


def choose_record(judged: Judged, least: float) -> RegionRecord:
    """The region record with the best mean Dice on validation and few enough false regions.

    Args:
        judged: validation slices.
        least: lowest ``min_tumor_probability``, the threshold of the decision.
    """
    probability = judged.tumor_probability
    best: tuple[float, RegionRecord] | None = None
    for threshold in THRESHOLDS:
        for cells in MIN_CELLS:
            record = RegionRecord(threshold=threshold, min_cells=cells, min_tumor_probability=0)
            found = judged.regions(record)
            false = np.sort(
                [
                    p if r else 0.0
                    for p, r, t in zip(probability, found, judged.tumor, strict=True)
                    if not t
                ]
            )
            allowed = int(np.floor(MAX_FALSE_REGIONS * len(false)))
            gate = max(least, float(np.nextafter(false[-allowed - 1], 1)))
            gate = min(gate, 1.0)
            dice = float(
                np.mean(
                    [
                        compare(found[i], truth, 1.0).dice if probability[i] >= gate else 0.0
                        for i, truth in judged.truths.items()
                    ]
                )
            )
            if best is None or dice > best[0]:
                best = dice, record.model_copy(update={"min_tumor_probability": gate})
    assert best is not None
    return best[1]


def on_validation(judged: Judged, record: RegionRecord) -> dict[str, float]:
    """Mean Dice and share of false regions by a record."""
    found = judged.regions(record)
    dice = [compare(found[i], truth, 1.0).dice for i, truth in judged.truths.items()]
    false = [region is not None for region, t in zip(found, judged.tumor, strict=True) if not t]
    return {"dice": float(np.mean(dice)), "false_regions": float(np.mean(false))}
