"""Data sets of one slice, with the outline of a tumour."""

from pathlib import Path

import numpy as np
from PIL import Image

from contract.turning import Turn
from tests.contract.samples import RANGE, mr_object
from tests.support.turned import orientation


def indexed(root: Path, mask: Image.Image | bytes) -> Path:
    """A data set of one slice, 256x256 pixels, with a mask."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    Image.new("L", (256, 256), 90).save(root / "images" / "1.jpg")
    if isinstance(mask, bytes):
        (root / "masks" / "1.png").write_bytes(mask)
    else:
        mask.save(root / "masks" / "1.png")
    (root / "index.csv").write_text("id,label,fold\n1,glioma,1\n")
    return root


def stored_otherwise(root: Path, turn: Turn) -> Path:
    """A data set of one DICOM object that has to be turned to be read, and its outline with it.

    The tumour has grey levels over 160, the head lower ones.
    """
    read = np.zeros((256, 256), np.uint8)
    read[20:240, 30:220] = 90
    read[60:110, 40:160] = 255
    stored = turn.undo(read)
    indexed(root, Image.fromarray(np.uint8(255) * (stored == 255)))
    place = {"ImageOrientationPatient": orientation(turn)}
    (root / "images" / "1.jpg").write_bytes(mr_object(stored, attributes=RANGE | place))
    return root
