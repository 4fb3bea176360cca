"""How far a run got, and what validation decides: best weights, learning rate, a phase's end."""

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from training.recipe import Monitor, Phase, Plateau, Recipe

PLATEAU_DELTA: Final = 1e-4
"""A loss that falls by less has not fallen (Keras's ReduceLROnPlateau, ``min_delta``)."""


@dataclass
class Progress:
    """How far a run got.

    Attributes:
        phase: index of the current phase.
        epoch: whole epochs done in it.
        total_epochs: whole epochs done in all.
        best_loss: validation loss of the best epoch, and which of all it is.
        best_accuracy: validation accuracy of that epoch.
        stop_value: best of what ends a phase, so that lower is better; None before there is one.
        waited: epochs since the phase last improved on it.
        plateau_loss, plateau_waited: likewise, for the learning rate.
        finished: nothing is left to do.
        history: one row for each epoch.
    """

    phase: int = 0
    epoch: int = 0
    total_epochs: int = 0
    best_loss: float = float("inf")
    best_epoch: int = 0
    best_accuracy: float = -1.0
    stop_value: float | None = None
    waited: int = 0
    plateau_loss: float = float("inf")
    plateau_waited: int = 0
    finished: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)


class Better(NamedTuple):
    """Whether an epoch is the best so far.

    Attributes:
        checkpoint: of all that a run may end with.
        stop: by what ends a phase.
    """

    checkpoint: bool
    stop: bool


def _value(monitor: Monitor, loss: float, accuracy: float) -> float:
    """Lower is better."""
    return loss if monitor == "loss" else -accuracy


def note(progress: Progress, recipe: Recipe, phase: Phase, logs: dict[str, float]) -> Better:
    """Books an epoch.

    Args:
        progress: is changed.
        recipe: its monitors.
        phase: the current one.
        logs: the epoch's figures, ``val_loss`` and ``val_accuracy`` among them.
    """
    loss, accuracy = logs["val_loss"], logs["val_accuracy"]
    progress.epoch += 1
    progress.total_epochs += 1
    progress.waited += 1
    progress.history.append({"epoch": progress.total_epochs, "phase": phase.name, **logs})
    best = _value(recipe.checkpoint_monitor, progress.best_loss, progress.best_accuracy)
    checkpoint = _value(recipe.checkpoint_monitor, loss, accuracy) < best
    # A run of the release before has no stop value: there it was the best loss.
    before = progress.best_loss if progress.stop_value is None else progress.stop_value
    value = _value(recipe.stop_monitor, loss, accuracy)
    stop = value < before
    if stop:
        progress.stop_value, progress.waited = value, 0
    if checkpoint:
        progress.best_loss, progress.best_accuracy = loss, accuracy
        progress.best_epoch = progress.total_epochs
    return Better(checkpoint, stop)


def lowered_rate(progress: Progress, plateau: Plateau, rate: float, loss: float) -> float:
    """The next epoch's learning rate, after an epoch with that validation loss."""
    if loss < progress.plateau_loss - PLATEAU_DELTA:
        progress.plateau_loss, progress.plateau_waited = loss, 0
        return rate
    progress.plateau_waited += 1
    if progress.plateau_waited < plateau.patience:
        return rate
    progress.plateau_waited = 0
    return max(rate * plateau.factor, plateau.min_learning_rate)


def next_phase(progress: Progress, recipe: Recipe) -> None:
    """Turns to the next phase, if there is one."""
    size = recipe.phases[progress.phase].resolution
    progress.phase, progress.epoch, progress.waited = progress.phase + 1, 0, 0
    progress.plateau_loss, progress.plateau_waited = float("inf"), 0
    progress.finished = progress.phase == len(recipe.phases)
    if not progress.finished and recipe.phases[progress.phase].resolution != size:
        # Figures at two sizes do not compare: the new size must find its own best.
        progress.best_loss, progress.best_accuracy = float("inf"), -1.0
        progress.stop_value = float("inf")
