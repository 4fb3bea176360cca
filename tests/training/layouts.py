"""Data sets as people keep them, made of one slice or of pictures like no other."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from training.duplicates import audit
from training.images import ImageSet

SLICE = min((Path(__file__).parents[1] / "data" / "slices" / "glioma").glob("*.jpg"))


def put(root: Path, *places: str) -> Path:
    """Files that look like images until they are read."""
    for place in places:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SLICE, root / place)
    return root


def draw(path: Path) -> None:
    """A picture like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng([*path.as_posix().encode()]).integers(0, 255, (64, 64), np.uint8)
    Image.fromarray(noise.repeat(4, 0).repeat(4, 1)).save(path)


def indexed(root: Path, text: str, encoding: str = "utf-8") -> Path:
    """A data set of two images and an index file."""
    root.mkdir(parents=True)
    put(root, "images/1.jpg", "images/2.jpg")
    (root / "index.csv").write_bytes(text.encode(encoding))
    return root


def groups_of(images: ImageSet) -> list[int]:
    """The audit's group of each image."""
    return [int(number) for number in audit(images).groups]
