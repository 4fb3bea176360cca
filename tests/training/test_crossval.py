"""Cross-validation by folds and by repeated splits, and the table of all runs."""

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from training.catalogue import load_recipe
from training.datasets import find_images
from training.duplicates import audit
from training.errors import RunError
from training.files import load_arrays
from training.reading import read_images
from training.recipe import SEEDS
from training.run import Run

from .conftest import Training, eagerly  # noqa: TID252

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow(35)]

TINY = ("--recipe", "baseline_cnn", "--epochs", "1", "--resolution", "32")


@pytest.fixture(scope="module")
def folded(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data's tumours as a set with three patient-wise folds."""
    root = tmp_path_factory.mktemp("folded") / "folded"
    (root / "images").mkdir(parents=True)
    rows = []
    for label in ("glioma", "meningioma", "pituitary"):
        for number, path in enumerate(sorted((small_data / "Training" / label).glob("*.png"))):
            name = f"{label}{number}"
            shutil.copy(path, root / "images" / f"{name}.jpg")
            rows.append({"id": name, "label": label, "fold": 1 + number % 3})
    with (root / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "label", "fold"])
        writer.writeheader()
        writer.writerows(rows)
    return root


@pytest.fixture(scope="module")
def by_fold(folded: Path, training: Training, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("crossval") / "folds"
    with eagerly():
        done = training("crossval", *TINY, "--data", folded, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def test_each_fold_is_tested_once_by_a_model_that_never_saw_it(folded: Path, by_fold: Path) -> None:
    found = json.loads((by_fold / "crossval.json").read_text())
    assert [part["name"] for part in found["parts"]] == ["fold1", "fold2", "fold3"]
    images = read_images(find_images([folded]))
    groups = dict(zip(images.sha256, audit(images).groups.tolist(), strict=True))
    part_of = dict(zip(images.sha256, images.parts.tolist(), strict=True))
    tested: list[str] = []
    for name in ("fold1", "fold2", "fold3"):
        splits = json.loads((by_fold / name / "run.json").read_text())["splits"]
        assert {part_of[digest] for digest in splits["test"]} == {name}
        learned = {groups[d] for part in ("train", "validation") for d in splits[part]}
        assert learned.isdisjoint(groups[d] for d in splits["test"])
        tested += splits["test"]
    assert sorted(tested) == sorted(images.sha256)
    together = found["together"]
    assert together["images"] == len(images)
    assert together["accuracy"] == pytest.approx(
        np.average(
            [part["accuracy"] for part in found["parts"]],
            weights=[part["split"]["test"] for part in found["parts"]],
        )
    )
    # All are tumours: there is no figure for tumour or none, and none for the class that is absent.
    assert "tumor" not in together
    assert set(together["classes"]) == {"glioma", "meningioma", "pituitary"}
    low, high = together["interval"]["accuracy"]
    assert low <= together["accuracy"] <= high


def test_a_cross_validation_goes_on_where_it_was(
    folded: Path, by_fold: Path, training: Training, tmp_path: Path
) -> None:
    out = tmp_path / "again"
    shutil.copytree(by_fold, out)
    shutil.rmtree(out / "fold3")
    before = (out / "crossval.json").read_text()
    with eagerly():
        done = training("crossval", *TINY, "--data", folded, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("phase all, epoch 1 of 1") == 1
    assert (out / "crossval.json").read_text() == before


def test_data_without_folds_are_split_repeatedly_in_whole_groups(
    small_data: Path, training: Training, tmp_path: Path
) -> None:
    out = tmp_path / "repeats"
    with eagerly():
        done = training("crossval", *TINY, "--data", small_data, "--out", out, "--repeats", "2")
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "crossval.json").read_text())
    first, second = (
        json.loads((out / name / "run.json").read_text()) for name in ("repeat1", "repeat2")
    )
    assert first["splits"]["test"] != second["splits"]["test"]
    assert first["recipe"]["seed"] != second["recipe"]["seed"]
    assert found["together"]["images"] == sum(part["split"]["test"] for part in found["parts"])
    assert "tumor" in found["together"]


@pytest.mark.usefixtures("training")
def test_a_set_that_only_helps_is_never_tested(small_data: Path, folded: Path) -> None:
    from training.crossval import parts

    images = read_images(find_images([folded, small_data]))
    sources = np.array([file.source for file in images.files])
    groups = audit(images).groups
    recipe = load_recipe("baseline_cnn").model_copy(update={"train_only": ("small",)})
    helped: list[str] = []
    for part in parts(recipe, images, audit(images), repeats=2):
        split = part.split
        assert set(sources[split.test]) == set(sources[split.validation]) == {"folded"}
        others = np.concatenate([split.train, split.validation])
        assert not np.isin(groups[others], groups[split.test]).any()
        helped += sources[split.train].tolist()
    assert "small" in helped
    # The other way round it is the set without folds that is tested.
    recipe = load_recipe("baseline_cnn").model_copy(update={"train_only": ("folded",)})
    found = [part.name for part in parts(recipe, images, audit(images), repeats=2)]
    assert found == ["repeat1", "repeat2"]


@pytest.mark.parametrize(
    ("keep", "complaint"),
    [(["yes", "notumor"], "has no such class"), (["glioma"], "nothing to tell apart")],
)
def test_data_that_cannot_be_tested_on_are_refused_before_training(
    keep: list[str], complaint: str, small_data: Path, training: Training, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for name in keep:
        folder = "glioma" if name == "yes" else name
        shutil.copytree(small_data / "Training" / folder, data / name)
    done = training("crossval", *TINY, "--data", data, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert complaint in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_mask_head_without_outlines_is_refused_before_the_first_part_trains(
    small_data: Path, training: Training, tmp_path: Path
) -> None:
    options = ("--recipe", "efficientnet_lite0_mask", "--epochs", "1", "--resolution", "32")
    done = training("crossval", *options, "--data", small_data, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "images with an outlined tumour" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("training")
def test_the_seeds_of_all_parts_are_such_as_a_run_can_have(small_data: Path) -> None:
    from training.crossval import parts
    from training.errors import RecipeError

    images = read_images(find_images([small_data]))
    found = audit(images)
    last = load_recipe("baseline_cnn", {"seed": SEEDS - 3})
    assert [part.recipe.seed for part in parts(last, images, found, repeats=2)][-1] == SEEDS - 1
    with pytest.raises(RecipeError, match="leaves no room"):
        [*parts(last, images, found, repeats=3)]


@pytest.mark.usefixtures("training")
def test_it_goes_on_with_the_data_in_the_order_that_it_began_with(
    folded: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import crossval as module
    from training.prepare import prepare, start
    from training.progress import Progress
    from training.splits import Protocol

    recipe = load_recipe("baseline_cnn")
    config = prepare(recipe, [small_data, folded], Protocol.GROUPED).config
    start(tmp_path / "out" / "fold1", config, resume=True).save_progress(Progress(), [])
    read = Mock(side_effect=RunError("it reads"))
    monkeypatch.setattr(module, "read", read)
    with pytest.raises(RunError, match="it reads"):
        module.crossval(recipe, [folded, small_data], tmp_path / "out", repeats=1)
    assert read.call_args.args[1] == [small_data, folded]


@pytest.mark.usefixtures("training")
def test_what_no_part_takes_is_said_before_it_trains(
    small_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from training import crossval as module

    data = shutil.copytree(small_data / "Training", tmp_path / "data")
    shutil.copy(data / "glioma" / "0-1.png", data / "notumor" / "again.png")
    monkeypatch.setattr(module, "configure", Mock(side_effect=RunError("it would train")))
    with pytest.raises(RunError, match="it would train"):
        module.crossval(load_recipe("baseline_cnn"), [data], tmp_path / "out", repeats=1)
    told = capsys.readouterr().out.partition("repeat1: {")[2]
    # The other one is tested.
    assert (
        "\n  1 image is left out: near duplicates with conflicting labels; audit lists them" in told
    )


@pytest.mark.usefixtures("training")
def test_a_class_in_one_group_cannot_be_cross_validated(small_data: Path, tmp_path: Path) -> None:
    from training.crossval import parts
    from training.errors import DatasetError

    data = tmp_path / "data"
    for label in ("glioma", "notumor"):
        shutil.copytree(small_data / "Training" / label, data / label)
    (data / "pituitary").mkdir()
    shutil.copy(small_data / "Training" / "pituitary" / "0-1.png", data / "pituitary")
    images = read_images(find_images([data]))
    with pytest.raises(DatasetError, match="no training images of pituitary"):
        [*parts(load_recipe("baseline_cnn"), images, audit(images), repeats=1)]


@pytest.fixture(scope="module")
def fitted(
    small_data: Path, training: Training, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A run of each protocol; that of ``clean`` is evaluated."""
    root = tmp_path_factory.mktemp("protocols")
    for protocol in ("clean", "published"):
        out = root / protocol
        options = ("--data", small_data, "--out", out, "--protocol", protocol)
        with eagerly():
            done = training("fit", *TINY, *options)
        assert done.returncode == 0, done.stderr
    done = training("evaluate", "--run", root / "clean")
    assert done.returncode == 0, done.stderr
    return {protocol: root / protocol for protocol in ("clean", "published")}


def test_the_comparison_holds_every_run_and_its_figures(
    fitted: dict[str, Path],
    by_fold: Path,
    training: Training,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # How long a slice takes is measured, but need not be measured well.
    monkeypatch.setattr("training.latency._CALLS", 3)
    runs = {name: shutil.copytree(run, tmp_path / name) for name, run in fitted.items()}
    tested = training("evaluate", "--run", runs["published"])
    assert tested.returncode == 0, tested.stderr
    out = tmp_path / "docs" / "models.md"
    done = training("compare", *runs.values(), by_fold, "--step", "baseline_cnn", "--out", out)
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    for protocol, run in runs.items():
        metrics = json.loads((run / "report" / "metrics.json").read_text())
        accuracy = metrics["protocols"][protocol]["testing"]["int8"]["accuracy"]
        row = next(line for line in text.splitlines() if f"| baseline_cnn | {protocol} |" in line)
        assert f"{100 * accuracy:.2f} [" in row
        # A run that was cut must not pass for the recipe's own.
        assert "| small (epochs 1, resolution 32) |" in row
        assert "--epochs 1 --resolution 32" in (run / "report" / "MODEL_CARD.md").read_text()
    crossval = json.loads((by_fold / "crossval.json").read_text())
    assert f"{100 * crossval['mean_accuracy']:.2f}" in text
    sizes = json.loads((runs["clean"] / "artifacts" / "latency.json").read_text())
    assert f"{sizes['parameters']:,.0f}" in text
    assert sizes["int8_ms"] > 0
    assert f"| {sizes['processor']} |" in text
    recipe = load_recipe("baseline_cnn")
    step = text.partition("## One step at full size")[2].split("## ")[0]
    assert f"| {recipe.batch_size} | {recipe.phases[-1].resolution} |" in step
    assert (out.parent / "models.png").stat().st_size > 5000
    nothing = training("compare", tmp_path, "--out", out)
    assert nothing.returncode == 1
    assert "neither an evaluated run nor a cross-validation" in nothing.stderr
    assert load_recipe("baseline_cnn").weights in text
    for run in runs.values():
        shutil.rmtree(run)
    assert training("compare", by_fold, "--out", out).returncode == 0
    assert out.read_text() == text, "runs that are gone must stay in the table"


def test_a_run_is_shown_beside_one_that_compares_or_not_at_all(
    fitted: dict[str, Path], training: Training, tmp_path: Path
) -> None:
    first, second = (shutil.copytree(run, tmp_path / name) for name, run in fitted.items())
    twin = tmp_path / "twin"
    shutil.copytree(first, twin, ignore=shutil.ignore_patterns("report"))
    unread = training("evaluate", "--run", second, "--beside", twin)
    assert "evaluate it first" in unread.stderr
    same = training("evaluate", "--run", twin, "--beside", first)
    assert "shows clean itself" in same.stderr
    tested = first / "report" / "test_images.txt"
    before = tested.read_text()
    tested.write_text(before.replace(before[:64], "0" * 64))
    other = training("evaluate", "--run", second, "--beside", first)
    assert "other test images; the two do not compare" in other.stderr
    # The same images, read in another order.
    tested.write_text("\n".join(reversed(before.split())))
    described = first / "run.json"
    content = json.loads(described.read_text())
    longer = json.loads(json.dumps(content))
    longer["recipe"]["phases"][-1]["epochs"] += 1
    more = content | {"data": [*content["data"], {"name": "x", "images": 1, "digest": "0" * 64}]}
    for changed, what in (
        (longer, "another recipe"),
        (more, "other data"),
        (content | {"held_out": ["x"]}, "other data sets left out"),
    ):
        described.write_text(json.dumps(changed))
        refused = training("evaluate", "--run", second, "--beside", first)
        assert f"{what}; the two do not compare" in refused.stderr
    described.write_text(json.dumps(content))
    assert not (second / "report").exists()
    assert not (twin / "report").exists()
    done = training("evaluate", "--run", second, "--beside", first)
    assert done.returncode == 0, done.stderr
    assert "points of accuracy" in (second / "report" / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    ("changes", "held_out", "expected"),
    [
        ({}, [], "small"),
        ({}, ["other"], "small (without other)"),
        ({"epochs": 1}, [], "small (another recipe {digest})"),
    ],
    ids=["its own", "held out", "cut"],
)
def test_a_version_is_shown_as_the_run_that_it_was(
    changes: dict[str, int], held_out: list[str], expected: str, tmp_path: Path
) -> None:
    from training.origin import origin_of

    recipe = load_recipe("baseline_cnn", changes)
    provenance = {
        "recipe": recipe.name,
        "recipe_digest": recipe.digest,
        "weights": recipe.weights,
        "data": [{"name": "small"}],
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"provenance": provenance}))
    found = origin_of(tmp_path, held_out)
    assert found[:2] == (expected.format(digest=recipe.digest[:8]), "none")


@pytest.mark.usefixtures("training")
def test_a_step_of_a_recipe_with_a_mask_head_is_measured() -> None:
    from training.step import measure_step

    recipe = load_recipe("efficientnet_lite0_mask", {"resolution": 32})
    with eagerly():
        found = measure_step(recipe.model_copy(update={"batch_size": 2}))
    assert found["seconds"] > 0
    assert (found["batch"], found["resolution"]) == (2, 32)


def test_a_damaged_record_of_runs_is_an_error(training: Training, tmp_path: Path) -> None:
    out = tmp_path / "models.md"
    for damage in ("{", "[]", '{"baseline_cnn": {"colour": 1}}'):
        out.with_suffix(".json").write_text(damage)
        done = training("compare", "--out", out)
        assert done.returncode == 1
        assert "no record of runs" in done.stderr
        assert not out.exists()


def test_a_comparison_of_nothing_is_an_error(
    training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = training("compare")
    assert done.returncode == 1
    assert "nothing to compare: name runs; runs/compare.json is not there" in done.stderr
    assert [*tmp_path.iterdir()] == []


def test_the_projects_own_page_is_written_only_where_it_is_named(
    by_fold: Path, training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = by_fold.resolve()
    monkeypatch.chdir(tmp_path)
    done = training("compare", run)
    assert done.returncode == 0, done.stderr
    assert "wrote runs/compare.md" in done.stdout
    assert "## By patient" in (tmp_path / "runs" / "compare.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert training("compare").returncode == 0


@pytest.fixture
def predicted(by_fold: Path, tmp_path: Path) -> Run:
    """What a part keeps for its figures."""
    for name in ("run.json", "best.npz", "predictions.npz"):
        shutil.copy(by_fold / "fold1" / name, tmp_path)
    return Run.open(tmp_path)


@pytest.mark.usefixtures("training")
def test_damaged_predictions_of_a_part_are_a_clear_error(predicted: Run) -> None:
    from training.crossval import _predicted

    file = predicted.path / "predictions.npz"
    file.write_bytes(file.read_bytes()[:200])
    nothing: Any = None  # Neither images nor a split are looked at.
    with pytest.raises(RunError, match=r"predictions\.npz is damaged"):
        _predicted(predicted, nothing, nothing)


@pytest.mark.usefixtures("training")
def test_predictions_of_other_weights_are_made_anew(
    predicted: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import crossval

    found = np.full((2, 4), 0.25, np.float32)
    monkeypatch.setattr(crossval, "trained_model", lambda _: None)
    monkeypatch.setattr(crossval, "keras_predictor", lambda *_: lambda _: {"probabilities": found})
    images: Any = SimpleNamespace(slices=np.zeros((2, 1, 1), np.uint8))
    split: Any = SimpleNamespace(test=np.arange(2))
    kept = load_arrays(predicted.path / "predictions.npz") or {}
    np.testing.assert_array_equal(
        crossval._predicted(predicted, images, split), kept["probabilities"]
    )
    # As after a training that began anew in the folder.
    np.savez(predicted.path / "best.npz", w0000=np.zeros(3))
    for _ in range(2):
        np.testing.assert_array_equal(crossval._predicted(predicted, images, split), found)
        monkeypatch.setattr(crossval, "keras_predictor", None)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("crossval.json", {}),
        ("crossval.json", {"recipe": "x", "data": [1]}),
        ("report/metrics.json", {"recipe": "x"}),
        ("report/metrics.json", {"recipe": "x", "protocol": "clean", "protocols": {"clean": []}}),
        ("manifest.json", {"provenance": {}}),
    ],
    ids=["cross-validation", "its data", "report", "its figures", "manifest"],
)
def test_a_report_that_lacks_what_is_compared_is_a_clear_error(
    name: str, content: dict[str, Any], training: Training, by_fold: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    (run / "report").mkdir(parents=True)
    shutil.copy(by_fold / "fold1" / "run.json", run)
    (run / "report" / "metrics.json").write_text("{}")
    (run / name).write_text(json.dumps(content))
    done = training("compare", run, "--out", tmp_path / "page.md")
    assert done.returncode == 1
    assert f"{run / name} is damaged: " in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_parts_are_a_sample_of_splits_and_one_part_has_no_deviation(
    by_fold: Path, training: Training, tmp_path: Path
) -> None:
    found = json.loads((by_fold / "crossval.json").read_text())
    accuracies = [part["accuracy"] for part in found["parts"]]
    assert found["accuracy_deviation"] == pytest.approx(np.std(accuracies, ddof=1))
    # As files of before had it, of the parts as if there were no others.
    found["accuracy_deviation"] = 0.5
    folder, out = tmp_path / "cv", tmp_path / "page.md"
    folder.mkdir()
    (folder / "crossval.json").write_text(json.dumps(found))
    assert training("compare", folder, "--out", out).returncode == 0
    assert f"| 3 | {100 * np.mean(accuracies):.2f} | {100 * np.std(accuracies, ddof=1):.2f} |" in (
        out.read_text()
    )
    found["parts"] = found["parts"][:1]
    (folder / "crossval.json").write_text(json.dumps(found))
    assert training("compare", folder, "--out", out).returncode == 0
    assert f"| 1 | {100 * np.mean(accuracies):.2f} | - |" in out.read_text()


@pytest.mark.parametrize("name", ["page.json", "page.png"])
def test_a_page_does_not_take_the_place_of_what_is_beside_it(
    name: str, by_fold: Path, training: Training, tmp_path: Path
) -> None:
    done = training("compare", by_fold, "--out", tmp_path / name)
    assert done.returncode == 1
    assert f"{tmp_path / name} is no name for the page" in done.stderr
    assert [*tmp_path.iterdir()] == []


def test_two_pages_of_a_folder_have_a_picture_each(
    by_fold: Path, training: Training, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        assert training("compare", by_fold, "--out", tmp_path / f"{name}.md").returncode == 0
        assert f"]({name}.png)" in (tmp_path / f"{name}.md").read_text()
        assert (tmp_path / f"{name}.png").is_file()
