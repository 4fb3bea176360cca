from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from contract.manifest import RegionRecord
from contract.turning import TURNS, Turn
from tests.support.outlined import stored_otherwise
from training.datasets import read_folders
from training.perturb import PERTURBATIONS, ROTATED
from training.robustness import _changed, _dice, _masks


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_a_mask_is_rotated_as_its_slice(tmp_path: Path, turn: Turn) -> None:
    """A DICOM object that is stored in another way than it is read: the two went opposite ways."""
    images = read_folders([stored_otherwise(tmp_path / "set", turn)])
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
