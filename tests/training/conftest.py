"""A small data set, grown from the real slices in git, and one short training run on it."""

import contextlib
import io
import json
import os
import resource
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SLICES = Path(__file__).parents[1] / "data" / "slices"
REPOSITORY = Path(__file__).parents[2]
CROPS = 6


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training and Testing folders of four classes."""
    return grown(tmp_path_factory.mktemp("data") / "small")


def grown(root: Path, crops: int = CROPS) -> Path:
    """Grows a data set from the slices in git; crops of one slice look like other patients.

    The crops are so far apart that the audit must not take them for near duplicates.
    """
    for folder in sorted(SLICES.iterdir()):
        for number, path in enumerate(sorted(folder.glob("*.jpg"))):
            image = np.asarray(Image.open(path).convert("L"))
            rows, columns = image.shape
            for crop in range(crops):
                top, left = (crop % 3) * rows // 4, (crop // 3) * columns // 3
                part = image[top : top + rows // 2, left : left + columns * 2 // 3]
                target = root / ("Testing" if crop == 0 else "Training") / folder.name
                target.mkdir(parents=True, exist_ok=True)
                Image.fromarray(part).save(target / f"{number}-{crop}.png")
    return root


Training = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def training() -> Training:
    """Runs a command of ``python -m training``, in this process: TensorFlow is imported once.

    Warnings are those of the command, so they do not fail the test.
    """
    keras = pytest.importorskip("keras", reason="training needs TensorFlow")
    from training.__main__ import main

    def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        command = [*map(str, arguments)]
        # As in a new process: layers are numbered from the start. Garbage is collected when it is time.
        keras.utils.clear_session(free_memory=False)
        out, errors = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(errors),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("default")
            # Of eagerly(): the data's own functions stay as they are.
            warnings.filterwarnings("ignore", "Even though the `tf.config", UserWarning)
            code = main(command)
        return subprocess.CompletedProcess(command, code, out.getvalue(), errors.getvalue())

    return run


def agreement_says(run: Path, **changes: float) -> None:
    """Changes what was found about how far a run's int8 and float models agree."""
    found = run / "artifacts" / "agreement.json"
    found.write_text(json.dumps(json.loads(found.read_text()) | changes))


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """Lets TensorFlow compute step by step: to trace a large model takes longer than a few steps do."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


@contextlib.contextmanager
def calibrated(slices: int) -> Iterator[None]:
    """Lets the converter calibrate with so many slices; it computes them without haste."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("training.convert.CALIBRATION_SLICES", (slices,))
        yield


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Lets no file grow beyond 2000 bytes: Python ignores the signal, and the write fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def quiet() -> dict[str, str]:
    """The environment of a training process."""
    return os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"}
