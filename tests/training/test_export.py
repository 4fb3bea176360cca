import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from contract.decoding import decode
from contract.preprocessing import preprocess
from contract.store import ModelStore
from training.errors import ExportRefused
from training.fidelity import agreement, require_faithful

from .conftest import SLICES, Training  # noqa: TID252

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]


@pytest.fixture(scope="module")
def evaluated_run(
    finished_run: Path, training: Training, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(finished_run, path)
    done = training("evaluate", "--run", path)
    assert done.returncode == 0, done.stderr
    return path


def test_the_report_is_whole_and_test_is_read_once(evaluated_run: Path, training: Training) -> None:
    report = evaluated_run / "report"
    metrics = json.loads((report / "metrics.json").read_text())
    figures = metrics["protocols"]["clean"]["testing"]["int8"]
    assert figures["images"] == sum(map(sum, figures["confusion"]))
    assert set(figures["interval"]) >= {"accuracy", "glioma.precision", "tumor.auc"}
    card = (report / "MODEL_CARD.md").read_text()
    assert f"{figures['accuracy']:.4f}" in card
    for name in ("confusion.png", "roc.png", "training.png"):
        assert (report / name).stat().st_size > 5000
        assert name in card
    again = training("evaluate", "--run", evaluated_run)
    assert again.returncode == 1
    assert "read once" in again.stderr


def test_the_export_loads_and_both_models_take_the_same_slices(
    evaluated_run: Path, training: Training, tmp_path: Path
) -> None:
    agreed = evaluated_run / "artifacts" / "agreement.json"
    # A model of three short epochs may round either way: the limits have a test of their own.
    agreed.write_text(
        json.dumps(
            json.loads(agreed.read_text())
            | {"label_disagreement": 0.0, "accuracy_int8": 1.0}
            | {"accuracy_float": 1.0}
        )
    )
    done = training("export", "--run", evaluated_run, "--store", tmp_path / "store")
    assert done.returncode == 0, done.stderr
    version = ModelStore(tmp_path / "store").load("brain-tumor", 1)
    assert version.manifest.artifacts == {
        "litert": "model.int8.tflite",
        "tensorflow": "saved_model",
    }
    from training.convert import litert_predictor, saved_model_predictor

    slices = np.stack(
        [preprocess(decode(path.read_bytes()).pixels) for path in sorted(SLICES.rglob("*.jpg"))]
    )
    full = saved_model_predictor(version.path / "saved_model")(slices)
    quantised = litert_predictor(version.path / "model.int8.tflite")(slices)
    assert full.keys() == quantised.keys() == {"probabilities", "logits", "embedding", "cam"}
    assert full["probabilities"].shape == quantised["probabilities"].shape == (8, 4)
    assert np.abs(full["probabilities"] - quantised["probabilities"]).max() < 0.15
    assert full["probabilities"].sum(axis=1) == pytest.approx(1.0)

    taken = training(
        "export", "--run", evaluated_run, "--store", tmp_path / "store", "--version", "1"
    )
    assert taken.returncode == 1
    assert "never change" in taken.stderr


def test_an_unfaithful_model_is_not_published(
    evaluated_run: Path, training: Training, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated_run, run)
    agreed = run / "artifacts" / "agreement.json"
    agreed.write_text(json.dumps(json.loads(agreed.read_text()) | {"label_disagreement": 0.011}))
    done = training("export", "--run", run, "--store", tmp_path / "store")
    assert done.returncode == 1
    assert "disagree on 1.10%" in done.stderr
    assert ModelStore(tmp_path / "store").names() == []


def test_export_wants_a_report_and_evaluate_a_finished_run(
    finished_run: Path, training: Training, tmp_path: Path
) -> None:
    early = training("export", "--run", finished_run, "--store", tmp_path / "store")
    assert early.returncode == 1
    assert "evaluate it first" in early.stderr
    nothing = training("evaluate", "--run", tmp_path)
    assert nothing.returncode == 1
    assert "holds no run" in nothing.stderr


@pytest.mark.parametrize(
    ("wrong", "flipped", "refused"), [(0, 0, False), (1, 0, False), (4, 0, True), (0, 12, True)]
)
def test_the_limits_are_one_percent_of_labels_and_0_3_points(
    wrong: int, flipped: int, refused: bool
) -> None:
    truth = np.tile(np.array([1, 0], np.float32), (1000, 1))
    reference = np.tile(np.array([0.8, 0.2], np.float32), (1000, 1))
    other = reference.copy()
    other[:wrong] = other[:wrong, ::-1]
    # Wrong in both directions: the labels differ while the accuracy stays.
    other[100 : 100 + flipped // 2] = other[100 : 100 + flipped // 2, ::-1]
    reference[200 : 200 + flipped // 2] = reference[200 : 200 + flipped // 2, ::-1]
    result = agreement({"probabilities": reference}, {"probabilities": other}, truth)
    if refused:
        with pytest.raises(ExportRefused):
            require_faithful(result)
    else:
        require_faithful(result)
