"""What an epoch's validation decides."""

import pytest

from training.catalogue import load_recipe
from training.progress import Progress, lowered_rate, next_phase, note
from training.recipe import Plateau

RECIPE = load_recipe("vgg16_binary")
FIRST = RECIPE.phases[0]


def _epochs(progress: Progress, *figures: tuple[float, float]) -> list[tuple[bool, bool]]:
    return [
        note(progress, RECIPE, FIRST, {"val_loss": loss, "val_accuracy": accuracy})
        for loss, accuracy in figures
    ]


def test_the_best_accuracy_is_kept_and_the_loss_ends_the_phase() -> None:
    progress = Progress()
    found = _epochs(progress, (0.7, 0.5), (0.6, 0.5), (0.65, 0.8), (0.66, 0.7))
    assert found == [(True, True), (False, True), (True, False), (False, False)]
    assert (progress.best_epoch, progress.best_loss, progress.best_accuracy) == (3, 0.65, 0.8)
    assert progress.waited == 2


def test_both_monitors_on_the_loss_agree() -> None:
    recipe = load_recipe("efficientnet_lite0")
    progress = Progress()
    for loss, better in ((0.7, True), (0.8, False), (0.6, True)):
        found = note(progress, recipe, recipe.phases[0], {"val_loss": loss, "val_accuracy": 0.5})
        assert found == (better, better)


def test_a_model_that_is_always_wrong_still_has_a_best_epoch() -> None:
    progress = Progress()
    assert _epochs(progress, (9.0, 0.0)) == [(True, True)]


def test_the_rate_falls_on_a_plateau_and_never_below_its_least() -> None:
    plateau = Plateau(factor=0.2, patience=3, min_learning_rate=1e-6)
    progress, rate, rates = Progress(), 1e-4, []
    for loss in [0.5, *[0.5] * 9]:
        rate = lowered_rate(progress, plateau, rate, loss)
        rates.append(rate)
    expected = [1e-4] * 3 + [2e-5] * 3 + [4e-6] * 3 + [1e-6]
    assert rates == pytest.approx(expected)
    # A loss that falls starts the wait anew.
    assert lowered_rate(progress, plateau, 1e-4, 0.4) == 1e-4
    assert progress.plateau_waited == 0


def test_another_size_finds_its_own_best_and_the_same_size_does_not() -> None:
    progress = Progress()
    _epochs(progress, (0.3, 0.9))
    next_phase(progress, RECIPE)
    assert (progress.phase, progress.epoch, progress.waited) == (1, 0, 0)
    assert _epochs(progress, (0.4, 0.8)) == [(False, False)]
    recipe = load_recipe("efficientnet_lite0")
    progress = Progress(phase=1, best_loss=0.1, best_accuracy=1.0, stop_value=0.1)
    next_phase(progress, recipe)
    found = note(progress, recipe, recipe.phases[2], {"val_loss": 0.5, "val_accuracy": 0.8})
    assert found == (True, True)
    next_phase(progress, recipe)
    assert progress.finished
