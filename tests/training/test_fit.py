import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.data import require_data
from training.errors import RunError
from training.run import Run

from .conftest import REPOSITORY, SHORT, Training, quiet  # noqa: TID252

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def test_a_run_says_what_it_is_and_how_it_went(finished_run: Path) -> None:
    run = Run.open(finished_run)
    progress = run.require_finished()
    assert [row["phase"] for row in progress.history] == ["head", "tune", "polish"]
    assert json.loads((finished_run / "history.json").read_text()) == progress.history
    assert set(run.config.splits) == {"train", "validation", "test"}
    assert run.config.data[0].name == "small"


def test_only_the_layers_of_a_phase_learn(finished_run: Path) -> None:
    from training.model import NETWORK, build

    run = Run.open(finished_run)
    before, after = build(run.config.recipe), build(run.config.recipe)
    after.set_weights(run.load_best())
    backbone = run.config.recipe.backbone
    changed = {
        ours.name: not all(map(np.array_equal, ours.get_weights(), theirs.get_weights()))
        for ours, theirs in zip(
            before.get_layer(NETWORK).get_layer(backbone).layers,
            after.get_layer(NETWORK).get_layer(backbone).layers,
            strict=True,
        )
        if ours.weights
    }
    assert not any(c for n, c in changed.items() if n.startswith(("stem", "block0", "block1")))


def test_killed_and_resumed_it_ends_with_the_same_weights(
    small_data: Path, finished_run: Path, training: Training, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "training", "fit", *SHORT, "--data", str(small_data)]
    process = subprocess.Popen(
        [*command, "--out", str(out)],
        cwd=REPOSITORY,
        env=quiet(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 180
    while not (out / "progress.npz").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not _progress(out)["finished"]

    again = training("fit", *SHORT, "--data", small_data, "--out", out)
    assert again.returncode == 1
    assert "--resume" in again.stderr
    other = training("fit", *SHORT, "--seed", "9", "--data", small_data, "--out", out, "--resume")
    assert other.returncode == 1
    assert "another recipe" in other.stderr

    resumed = training("fit", *SHORT, "--data", small_data, "--out", out, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert _progress(out)["history"] == _progress(finished_run)["history"]
    ours, theirs = _arrays(out / "best.npz"), _arrays(finished_run / "best.npz")
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def _progress(path: Path) -> dict[str, object]:
    loaded = json.loads(_arrays(path / "progress.npz")["progress"].tobytes())
    assert isinstance(loaded, dict)
    return loaded


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    from training.callbacks import RaiseOnNaN
    from training.errors import DivergedError

    RaiseOnNaN().on_train_batch_end(3, {"loss": 0.5})
    with pytest.raises(DivergedError, match="batch 4"):
        RaiseOnNaN().on_train_batch_end(4, {"loss": float("nan")})


def test_folders_without_a_run_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        Run.open(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunError, match="damaged"):
        Run.open(tmp_path)


@pytest.mark.data
def test_a_short_real_training_learns(training: Training, tmp_path: Path) -> None:
    data = require_data("nickparvar") / "nickparvar"
    out = tmp_path / "real"
    short = ("--recipe", "efficientnet_lite0", "--epochs", "1", "--resolution", "64")
    done = training("fit", *short, "--data", data, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "7023" in done.stdout
    history = json.loads((out / "history.json").read_text())
    # The largest class is a third of the validation images.
    assert history[-1]["val_accuracy"] > 0.6
    assert history[-1]["val_loss"] < history[0]["val_loss"]
