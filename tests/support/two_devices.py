"""Trains an epoch on one device and on two, and prints how far apart they end, a line of JSON.

Run as a program of its own: how many devices a processor is taken for is fixed when TensorFlow starts.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from training.callbacks import AverageWeights
from training.catalogue import load_recipe
from training.fit import compile_for, trainable_outputs
from training.model import LOGITS, build
from training.recipe import Recipe
from training.strategy import Strategy, StrategyName

BATCH = 8
SIDE = 32
ROWS = 2 * BATCH + 1
"""The last batch has one row for two devices."""


def small() -> Recipe:
    """A recipe of one small network, without chance."""
    recipe = load_recipe("baseline_cnn", {"epochs": 1, "resolution": SIDE})
    head = recipe.head.model_copy(update={"dense": (8,)})
    return recipe.model_copy(update={"head": head, "dropout": 0.0, "average_momentum": 0.9})


def trained(recipe: Recipe, strategy: Strategy) -> tuple[list[np.ndarray], dict[str, float]]:
    """Averaged weights after an epoch, and figures of validation."""
    keras.utils.set_random_seed(recipe.seed)
    rng = np.random.default_rng(0)
    slices = rng.uniform(0, 255, (ROWS, SIDE, SIDE)).astype(np.float32)
    classes = np.eye(len(recipe.classes), dtype=np.float32)[rng.integers(0, 4, ROWS)]
    rows = tf.data.Dataset.from_tensor_slices((slices, {LOGITS: classes}))
    with strategy.scope():
        fitted = trainable_outputs(build(recipe, SIDE), recipe)
        compile_for(fitted, recipe, recipe.phases[0], steps=3)
        average = AverageWeights(fitted, recipe.average_momentum)
        strategy.fit(fitted, rows.batch(BATCH), [average])
        with average.applied():
            found = strategy.evaluate(fitted, rows.take(BATCH + 3).batch(BATCH))
            return fitted.get_weights(), found


def main() -> dict[str, float]:
    """Replicas of the second run, and the largest differences in weights and in figures."""
    processor = tf.config.list_physical_devices("CPU")[0]
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(processor, halves)
    recipe = small()
    alone, ours = trained(recipe, Strategy(StrategyName.NONE))
    strategy = Strategy(StrategyName.MIRRORED)
    # Which takes all GPUs, or the first processor alone.
    strategy._strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    together, theirs = trained(recipe, strategy)
    return {
        "replicas": strategy.replicas,
        "weights": max(float(np.abs(a - b).max()) for a, b in zip(alone, together, strict=True)),
        "figures": max(abs(ours[name] - theirs[name]) for name in ours),
    }


if __name__ == "__main__":
    result, sys.stdout = sys.stdout, sys.stderr
    result.write(json.dumps(main()) + "\n")
