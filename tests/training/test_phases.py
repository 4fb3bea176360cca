"""What learns in each phase, and one step of each recipe of the field at its full size."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="training needs TensorFlow")

import keras  # noqa: E402

from training.catalogue import load_recipe  # noqa: E402
from training.fit import compile_for, trainable_outputs  # noqa: E402
from training.model import EMBEDDING, LOGITS, NETWORK, build, unfreeze  # noqa: E402
from training.step import measure_step, noise  # noqa: E402

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow(25)]

BATCH = 2
"""Slices in a step. What learns is the same with a recipe's 16 or 32, which take most of a minute."""


def _counts(model: keras.Model) -> tuple[int, int]:
    learning = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    return model.count_params(), learning


def test_vgg16_has_the_parameters_of_the_field() -> None:
    recipe = load_recipe("vgg16_binary", {"weights": "none"})
    model = build(recipe)
    unfreeze(model, recipe, recipe.phases[0])
    assert _counts(model) == (14_846_273, 131_585)
    unfreeze(model, recipe, recipe.phases[1])
    # Block 5 has three convolutions of 512 to 512 channels.
    assert _counts(model) == (14_846_273, 131_585 + 3 * (9 * 512 * 512 + 512))


def test_the_last_forty_layers_of_resnet50_learn_but_for_batchnorm() -> None:
    recipe = load_recipe("resnet50_4class", {"weights": "none", "resolution": 64})
    model = build(recipe)
    unfreeze(model, recipe, recipe.phases[1])
    layers = model.get_layer(NETWORK).get_layer("resnet50").layers
    learning = [number for number, layer in enumerate(layers) if layer.trainable_variables]
    assert min(learning) >= len(layers) - 40
    last = layers[-40:]
    norms = [layer for layer in last if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms
    assert not any(layer.trainable for layer in norms)
    convolutions = [layer for layer in last if isinstance(layer, keras.layers.Conv2D)]
    assert all(layer.trainable for layer in convolutions)


def test_from_scratch_batchnorm_learns() -> None:
    recipe = load_recipe("resnet50_scratch")
    model = build(recipe)
    unfreeze(model, recipe, recipe.phases[0])
    assert any("bn/gamma" in variable.path for variable in model.trainable_variables)


@pytest.mark.parametrize("name", ["vgg16_binary", "resnet50_4class", "efficientnetb4_binary"])
def test_a_step_of_the_full_recipe_at_its_full_size(name: str) -> None:
    """The last phase, at the recipe's resolution; ``training compare --step`` takes its whole batch."""
    recipe = load_recipe(name, {"weights": "none"})
    phase = recipe.phases[-1]
    model = build(recipe)
    unfreeze(model, recipe, phase)
    fitted = trainable_outputs(model, recipe)
    compile_for(fitted, recipe, phase, steps=1)
    # To trace more than VGG16's few layers takes longer than a step of all of them does.
    fitted.run_eagerly = name != "vgg16_binary"
    before = {variable.path: variable.numpy() for variable in model.variables}
    slices, allowed = (rows[:BATCH] for rows in noise(recipe, phase.resolution))
    loss = fitted.train_on_batch(slices, {LOGITS: allowed})
    assert np.isfinite(np.asarray(loss)).all()
    learning = {variable.path for variable in model.trainable_variables}
    changed = {
        variable.path
        for variable in model.variables
        if not np.array_equal(before[variable.path], variable.numpy())
    }
    weights = {variable.path for variable in model.weights}
    # Of the frozen layers nothing moves, BatchNorm's statistics included.
    assert changed & weights <= learning
    assert len(changed & learning) > 0.8 * len(learning)


def test_a_step_is_measured() -> None:
    recipe = load_recipe("baseline_cnn")
    found = measure_step(recipe)
    assert (found["batch"], found["resolution"]) == (
        recipe.batch_size,
        recipe.phases[-1].resolution,
    )
    assert found["parameters"] == found["trainable"] == build(recipe).count_params()
    assert found["seconds"] > 0


def test_the_embedding_sees_how_a_slice_lies() -> None:
    model = build(load_recipe("efficientnet_lite0"), 64)
    slices = np.zeros((1, 64, 64), np.float32)
    slices[0, 8:24, 20:50] = 200
    lying = [np.asarray(model(view)[EMBEDDING])[0] for view in (slices, slices[:, ::-1])]
    levels = 24 + 40 + 112 + 320
    assert lying[0].shape == (levels + 112,)
    # What the upper half has more, in the mirrored slice the lower half has; the whole is the same.
    halves = np.corrcoef(lying[0][levels:], lying[1][levels:])[0, 1]
    whole = np.corrcoef(lying[0][:levels], lying[1][:levels])[0, 1]
    assert halves < -0.5
    assert whole > 0.8
