"""Feature extractors as Keras graphs.

A backbone of one channel takes grey slices as they are: with three equal channels a stem that saw
RGB is the same function as a one-channel stem with its kernel summed over the input channels, so
pretrained weights keep their meaning. Where the channels are normalised differently, a backbone has
three.

EfficientNet-Lite and MobileNetV2 have no BatchNorm layers here. Their stored BatchNorm, which would
stay in inference mode anyway (batches of 32 slices would wreck ImageNet's moving statistics), is
folded into the convolution before it: the same function, and a training step takes about half the
time on a CPU.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import keras

from training.errors import RecipeError


class Stage(NamedTuple):
    """A row of Table 1 in Tan and Le, EfficientNet (ICML 2019): MobileNetV2's Table 2 reads alike."""

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
MOBILENET_STAGES = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 32, 3, 2, 3),
    Stage(6, 64, 4, 2, 3),
    Stage(6, 96, 3, 1, 3),
    Stage(6, 160, 3, 2, 3),
    Stage(6, 320, 1, 1, 3),
)
STEM_FILTERS, HEAD_FILTERS = 32, 1280
"""Of both."""


class Backbone(NamedTuple):
    """A feature extractor.

    Attributes:
        make: from an input side in pixels (None leaves it open) to a model from normalised slices
            (N, side, side, channels) to features (N, h, w, d).
        channels: 1 or 3.
        levels: layers with 1/4, 1/8, 1/16 and 1/32 of the input's resolution; fewer where the
            backbone ends before.
        first: the layer that takes the normalised slice, where others come before it.
    """

    make: Callable[[int | None], keras.Model]
    channels: int
    levels: tuple[str, ...]
    first: str | None = None

    def extractor(self, plain: keras.Model, name: str) -> keras.Model:
        """What :attr:`make` made, from the normalised slice to the features and the levels."""
        start = plain.get_layer(self.first).input if self.first else plain.input
        levels = [plain.get_layer(level).output for level in self.levels]
        return keras.Model(start, [plain.output, *levels], name=name)


def backbone(name: str) -> Backbone:
    """The backbone of that name.

    Raises:
        RecipeError: there is none.
    """
    if name not in BACKBONES:
        raise RecipeError(f"no backbone {name!r}; there are {', '.join(BACKBONES)}")
    return BACKBONES[name]


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
    x = _inverted_residuals(inputs, LITE0_STAGES, _same)
    return keras.Model(inputs, x, name="efficientnet_lite0")


def mobilenet_v2(size: int | None = 224) -> keras.Model:
    """MobileNetV2 as torchvision has it: with a stride of two it pads evenly, Keras the far side.

    Args and returns as :func:`efficientnet_lite0`, from three channels.
    """
    inputs = keras.Input((size, size, 3), name="normalised")
    x = _inverted_residuals(inputs, MOBILENET_STAGES, _even)
    return keras.Model(inputs, x, name="mobilenet_v2")


_Convolution = Callable[[Any, str, int | None, int, int], Any]
"""Input, name, filters (None: depthwise), kernel and stride."""


def _same(x: Any, name: str, filters: int | None, kernel: int = 1, stride: int = 1) -> Any:
    if filters is None:
        return keras.layers.DepthwiseConv2D(kernel, stride, padding="same", name=name)(x)
    return keras.layers.Conv2D(filters, kernel, stride, padding="same", name=name)(x)


def _even(x: Any, name: str, filters: int | None, kernel: int = 1, stride: int = 1) -> Any:
    if stride == 1:
        return _same(x, name, filters, kernel)
    x = keras.layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    if filters is None:
        return keras.layers.DepthwiseConv2D(kernel, stride, name=name)(x)
    return keras.layers.Conv2D(filters, kernel, stride, name=name)(x)


def _inverted_residuals(inputs: Any, stages: tuple[Stage, ...], conv: _Convolution) -> Any:
    x = _relu6(conv(inputs, "stem", STEM_FILTERS, 3, 2), "stem")
    for number, stage in enumerate(stages):
        for repeat in range(stage.repeats):
            x = _inverted_residual(x, f"block{number}_{repeat}", stage, repeat == 0, conv)
    return _relu6(conv(x, "head", HEAD_FILTERS, 1, 1), "head")


def _inverted_residual(x: Any, name: str, stage: Stage, first: bool, conv: _Convolution) -> Any:
    shortcut, width = x, x.shape[-1]
    if stage.expansion > 1:
        expand = f"{name}_expand"
        x = _relu6(conv(x, expand, width * stage.expansion, 1, 1), expand)
    stride = stage.stride if first else 1
    depthwise = f"{name}_depthwise"
    x = _relu6(conv(x, depthwise, None, stage.kernel, stride), depthwise)
    x = conv(x, f"{name}_project", stage.filters, 1, 1)
    return keras.layers.Add(name=f"{name}_add")([shortcut, x]) if not first else x


def baseline_cnn(size: int | None = 112) -> keras.Model:
    """Two convolution layers, for comparison: (N, size, size, 1) to (N, size/4, size/4, 64)."""
    x = inputs = keras.Input((size, size, 1), name="normalised")
    for number, filters in enumerate((32, 64), start=1):
        x = keras.layers.Conv2D(
            filters, 3, padding="same", activation="relu", name=f"block{number}_conv"
        )(x)
        x = keras.layers.MaxPooling2D(name=f"block{number}_pool")(x)
    return keras.Model(inputs, x, name="baseline_cnn")


def vgg16(size: int | None = 224) -> keras.Model:
    """VGG16 without its top, from three channels."""
    return keras.applications.VGG16(include_top=False, weights=None, input_shape=(size, size, 3))


def resnet50(size: int | None = 224) -> keras.Model:
    """ResNet50 (version 1) without its top, from three channels."""
    return keras.applications.ResNet50(include_top=False, weights=None, input_shape=(size, size, 3))


def efficientnet_b4(size: int | None = 224) -> keras.Model:
    """EfficientNetB4 without its top, from three channels.

    Keras's own model begins with a normalisation, the one that is called ``torch`` here.
    """
    return keras.applications.EfficientNetB4(
        include_top=False, weights=None, input_shape=(size, size, 3)
    )


BACKBONES: Final = {
    "efficientnet_lite0": Backbone(
        efficientnet_lite0, 1, ("block1_1_add", "block2_1_add", "block4_2_add", "block6_0_project")
    ),
    "mobilenet_v2": Backbone(
        mobilenet_v2, 3, ("block1_1_add", "block2_2_add", "block4_2_add", "block6_0_project")
    ),
    "baseline_cnn": Backbone(baseline_cnn, 1, ("block2_pool",)),
    "vgg16": Backbone(vgg16, 3, ("block2_pool", "block3_pool", "block4_pool", "block5_pool")),
    "resnet50": Backbone(
        resnet50,
        3,
        ("conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
    ),
    "efficientnet_b4": Backbone(
        efficientnet_b4,
        3,
        ("block2d_add", "block3d_add", "block5f_add", "block7b_add"),
        first="stem_conv_pad",
    ),
}
