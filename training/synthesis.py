"""Slices that break the tie between a data set and its label: tumours cut out, and pasted elsewhere.

Every slice with a tumour mask comes from one data set and nearly every slice without a tumour from
others, so what tells the sets apart (sequence, borders, compression) also tells the labels apart. A
slice of the first kind without its tumour, and one of the second with a tumour, do away with that.
What is cut out is filled with tissue from elsewhere in the same slice; as many slices keep their label
and get such a patch beside the tumour, so that a patch says nothing. Some slices of every kind are made
anew without the skull.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from contract.preprocessing import DEFAULT_SPEC, preprocess_placed
from training.images import ImageSet
from training.masks import place_mask
from training.names import ANY_TUMOR, NO_TUMOR
from training.recipe import Mask
from training.splits import Split
from training.stripping import HEAD_LEVEL, brain

MARGIN: Final = 4
"""Pixels around a mask that go with it: outlines are drawn close, and tumours have a rim."""
FEATHER: Final = 2.0
"""Standard deviation, in pixels, of the blend at a patch's edge."""
TRIES: Final = 60
"""Places tried for a patch; the one whose surroundings fit best is taken."""
MIN_CONTRAST: Final = 12.0
"""Grey levels by which a pasted tumour must stand out from its surroundings to be called one."""
KEPT: Final = 0.95
"""Share of a tumour that a stripped slice must still show."""

Sample = tuple[NDArray[np.uint8], NDArray[np.uint8], str]
"""A slice, its mask, its label."""


class Synthetic(NamedTuple):
    """Made slices.

    Attributes:
        slices: uint8 (M, H, W).
        masks: share of tumour, uint8 (M, H, W).
        labels: class names, (M,); :data:`ANY_TUMOR` for a pasted tumour, whose kind its new place
            may contradict.
    """

    slices: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    labels: NDArray[np.str_]


def synthesise(images: ImageSet, parts: Split, settings: Mask, seed: int) -> Synthetic:
    """Makes slices from training slices alone, the same for the same seed.

    Args:
        images: what was read.
        parts: who trains.
        settings: how many slices of each kind.
        seed: of every choice.
    """
    rng = np.random.default_rng((seed, 7))
    donors = [int(i) for i in parts.train if i in images.masks and images.masks[int(i)].any()]
    clean = [int(i) for i in parts.train if images.files[int(i)].label == NO_TUMOR]
    made: list[Sample] = []
    for index in rng.permutation(donors)[: round(settings.removed * len(donors))]:
        slice_, mask = images.slices[index], images.masks[int(index)]
        small = mask.mean() <= 255 * settings.removed_area
        emptied = fill(slice_, mask > 0, mask > 0, rng) if small else None
        if emptied is not None:
            made.append((emptied, np.zeros_like(mask), NO_TUMOR))
        beside = _moved(mask > 0, slice_, rng)
        patched = None if beside is None else fill(slice_, beside, mask > 0, rng)
        if patched is not None:
            made.append((patched, mask, images.files[index].label))
    # Where no training slice has an outlined tumour, there is nothing to paste.
    for index in rng.permutation(clean)[: round(settings.pasted * len(clean)) if donors else 0]:
        donor = int(rng.choice(donors))
        pasted = paste(images.slices[index], images.slices[donor], images.masks[donor], rng)
        if pasted is not None:
            made.append((*pasted, ANY_TUMOR))
    empty = np.zeros(images.slices.shape[1:], np.uint8)
    every = [
        *(
            (images.slices[i], images.masks.get(i, empty), images.files[i].label)
            for i in donors + clean
        ),
        *made,
    ]
    # All kinds alike, so that a skull, or its absence, says nothing.
    for index in rng.permutation(len(every))[: round(settings.stripped * len(every))]:
        pixels, mask, label = every[index]
        stripped = strip(pixels, mask)
        if stripped is not None:
            made.append((*stripped, label))
    shape = (0, *images.slices.shape[1:])
    return Synthetic(
        np.stack([m[0] for m in made]) if made else np.zeros(shape, np.uint8),
        np.stack([m[1] for m in made]) if made else np.zeros(shape, np.uint8),
        np.array([m[2] for m in made], str),
    )


def stripped_slices(
    images: ImageSet, rows: NDArray[np.intp], share: float, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Real slices without the skull, of those that show no tumour or whose mask is known.

    Args:
        images: what was read.
        rows: which to take them from.
        share: how many of these, before those in which no brain is found are left out.
        seed: of the choice.

    Returns:
        uint8 (M, H, W), and which images they are of, (M,).
    """
    rng = np.random.default_rng((seed, 11))
    empty = np.zeros(images.slices.shape[1:], np.uint8)
    fit = [i for i in rows.tolist() if i in images.masks or images.files[i].label == NO_TUMOR]
    made: dict[int, NDArray[np.uint8]] = {}
    for index in rng.permutation(fit)[: round(share * len(fit))].tolist():
        found = strip(images.slices[index], images.masks.get(index, empty))
        if found is not None:
            made[index] = found[0]
    return np.array([*made.values(), empty])[:-1], np.array([*made], np.intp)


def fill(
    pixels: NDArray[np.uint8],
    region: NDArray[np.bool_],
    avoid: NDArray[np.bool_],
    rng: np.random.Generator,
) -> NDArray[np.uint8] | None:
    """Covers a region with tissue from elsewhere in the slice or from its mirror image.

    Args:
        pixels: uint8 (H, W).
        region: what to cover, bool (H, W).
        avoid: what must not be copied, bool (H, W).
        rng: chooses the places that are tried.

    Returns:
        uint8 (H, W); None where no place fits.
    """
    hole = ndimage.binary_dilation(region, iterations=MARGIN)
    ring = ndimage.binary_dilation(hole, iterations=3) & ~hole
    avoid = ndimage.binary_dilation(avoid, iterations=MARGIN)
    source = pixels.astype(np.float32)
    head = pixels > HEAD_LEVEL
    wanted = source[ring]
    best: tuple[float, NDArray[Any]] | None = None
    for attempt in range(TRIES):
        mirrored = attempt % 2 == 0
        # The other hemisphere lies near the mirror image; anything else lies anywhere.
        reach = (8, 14) if mirrored else (90, 90)
        shift = tuple(int(rng.integers(-r, r + 1)) for r in reach)
        patch, bad, inside = (_shifted(a, shift, mirrored) for a in (source, avoid, head))
        if (bad & hole).any() or inside[hole].mean() < 0.9 * head[hole].mean():
            continue
        offset = float(np.median(wanted) - np.median(patch[ring]))
        misfit = float(np.abs(patch[ring] + offset - wanted).mean())
        if best is None or misfit < best[0]:
            best = misfit, patch + offset
    return None if best is None else _blend(source, best[1], hole)


def paste(
    pixels: NDArray[np.uint8],
    donor: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """Puts a donor's tumour, scaled, turned and flipped, somewhere into a head.

    Args:
        pixels: the slice to change, uint8 (H, W).
        donor: a slice with a tumour, uint8 (H, W).
        mask: its tumour, uint8 (H, W).
        rng: chooses the place and the change.

    Returns:
        The slice and the tumour's mask in it, uint8 (H, W) each; None where no place fits.
    """
    angle, scale = rng.uniform(0, 360), rng.uniform(0.7, 1.2)
    flip = rng.random() < 0.5
    moved, moved_mask = (_turned(a, mask, angle, scale, flip) for a in (donor, mask))
    outline = moved_mask > 127
    if not outline.any():
        return None
    head = ndimage.binary_erosion(
        ndimage.binary_fill_holes(pixels > HEAD_LEVEL), iterations=14, border_value=0
    )
    places = np.argwhere(head)
    if not len(places):
        return None
    centre = np.argwhere(outline).mean(0)
    target = pixels.astype(np.float32)
    for _ in range(TRIES):
        row, column = places[rng.integers(len(places))]
        shift = (round(row - centre[0]), round(column - centre[1]))
        tumour = _shifted(moved.astype(np.float32), shift)
        share = _shifted(moved_mask, shift)
        inside = share > 127
        # Most of it must lie inside the head, and all of it inside the slice.
        if inside.sum() < 0.98 * outline.sum() or head[inside].mean() < 0.9:
            continue
        hole = ndimage.binary_dilation(inside, iterations=2)
        ring = ndimage.binary_dilation(hole, iterations=4) & ~hole
        offset = float(np.median(target[ring]) - np.median(tumour[ring]))
        blended = _blend(target, tumour + offset, hole)
        if abs(blended[inside].mean() - np.median(target[ring])) < MIN_CONTRAST:
            continue
        return blended, share
    return None


def strip(
    pixels: NDArray[np.uint8], mask: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """Takes the skull away, and preprocesses what is left as the service would: it fills the slice.

    Args:
        pixels: uint8 (H, W) of the default preprocessing.
        mask: share of tumour, uint8 (H, W).

    Returns:
        The slice and its mask, uint8 (H, W) each; None where no brain is found, or it lacks the tumour.
    """
    found = brain(pixels)
    tumour = mask > 127
    if found is None or (tumour & found).sum() < KEPT * tumour.sum():
        return None
    bare, placement = preprocess_placed(np.where(found, pixels, np.uint8(0)))
    return bare, place_mask(Image.fromarray(mask), placement, DEFAULT_SPEC)


def _moved(
    mask: NDArray[np.bool_], pixels: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.bool_] | None:
    """The mask's shape somewhere else in the head, away from the tumour."""
    head = pixels > HEAD_LEVEL
    near = ndimage.binary_dilation(mask, iterations=3 * MARGIN)
    for _ in range(TRIES):
        shift = (int(rng.integers(-100, 101)), int(rng.integers(-100, 101)))
        beside = _shifted(mask, shift)
        if beside.sum() < 0.98 * mask.sum() or (beside & near).any():
            continue
        if head[beside].mean() > 0.9:
            return beside
    return None


def _shifted(array: NDArray[Any], shift: tuple[int, ...], mirrored: bool = False) -> NDArray[Any]:
    """Moves an array down and right; what comes in from outside is zero."""
    if mirrored:
        array = array[:, ::-1]
    moved = np.zeros_like(array)
    rows, columns = array.shape
    down, right = shift
    if abs(down) >= rows or abs(right) >= columns:
        return moved
    moved[max(down, 0) : rows + min(down, 0), max(right, 0) : columns + min(right, 0)] = array[
        max(-down, 0) : rows + min(-down, 0), max(-right, 0) : columns + min(-right, 0)
    ]
    return moved


def _turned(
    array: NDArray[np.uint8], mask: NDArray[np.uint8], angle: float, scale: float, flip: bool
) -> NDArray[np.uint8]:
    """Turns and scales about the mask's centre, which goes to the middle of the array."""
    radians = np.deg2rad(angle)
    matrix = (
        np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]]) / scale
    )
    if flip:
        matrix[:, 1] *= -1
    centre = np.argwhere(mask > 127).mean(0) if (mask > 127).any() else np.array(mask.shape) / 2
    offset = centre - matrix @ (np.array(array.shape) / 2)
    turned: NDArray[np.uint8] = ndimage.affine_transform(array, matrix, offset, order=1)
    return turned


def _blend(under: NDArray[Any], over: NDArray[Any], where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """``over`` inside ``where``, ``under`` outside, with a soft edge."""
    share = ndimage.gaussian_filter(where.astype(np.float32), FEATHER)
    return np.asarray(np.clip(np.rint(under + share * (over - under)), 0, 255), np.uint8)
