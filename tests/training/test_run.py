"""One run of three short phases: fitted, killed and resumed, evaluated, exported."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.decoding import decode
from contract.manifest import Manifest
from contract.preprocessing import DEFAULT_SPEC, preprocess, probe_digest
from contract.store import ModelStore
from tests.support.killing import require_all_or_nothing
from training.errors import RunError
from training.run import Run, held

from .conftest import (  # noqa: TID252
    REPOSITORY,
    SLICES,
    Training,
    agreement_says,
    eagerly,
    quiet,
)

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow(80)]

EAGERLY = (
    "import sys; import tensorflow as tf; tf.config.run_functions_eagerly(True); "
    "from training.__main__ import main; sys.exit(main())"
)
"""``python -m training`` in the steps of :func:`eagerly`, whose sums end in the same last digit."""
SHORT = ("--recipe", "efficientnet_lite0", "--epochs", "1", "--resolution", "64")


@pytest.fixture(scope="module")
def finished_run(
    small_data: Path, training: Training, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of one epoch a phase at 64 pixels."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    with eagerly():
        done = training("fit", *SHORT, "--data", small_data, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


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


def test_a_run_goes_on_where_its_pixels_are_the_same(finished_run: Path) -> None:
    run = Run.open(finished_run)
    assert run.config.probe_digest == probe_digest(DEFAULT_SPEC)
    assert run.config.packages is not None
    assert run.config.packages["numpy"] == np.__version__
    run.require_same(run.config)
    elsewhere = run.config.model_copy(update={"probe_digest": "0" * 64})
    with pytest.raises(RunError, match="other pixels"):
        run.require_same(elsewhere)
    # Runs of before this was noted go on.
    Run(run.path, run.config.model_copy(update={"probe_digest": None})).require_same(elsewhere)


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
    frozen = {name for name in changed if name.startswith(("stem", "block0", "block1"))}
    assert frozen
    assert not any(changed[name] for name in frozen)
    # All that any phase lets learn has.
    named = {prefix for phase in run.config.recipe.phases for prefix in phase.trainable}
    learned = {name for name in changed if name.startswith(tuple(named - {"*"}))}
    assert learned
    assert all(changed[name] for name in learned)


def test_killed_and_resumed_it_ends_with_the_same_weights(
    small_data: Path, finished_run: Path, training: Training, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-c", EAGERLY, "fit", *SHORT, "--data", str(small_data)]
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
    assert "was started with another recipe: seed 20261122, not 9\n" in other.stderr

    with eagerly():
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


def test_folders_without_a_run_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        Run.open(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunError, match="damaged"):
        Run.open(tmp_path)


@pytest.fixture(scope="module")
def evaluated_run(
    finished_run: Path, training: Training, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(finished_run, path)
    done = training("evaluate", "--run", path)
    assert done.returncode == 0, done.stderr
    # A model of three short epochs may round either way: the limits have a test of their own.
    agreement_says(path, label_disagreement=0.0, accuracy_int8=1.0, accuracy_float=1.0)
    return path


def test_the_report_is_whole_and_test_is_read_once(evaluated_run: Path, training: Training) -> None:
    report = evaluated_run / "report"
    metrics = json.loads((report / "metrics.json").read_text())
    figures = metrics["protocols"]["clean"]["testing"]["int8"]
    assert figures["images"] == sum(map(sum, figures["confusion"]))
    assert set(figures["interval"]) >= {"accuracy", "macro_f1"}
    # Two gliomas, and two slices without a tumour, are too few groups.
    assert not {"glioma.precision", "tumor.auc"} & set(figures["interval"])
    card = (report / "MODEL_CARD.md").read_text()
    assert f"{figures['accuracy']:.4f}" in card
    for name in ("confusion.png", "roc.png", "training.png"):
        assert (report / name).stat().st_size > 5000
        assert name in card
    again = training("evaluate", "--run", evaluated_run)
    assert again.returncode == 1
    assert "read once" in again.stderr
    with held(evaluated_run):
        beside = training("evaluate", "--run", evaluated_run)
    assert beside.returncode == 1
    assert "another process trains" in beside.stderr


def test_the_card_says_what_is_true_of_the_run(evaluated_run: Path) -> None:
    from training.card import model_card

    metrics = json.loads((evaluated_run / "report" / "metrics.json").read_text())
    config = Run.open(evaluated_run).config
    card = model_card(metrics, config)
    assert "by validation loss: validation loss" in card
    assert "It knows 4 classes: glioma, meningioma, notumor, pituitary." in card
    assert "No patients are named in small." in card
    assert "nickparvar" not in card
    assert "--answers-of" not in card
    assert "Never shown" not in card
    recipe = config.recipe.model_copy(
        update={
            "checkpoint_monitor": "accuracy",
            "classes": ("notumor", "tumor"),
            "tumor_classes": ("tumor",),
        }
    )
    data = (*config.data, config.data[0].model_copy(update={"name": "nickparvar"}))
    other = model_card(
        metrics | {"by_patient": ["small"], "answers_of": "first"},
        config.model_copy(
            update={"recipe": recipe, "data": data, "never_shown": ("glioma", "pituitary")}
        ),
    )
    assert "by validation accuracy: validation loss" in other
    assert "It knows 2 classes: notumor, tumor." in other
    assert "No patients are named in nickparvar." in other
    assert "- nickparvar: mostly adults" in other
    assert "--answers-of runs/FIRST" in other
    assert "- Never shown: glioma, pituitary." in other


def test_the_export_loads_and_both_models_take_the_same_slices(
    evaluated_run: Path, training: Training, tmp_path: Path
) -> None:
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

    assert "from now on brain-tumor/latest is brain-tumor/1" in done.stdout
    assert "same weights" not in done.stdout

    taken = training(
        "export", "--run", evaluated_run, "--store", tmp_path / "store", "--version", "1"
    )
    assert taken.returncode == 1
    assert "never change" in taken.stderr

    # An alias may still point at it.
    shutil.rmtree(version.path)
    again = training("export", "--run", evaluated_run, "--store", tmp_path / "store")
    assert again.returncode == 0, again.stderr
    assert ModelStore(tmp_path / "store").versions("brain-tumor") == [2]


def test_a_run_of_other_classes_takes_no_name_over(
    evaluated_run: Path, training: Training, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    folder = store / "brain-tumor" / "4"
    folder.mkdir(parents=True)
    text = (REPOSITORY / "model_store" / "brain-tumor" / "4" / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"pituitary"', '"metastasis"'))
    command = ("export", "--run", evaluated_run, "--store", store)
    done = training(*command)
    assert done.returncode == 1
    assert "brain-tumor/4 has the classes" in done.stderr
    assert "--other-classes" in done.stderr
    assert ModelStore(store).versions("brain-tumor") == [4]
    assert training(*command, "--name", "ours").returncode == 0
    done = training(*command, "--other-classes")
    assert done.returncode == 0, done.stderr
    assert "from now on brain-tumor/latest is brain-tumor/5" in done.stdout
    assert "it lacks what brain-tumor/4 has: regions by a mask, calibrated" in done.stdout
    assert "testing.int8.accuracy" in done.stdout
    again = training(*command)
    assert again.returncode == 0, again.stderr
    assert "it has the same weights as brain-tumor/5\n" in again.stdout


def test_an_export_killed_anywhere_leaves_all_or_nothing(
    evaluated_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated_run, run)
    # Nobody loads the SavedModel here, and each trial copies and hashes it.
    for path in (run / "artifacts" / "saved_model").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:16])
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.killing", str(run)],
        cwd=REPOSITORY,
        env=quiet() | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    published = [path for path in run.rglob("*") if path.is_file()]
    kept = [path for path in published if {"report", "saved_model"} & set(path.parts)]
    # Each file is copied, hashed and synced.
    require_all_or_nothing(json.loads(done.stdout), 3 * len(kept))


def test_an_unfaithful_model_is_not_published(
    evaluated_run: Path, training: Training, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated_run, run)
    agreement_says(run, label_disagreement=0.011)
    done = training("export", "--run", run, "--store", tmp_path / "store")
    assert done.returncode == 1
    assert "disagree on 1.10%" in done.stderr
    assert done.stderr.endswith("; --allow-float publishes a float32 LiteRT file instead\n")
    assert ModelStore(tmp_path / "store").names() == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"probe_digest": "0" * 64}, "other pixels"),
        ({"held_out": ["small"]}, "trained without small"),
    ],
    ids=["other pixels", "a data set left out"],
)
def test_what_no_service_should_load_is_not_published(
    changes: dict[str, object],
    says: str,
    evaluated_run: Path,
    training: Training,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated_run, run)
    config = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(config | changes))
    _assert_not_published(training, run, says)


def _assert_not_published(training: Training, run: Path, says: str) -> None:
    """That an export into a new store ends with one line and leaves no version."""
    store = run.with_name("store")
    done = training("export", "--run", run, "--store", store)
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert ModelStore(store).names() == []


def test_a_float_file_has_float_figures(
    evaluated_run: Path, training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import export
    from training.convert import Predictor, litert_predictor

    run, store = tmp_path / "run", ModelStore(tmp_path / "store")
    shutil.copytree(evaluated_run, run)
    agreement_says(run, label_disagreement=0.011)
    command = ("export", "--run", run, "--store", store.root, "--allow-float")
    done = training(*command)
    assert done.returncode == 0, done.stderr
    version = store.load("brain-tumor", 1)
    assert version.manifest.artifacts["litert"] == "model.float32.tflite"
    assert {name.split(".")[1] for name in version.manifest.metrics} == {"float"}
    card = (version.path / "report" / "MODEL_CARD.md").read_text()
    assert "| int8 |" not in card
    assert "(`clean`, float, all test images" in card
    assert "| int8 |" in (run / "report" / "MODEL_CARD.md").read_text()

    def strays(path: Path) -> Predictor:
        predict = litert_predictor(path)
        return lambda slices: {name: -found for name, found in predict(slices).items()}

    monkeypatch.setattr(export, "litert_predictor", strays)
    # It is there already.
    monkeypatch.setattr(export, "write_float_litert", lambda *_: None)
    done = training(*command)
    assert done.returncode == 1
    assert "the float32 LiteRT file and float disagree" in done.stderr
    assert store.versions("brain-tumor") == [1]


def test_a_damaged_agreement_is_a_clear_error(
    evaluated_run: Path, training: Training, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated_run, run)
    (run / "artifacts" / "agreement.json").write_text('{"label_dis')
    done = training("export", "--run", run, "--store", tmp_path / "store")
    assert done.returncode == 1
    assert "agreement.json is damaged" in done.stderr


def _unlink(*names: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        for name in names:
            path = run / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def _write(name: str, content: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        (run / name).write_text(content)

    return change


def _other_weights(run: Path) -> None:
    weights = _arrays(run / "best.npz")
    name = next(name for name, array in weights.items() if array.ndim == 4)
    np.savez(run / "best.npz", **(weights | {name: weights[name] + 1}))  # type: ignore[arg-type]


def _trained_again(run: Path) -> None:
    """As if another training had put its weights there, and the artifacts were too old to tell."""
    arrays = _arrays(run / "progress.npz")
    progress = json.loads(arrays["progress"].tobytes()) | {"best_loss": 0.123}
    text = np.frombuffer(json.dumps(progress).encode(), np.uint8)
    np.savez(run / "progress.npz", **(arrays | {"progress": text}))  # type: ignore[arg-type]
    (run / "artifacts" / "origin.json").unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_unlink("progress.npz"), "is not finished"),
        (_write("progress.npz", "PK"), "progress.npz is damaged"),
        (_unlink("artifacts"), "put back what evaluate wrote"),
        (_unlink("artifacts/saved_model"), "lacks saved_model"),
        (_unlink("artifacts/model.int8.tflite"), "lacks model.int8.tflite"),
        (_unlink("best.npz"), "has no weights"),
        (_other_weights, "made of other weights"),
        (_trained_again, "tells of another training"),
        (_write("report/metrics.json", "{}"), "metrics.json is damaged"),
        (_write("artifacts/agreement.json", "{}"), "agreement.json is damaged"),
        (_write("artifacts/answer.json", "{}"), "answer.json is damaged"),
        (_write("artifacts/origin.json", "["), "origin.json is damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_that_is_not_whole_is_not_published(
    damage: Callable[[Path], None],
    says: str,
    evaluated_run: Path,
    training: Training,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated_run, run)
    damage(run)
    _assert_not_published(training, run, says)


def test_what_was_evaluated_before_is_published_all_the_same(
    evaluated_run: Path, training: Training, tmp_path: Path
) -> None:
    run, store = tmp_path / "run", ModelStore(tmp_path / "store")
    shutil.copytree(evaluated_run, run)
    (run / "artifacts" / "origin.json").unlink()
    config = json.loads((run / "run.json").read_text())
    older = {name: value for name, value in config.items() if name not in {"truth", "never_shown"}}
    (run / "run.json").write_text(json.dumps(older))
    (run / "report" / ".metrics.json.4242").write_text("half")
    # A file that is in the way of the next number.
    (store.root / "brain-tumor").mkdir(parents=True)
    (store.root / "brain-tumor" / "1").write_text("x")
    with held(run):
        done = training("export", "--run", run, "--store", store.root)
    assert done.returncode == 1
    assert "another process trains" in done.stderr
    done = training("export", "--run", run, "--store", store.root)
    assert done.returncode == 0, done.stderr
    assert "older than the record of the weights" in done.stdout
    report = store.load("brain-tumor", 2).path / "report"
    assert not [path for path in report.iterdir() if path.name.startswith(".")]


def test_of_two_exports_at_once_the_slower_takes_the_next_number(
    evaluated_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import export

    store, make = ModelStore(tmp_path / "store"), export._manifest
    meanwhile = iter([None])

    def manifest(*arguments: Any) -> Manifest:
        made = make(*arguments)
        if next(meanwhile, "done") is None:
            export.export(evaluated_run, store, "brain-tumor", None)
        return made

    monkeypatch.setattr(export, "_manifest", manifest)
    assert export.export(evaluated_run, store, "brain-tumor", None).name == "2"
    for version in (1, 2):
        store.load("brain-tumor", version)


def test_artifacts_of_other_weights_are_made_anew(finished_run: Path, tmp_path: Path) -> None:
    from training import convert

    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    (run / "artifacts").mkdir()
    (run / "artifacts" / "agreement.json").write_text("{}")
    opened = Run.open(run)
    assert convert.made_of(opened) is None
    (run / "artifacts" / "origin.json").write_text(json.dumps({"weights": "0" * 64}))
    assert convert.made_of(opened) is False

    class Reached(Exception):
        pass

    def build(*_: object) -> None:
        raise Reached

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(convert, "trained_model", build)
        with pytest.raises(Reached):
            convert.convert(opened, None, None)  # type: ignore[arg-type]  # not looked at so far


def test_a_store_that_is_a_file_is_a_clear_error(
    evaluated_run: Path, training: Training, tmp_path: Path
) -> None:
    (tmp_path / "store").write_text("x")
    done = training("export", "--run", evaluated_run, "--store", tmp_path / "store")
    assert done.returncode == 1
    assert done.stderr == "error: the model store cannot be written\n"


def test_export_wants_a_report_and_evaluate_a_finished_run(
    finished_run: Path, training: Training, tmp_path: Path
) -> None:
    early = training("export", "--run", finished_run, "--store", tmp_path / "store")
    assert early.returncode == 1
    assert "evaluate it first" in early.stderr
    foreign = training("evaluate", "--run", finished_run, "--foreign", tmp_path)
    assert foreign.returncode == 1
    assert "--foreign needs a recipe with a mask head" in foreign.stderr
    nothing = training("evaluate", "--run", tmp_path)
    assert nothing.returncode == 1
    assert "holds no run" in nothing.stderr
    assert training("evaluate", "--run", tmp_path / "nosuch").returncode == 1
    assert not (tmp_path / "nosuch").exists()
