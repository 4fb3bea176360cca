"""A run's folder: what it refuses, what is left after a kill or on a full disk, what is damaged."""

import json
import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.__main__ import main
from training.catalogue import load_recipe
from training.errors import RunError
from training.files import read_json, save_arrays, write_aside, write_json
from training.images import ImageFile, ImageSet
from training.prepare import start
from training.progress import Progress
from training.reading import read_images
from training.run import Run, RunConfig, held
from training.splits import Protocol
from training.truth import truth_digest

from .conftest import full_disk  # noqa: TID252

CONFIG = RunConfig(
    recipe=load_recipe("baseline_cnn"),
    protocol=Protocol.CLEAN,
    data=(),
    roots=(),
    splits={"train": ("a",)},
    truth="0" * 64,
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """One of which an epoch is done."""
    begun = Run.create(tmp_path / "run", CONFIG)
    begun.save_progress(Progress(epoch=1, total_epochs=1), [np.zeros(9, np.float32)])
    return begun


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    """Two slices, of which one has a mask."""
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 255, (64, 64), np.uint8)).save(tmp_path / f"{name}.png")
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    files = [
        ImageFile(tmp_path / "a.png", "s", "fold1", "glioma", tmp_path / "mask.png"),
        ImageFile(tmp_path / "b.png", "s", "fold2", "notumor", person="P1"),
    ]
    return read_images(files)


@pytest.mark.parametrize(
    "change",
    [{"label": "meningioma"}, {"part": "fold3"}, {"person": "P2"}, {"source": "t"}],
    ids=str,
)
def test_what_the_data_say_of_an_image_is_part_of_a_run(
    images: ImageSet, change: dict[str, Any]
) -> None:
    other = replace(images, files=(images.files[0]._replace(**change), images.files[1]))
    assert other.sha256 == images.sha256
    assert truth_digest(other) != truth_digest(images)
    assert truth_digest(replace(images)) == truth_digest(images)


def test_masks_are_part_of_a_run(images: ImageSet) -> None:
    moved = replace(images, masks={0: np.roll(images.masks[0], 9)})
    assert len({truth_digest(found) for found in (images, moved, replace(images, masks={}))}) == 3


def test_a_run_does_not_go_on_with_other_classes_or_masks(run: Run) -> None:
    run.require_same(CONFIG)
    other = CONFIG.model_copy(update={"truth": "1" * 64})
    with pytest.raises(RunError, match="same images, but the names of files, or their"):
        run.require_same(other)
    # Runs of before this was noted go on.
    replace(run, config=CONFIG.model_copy(update={"truth": None})).require_same(other)


def test_a_run_of_before_opens(run: Run) -> None:
    content = read_json(run.path / "run.json")
    for name in ("truth", "never_shown"):
        del content[name]
    (run.path / "run.json").write_text(json.dumps(content))
    assert Run.open(run.path).config == CONFIG.model_copy(update={"truth": None})


@pytest.mark.parametrize("name", ["artifacts", "report"])
def test_a_new_run_does_not_begin_beside_what_was_made_of_another(run: Run, name: str) -> None:
    (run.path / name).mkdir()
    Run.require_startable(run.path, resume=True)
    (run.path / "run.json").unlink()
    for resume in (False, True):
        with pytest.raises(RunError, match=r"holds a run without its run\.json"):
            Run.require_startable(run.path, resume)
    (run.path / "progress.npz").unlink()
    for resume in (False, True):
        with pytest.raises(RunError, match=f"holds {name}/ of an earlier run"):
            Run.require_startable(run.path, resume)
    with pytest.raises(RunError, match="of an earlier run"):
        Run.create(run.path, CONFIG)


@pytest.mark.parametrize("options", [(), ("--resume",)], ids=str)
def test_what_ends_a_run_is_told_before_the_data_are_read(
    run: Run, tmp_path: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    fit = ("fit", "--recipe", "baseline_cnn", "--data", str(tmp_path / "nosuch"), *options)
    if options:
        (run.path / "run.json").write_text("{")
    assert main([*fit, "--out", str(run.path)]) == 1
    assert ("damaged" if options else "add --resume") in capsys.readouterr().err
    with held(tmp_path / "other"):
        assert main([*fit, "--out", str(tmp_path / "other")]) == 1
    assert "another process trains" in capsys.readouterr().err
    assert main([*fit, "--out", "/proc/nosuch/run"]) == 1
    assert capsys.readouterr().err.startswith("error: /proc/nosuch/run cannot be used: ")
    # The data come last.
    pytest.importorskip("keras", reason="what a recipe starts from is looked for with TensorFlow")
    assert main([*fit, "--out", str(tmp_path / "new")]) == 1
    assert "nosuch is no folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda _: b"",
        lambda _: b"PK",
        lambda _: b"\x93NUMPY",
        lambda whole: whole.replace(b"\0\0\0\0\0\0\0\0", b"\0\0\0\1\0\0\0\0", 1),
    ],
    ids=["half", "empty", "two bytes", "another kind", "changed"],
)
def test_a_damaged_file_of_arrays_is_a_clear_error(run: Run, damage: object) -> None:
    assert callable(damage)
    for name, load in (
        ("progress.npz", run.load_progress),
        ("progress.npz", run.require_finished),
        ("best.npz", run.load_best),
    ):
        save_arrays(run.path / name, {"progress": np.zeros(99, np.uint8), "w": np.zeros(99)})
        (run.path / name).write_bytes(damage((run.path / name).read_bytes()))
        with pytest.raises(RunError, match=f"{name} is damaged"):
            load()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"epochs_of_the_future": 1}', "later release"),
        (b"[1]", "damaged"),
        (b"{", "damaged"),
        (None, "damaged"),
    ],
    ids=["newer", "list", "cut", "none"],
)
def test_progress_that_says_nothing_is_a_clear_error(
    run: Run, content: bytes | None, says: str
) -> None:
    text = {} if content is None else {"progress": np.frombuffer(content, np.uint8)}
    save_arrays(run.path / "progress.npz", {**text, "v0000": np.zeros(1)})
    for load in (run.load_progress, run.require_finished):
        with pytest.raises(RunError, match=says):
            load()


def test_a_figure_that_is_no_number_is_not_saved(run: Run) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        run.save_progress(Progress(epoch=2, history=[{"val_loss": float("nan")}]), [])
    loaded = run.load_progress()
    assert loaded is not None
    assert loaded[0].epoch == 1


def test_a_full_disk_leaves_what_was_there_and_nothing_beside_it(run: Run) -> None:
    before = {path.name for path in run.path.iterdir()}
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As a full disk would: Python ignores the signal, and the write fails.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, most))
    try:
        with pytest.raises(OSError, match="File too large"):
            run.save_progress(Progress(epoch=2), [np.zeros(10_000)])
        with pytest.raises(OSError, match="File too large"):
            write_aside(run.path / "history.json", bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert {path.name for path in run.path.iterdir()} == before
    loaded = run.load_progress()
    assert loaded is not None
    assert loaded[0].epoch == 1


def test_what_a_killed_process_left_half_written_is_deleted(run: Run) -> None:
    kept = [run.path / ".notes", run.path / ".cache.json", run.path / "progress.npz"]
    left = [run.path / ".progress.npz.4242", run.path / "report" / ".metrics.json.7"]
    for path in (*kept[:2], *left):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    with held(run.path):
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in kept)


def test_a_small_file_reaches_the_disk_before_its_name_does(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    monkeypatch.setattr(os, "fsync", fsync)
    write_aside(run.path / "history.json", b"[]")
    assert synced == [f".history.json.{os.getpid()}"]


def test_a_full_disk_ends_a_command_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.contactsheet.run_audit", full)
    out = tmp_path / "audit"
    assert main(["audit", "--data", str(tmp_path), "--out", str(out)]) == 1
    assert capsys.readouterr().err == f"error: [Errno 28] No space left on device: '{out}'\n"


def test_a_description_that_is_no_text_is_a_clear_error(run: Run) -> None:
    (run.path / "run.json").write_bytes(b'{"recipe": "\xff"}')
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        Run.open(run.path)


def test_a_write_that_finds_no_room_says_where(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "audit"
    with full_disk():
        assert main(["audit", "--data", str(small_data), "--out", str(out)]) == 1
    assert capsys.readouterr().err == f"error: [Errno 27] File too large: '{out}'\n"


def test_a_tree_that_cannot_be_copied_ends_a_command_with_a_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def copied(*_: object) -> None:
        shutil.copytree(run.path, tmp_path / "copy")

    for name in "abc":
        (run.path / f"{name}.bin").write_bytes(bytes(9000))
    monkeypatch.setattr("training.contactsheet.run_audit", copied)
    with full_disk():
        assert main(["audit", "--data", str(tmp_path), "--out", str(tmp_path / "audit")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: [Errno 27] File too large: '")
    assert "(" not in said
    assert said.count(".bin") <= 2


def test_a_run_of_before_the_command_line_was_noted_goes_on(run: Run) -> None:
    content = read_json(run.path / "run.json")
    del content["overrides"]
    (run.path / "run.json").write_text(json.dumps(content))
    said = CONFIG.model_copy(update={"overrides": {"seed": 7}})
    assert start(run.path, said, resume=True).config == CONFIG


@pytest.mark.parametrize("save", [save_arrays, write_json])
def test_a_write_that_finds_no_room_names_its_file(
    save: Callable[[Path, dict[str, Any]], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which folder of a command is full is known where it is written."""

    def full(_: int) -> None:
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="quota") as raised:
        save(tmp_path / "file", {})
    assert str(raised.value) == f"[Errno 122] Disk quota exceeded: '{tmp_path / 'file'}'"


def test_a_tree_that_cannot_be_copied_names_where_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def copied(*_: object) -> None:
        raise shutil.Error([("a/x", "b/x", "[Errno 122] Disk quota exceeded")])

    monkeypatch.setattr("training.contactsheet.run_audit", copied)
    assert main(["audit", "--data", str(tmp_path), "--out", str(tmp_path / "audit")]) == 1
    assert capsys.readouterr().err == "error: [Errno 122] Disk quota exceeded: 'b/x'\n"
