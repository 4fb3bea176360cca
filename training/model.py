"""Backbone and head as the one graph that is trained, exported and served."""

from typing import Final

import keras

from training import backbones
from training.errors import RecipeError
from training.recipe import Phase, Recipe

CLASSIFIER: Final = "classifier"
_BACKBONES: Final = {
    "efficientnet_lite0": (
        backbones.efficientnet_lite0,
        backbones.load_efficientnet_lite0_imagenet,
    ),
}


def build(recipe: Recipe, size: int | None = None, pretrained: bool = True) -> keras.Model:
    """Builds the trainable model.

    Args:
        recipe: names the backbone and the classes.
        size: input side in pixels; None leaves it open, as training at several sizes needs.
        pretrained: load the recipe's weights.

    Returns:
        Model from grey levels, float32 (N, size, size) in 0 to 255, to logits (N, classes).

    Raises:
        RecipeError: the backbone is unknown.
        PretrainedWeightsError: the weights cannot be had.
    """
    if recipe.backbone not in _BACKBONES:
        raise RecipeError(f"no backbone {recipe.backbone!r}; there are {', '.join(_BACKBONES)}")
    make, load = _BACKBONES[recipe.backbone]
    backbone = make(size)
    if pretrained:
        load(backbone)
    inputs = keras.Input((size, size), name="grey")
    x = keras.ops.expand_dims(inputs, -1)
    x = keras.layers.Rescaling(
        1 / backbones.LITE_INPUT_SCALE, -backbones.LITE_INPUT_MEAN / backbones.LITE_INPUT_SCALE
    )(x)
    x = backbone(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(recipe.dropout, seed=recipe.seed, name="dropout")(x)
    # float32 whatever the policy: softmax and loss lose too much in half precision.
    logits = keras.layers.Dense(len(recipe.classes), name=CLASSIFIER, dtype="float32")(x)
    return keras.Model(inputs, logits, name=recipe.name)


def unfreeze(model: keras.Model, recipe: Recipe, phase: Phase) -> None:
    """Lets the layers of a phase learn, by name, and nothing else but the classifier.

    Raises:
        RecipeError: a name in the phase fits no layer.
    """
    backbone = model.get_layer(recipe.backbone)
    backbone.trainable = True
    unused = set(phase.trainable)
    for layer in backbone.layers:
        fits = {prefix for prefix in phase.trainable if layer.name.startswith(prefix)}
        layer.trainable = bool(fits)
        unused -= fits
    if unused:
        raise RecipeError(f"phase {phase.name}: no layer is named {', '.join(sorted(unused))}…")
