"""What the data say of their images, as one digest: files that stay may come to mean something else."""

import hashlib
import json

from training.datasets import ImageSet


def truth_digest(images: ImageSet) -> str:
    """sha256, in hex, over each image in its order of reading.

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
