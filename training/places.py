"""What is found in a data set's folder, whether an index lists it or folders are named for classes."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """Where an image lies, and what follows from it; see :class:`training.images.ImageFile`."""

    path: Path
    part: str
    label: str
    person: str = ""
    mask: Path | None = None


class Found(NamedTuple):
    """What a data set's folder holds.

    Attributes:
        places: images with a class, in one fixed order.
        unlabelled: folder, by its name from the data set's on, to how many images lie in it that no
            folder's name gives a class.
        passed_over: what else lies there and is not taken, by suffix or kind, to how many files.
        remarks: what of it may surprise, for people; it names nobody.
    """

    places: list[Place]
    unlabelled: Counter[str]
    passed_over: Counter[str]
    remarks: tuple[str, ...] = ()


class Candidate(NamedTuple):
    """A file that may be an image with a class."""

    path: Path
    folders: tuple[str, ...]
    """Names of the folders that it lies in, from the data set's on."""
