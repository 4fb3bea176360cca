"""Two worker processes, or devices, on this machine share a run; one alone ends at the same place."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scripts.ports import free_port
from training.errors import DivergedError
from training.run import Run

from .conftest import REPOSITORY, Training, quiet  # noqa: TID252

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow(70)]

SHORT = ("fit", "--recipe", "baseline_cnn", "--epochs", "2", "--resolution", "32")


@pytest.fixture(scope="module")
def alone(small_data: Path, training: Training, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("alone") / "run"
    done = training(*SHORT, "--data", small_data, "--out", out)
    assert done.returncode == 0, done.stderr
    return Run.open(out)


def _workers(
    small_data: Path,
    out: Path,
    others: tuple[str, ...] = (),
    meanwhile: Callable[[list["subprocess.Popen[bytes]"]], None] = lambda _: None,
    both: bool = False,
) -> list[tuple[int, str]]:
    """Exit code and output of each of two workers, the second, or both, with more options."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    command = [sys.executable, "-m", "training", *SHORT, "--data", str(small_data)]
    logs = [out.with_name(f"worker{index}.log") for index in range(2)]
    processes = []
    for index, log in enumerate(logs):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        with log.open("wb") as file:
            process = subprocess.Popen(
                [
                    *(*command, "--out", str(out), "--strategy", "multiworker"),
                    *(others if index or both else ()),
                ],
                cwd=REPOSITORY,
                env=quiet() | {"TF_CONFIG": json.dumps(config)},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        processes.append(process)
    try:
        meanwhile(processes)
        codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [(code, log.read_text()) for code, log in zip(codes, logs, strict=True)]


def test_two_workers_share_each_batch_and_end_where_one_does(
    small_data: Path, alone: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    for code, text in _workers(small_data, out):
        assert code == 0, text
        assert "2 replicas share each batch" in text
    together = Run.open(out)
    assert together.config == alone.config
    ours, theirs = together.require_finished(), alone.require_finished()
    assert [row["phase"] for row in ours.history] == [row["phase"] for row in theirs.history]
    # The same batches, divided: sums in another order, and Dropout draws of its own on each worker.
    for one, other in zip(ours.history, theirs.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.25)
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=0.25)
    weights = [
        np.concatenate([w.ravel() for w in run.load_best() if w.dtype == np.float32])
        for run in (together, alone)
    ]
    assert np.corrcoef(weights[0], weights[1])[0, 1] > 0.98


def test_workers_with_other_recipes_train_nothing(small_data: Path, tmp_path: Path) -> None:
    for code, text in _workers(small_data, tmp_path / "run", ("--seed", "77")):
        assert code == 1
        assert "error: the workers do not train the same run: they differ in recipe" in text
    assert not Run.begun(tmp_path / "run")


def test_a_worker_that_is_lost_is_told(small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def kill_the_second(workers: list["subprocess.Popen[bytes]"]) -> None:
        while not (out / "progress.npz").exists():
            assert all(worker.poll() is None for worker in workers)
            time.sleep(0.1)
        workers[1].kill()

    long = ("--epochs", "500")
    (code, text), _ = _workers(small_data, out, long, kill_the_second, both=True)
    assert code == 1
    assert "error: a worker was lost; start all of them again, with fit --resume" in text
    assert "Traceback" not in text


def test_a_worker_that_waits_ends_with_sigterm(small_data: Path, tmp_path: Path) -> None:
    config = {
        "cluster": {"worker": [f"127.0.0.1:{free_port()}" for _ in range(2)]},
        "task": {"type": "worker", "index": 1},
    }
    command = [sys.executable, "-m", "training", *SHORT, "--data", str(small_data)]
    waiting = subprocess.Popen(
        [*command, "--out", str(tmp_path / "run"), "--strategy", "multiworker"],
        cwd=REPOSITORY,
        env=quiet() | {"TF_CONFIG": json.dumps(config)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with waiting:
        assert waiting.stdout is not None
        assert any("waiting for 1 workers at" in line for line in waiting.stdout)
        waiting.terminate()
        assert waiting.wait(timeout=30) == -signal.SIGTERM


def test_a_loss_that_is_no_number_is_told_at_its_batch_on_several_devices() -> None:
    import keras
    import tensorflow as tf

    from training.callbacks import RaiseOnNaN
    from training.strategy import Strategy, StrategyName

    strategy = Strategy(StrategyName.MIRRORED)
    with strategy.scope():
        inputs = keras.Input((1,))
        model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
        model.compile(keras.optimizers.SGD(0.0), "mse")
    rows = np.ones((6, 1), np.float32)
    rows[3] = np.nan
    batches = tf.data.Dataset.from_tensor_slices((rows, rows)).batch(1)
    with strategy.scope(), pytest.raises(DivergedError, match="the loss is nan at batch 3"):
        strategy.fit(model, batches, [RaiseOnNaN()])


def test_a_mirrored_run_on_one_device_is_the_run_alone(
    small_data: Path, alone: Run, training: Training, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = training(*SHORT, "--data", small_data, "--out", out, "--strategy", "mirrored")
    assert done.returncode == 0, done.stderr
    ours, theirs = Run.open(out).require_finished(), alone.require_finished()
    for one, other in zip(ours.history, theirs.history, strict=True):
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=0.25)


def test_two_devices_share_each_batch_and_end_where_one_does() -> None:
    command = [sys.executable, "-m", "tests.support.two_devices"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=quiet(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["replicas"] == 2
    assert found["weights"] < 1e-5
    assert found["figures"] < 1e-5


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(8, [*range(8)]), (5, [*range(5)]), (4, [0, 1, 2, 3, 0, 1]), (3, [0, 1, 2]), (1, [0, 0, 0])],
)
def test_a_batch_has_a_row_for_each_replica(rows: int, expected: list[int]) -> None:
    from training.strategy import Strategy, StrategyName

    class Three(Strategy):
        @property
        def replicas(self) -> int:
            return 3

    found = Three(StrategyName.NONE)._filled(np.arange(rows), {"y": np.arange(rows)})
    assert found[0].numpy().tolist() == found[1]["y"].numpy().tolist() == expected


@pytest.mark.parametrize(
    "config",
    [None, "{}", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}'],
    ids=["none", "empty", "stranger"],
)
def test_workers_without_a_cluster_are_a_clear_error(
    config: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.errors import StrategyError
    from training.strategy import Strategy, StrategyName

    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setitem(os.environ, "TF_CONFIG", config)
    with pytest.raises(StrategyError, match="TF_CONFIG"):
        Strategy(StrategyName.MULTIWORKER)


def test_half_precision_trains_and_serves_in_full(
    small_data: Path, training: Training, tmp_path: Path
) -> None:
    from training.convert import keras_predictor, trained_model

    out = tmp_path / "run"
    short = ("fit", "--recipe", "baseline_cnn", "--epochs", "1", "--resolution", "32")
    half = ("--mixed-precision", "mixed_bfloat16")
    done = training(*short, *half, "--data", small_data, "--out", out)
    assert done.returncode == 0, done.stderr
    run = Run.open(out)
    assert run.config.recipe.precision == "mixed_bfloat16"
    weights = [w for w in run.load_best() if w.dtype.kind != "u"]
    # Weights in half precision come out of a file as two bytes without a type.
    assert {w.dtype for w in weights} == {np.dtype(np.float32)}
    slices = np.zeros((2, 224, 224), np.uint8)
    found = keras_predictor(trained_model(run), run.config.recipe)(slices)["probabilities"]
    assert found.dtype == np.float32
    assert found.sum(axis=1) == pytest.approx(1.0)
