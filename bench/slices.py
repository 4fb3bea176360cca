"""The images that every server gets: real 512x512 JPEGs, some of each class."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.environments import ROOT

SHIPPED: Final = ("tests/data/slices", ROOT / "tests" / "data" / "slices")
PUBLIC: Final = (
    "nickparvar/Testing",
    ROOT.parent / "shared" / "data" / "nickparvar" / "Testing",
)

SIZE: Final = (512, 512)
SOF_MARKERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a JPEG's frame header, which states its size (ITU-T T.81, table B.1)."""


@dataclass(frozen=True, slots=True)
class Source:
    """A folder of class folders.

    Attributes:
        name: how the results name it.
        files: JPEGs of :data:`SIZE`, evenly over the classes.
    """

    name: str
    files: tuple[Path, ...]

    @property
    def mean_bytes(self) -> int:
        """Mean size of a file."""
        return sum(path.stat().st_size for path in self.files) // len(self.files)


def choose(folders: list[tuple[str, Path]], count: int) -> Source:
    """Up to ``count`` files from the first folder that has any.

    Args:
        folders: name and path, the preferred first.
        count: how many files.

    Raises:
        FileNotFoundError: no folder has a JPEG of :data:`SIZE`.
    """
    for name, folder in folders:
        by_class = [
            [path for path in sorted(group.glob("*.jpg")) if jpeg_size(path) == SIZE]
            for group in sorted(folder.glob("*/"))
        ]
        chosen = _spread([files for files in by_class if files], count)
        if chosen:
            return Source(name, tuple(chosen))
    raise FileNotFoundError(f"no JPEG of {SIZE[0]}x{SIZE[1]} in any of the folders")


def jpeg_size(path: Path) -> tuple[int, int] | None:
    """Columns and rows that a JPEG's frame header states; None if there is none."""
    data = path.read_bytes()
    if data[:2] != b"\xff\xd8":
        return None
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in SOF_MARKERS:
            rows = int.from_bytes(data[position + 5 : position + 7])
            columns = int.from_bytes(data[position + 7 : position + 9])
            return columns, rows
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return None


def _spread(by_class: list[list[Path]], count: int) -> list[Path]:
    """As even a number of each class as they allow, in turn, and far apart in each."""
    wanted = [0] * len(by_class)
    while sum(wanted) < min(count, sum(map(len, by_class))):
        room = [at for at, files in enumerate(by_class) if wanted[at] < len(files)]
        wanted[min(room, key=lambda at: wanted[at])] += 1
    each = [
        [files[place * len(files) // number] for place in range(number)]
        for files, number in zip(by_class, wanted, strict=True)
    ]
    return [
        files[turn] for turn in range(max(wanted, default=0)) for files in each if turn < len(files)
    ]
