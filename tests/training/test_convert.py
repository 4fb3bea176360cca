"""Writing a model down, where there is no room to."""

from pathlib import Path

import pytest

from training.catalogue import load_recipe
from training.errors import RunError

from .conftest import full_disk  # noqa: TID252

pytestmark = pytest.mark.tensorflow


@pytest.mark.usefixtures("training")
def test_a_full_disk_while_a_saved_model_is_written_is_a_clear_error(tmp_path: Path) -> None:
    from training.convert import write_saved_model
    from training.model import build

    recipe = load_recipe("baseline_cnn", {"resolution": 32})
    model = build(recipe, recipe.served_resolution, pretrained=False)
    with full_disk(), pytest.raises(RunError) as raised:
        write_saved_model(model, recipe, tmp_path / "saved_model")
    assert str(raised.value) == f"{tmp_path / 'saved_model'} cannot be written: File too large"


@pytest.mark.usefixtures("training")
def test_memory_that_runs_out_is_not_a_disk_that_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    from training.convert import write_saved_model
    from training.model import build

    def exhausted(*_: object, **__: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    recipe = load_recipe("baseline_cnn", {"resolution": 32})
    model = build(recipe, recipe.served_resolution, pretrained=False)
    monkeypatch.setattr(tf.saved_model, "save", exhausted)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        write_saved_model(model, recipe, tmp_path / "saved_model")
