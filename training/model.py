"""Backbone, classifier and decoder as the one graph that is trained, exported and served."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from training.backbones import backbone
from training.errors import RecipeError, RunError
from training.inputs import channels, scale_layer
from training.recipe import ALL_LAYERS, Head, Mask, Phase, Recipe
from training.weights import load_weights

CLASSIFIER: Final = "classifier"
NETWORK: Final = "network"
"""The layer that holds everything from the scaled slice on."""
LOGITS, MASK_LOGITS, EMBEDDING = "logits", "mask_logits", "embedding"
FEATURES: Final = "features"
"""The backbone's, (N, h, w, d), of which the head makes the logits."""
DECODER_LEVELS: Final = 4


def build(recipe: Recipe, size: int | None = None, pretrained: bool = True) -> keras.Model:
    """Builds the trainable model.

    Args:
        recipe: names the backbone, the classes and the heads.
        size: input side in pixels; None leaves it open, as training at several sizes needs, but for a
            flatten head, whose size the recipe says.
        pretrained: load the recipe's weights.

    Returns:
        Model from grey levels, float32 (N, size, size) in 0 to 255, to ``logits`` (N, classes),
        ``features`` (N, h, w, c), ``embedding`` (N, d) and, with a mask head, ``mask_logits``
        (N, size / 2, size / 2).

    Raises:
        RecipeError: the backbone is unknown, or too short for a mask head.
        PretrainedWeightsError: the weights cannot be had.
    """
    if size is None and recipe.head.pooling == "flatten":
        size = recipe.served_resolution
    kind = backbone(recipe.backbone)
    plain = kind.make(size)
    if pretrained:
        load_weights(plain, recipe.backbone, recipe.weights)
    extractor = kind.extractor(plain, recipe.backbone)
    scaled = keras.Input((size, size), name="slices")
    grey = keras.ops.expand_dims(scaled, -1)
    features, *levels = extractor(channels(grey, recipe.preprocessing, kind.channels))
    outputs = {
        LOGITS: _logits(features, recipe),
        EMBEDDING: _embedding(levels),
        FEATURES: features,
    }
    if recipe.mask is not None:
        if len(levels) < DECODER_LEVELS:
            raise RecipeError(f"{recipe.backbone} is too short for a mask head")
        outputs[MASK_LOGITS] = _decoder(levels, recipe.mask)
    network = keras.Model(scaled, outputs, name=NETWORK)
    inputs = keras.Input((size, size), name="grey")
    return keras.Model(inputs, network(scale_layer(recipe.preprocessing)(inputs)), name=recipe.name)


def classifying_head(model: keras.Model) -> keras.Model:
    """The part of a model of :func:`build` from ``features`` (N, h, w, c) to ``logits`` (N, classes).

    It shares the model's weights.
    """
    outputs = model.get_layer(NETWORK).output
    return keras.Model(outputs[FEATURES], outputs[LOGITS], name="head")


def _logits(features: Any, recipe: Recipe) -> Any:
    head: Head = recipe.head
    if head.pooling == "average":
        x = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    else:
        x = keras.layers.Flatten(name="flatten")(features)
    for number, units in enumerate(head.dense):
        x = keras.layers.Dense(units, activation="relu", name=f"dense{number}")(x)
    x = keras.layers.Dropout(recipe.dropout, seed=recipe.seed, name="dropout")(x)
    # float32 whatever the policy: softmax and loss lose too much in half precision.
    units = len(recipe.classes) if head.output == "softmax" else 1
    logits = keras.layers.Dense(units, name=CLASSIFIER, dtype="float32")(x)
    if head.output == "softmax":
        return logits
    # The softmax of 0 and z is the sigmoid of z, and so is their loss.
    both = [keras.ops.zeros_like(logits), logits]
    tumor_first = recipe.classes[0] in recipe.tumor_classes
    return keras.ops.concatenate(both[::-1] if tumor_first else both, axis=-1)


def _embedding(levels: list[Any]) -> Any:
    """What a slice looks like, and how it lies.

    Mean features of every level, from edges to parts, and of the last but one what the upper half has
    more than the lower one: a mean over all places hardly moves when a slice is turned.
    """
    pools = [keras.layers.GlobalAveragePooling2D(name=f"pool{n}")(x) for n, x in enumerate(levels)]
    halves = keras.layers.Lambda(_upper_less_lower, name="halves")(levels[-2:][0])
    return keras.layers.Concatenate(name=EMBEDDING)([*pools, halves])


def _upper_less_lower(features: Any) -> Any:
    """(N, h, w, c) to (N, c)."""
    half = keras.ops.shape(features)[1] // 2
    upper, lower = features[:, :half], features[:, -half:]
    return keras.ops.mean(upper, axis=(1, 2)) - keras.ops.mean(lower, axis=(1, 2))


def _decoder(levels: list[Any], settings: Mask) -> Any:
    """A light feature pyramid, from 1/32 to 1/4 of the resolution; its last step is a shuffle to 1/2.

    Depthwise separable convolutions and additions, all of which LiteRT runs in 8 bits.
    """
    wide, narrow = settings.channels, settings.channels // 2
    fine, *_, coarse = levels
    x = _relu_conv(coarse, wide, "decoder32")
    for level, stride in ((levels[2], 16), (levels[1], 8)):
        x = keras.layers.UpSampling2D(interpolation="bilinear", name=f"decoder{stride}_up")(x)
        lateral = keras.layers.Conv2D(wide, 1, name=f"decoder{stride}_lateral")(level)
        x = keras.layers.Add(name=f"decoder{stride}_add")([x, lateral])
        for number in range(2):
            x = _separable(x, wide, f"decoder{stride}_{number}")
    x = keras.layers.Conv2D(narrow, 1, name="decoder4_reduce")(x)
    x = keras.layers.UpSampling2D(interpolation="bilinear", name="decoder4_up")(x)
    lateral = keras.layers.Conv2D(narrow, 1, name="decoder4_lateral")(fine)
    x = keras.layers.Add(name="decoder4_add")([x, lateral])
    for number in range(2):
        x = _separable(x, narrow, f"decoder4_{number}")
    # Starts at the share of tumour that most cells have: next to none.
    cells = keras.layers.Conv2D(
        4, 1, name="decoder_cells", bias_initializer=keras.initializers.Constant(-3.0)
    )(x)
    return keras.layers.Lambda(_shuffle, name=MASK_LOGITS, dtype="float32")(cells)


def _shuffle(cells: Any) -> Any:
    """(N, h, w, 4) to (N, 2h, 2w): each cell's four values become its quarters."""
    import tensorflow as tf

    return tf.nn.depth_to_space(cells, 2)[..., 0]


def _relu_conv(x: Any, filters: int, name: str) -> Any:
    x = keras.layers.Conv2D(filters, 1, name=name)(x)
    return keras.layers.ReLU(max_value=6.0, name=f"{name}_relu")(x)


def _separable(x: Any, filters: int, name: str) -> Any:
    x = keras.layers.DepthwiseConv2D(3, padding="same", name=f"{name}_depthwise")(x)
    return _relu_conv(x, filters, name)


def set_weights(model: keras.Model, weights: Sequence[np.ndarray], run: Path) -> None:
    """Fills a model with a run's weights.

    Raises:
        RunError: they are those of another model.
    """
    try:
        model.set_weights(weights)
    except ValueError as error:
        message = f"the weights in {run} are of another model than this release builds: {error}"
        raise RunError(message) from error


def require_layers(model: keras.Model, recipe: Recipe) -> None:
    """Asks whether the backbone has what each phase lets learn.

    Raises:
        RecipeError: a name in a phase fits no layer, or more layers are to learn than there are.
    """
    layers = model.get_layer(NETWORK).get_layer(recipe.backbone).layers
    for phase in recipe.phases:
        unused = [
            prefix
            for prefix in phase.trainable
            if prefix != ALL_LAYERS and not any(layer.name.startswith(prefix) for layer in layers)
        ]
        if unused:
            raise RecipeError(f"phase {phase.name}: no layer is named {', '.join(sorted(unused))}…")
        if phase.trainable_last > len(layers):
            raise RecipeError(
                f"phase {phase.name}: trainable_last is {phase.trainable_last}, and "
                f"{recipe.backbone} has {len(layers)} layers"
            )


def unfreeze(model: keras.Model, recipe: Recipe, phase: Phase) -> None:
    """Lets the layers of a phase learn, by name or from the end, and of the rest only the heads.

    BatchNorm layers that keep their statistics learn nothing: a frozen one is in inference mode.
    Whether there are such layers is asked before; see :func:`require_layers`.
    """
    extractor = model.get_layer(NETWORK).get_layer(recipe.backbone)
    extractor.trainable = True
    first_of_last = len(extractor.layers) - phase.trainable_last
    for number, layer in enumerate(extractor.layers):
        fits = any(layer.name.startswith(prefix) for prefix in phase.trainable)
        learns = fits or ALL_LAYERS in phase.trainable or number >= first_of_last
        kept = recipe.batch_norm == "inference"
        if kept and isinstance(layer, keras.layers.BatchNormalization):
            learns = False
        layer.trainable = learns
