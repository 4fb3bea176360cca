"""What the data say of their images: classes to learn, and a digest of all that they say."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.errors import DatasetError
from training.images import ImageSet
from training.names import ANY_TUMOR


def truth_digest(images: ImageSet) -> str:
    """sha256, in hex, over each image in its order of reading.

    Files that stay the same may come to mean something else.

    Of each: its file's hash, data set, part, class, the folder of its person, and its mask as it lies
    on the slice.
    """
    found = hashlib.sha256()
    for index, (file, digest) in enumerate(zip(images.files, images.sha256, strict=True)):
        mask = images.masks.get(index)
        outline = None if mask is None else hashlib.sha256(mask.tobytes()).hexdigest()
        row = [digest, file.source, file.part, file.label, file.person, outline]
        found.update((json.dumps(row) + "\n").encode())
    return found.hexdigest()


def allowed(
    labels: NDArray[np.str_], classes: Sequence[str], tumor_classes: Sequence[str]
) -> NDArray[np.float32]:
    """Which classes an image may be, float32 (N, classes) of zeros and ones.

    One for each label that is a class; all tumour classes for :data:`ANY_TUMOR`, where that is none.
    """
    table = {name: [name] for name in classes} | (
        {} if ANY_TUMOR in classes else {ANY_TUMOR: list(tumor_classes)}
    )
    rows = [np.isin(classes, table[str(label)]) for label in labels]
    return np.array(rows, np.float32).reshape(-1, len(classes))


def require_kinds(labels: NDArray[np.str_]) -> None:
    """Raises DatasetError where all images have one label."""
    found = set(labels.tolist())
    if len(found) < 2:
        raise DatasetError(
            f"there is nothing to tell apart: all images are {', '.join(found) or 'none'}"
        )
