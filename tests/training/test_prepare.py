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
