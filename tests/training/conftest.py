"""A small data set, grown from the real slices in git, and one short training run on it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SLICES = Path(__file__).parents[1] / "data" / "slices"
REPOSITORY = Path(__file__).parents[2]
CROPS = 6


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training and Testing folders of four classes; crops of one slice look like other patients.

    The crops are so far apart that the audit must not take them for near duplicates.
    """
    root = tmp_path_factory.mktemp("data") / "small"
    for folder in sorted(SLICES.iterdir()):
        for number, path in enumerate(sorted(folder.glob("*.jpg"))):
            image = np.asarray(Image.open(path).convert("L"))
            rows, columns = image.shape
            for crop in range(CROPS):
                top, left = (crop % 3) * rows // 4, (crop // 3) * columns // 3
                part = image[top : top + rows // 2, left : left + columns * 2 // 3]
                target = root / ("Testing" if crop == 0 else "Training") / folder.name
                target.mkdir(parents=True, exist_ok=True)
                Image.fromarray(part).save(target / f"{number}-{crop}.png")
    return root


Training = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def training() -> Training:
    """Runs ``python -m training`` as people do."""

    def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "training", *map(str, arguments)]
        return subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, env=quiet(), check=False
        )

    return run


def quiet() -> dict[str, str]:
    """The environment of a training process."""
    return os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="session")
def finished_run(
    small_data: Path, training: Training, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of one epoch a phase at 64 pixels."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    done = training("fit", *SHORT, "--data", small_data, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


SHORT = ("--recipe", "efficientnet_lite0", "--epochs", "1", "--resolution", "64")
