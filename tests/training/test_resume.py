"""A run that is killed while it saves an epoch goes on to the same weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.run import Run

from .conftest import eagerly  # noqa: TID252

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.slow,
    # Of eagerly(): the data's own functions stay as they are.
    pytest.mark.filterwarnings("ignore:Even though the `tf.config:UserWarning"),
]


class Killed(Exception):
    pass


@pytest.mark.parametrize("monitors", [("loss", "loss"), ("loss", "accuracy")], ids="-".join)
def test_killed_between_the_weights_and_the_progress_of_a_later_phase(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, monitors: tuple[str, str]
) -> None:
    keras = pytest.importorskip("keras", reason="training needs TensorFlow")
    from training.fit import train
    from training.prepare import prepare, start
    from training.recipe import load_recipe
    from training.splits import Protocol

    recipe = load_recipe("baseline_cnn", {"epochs": 1, "resolution": 32})
    first = recipe.phases[0].model_copy(update={"learning_rate": 3e-3})
    changes: dict[str, Any] = {
        "phases": (first, first.model_copy(update={"name": "second"})),
        "head": recipe.head.model_copy(update={"dense": (8,)}),
        **dict(zip(("stop_monitor", "checkpoint_monitor"), monitors, strict=True)),
    }
    recipe = recipe.model_copy(update=changes)
    prepared = prepare(recipe, [small_data], Protocol.CLEAN)
    save_progress = Run.save_progress

    def trained(name: str, saves: int) -> Run:
        """Goes on until it has saved its progress that often."""
        left = iter(range(saves))

        def save(run: Run, *progress: Any) -> None:
            if next(left, None) is None:
                raise Killed
            save_progress(run, *progress)

        monkeypatch.setattr(Run, "save_progress", save)
        keras.utils.clear_session()
        run = start(tmp_path / name, prepared.config, resume=True)
        with eagerly():
            train(run, prepared.images, prepared.audit.groups, prepared.parts)
        return run

    whole = trained("whole", 4)
    # Both saves of the first phase are done, and the second's epoch has left its weights.
    with pytest.raises(Killed):
        trained("killed", 2)
    resumed = trained("killed", 2)
    ours, theirs = whole.require_finished(), resumed.require_finished()
    assert [row["phase"] for row in ours.history] == ["all", "second"]
    assert ours == theirs
    assert all(map(np.array_equal, whole.load_best(), resumed.load_best()))
