"""Backbone, classifier and decoder as the one graph that is trained, exported and served."""

from typing import Any, Final

import keras

from training import backbones
from training.errors import RecipeError
from training.recipe import Mask, Phase, Recipe

CLASSIFIER: Final = "classifier"
NETWORK: Final = "network"
"""The layer that holds everything from the normalised slice on."""
LOGITS, MASK_LOGITS, EMBEDDING = "logits", "mask_logits", "embedding"
_BACKBONES: Final = {
    "efficientnet_lite0": (
        backbones.efficientnet_lite0,
        backbones.load_efficientnet_lite0_imagenet,
    ),
}
_TAPS: Final = {
    "efficientnet_lite0": ("block1_1_add", "block2_1_add", "block4_2_add", "block6_0_project"),
}
"""Layers of a backbone with 1/4, 1/8, 1/16 and 1/32 of the input's resolution."""


def build(recipe: Recipe, size: int | None = None, pretrained: bool = True) -> keras.Model:
    """Builds the trainable model.

    Args:
        recipe: names the backbone, the classes and the second head.
        size: input side in pixels; None leaves it open, as training at several sizes needs.
        pretrained: load the recipe's weights.

    Returns:
        Model from grey levels, float32 (N, size, size) in 0 to 255, to ``logits`` (N, classes),
        ``embedding`` (N, d) and, with a mask head, ``mask_logits`` (N, size / 2, size / 2).

    Raises:
        RecipeError: the backbone is unknown.
        PretrainedWeightsError: the weights cannot be had.
    """
    if recipe.backbone not in _BACKBONES:
        raise RecipeError(f"no backbone {recipe.backbone!r}; there are {', '.join(_BACKBONES)}")
    make, load = _BACKBONES[recipe.backbone]
    plain = make(size)
    if pretrained:
        load(plain)
    taps = [plain.get_layer(name).output for name in _TAPS[recipe.backbone]]
    backbone = keras.Model(plain.input, [plain.output, *taps], name=recipe.backbone)
    normalised = keras.Input((size, size), name="slices")
    features, *levels = backbone(keras.ops.expand_dims(normalised, -1))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    dropped = keras.layers.Dropout(recipe.dropout, seed=recipe.seed, name="dropout")(x)
    # float32 whatever the policy: softmax and loss lose too much in half precision.
    outputs = {
        LOGITS: keras.layers.Dense(len(recipe.classes), name=CLASSIFIER, dtype="float32")(dropped),
        EMBEDDING: _embedding(levels),
    }
    if recipe.mask is not None:
        outputs[MASK_LOGITS] = _decoder(levels, recipe.mask)
    network = keras.Model(normalised, outputs, name=NETWORK)
    inputs = keras.Input((size, size), name="grey")
    scale = keras.layers.Rescaling(
        1 / backbones.LITE_INPUT_SCALE, -backbones.LITE_INPUT_MEAN / backbones.LITE_INPUT_SCALE
    )
    return keras.Model(inputs, network(scale(inputs)), name=recipe.name)


def _embedding(levels: list[Any]) -> Any:
    """Mean features of every level but the finest: what a slice looks like, from edges to parts."""
    pools = [keras.layers.GlobalAveragePooling2D(name=f"pool{n}")(x) for n, x in enumerate(levels)]
    return keras.layers.Concatenate(name=EMBEDDING)(pools)


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


def unfreeze(model: keras.Model, recipe: Recipe, phase: Phase) -> None:
    """Lets the layers of a phase learn, by name, and of the rest only the classifier and the decoder.

    Raises:
        RecipeError: a name in the phase fits no layer.
    """
    backbone = model.get_layer(NETWORK).get_layer(recipe.backbone)
    backbone.trainable = True
    unused = set(phase.trainable)
    for layer in backbone.layers:
        fits = {prefix for prefix in phase.trainable if layer.name.startswith(prefix)}
        layer.trainable = bool(fits)
        unused -= fits
    if unused:
        raise RecipeError(f"phase {phase.name}: no layer is named {', '.join(sorted(unused))}…")
