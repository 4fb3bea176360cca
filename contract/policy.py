"""What is accepted of a file: how much of it, and of what kind."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DEFAULT_MAX_PIXELS: Final = 40_000_000
"""Pixels that one frame may have; far above any MR slice, far below a decompression bomb."""

DEFAULT_MAX_FRAMES: Final = 1024
"""Frames that one object may have: more than any volume of slices that is read by people."""

DEFAULT_DECODER_SECONDS: Final = 5.0
"""Many times what the slowest of them takes for a slice, on a busy machine."""


class Checks(StrEnum):
    """What a DICOM object must say of itself to be predicted.

    ``strict``: modality MR, an MR image's SOP class, of a person, no localizer, no phases, no maps, and
    if it states a body part, a head. ``lenient``: modality or SOP class MR; for sites whose scanners
    state a wrong body part, or whose converters a wrong modality or SOP class. ``off``: nothing; for
    sites that send nothing but MR of heads, whatever its tags are.
    """

    STRICT = "strict"
    LENIENT = "lenient"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits on one file; those on its size are checked before anything is decompressed.

    Attributes:
        max_pixels: rows times columns of one frame.
        max_frames: frames of one object.
        checks: what a DICOM object must say of itself.
        decoder_seconds: time that a decoder in a process of its own may take for one frame.
    """

    max_pixels: int = DEFAULT_MAX_PIXELS
    max_frames: int = DEFAULT_MAX_FRAMES
    checks: Checks = Checks.STRICT
    decoder_seconds: float = DEFAULT_DECODER_SECONDS


DEFAULT_POLICY: Final = Policy()
