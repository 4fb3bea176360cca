"""What is refused before a run trains."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from training.__main__ import main
from training.catalogue import load_recipe
from training.errors import DatasetError, RunError
from training.prepare import as_begun, prepare, read, reopen, start
from training.progress import Progress
from training.run import Run, held
from training.splits import Protocol, Split


def test_data_without_testing_are_split_by_group_or_refused(
    small_data: Path, tmp_path: Path
) -> None:
    root = tmp_path / "small"
    shutil.copytree(small_data / "Training", root)
    recipe = load_recipe("baseline_cnn")
    with pytest.raises(DatasetError, match="--protocol grouped"):
        prepare(recipe, [root], Protocol.CLEAN)
    assert prepare(recipe, [root], Protocol.GROUPED).parts.test.size


def test_what_may_surprise_about_a_split_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0)
    rows = []
    for number in range(96):
        label, part = ("glioma", "notumor")[number % 2], ("Training", "Testing")[number % 8 < 2]
        pixels = Image.fromarray(noise.integers(0, 255, (8, 8), np.uint8)).resize((256, 256), 0)
        ours, theirs = tmp_path / "ours" / "images", tmp_path / "theirs" / part / label
        for folder in (ours, theirs):
            folder.mkdir(parents=True, exist_ok=True)
        if number < 48:
            pixels.save(ours / f"{number}.jpg")
            rows.append(f"{number},{label},{1 + number % 3}")
        else:
            pixels.save(theirs / f"{number}.png")
    (tmp_path / "ours" / "index.csv").write_text("\n".join(["id,label,fold", *rows]))
    recipe = load_recipe("efficientnet_lite0_plain")
    with pytest.raises(DatasetError, match="ours names folds 1, 2, 3: it has no fold 4"):
        prepare(recipe, [tmp_path / "ours"], Protocol.GROUPED)
    capsys.readouterr()
    prepare(recipe, [tmp_path / "ours", tmp_path / "theirs"], Protocol.CLEAN)
    said = capsys.readouterr().out
    assert (
        "\n  ours names folds 1, 2, 3: it has no fold 4 that validates, all of its slices train"
        in said
    )


@pytest.mark.parametrize("folds", [True, False])
def test_why_there_is_nothing_to_test_on_is_said(
    small_data: Path, tmp_path: Path, folds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a class's share of the test is none, and the other parts have what they need."""
    root = tmp_path / "one"
    for label in ("glioma", "notumor"):
        shutil.copytree(small_data / "Training" / label, root / label / "p1")
    images, found = read(load_recipe("baseline_cnn"), [root])
    empty = np.zeros(0, np.intp)
    nothing = Split(empty, empty, empty, ("one names folds 1, 2",))
    monkeypatch.setattr("training.prepare.split", lambda *_: nothing)
    if folds:
        files = tuple(file._replace(part="fold1") for file in images.files)
        images = dataclasses.replace(images, files=files)
    monkeypatch.setattr("training.prepare.read", lambda *_: (images, found))
    says = (
        r"no slice is of a fold that is tested; one names folds 1, 2; \[folds\] in a copy"
        if folds
        else "all [0-9]+ glioma slices have one person by their outermost folder below"
    )
    with pytest.raises(DatasetError, match=f"no images to test on: .*{says}"):
        prepare(load_recipe("baseline_cnn"), [root], Protocol.GROUPED)


def test_tumours_of_an_unstated_kind_alone_are_nothing_to_test_on(
    small_data: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_data / "Testing" / "glioma", tmp_path / "other" / "yes")
    roots = [small_data, tmp_path / "other"]
    with pytest.raises(DatasetError, match="no image to test on shows one of glioma"):
        prepare(load_recipe("baseline_cnn"), roots, Protocol.GROUPED, ["other"])


def test_images_of_one_class_are_nothing_to_fit(small_data: Path, tmp_path: Path) -> None:
    for part in ("Training", "Testing"):
        shutil.copytree(small_data / part / "glioma", tmp_path / "one" / part / "glioma")
    with pytest.raises(DatasetError, match="nothing to tell apart: all images are glioma"):
        prepare(load_recipe("baseline_cnn"), [tmp_path / "one"], Protocol.CLEAN)


@pytest.mark.parametrize("protocol", [Protocol.CLEAN, Protocol.PUBLISHED])
def test_a_data_set_is_held_out_of_the_grouped_protocol_alone(
    small_data: Path, protocol: Protocol
) -> None:
    with pytest.raises(RunError, match="needs --protocol grouped"):
        prepare(load_recipe("baseline_cnn"), [small_data], protocol, ["small"])


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_has_not_begun_is_no_hindrance(
    small_data: Path, tmp_path: Path, resume: bool
) -> None:
    recipe = load_recipe("baseline_cnn", {"weights": "nosuch"})
    wrong = prepare(recipe, [small_data], Protocol.CLEAN).config
    start(tmp_path, wrong, resume)
    config = wrong.model_copy(update={"recipe": load_recipe("baseline_cnn")})
    run = start(tmp_path, config, resume)
    assert Run.open(tmp_path).config == config
    run.save_progress(Progress(epoch=1), [])
    says = "another recipe: weights none, not nosuch" if resume else "--resume"
    with pytest.raises(RunError, match=says):
        start(tmp_path, wrong, resume)


@pytest.mark.tensorflow
@pytest.mark.parametrize("options", [[], ["--resume"]], ids=["new", "resumed"])
def test_one_process_at_a_time_trains_in_a_folder(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    command = ["fit", "--recipe", "baseline_cnn", "--data", str(small_data), *options]
    with held(tmp_path / "run"):
        assert main([*command, "--out", str(tmp_path / "run")]) == 1
    assert "another process trains" in capsys.readouterr().err
    assert not list((tmp_path / "run").iterdir())
    with held(tmp_path / "run"):
        pass


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("fit --recipe baseline_cnn --data {here} --out {here}/file", "is no folder"),
        ("fit --recipe baseline_cnn --data {here} --out {here}/file/run", "is no folder"),
        ("crossval --recipe baseline_cnn --data {here} --out {here} --repeats 0", "from 1 on"),
        ("export --run {here} --version 0", "from 1 on"),
        ("export --run {here} --version=-1", "from 1 on"),
        ("export --run {here} --name Bad", "no name of a model"),
        ("export --run {here} --version 1000000000", "up to 9 digits"),
    ],
)
def test_wrong_options_end_with_a_line(
    command: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        main(command.format(here=tmp_path).split())
    assert complaint in capsys.readouterr().err.splitlines()[-1]


def test_a_run_goes_on_with_data_that_were_moved_and_is_evaluated_there(
    small_data: Path, tmp_path: Path
) -> None:
    before, now = tmp_path / "before" / "small", tmp_path / "now" / "small"
    shutil.copytree(small_data, before)
    recipe = load_recipe("baseline_cnn")
    config = prepare(recipe, [before], Protocol.CLEAN).config
    begun = start(tmp_path / "run", config, resume=True)
    begun.save_progress(Progress(finished=True), [])
    shutil.copytree(before, now)
    shutil.rmtree(before)
    moved = prepare(recipe, [now], Protocol.CLEAN).config
    with pytest.raises(RunError, match="another split"):
        start(tmp_path / "run", moved.model_copy(update={"splits": {}}), resume=True)
    assert Run.open(tmp_path / "run").config == config
    assert start(tmp_path / "run", moved, resume=True).config == moved
    run, prepared = reopen(tmp_path / "run")
    assert run.config.roots == (now,)
    assert len(prepared.images)


def test_a_run_goes_on_with_its_data_in_the_order_that_it_began_with(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = tmp_path / "now" / "b", tmp_path / "now" / "a"
    shutil.copytree(small_data, first)
    shutil.copytree(small_data / "Training" / "glioma", other / "glioma")
    recipe, run = load_recipe("baseline_cnn"), tmp_path / "run"
    config = prepare(recipe, [first, other], Protocol.CLEAN).config
    assert as_begun(run, [other, first]) == [other, first]
    start(run, config, resume=True).save_progress(Progress(), [])
    turned = prepare(recipe, [other, first], Protocol.CLEAN).config
    with pytest.raises(RunError, match=r"same images.*--data came in the order b, a$"):
        start(run, turned, resume=True)
    moved = [tmp_path / "else" / name for name in "ab"]
    assert as_begun(run, moved) == moved[::-1]
    assert as_begun(run, [other]) == [other]
    assert as_begun(run, [other, tmp_path / "c", first]) == [other, tmp_path / "c", first]
    read = Mock(side_effect=RunError("it reads"))
    monkeypatch.setattr("training.prepare.prepare", read)
    options = ["--data", str(other), "--data", str(first), "--out", str(run)]
    assert main(["fit", "--recipe", "baseline_cnn", *options, "--resume"]) == 1
    assert read.call_args.args[1] == [first, other]


def test_a_run_goes_on_with_files_of_other_names_in_the_same_order(
    small_data: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(small_data, tmp_path / "small")
    recipe, run = load_recipe("baseline_cnn"), tmp_path / "run"
    config = prepare(recipe, [data], Protocol.CLEAN).config
    start(run, config, resume=True).save_progress(Progress(), [])
    for file in [*data.rglob("*.png")]:
        file.rename(file.with_name(f"hospital {file.name}"))
    renamed = prepare(recipe, [data], Protocol.CLEAN).config
    assert start(run, renamed, resume=True).config == config
    first = min((data / "Training" / "glioma").iterdir())
    first.rename(first.with_name("z.png"))
    turned = prepare(recipe, [data], Protocol.CLEAN).config
    with pytest.raises(RunError, match="same images"):
        start(run, turned, resume=True)


def test_data_under_another_name_are_told_from_other_data(small_data: Path, tmp_path: Path) -> None:
    """A run of before was begun with the name that a link leads to."""
    (tmp_path / "hospital").symlink_to(small_data)
    recipe = load_recipe("baseline_cnn")
    config = prepare(recipe, [small_data], Protocol.CLEAN).config
    start(tmp_path / "run", config, resume=True).save_progress(Progress(), [])
    linked = prepare(recipe, [tmp_path / "hospital"], Protocol.CLEAN).config
    with pytest.raises(RunError, match=r"called hospital here; give it by the name small$"):
        start(tmp_path / "run", linked, resume=True)
    other = [source.model_copy(update={"digest": "0" * 64}) for source in linked.data]
    with pytest.raises(
        RunError, match="the data set hospital was not among them; the data set small"
    ):
        start(tmp_path / "run", linked.model_copy(update={"data": tuple(other)}), resume=True)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"images": 95}, r"other data: small held [0-9]+ images, now 95$"),
        ({"digest": "0" * 64}, r"small holds [0-9]+ images as before, and not the same ones$"),
    ],
    ids=str,
)
def test_how_data_differ_is_said(
    changes: dict[str, Any], told: str, small_data: Path, tmp_path: Path
) -> None:
    config = prepare(load_recipe("baseline_cnn"), [small_data], Protocol.CLEAN).config
    start(tmp_path / "run", config, resume=True).save_progress(Progress(), [])
    (source,) = config.data
    now = (source.model_copy(update={"digest": "0" * 64} | changes),)
    with pytest.raises(RunError, match=told):
        start(tmp_path / "run", config.model_copy(update={"data": now}), resume=True)
