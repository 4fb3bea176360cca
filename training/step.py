"""One step of a recipe at its full size, for those that are too long for the machine at hand."""

import time
from typing import Any

import numpy as np

from training.fit import compile_for, trainable_outputs
from training.model import LOGITS, MASK_LOGITS, build, unfreeze
from training.processor import processor
from training.recipe import Recipe


def measure_step(recipe: Recipe) -> dict[str, Any]:
    """Trains the last phase for two steps, with the recipe's batch and resolution, on noise.

    Args:
        recipe: its weights are drawn at random, which changes nothing about a step.

    Returns:
        ``parameters`` and ``trainable``, how many there are; ``batch`` and ``resolution``;
        ``seconds`` of the second step, as the first one traces; ``processor``: whose.
    """
    phase = recipe.phases[-1]
    model = build(recipe, pretrained=False)
    unfreeze(model, recipe, phase)
    fitted = trainable_outputs(model, recipe)
    compile_for(fitted, recipe, phase, steps=2)
    slices, allowed = noise(recipe, phase.resolution)
    targets = {LOGITS: allowed}
    if recipe.mask is not None:
        side = phase.resolution // 2
        targets[MASK_LOGITS] = np.zeros((recipe.batch_size, side, side), np.float32)
    fitted.train_on_batch(slices, targets)
    start = time.perf_counter()
    fitted.train_on_batch(slices, targets)
    seconds = time.perf_counter() - start
    return {
        "processor": processor(),
        "parameters": float(model.count_params()),
        "trainable": float(sum(np.prod(v.shape) for v in model.trainable_variables)),
        "batch": float(recipe.batch_size),
        "resolution": float(phase.resolution),
        "seconds": seconds,
    }


def noise(recipe: Recipe, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A batch of slices, float32 (batch, side, side), and their classes, (batch, classes)."""
    rng = np.random.default_rng(0)
    slices = rng.uniform(0, 255, (recipe.batch_size, side, side)).astype(np.float32)
    classes = rng.integers(0, len(recipe.classes), recipe.batch_size)
    return slices, np.eye(len(recipe.classes), dtype=np.float32)[classes]
