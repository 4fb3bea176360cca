"""What is refused before a run trains."""

import shutil
from pathlib import Path

import pytest

from training.errors import DatasetError
from training.prepare import prepare
from training.recipe import load_recipe
from training.splits import Protocol


def test_data_without_testing_are_split_by_group_or_refused(
    small_data: Path, tmp_path: Path
) -> None:
    root = tmp_path / "small"
    shutil.copytree(small_data / "Training", root)
    recipe = load_recipe("baseline_cnn")
    with pytest.raises(DatasetError, match="--protocol grouped"):
        prepare(recipe, [root], Protocol.CLEAN)
    assert prepare(recipe, [root], Protocol.GROUPED).parts.test.size


def test_tumours_of_an_unstated_kind_alone_are_nothing_to_test_on(
    small_data: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_data / "Testing" / "glioma", tmp_path / "other" / "yes")
    roots = [small_data, tmp_path / "other"]
    with pytest.raises(DatasetError, match="no image to test on shows one of glioma"):
        prepare(load_recipe("baseline_cnn"), roots, Protocol.CLEAN, ["other"])
