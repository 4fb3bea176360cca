"""Where an answer comes from: the heat map of a slice, as numbers and as a picture."""

import io
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from contract.answer import Outputs, Rules, relative
from contract.decoding import open_source
from contract.policy import Policy
from contract.region import Geometry, Region, cell_grid, find_region, spread
from service.dicom.drawing import outline
from service.engine import Engine
from service.errors import NotExplainable
from service.jobs import Job

VALUE_DECIMALS: Final = 4
"""Of a heat map's numbers."""

MIN_SIDE: Final = 512
"""Pixels that a picture's longer side has at least: lines on fewer hide what they surround."""

MAX_SIDE: Final = 2048
"""And at most: a picture need not be larger than a screen."""

OUTLINE: Final = (0, 229, 255)
BOX: Final = (255, 255, 255)
COOL: Final = np.array((255, 214, 0), np.float32)
HOT: Final = np.array((230, 0, 38), np.float32)
"""Ends of the heat map's colours; outline and box are neither, also to those who see no red."""

OPACITY: Final = 0.55
"""Of the hottest part, so that the slice shows through."""


SOURCE_HEADER: Final = "X-Heatmap-Source"
"""Of an explanation: a picture has no other place to say what its colours mean."""

VERSION_HEADER: Final = "X-Model-Version"
"""Likewise: another version may have given the answer that the picture is looked at with."""


class Source(StrEnum):
    """What a heat map is made of.

    Attributes:
        MASK: the tumour probability of each cell.
        CAM: the activation map of the most probable tumour class, relative to its highest value.
        SIGNATURE: the version's own explanation, likewise.
    """

    MASK = "mask"
    CAM = "cam"
    SIGNATURE = "explain"


@dataclass(frozen=True, slots=True, eq=False)
class Heatmap:
    """A heat map: float32 (h, w), 0 to 1, for cells that cover the model's input evenly."""

    source: Source
    cells: NDArray[np.float32]


def source_of(engine: Engine) -> Source:
    """What a version's heat maps are made of.

    Raises:
        NotExplainable: it has nothing for them.
    """
    outputs = engine.stored.manifest.outputs
    if "mask" in outputs:
        return Source.MASK
    if "cam" in outputs:
        return Source.CAM
    if engine.runtime.explains:
        return Source.SIGNATURE
    raise NotExplainable(
        "the active version shows neither a mask nor activation maps, and its runtime has no "
        "signature 'explain'"
    )


def heatmap(job: Job, engine: Engine) -> Heatmap:
    """The heat map of an answered slice. A thread other than the event loop's."""
    source, outputs = source_of(engine), job.outcome
    if not isinstance(outputs, Outputs) or job.answer is None or job.pixels is None:
        raise ValueError("the slice was not answered")
    if source is not Source.SIGNATURE and (cells := engine.rules.cells(outputs)) is not None:
        return Heatmap(source, cells)
    return Heatmap(source, relative(engine.runtime.explain(job.pixels[None])[0]))


def content(found: Heatmap, geometry: Geometry) -> dict[str, Any]:
    """A heat map as JSON."""
    grid = cell_grid(found.cells, geometry)
    return {
        "source": found.source,
        "box": [round(edge, 2) for edge in grid.box],
        "values": [[round(value, VALUE_DECIMALS) for value in row] for row in grid.values.tolist()],
    }


def picture(job: Job, found: Heatmap, rules: Rules, policy: Policy) -> bytes:
    """The slice as a PNG file, with heat map over it, and outline and box if it is in distribution.

    Args:
        job: of the slice, answered.
        found: its heat map.
        rules: of the version that answered it, for its region.
        policy: what was accepted of the file.
    """
    if job.geometry is None or job.answer is None:
        raise ValueError("the slice was not answered")
    # At full scale, where a JPEG was decoded at less for the model.
    spec = job.spec.model_copy(update={"decode_min_side": policy.max_pixels})
    source = job.source or open_source(job.upload.data, spec, policy)
    grey = Image.fromarray(source.slice(job.frame).pixels)
    longest = max(grey.size)
    scale = min(max(1.0, MIN_SIDE / longest), MAX_SIDE / longest)
    columns, rows = (max(1, round(side * scale)) for side in grey.size)
    shown = grey.resize((columns, rows), Image.Resampling.BICUBIC)
    # What is drawn has the picture's own pixels, so that no line is a staircase.
    geometry = replace(job.geometry, original_size=(rows, columns), pixel_spacing_mm=None)
    canvas = _heated(np.asarray(shown), spread(found.cells, geometry))
    image = Image.fromarray(canvas)
    if job.answer.region is not None and job.answer.in_distribution is not False:
        drawn = _region(job, geometry, rules)
        if drawn is not None:
            _draw(image, drawn)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _region(job: Job, geometry: Geometry, rules: Rules) -> Region | None:
    """The region of an answered slice in the picture's pixels."""
    cells = rules.cells(job.outcome) if isinstance(job.outcome, Outputs) else None
    if cells is None or rules.region is None:
        return None
    return find_region(cells, geometry, rules.region, rules.region_source)


def _heated(grey: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    share = np.clip(heat, 0, 1)[..., None]
    colour = COOL + (HOT - COOL) * share
    opacity = OPACITY * share
    return np.asarray(np.rint(grey[..., None] * (1 - opacity) + colour * opacity), np.uint8)


def _draw(image: Image.Image, region: Region) -> None:
    width = max(2, round(max(image.size) / 256))
    image.paste(OUTLINE, mask=Image.fromarray(outline(region.mask(), width)))
    left, top, right, bottom = region.box
    # Around the box, so that it does not cover the outline of a region that fills it.
    corners = (left - width, top - width, right + width - 1, bottom + width - 1)
    ImageDraw.Draw(image).rectangle(corners, outline=BOX, width=max(1, width // 2))
