"""A model with two heads from data to answers, on slices with discs for tumours."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from contract.answer import Decision, Outputs, Rules
from contract.decoding import decode
from contract.manifest import RegionRecord
from contract.preprocessing import preprocess
from contract.store import ModelStore
from training.datasets import find_images
from training.errors import DatasetError, RunError
from training.images import ImageFile
from training.reading import read_images
from training.run import Run

from .conftest import SLICES, Training, agreement_says, calibrated, eagerly  # noqa: TID252

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow(50)]

CLASSES = ("glioma", "meningioma", "pituitary")
SHORT = ("--recipe", "efficientnet_lite0_mask", "--epochs", "1", "--resolution", "64")


def _crops(path: Path) -> list[np.ndarray]:
    """Parts of a slice that look like other patients'."""
    image = np.asarray(Image.open(path).convert("L"))
    rows, columns = image.shape
    return [
        image[top : top + rows // 2, left : left + columns * 2 // 3]
        for top in (0, rows // 4, rows // 2)
        for left in (0, columns // 3)
    ]


@pytest.fixture(scope="session")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five folds of slices with a disc and its mask, and slices without one beside them."""
    root = tmp_path_factory.mktemp("folded")
    masked, plain = root / "masked", root / "plain" / "notumor"
    for folder in (masked / "images", masked / "masks", plain):
        folder.mkdir(parents=True)
    index, number = [], 0
    for label in CLASSES:
        for path in sorted((SLICES / label).glob("*.jpg")):
            for crop in _crops(path):
                rows, columns = np.mgrid[0 : crop.shape[0], 0 : crop.shape[1]]
                middle = crop.shape[0] // 2, crop.shape[1] // 2
                disc = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < 20**2
                number += 1
                name = str(number)
                pixels = np.where(disc, 250, crop // 2).astype(np.uint8)
                Image.fromarray(pixels).save(masked / "images" / f"{name}.jpg", quality=90)
                Image.fromarray(disc).save(masked / "masks" / f"{name}.png")
                index.append({"id": name, "label": label, "fold": number % 5 + 1})
    with (masked / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "label", "fold"])
        writer.writeheader()
        writer.writerows(index)
    for count, path in enumerate(sorted((SLICES / "notumor").glob("*.jpg"))):
        for part, crop in enumerate(_crops(path)):
            Image.fromarray(crop).save(plain / f"{count}-{part}.png")
    return root


@pytest.fixture(scope="session")
def run(folded: Path, training: Training, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch a phase, evaluated."""
    out = tmp_path_factory.mktemp("two") / "run"
    data = [option for name in ("masked", "plain") for option in ("--data", folded / name)]
    with eagerly():
        done = training("fit", *SHORT, *data, "--protocol", "grouped", "--out", out)
    assert done.returncode == 0, done.stderr
    foreign = out.parent / "foreign" / "noise"
    foreign.mkdir(parents=True)
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 256, (96, 96), np.uint8)
        Image.fromarray(noise).save(foreign / f"{number}.png")
    with calibrated(8):
        done = training("evaluate", "--run", out, "--foreign", foreign.parent)
    assert done.returncode == 0, done.stderr
    return out


def test_the_report_says_where_how_sure_and_when_not(run: Path) -> None:
    report = run / "report"
    # No constant that JSON lacks may get in.
    metrics = json.loads((report / "metrics.json").read_text(), parse_constant=pytest.fail)
    answers = metrics["answers"]
    fold5 = answers["regions"]["int8"]
    assert fold5["images"] == 7
    assert 0 <= fold5["dice"] <= 1
    assert answers["foreign"]["noise"]["images"] == 4
    assert len(answers["robustness"]) == 12
    assert 0 <= answers["calibration"]["coverage"] <= 1
    card = (report / "MODEL_CARD.md").read_text()
    for section in ("Where:", "How sure:", "Tumour or not", "When not:", "Robust:"):
        assert f"## {section}" in card
    assert len((report / "test_images.txt").read_text().split()) == metrics["split"]["test"]
    for name in ("regions.jpg", "reliability.png", "risk_coverage.png", "robustness.png"):
        assert (report / name).stat().st_size > 5000
        assert name in card


@pytest.mark.parametrize("heads", [2, 1])
def test_a_data_set_left_out_comes_into_the_card(run: Path, tmp_path: Path, heads: int) -> None:
    from training.card_answers import left_out_section
    from training.evaluate import _left_out

    (tmp_path / "report").mkdir()
    shutil.copy(run / "run.json", tmp_path)
    with pytest.raises(RunError, match="no report"):
        _left_out(tmp_path)
    metrics = json.loads((run / "report" / "metrics.json").read_text())
    if heads == 1:
        del metrics["answers"]
    written = tmp_path / "report" / "metrics.json"
    written.write_text(json.dumps(metrics))
    with pytest.raises(RunError, match="without --hold-out"):
        _left_out(tmp_path)
    written.write_text(json.dumps({**metrics, "held_out": ["plain"]}))
    figures = metrics["protocols"]["grouped"]["testing"]["int8"]
    auc = metrics["answers"]["tumor"]["all"] if heads == 2 else figures["tumor"]
    row = left_out_section([_left_out(tmp_path)])[-2]
    # Two slices without a tumour are too few groups for an interval.
    assert row.startswith(
        f"| plain | `efficientnet_lite0_mask --epochs 1 --resolution 64` "
        f"| {metrics['split']['test']} | {figures['images']} | {auc['auc']:.4f} "
        f"| {auc['sensitivity']:.4f} ["
    )
    low, high = figures["interval"]["accuracy"]
    assert f"| {figures['accuracy']:.4f} [{low:.4f}, {high:.4f}] |" in row
    assert row.endswith(
        " |  |  |" if heads == 1 else f"{metrics['answers']['calibration']['ece']:.4f} |"
    )


def test_of_one_class_that_was_left_out_there_is_no_accuracy(run: Path, tmp_path: Path) -> None:
    from training.card_answers import left_out_section
    from training.evaluate import _left_out

    (tmp_path / "report").mkdir()
    shutil.copy(run / "run.json", tmp_path)
    metrics = json.loads((run / "report" / "metrics.json").read_text())
    metrics |= {"held_out": ["plain"], "split": {**metrics["split"], "test": 99}}
    figures = metrics["protocols"]["grouped"]["testing"]["int8"]
    figures["classes"] = {"notumor": figures["classes"]["notumor"]}
    (tmp_path / "report" / "metrics.json").write_text(json.dumps(metrics))
    found = _left_out(tmp_path)
    assert "accuracy" not in found
    cells = left_out_section([found])[-2].split(" | ")
    assert cells[2:4] == ["99", str(figures["images"])]
    assert cells[7] == ""


def test_answers_of_the_same_weights_are_kept_but_for_what_is_in_distribution(
    run: Path, tmp_path: Path
) -> None:
    from training.answering import ANSWER_FILE, fit_answers, read_fitted
    from training.prepare import reopen

    opened, prepared = reopen(run)
    artifacts = tmp_path / "artifacts"
    shutil.copytree(run / "artifacts", artifacts)
    (artifacts / ANSWER_FILE).unlink()
    own = read_fitted(run / "artifacts")
    assert own is not None
    kept = own.model_copy(
        update={
            "answer": own.answer.model_copy(update={"temperature": 1.75}),
            "tumor_threshold": 0.4,
            "kept_from": "first",
        }
    )
    found = fit_answers(
        opened, artifacts, prepared.images, prepared.parts, prepared.audit.doubtful, kept
    )
    assert found == read_fitted(artifacts)
    assert found.answer == kept.answer
    assert found.tumor_threshold == 0.4
    assert found.validation["ece"] != own.validation["ece"]
    assert (artifacts / "embeddings.npz").stat().st_size > 5000
    rest = (prepared.images, prepared.parts, prepared.audit.doubtful)
    assert fit_answers(opened, artifacts, *rest, kept) == found
    # What an interrupted evaluation kept must not pass for the run's own.
    with pytest.raises(RunError, match="holds the answers of first"):
        fit_answers(opened, artifacts, *rest)
    # What an interrupted evaluation fitted anew must not pass for what was to be kept.
    with pytest.raises(RunError, match="fitted anew"):
        fit_answers(
            opened, artifacts, prepared.images, prepared.parts, prepared.audit.doubtful, own
        )


def test_answers_are_fitted_without_synthetic_slices(run: Path, tmp_path: Path) -> None:
    from training.answering import ANSWER_FILE, fit_answers
    from training.prepare import reopen

    opened, prepared = reopen(run)
    recipe = opened.config.recipe
    assert recipe.mask is not None
    mask = recipe.mask.model_copy(update={"removed": 0, "pasted": 0, "stripped": 0})
    bare = opened.config.model_copy(update={"recipe": recipe.model_copy(update={"mask": mask})})
    artifacts = tmp_path / "artifacts"
    shutil.copytree(run / "artifacts", artifacts)
    (artifacts / ANSWER_FILE).unlink()
    found = fit_answers(
        replace(opened, config=bare),
        artifacts,
        prepared.images,
        prepared.parts,
        prepared.audit.doubtful,
    )
    assert "synthetic_tumor_auc" not in found.validation


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({}, "holds no folders"),
        ({"noise": {}}, "holds no pictures"),
        ({"noise": {"notes.txt": b"no picture"}}, "notes.txt is no picture"),
    ],
    ids=["none", "empty", "text"],
)
def test_foreign_folders_are_read_before_test_is(
    content: dict[str, dict[str, bytes]], complaint: str, tmp_path: Path
) -> None:
    from training.foreign import foreign_pictures

    for kind, files in content.items():
        (tmp_path / kind).mkdir()
        for name, data in files.items():
            (tmp_path / kind / name).write_bytes(data)
    with pytest.raises(DatasetError, match=complaint):
        foreign_pictures(tmp_path)


def test_answers_to_the_int8_file_are_not_published_with_a_float_one(
    run: Path, training: Training, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    shutil.copytree(run, path)
    agreement_says(path, label_disagreement=0.5)
    done = training("export", "--run", path, "--store", tmp_path / "store", "--allow-float")
    assert done.returncode == 1
    assert "fitted to the int8 file" in done.stderr
    assert ModelStore(tmp_path / "store").names() == []


@pytest.mark.parametrize(
    ("without", "complaint"), [("masks", "an outlined tumour"), ("plain", "without a tumour")]
)
def test_data_that_a_mask_head_cannot_use_are_refused_before_training(
    without: str, complaint: str, folded: Path, training: Training, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(folded, data)
    if without == "masks":
        shutil.rmtree(data / "masked" / "masks")
    names = ["masked", "plain"] if without == "masks" else ["masked"]
    options = [option for name in names for option in ("--data", data / name)]
    done = training("fit", *SHORT, *options, "--protocol", "grouped", "--out", tmp_path / "run")
    assert done.returncode == 1
    assert complaint in done.stderr


def test_outlines_lie_on_slices_that_are_decoded_at_a_part_of_their_size(tmp_path: Path) -> None:
    from training.overlays import overlays
    from training.trust import Tested

    tumour = np.hypot(*(np.indices((600, 600)) - np.array([200, 300])[:, None, None])) < 60
    Image.fromarray(np.where(tumour, 200, 90).astype(np.uint8)).save(tmp_path / "a.jpg")
    Image.fromarray(tumour).save(tmp_path / "a.png")
    images = read_images(
        [ImageFile(tmp_path / "a.jpg", "s", "", "glioma", mask=tmp_path / "a.png")]
    )
    rows, none = np.array([0]), np.array([False])
    answers = Rules(CLASSES, CLASSES[:1], 0.5).answer(Outputs(np.array([[1, 0, 0]], np.float32)))
    masks = np.zeros((1, 112, 112), np.float32)
    test = Tested(rows, images.labels, np.array(["s"]), rows, none, answers, masks)
    record = RegionRecord(threshold=0.5, min_cells=1, min_tumor_probability=0.0)
    overlays(tmp_path / "sheet.jpg", images, test, record, np.random.default_rng(0))
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        red, green, _ = np.moveaxis(np.asarray(sheet, np.int16)[:192, :192], 2, 0)
    # A line of one pixel, at a third of its size.
    drawn = np.argwhere(green - red > 8)
    assert drawn.mean(axis=0) == pytest.approx([64, 96], abs=3)


def test_answers_of_other_weights_are_not_kept(
    run: Path, training: Training, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other, ignore=shutil.ignore_patterns("report"))
    with np.load(other / "best.npz") as arrays:
        weights = dict(arrays)
    name = next(name for name, array in weights.items() if array.ndim == 4)
    weights[name] = weights[name] + 1
    np.savez(other / "best.npz", **weights)
    done = training("evaluate", "--run", other, "--answers-of", run)
    assert done.returncode == 1
    assert "other weights" in done.stderr
    assert not (other / "report").exists()


@pytest.mark.parametrize("name", ["answer.json", "embeddings.npz"])
def test_a_version_without_its_answers_is_not_published(
    run: Path, training: Training, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "run"
    shutil.copytree(run, path)
    (path / "artifacts" / name).unlink()
    done = training("export", "--run", path, "--store", tmp_path / "store")
    assert done.returncode == 1
    assert f"lacks {name}" in done.stderr
    assert ModelStore(tmp_path / "store").names() == []


def test_the_version_answers_as_the_evaluation_did(
    run: Path, training: Training, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    shutil.copytree(run, path)
    # A model of two short epochs may round either way: the limits have a test of their own.
    agreement_says(
        path,
        label_disagreement=0.0,
        accuracy_int8=1.0,
        accuracy_float=1.0,
        mean_mask_difference=0.0,
    )
    done = training("export", "--run", path, "--store", tmp_path / "store")
    assert done.returncode == 0, done.stderr
    version = ModelStore(tmp_path / "store").load("brain-tumor", 1)
    manifest = version.manifest
    assert manifest.schema_version == 2
    assert manifest.outputs["mask"].shape == (None, 112, 112)
    from training.answering import as_outputs
    from training.convert import litert_predictor, saved_model_predictor

    rules = Rules.read(version)
    tested = (run / "report" / "test_images.txt").read_text().split()
    files = {file.sha256: file for file in _read(run)}
    slices = np.stack([preprocess(decode(files[d].path.read_bytes()).upright) for d in tested])
    labels = [files[digest].label for digest in tested]
    predict = litert_predictor(version.path / "model.int8.tflite")
    full = saved_model_predictor(version.path / "saved_model")(slices)
    outputs = predict(slices)
    assert set(full) == set(outputs) == set(manifest.outputs)
    answers = rules.answer(as_outputs(outputs))
    assert answers.prediction_set is not None
    assert answers.in_distribution is not None
    metrics = json.loads((run / "report" / "metrics.json").read_text())
    assert metrics["split"]["test"] == len(tested)
    # Counted slice by slice, from what the service would answer.
    covered, sizes, right, kept = [], [], [], []
    shown = {"referred": 0, "tumors_missed": 0, "false_alarms": 0}
    for row, label in enumerate(labels):
        truth = manifest.classes.index(label)
        covered.append(bool(answers.prediction_set[row, truth]))
        sizes.append(int(answers.prediction_set[row].sum()))
        right.append(int(answers.probabilities[row].argmax()) == truth)
        kept.append(bool(answers.in_distribution[row]))
        decision = answers.decisions[row]
        shown["referred"] += decision == Decision.REFER
        shown["tumors_missed"] += label != "notumor" and decision == Decision.NO_TUMOR
        shown["false_alarms"] += label == "notumor" and decision == Decision.TUMOR
    found = metrics["answers"]
    assert found["calibration"]["coverage"] == pytest.approx(np.mean(covered))
    assert found["calibration"]["set_size"] == pytest.approx(np.mean(sizes))
    assert found["calibration"]["full_sets"] == pytest.approx(np.mean(np.equal(sizes, 4)))
    assert found["calibration"]["in_distribution"]["images"] == sum(kept)
    accuracy = metrics["protocols"]["grouped"]["testing"]["int8"]["accuracy"]
    assert accuracy == pytest.approx(np.mean(right))
    of = {"referred": len(labels), "false_alarms": labels.count("notumor")}
    of["tumors_missed"] = len(labels) - of["false_alarms"]
    for name, count in shown.items():
        assert found["decisions"][name] == pytest.approx(count / of[name])
    assert found["decisions"]["in_distribution"] == pytest.approx(np.mean(kept))
    tumor = answers.tumor_probability >= manifest.tumor_threshold
    assert found["served"]["sensitivity"] == pytest.approx(
        tumor[np.array(labels) != "notumor"].mean()
    )


class _Found(NamedTuple):
    sha256: str
    path: Path
    label: str


def _read(run: Path) -> list[_Found]:
    """The files that a run read."""
    images = read_images(find_images(Run.open(run).config.roots))
    return [
        _Found(digest, file.path, file.label)
        for digest, file in zip(images.sha256, images.files, strict=True)
    ]


@pytest.mark.parametrize(
    ("left_out", "figures", "absent"),
    [
        ("negatives", {"specificity"}, {"sensitivity", "auc", "f1"}),
        ("tumors", {"sensitivity", "f1"}, {"specificity", "auc"}),
        ("unstated", {"sensitivity", "specificity", "f1", "auc"}, set()),
    ],
)
def test_a_set_of_one_kind_that_was_left_out_has_the_figures_that_it_can(
    left_out: str,
    figures: set[str],
    absent: set[str],
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As normal_volumes, figshare_cheng and navoneel are; the model is that of another run."""
    from training import evaluate as module
    from training.card_answers import left_out_section
    from training.compare import _left_out_section
    from training.entries import add
    from training.prepare import reopen
    from training.prose import ANY
    from training.record import Entries

    path = tmp_path / "run"
    shutil.copytree(run, path, ignore=shutil.ignore_patterns("report"))
    opened, prepared = reopen(path)
    images = prepared.images
    none = images.labels == "notumor"
    test = {"negatives": none, "tumors": ~none, "unstated": np.ones(len(none), np.bool_)}[left_out]
    if left_out == "unstated":
        files = [
            f if empty else f._replace(label="tumor", mask=None)
            for f, empty in zip(images.files, none, strict=True)
        ]
        images = replace(images, files=tuple(files))
    config = opened.config.model_copy(update={"held_out": ("plain",)})
    (path / "run.json").write_text(config.model_dump_json())
    parts = replace(prepared.parts, test=np.flatnonzero(test))
    changed = prepared._replace(images=images, parts=parts, config=config)
    monkeypatch.setattr(module, "reopen", lambda _: (replace(opened, config=config), changed))
    monkeypatch.setattr("training.robustness.PERTURBATIONS", {})
    report = module.evaluate(path, None)
    metrics = json.loads((report / "metrics.json").read_text(), parse_constant=pytest.fail)
    tumor = metrics["answers"]["tumor"]["all"]
    assert figures <= tumor.keys()
    assert not absent & tumor.keys()
    assert ("regions" in metrics["answers"]) == (left_out == "tumors")
    one = left_out != "tumors"
    assert ("ece" in metrics["answers"]["calibration"]) != one
    row = left_out_section([module._left_out(path)])[-2].split(" | ")
    assert row[2:4] == [str(test.sum()), str(none.sum() if one else test.sum())]
    assert (row[7] == "") == one
    monkeypatch.setattr("training.entries._sizes", lambda _: {})
    entries: Entries = {}
    add(entries, path)
    cells = _left_out_section(entries, ANY)[-1].split(" | ")
    assert cells[3] == f"{test.sum()}, {(test & ~none).sum()}"
    assert (cells[4] == "-", cells[5] == "-") == (one, one)
    for cell, name in zip(cells[6:9], ("sensitivity", "specificity", "auc"), strict=True):
        expected = f"{100 * tumor[name]:.2f}" if name in figures else "-"
        assert cell.split(" ")[0] == expected
