"""What is accepted of a file: how much of it, and of what kind."""

from dataclasses import dataclass
from typing import Final

DEFAULT_MAX_PIXELS: Final = 40_000_000
"""Pixels that one frame may have; far above any MR slice, far below a decompression bomb."""

DEFAULT_MAX_FRAMES: Final = 1024
"""Frames that one object may have: more than any volume of slices that is read by people."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits on one file, checked before anything is decompressed.

    Attributes:
        max_pixels: rows times columns of one frame.
        max_frames: frames of one object.
    """

    max_pixels: int = DEFAULT_MAX_PIXELS
    max_frames: int = DEFAULT_MAX_FRAMES


DEFAULT_POLICY: Final = Policy()
