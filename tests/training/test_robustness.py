from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contract.manifest import RegionRecord
from contract.turning import TURNS, Turn
from tests.contract.samples import RANGE, mr_object
from tests.support.turned import orientation
from training.datasets import read_folders
from training.perturb import PERTURBATIONS, ROTATED
from training.robustness import _changed, _dice, _masks


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_a_mask_is_rotated_as_its_slice(tmp_path: Path, turn: Turn) -> None:
    """A DICOM object that is stored in another way than it is read: the two went opposite ways."""
    read = np.zeros((256, 256), np.uint8)
    read[20:240, 30:220] = 90
    read[60:110, 60:100] = 255
    stored = turn.undo(read)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    place = {"ImageOrientationPatient": orientation(turn)}
    (tmp_path / "images" / "1.jpg").write_bytes(mr_object(stored, attributes=RANGE | place))
    Image.fromarray(np.uint8(255) * (stored == 255)).save(tmp_path / "masks" / "1.png")
    (tmp_path / "index.csv").write_text("id,label,fold\n1,glioma,1\n")
    images = read_folders([tmp_path])
    rows, rng, change = np.arange(1), np.random.default_rng(0), PERTURBATIONS[ROTATED]
    slices, geometries = _changed(images, rows, change, rng)
    # A model that sees all of the tumour: it is brighter than the rest.
    seen = (slices > 160).astype(np.float32)
    rules: Any = SimpleNamespace(
        region=RegionRecord(threshold=0.5, min_cells=1, min_tumor_probability=0)
    )
    answers: Any = SimpleNamespace(tumor_probability=np.ones(1))
    masks = _masks(images, rows, change, rng)
    (dice,) = _dice(masks, seen, geometries, answers, rules)
    assert dice > 0.95
