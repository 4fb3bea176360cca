"""A version is tested again by the rules that the service follows now."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from contract.answer import Rules
from contract.store import ModelStore
from training.datasets import read_folders
from training.duplicates import audit
from training.images import ImageSet

from .conftest import SLICES  # noqa: TID252

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("training")]


def test_a_run_ends_where_fold_or_label_change(tmp_path: Path) -> None:
    from scripts.retested import runs_of

    lines = [
        "10,glioma,2",
        "1,glioma,5",
        "2,glioma,5",
        "3,glioma,4",
        "9,glioma,5",
        "11,pituitary,2",
    ]
    (tmp_path / "index.csv").write_text("\n".join(["id,label,fold", *lines]) + "\n")
    assert runs_of(tmp_path / "index.csv") == {"1": 0, "2": 0, "3": 1, "9": 2, "10": 3, "11": 4}


def _answered(folder: Path) -> tuple[ImageSet, Rules, dict[str, NDArray[np.float32]]]:
    """A folder's images, and what version 4 makes of them; its figures are printed."""
    from scripts.retested import STORE, _answers
    from training.convert import litert_predictor

    version = ModelStore(STORE).load("brain-tumor", 4)
    record = version.manifest.answer
    assert record is not None
    assert record.region is not None
    images = read_folders([folder])
    rules = Rules.read(version)
    outputs = litert_predictor(version.path / "model.int8.tflite")(images.slices)
    rows = np.arange(len(images))
    _answers(record, record.region, rules, outputs, images, audit(images), rows, [folder])
    return images, rules, outputs


def test_figures_are_of_the_answers_of_today(capsys: pytest.CaptureFixture[str]) -> None:
    from scripts.retested import _classes
    from training.answering import as_outputs

    images, rules, outputs = _answered(SLICES)
    said = capsys.readouterr().out
    answers = rules.answer(as_outputs(outputs))
    assert answers.prediction_set is not None
    truth = [rules.classes.index(str(label)) for label in images.labels]
    covered = answers.prediction_set[np.arange(len(truth)), truth].mean()
    assert f"| coverage of the 95% prediction sets | {covered:.2%} [" in said
    right = (answers.labels == truth).mean()
    assert f"accuracy {right:.4f} [" in _classes(
        rules, outputs, images.labels, np.arange(len(images))
    )


def test_the_only_output_of_a_version_needs_no_name() -> None:
    from scripts.retested import _outputs

    only = np.array([[0.25, 0.75]], np.float32)
    assert _outputs({"StatefulPartitionedCall_1": only}).probabilities is only


def test_folders_without_a_test_image_are_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from scripts.retested import main

    monkeypatch.setattr("sys.argv", ["retested", str(SLICES), "--version", "4", "--among", "none/"])
    assert main() == 1
    assert "none of the images was tested" in capsys.readouterr().err


def test_a_version_that_was_tested_on_testing_needs_no_list(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from scripts.retested import main

    shutil.copytree(SLICES, tmp_path / "set" / "Testing")
    monkeypatch.setattr("sys.argv", ["retested", str(tmp_path / "set"), "--version", "1"])
    assert main() == 0
    said = capsys.readouterr().out
    assert f"{len([*SLICES.rglob('*.jpg')])} slices: accuracy " in said


def test_what_a_version_saw_is_what_shares_a_group_with_its_training_or_validation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from scripts.retested import STORE, _seen
    from training.errors import DatasetError
    from training.splits import Split

    version = ModelStore(STORE).load("brain-tumor", 4)
    images = read_folders([SLICES])
    parts = Split(np.array([0, 1]), np.array([2]), np.arange(3, len(images)))
    monkeypatch.setattr("scripts.retested.split", lambda *_: parts)
    tested = {images.sha256[row] for row in parts.test}
    groups = np.arange(len(images))
    groups[5] = groups[2]
    found = replace(audit(images), groups=groups)
    assert _seen(version, images, found, tested).tolist() == [0, 1, 2, 5]
    with pytest.raises(DatasetError, match="not the data sets of the version"):
        _seen(version, images, found, {*tested, "another"})


def test_slices_with_masks_have_intervals_by_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.answering import as_outputs

    folder = tmp_path / "masked"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    lines = ["id,label,fold"]
    for number, path in enumerate(sorted(SLICES.glob("[!n]*/*.jpg"))):
        picture = Image.open(path).convert("L")
        # Each twice, upside down as well: a run is of both.
        for turned in (0, 1):
            shown = picture.transpose(Image.Transpose.ROTATE_180) if turned else picture
            name = f"{2 * number + turned}"
            shown.save(folder / "images" / f"{name}.jpg")
            mask = np.zeros(shown.size[::-1], np.uint8)
            mask[40:80, 40:80] = 255
            Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
            lines.append(f"{name},{path.parent.name},{1 + number % 2}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    images, rules, outputs = _answered(folder)
    said = capsys.readouterr().out
    labels = rules.answer(as_outputs(outputs)).labels
    right = np.mean(labels == [rules.classes.index(str(label)) for label in images.labels])
    for what in ("by group", "by run, 6 of them"):
        assert f"masked, 12 slices, {what}" in said
    assert said.count(f"accuracy {right:.4f} [") == 2
    assert said.count("mean Dice 0.") == 2
