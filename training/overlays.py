"""A picture of what a model outlines, beside what the radiologist did."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.decoding import decode
from contract.manifest import RegionRecord
from training.images import ImageSet
from training.regions import read_mask, regions
from training.trust import Tested

SLICES: Final = 40
COLUMNS: Final = 10
SIDE: Final = 192
"""Of a slice on the sheet, in pixels."""
MASK_COLOUR: Final = (0, 220, 0)
REGION_COLOUR: Final = (255, 40, 40)


def overlays(
    path: Path, images: ImageSet, test: Tested, record: RegionRecord, rng: np.random.Generator
) -> None:
    """A contact sheet of test slices, drawn at random: the mask in green, the region in red."""
    rows = np.flatnonzero([images.files[int(row)].mask is not None for row in test.rows])
    chosen = rng.permutation(rows)[:SLICES]
    found = regions(
        images,
        test.rows[chosen].tolist(),
        test.masks[chosen],
        test.answers.tumor_probability[chosen],
        record,
    )
    sheet = Image.new("RGB", (COLUMNS * SIDE, -(-len(chosen) // COLUMNS) * SIDE))
    for place, (index, region) in enumerate(zip(chosen, found, strict=True)):
        file = images.files[int(test.rows[index])]
        assert file.mask is not None
        outline = read_mask(file.mask)
        # A large JPEG is decoded at a part of its size; outlines and regions are at the whole.
        pixels = Image.fromarray(decode(file.path.read_bytes()).pixels).resize(outline.shape[::-1])
        picture = np.stack([np.asarray(pixels)] * 3, axis=-1)
        picture[_edge(outline)] = MASK_COLOUR
        if region is not None:
            picture[_edge(region.mask())] = REGION_COLOUR
        tile = Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        sheet.paste(tile, (place % COLUMNS * SIDE, place // COLUMNS * SIDE))
    sheet.save(path, quality=85)


def _edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Its pixels, bool (rows, columns), with a neighbour outside it."""
    inner = mask.copy()
    for axis in (0, 1):
        inner &= np.roll(mask, 1, axis) & np.roll(mask, -1, axis)
    return np.asarray(mask & ~inner)
