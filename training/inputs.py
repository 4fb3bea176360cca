"""How grey levels enter a backbone: as what its pretrained weights were trained on.

In two steps, so that an 8-bit model can take the pixel itself: a scale with a whole zero point,
outside the network, and what differs from channel to channel, inside it.
"""

from typing import Any, Final, NamedTuple

import keras
import tensorflow as tf

from training.errors import RecipeError
from training.recipe import Preprocessing

SCALE: Final = "scale"
"""Name of the layer that holds the first step."""


class Input(NamedTuple):
    """One way.

    Attributes:
        scale, zero: grey levels become ``(x - zero) * scale``.
        factors, offsets: a channel becomes what comes then, times its factor, plus its offset.
    """

    scale: float
    zero: float
    factors: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offsets: tuple[float, float, float] = (0.0, 0.0, 0.0)


_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INPUTS: Final[dict[Preprocessing, Input]] = {
    # TensorFlow TPU repository, EfficientNet, lite variant.
    "lite": Input(1 / 128, 127.0),
    "unit": Input(1 / 255, 0.0),
    # The other three: keras.applications.imagenet_utils.preprocess_input, by the names of its modes.
    "tf": Input(1 / 127.5, 0.0, offsets=(-1.0, -1.0, -1.0)),
    "caffe": Input(1.0, 0.0, offsets=(-103.939, -116.779, -123.68)),
    "torch": Input(
        1 / 255,
        0.0,
        factors=tuple(1 / d for d in _DEVIATION),  # type: ignore[arg-type]  # of three
        offsets=tuple(-m / d for m, d in zip(_MEAN, _DEVIATION, strict=True)),  # type: ignore[arg-type]
    ),
}


def scale_layer(mode: Preprocessing) -> keras.Layer:
    """The first step."""
    way = INPUTS[mode]
    return keras.layers.Rescaling(way.scale, -way.zero * way.scale, name=SCALE)


def channels(grey: Any, mode: Preprocessing, count: int) -> Any:
    """The second step: (N, H, W, 1) to (N, H, W, count), a grey level in each of them.

    Raises:
        RecipeError: one channel cannot be normalised as three are.
    """
    way = INPUTS[mode]
    plain = way.factors == (1.0, 1.0, 1.0) and way.offsets == (0.0, 0.0, 0.0)
    if count == 1:
        if not plain:
            raise RecipeError(f"a backbone of one channel cannot take {mode} preprocessing")
        return grey
    if plain:
        return keras.layers.Concatenate(name="rgb")([grey] * count)

    def normalised(x: Any) -> Any:
        # A convolution, since a converter moves a plain factor into the input's scale.
        factors = tf.reshape(tf.constant(way.factors, x.dtype), (1, 1, 1, count))
        return tf.nn.conv2d(x, factors, 1, "VALID") + tf.constant(way.offsets, x.dtype)

    return keras.layers.Lambda(normalised, name="rgb")(grey)
