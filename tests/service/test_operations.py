"""What a SavedModel may do, by SavedModels that would do more."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.service import run_python

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed"),
]

MORE = "the SavedModel has an operation that may do more than compute: "
OTHERS = "the SavedModel calls a function that is none of its own"

REASONS = {
    "harmless": "",
    "writes": f"{MORE}'ReadFile'",
    "writes in a branch": f"{MORE}'ReadFile'",
    "writes in a function": f"{MORE}'ReadFile'",
    "saves": f"{MORE}'SaveV2'",
    "saves in a function": f"{MORE}'SaveV2'",
    "runs Python": f"{MORE}'PyFunc'",
    "reads while it is loaded": f"{MORE}'InitializeTableFromTextFileV2'",
    "keeps what it has seen": f"{MORE}'AssignVariableOp'",
    "saver named by an object": f"{MORE}'MergeV2Checkpoints'",
    "saver in another's place": f"{MORE}'MergeV2Checkpoints'",
    "call with a name": OTHERS,
    "branch with a name": OTHERS,
    "call of another's function": OTHERS,
    "of TensorFlow 1": "the SavedModel is none of TensorFlow 2",
    "of two graphs": "the SavedModel is none of TensorFlow 2",
}
"""Why each of :mod:`tests.support.hostile_models` is refused; empty for what is not."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def refused(folder: Path, model_store: Path) -> dict[str, str]:
    """Why each was refused; that the versions that ship are not."""
    shipped = [str(path) for path in model_store.glob("*/*/saved_model")]
    assert shipped
    output = run_python("-m", "tests.support.hostile_models", str(folder), *shipped)
    return dict(json.loads(output))


@pytest.mark.slow(30)
@pytest.mark.parametrize("name", REASONS)
def test_a_saved_model_computes_and_does_no_more(
    refused: dict[str, str], folder: Path, name: str
) -> None:
    assert refused[name] == REASONS[name]
    assert not [*folder.glob("written*")]
