"""A run that is killed while it saves an epoch goes on to the same weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.catalogue import load_recipe
from training.errors import DivergedError, PretrainedWeightsError, RecipeError, RunError
from training.prepare import prepare, start
from training.progress import Progress
from training.recipe import Plateau, Recipe
from training.run import Run
from training.splits import Protocol

from .conftest import eagerly  # noqa: TID252

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.slow(40),
    # Of eagerly(): the data's own functions stay as they are.
    pytest.mark.filterwarnings("ignore:Even though the `tf.config:UserWarning"),
]

Trained = Callable[..., Run]


class Killed(Exception):
    pass


def _recipe(epochs: int, *phases: dict[str, Any], **changes: Any) -> Recipe:
    """A small network, with phases that differ from its own in what is given."""
    recipe = load_recipe("baseline_cnn", {"epochs": epochs, "resolution": 32})
    first = recipe.phases[0].model_copy(update={"learning_rate": 3e-3})
    return recipe.model_copy(
        update={
            "phases": tuple(first.model_copy(update=phase) for phase in phases),
            "head": recipe.head.model_copy(update={"dense": (8,)}),
            **changes,
        }
    )


@pytest.fixture
def trained(small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Trains a recipe in a folder, or goes on there, until it has saved its progress so often."""
    keras = pytest.importorskip("keras", reason="training needs TensorFlow")
    from training.fit import train

    save_progress = Run.save_progress

    def run(recipe: Recipe, name: str, saves: int = 99) -> Run:
        left = iter(range(saves))

        def save(run: Run, *progress: Any) -> None:
            if next(left, None) is None:
                raise Killed
            save_progress(run, *progress)

        monkeypatch.setattr(Run, "save_progress", save)
        keras.utils.clear_session(free_memory=False)
        prepared = prepare(recipe, [small_data], Protocol.CLEAN)
        begun = start(tmp_path / name, prepared.config, resume=True)
        with eagerly():
            train(begun, prepared.images, prepared.audit.groups, prepared.parts)
        return begun

    return run


def _end(run: Run) -> tuple[Progress, list[np.ndarray]]:
    loaded = run.load_progress()
    assert loaded is not None
    return loaded


@pytest.mark.parametrize("monitors", [("loss", "loss"), ("loss", "accuracy")], ids="-".join)
def test_killed_between_the_weights_and_the_progress_of_a_later_phase(
    trained: Trained, monitors: tuple[str, str]
) -> None:
    names = ("stop_monitor", "checkpoint_monitor")
    recipe = _recipe(1, {}, {"name": "second"}, **dict(zip(names, monitors, strict=True)))
    whole = trained(recipe, "whole", 4)
    # Both saves of the first phase are done, and the second's epoch has left its weights.
    with pytest.raises(Killed):
        trained(recipe, "killed", 2)
    resumed = trained(recipe, "killed", 2)
    ours, theirs = whole.require_finished(), resumed.require_finished()
    assert [row["phase"] for row in ours.history] == ["all", "second"]
    assert ours == theirs
    assert all(map(np.array_equal, whole.load_best(), resumed.load_best()))


def test_killed_inside_a_phase_it_goes_on_to_the_same_end(trained: Trained) -> None:
    """The optimiser's moments, step and lowered rate are part of the next epoch, and the averages."""
    plateau = Plateau(factor=0.2, patience=1, min_learning_rate=1e-5)
    recipe = _recipe(
        3,
        {"name": "cosine", "schedule": "cosine", "plateau": None, "warmup_epochs": 0.5},
        {"name": "plateau", "plateau": plateau},
        average_momentum=0.9,
        batch_size=8,
    )
    whole = trained(recipe, "whole")
    # After one epoch of the first phase, then of the second; a phase saves once more at its end.
    for saves in (1, 4):
        with pytest.raises(Killed):
            trained(recipe, "killed", saves)
    resumed = trained(recipe, "killed")
    (ours, last), (theirs, also_last) = _end(whole), _end(resumed)
    assert [row["phase"] for row in ours.history] == ["cosine"] * 3 + ["plateau"] * 3
    assert theirs == ours
    assert (resumed.path / "history.json").read_text() == (whole.path / "history.json").read_text()
    assert all(map(np.array_equal, whole.load_best(), resumed.load_best()))
    assert len(last) == len(also_last)
    assert all(map(np.array_equal, last, also_last))


def test_what_is_gone_on_with_needs_no_pretrained_weights(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe(2, {})
    with pytest.raises(Killed):
        trained(recipe, "run", 1)

    def gone(*_: object) -> None:
        raise PretrainedWeightsError("they are gone")

    monkeypatch.setattr("training.model.load_weights", gone)
    assert trained(recipe, "run").require_finished().total_epochs == 2
    with pytest.raises(PretrainedWeightsError):
        trained(recipe, "new")


@pytest.mark.parametrize("phases", [1, 2])
def test_a_validation_that_is_no_number_ends_the_run_before_it_is_saved(
    trained: Trained, tmp_path: Path, phases: int
) -> None:
    # One batch: the loss is that of before the step, and the step goes beyond all bounds.
    too_high: list[dict[str, Any]] = [{"learning_rate": 3e38}, {"name": "second"}]
    recipe = _recipe(1, *too_high[:phases], batch_size=64)
    for _ in range(2):
        with pytest.raises(DivergedError, match=r"val_loss is nan after epoch 1"):
            trained(recipe, "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


def test_a_loss_that_is_no_number_ends_the_run(trained: Trained, tmp_path: Path) -> None:
    recipe = _recipe(1, {"learning_rate": 3e38}, batch_size=8)
    with pytest.raises(DivergedError, match=r"the loss is nan at batch \d"):
        trained(recipe, "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [({"trainable": ("blok1",)}, "no layer is named blok1"), ({"trainable_last": 999}, "999")],
    ids=["name", "number"],
)
def test_layers_that_a_later_phase_lacks_are_told_before_the_first_trains(
    trained: Trained, tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    recipe = _recipe(1, {}, {"name": "second", **change})
    with pytest.raises(RecipeError, match=f"phase second: .*{problem}"):
        trained(recipe, "run")
    assert not Run.begun(tmp_path / "run")


@pytest.mark.parametrize("change", ["fewer", "more", "other shapes"])
def test_progress_of_another_model_is_a_clear_error(
    trained: Trained, tmp_path: Path, change: str
) -> None:
    recipe = _recipe(2, {})
    with pytest.raises(Killed):
        trained(recipe, "run", 1)
    file = tmp_path / "run" / "progress.npz"
    with np.load(file) as stored:
        arrays = dict(stored)
    if change == "fewer":
        del arrays["v0000"]
    elif change == "more":
        arrays["v9999"] = arrays["v0000"]
    else:
        arrays["v0000"] = arrays["v0000"][..., :1]
    np.savez(file, **arrays)
    with pytest.raises(RunError, match="of another model than this release builds"):
        trained(recipe, "run")
