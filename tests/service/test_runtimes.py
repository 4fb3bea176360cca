"""The runtimes: LiteRT on real slices, TensorFlow in agreement with it, and which one is chosen."""

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.decoding import decode
from contract.manifest import RuntimeName
from contract.preprocessing import preprocess
from contract.sealing import SealedFile
from contract.store import ModelStore
from contract.version import StoredVersion
from service.choices import Device, RuntimeChoice
from service.errors import RuntimeUnusable
from service.runtimes.base import served_shapes
from service.runtimes.litert import LiteRtRuntime
from service.runtimes.selection import choose, open_runtime
from service.runtimes.tensorflow import padded_sizes
from service.settings import Settings, SettingsError
from tests.support.service import MODEL, newest, run_python, settings_for

MAX_DIFFERENCE = 0.05
BOTH: frozenset[RuntimeName] = frozenset(get_args(RuntimeName))

needs_tensorflow = pytest.mark.skipif(
    find_spec("tensorflow") is None, reason="TensorFlow is not installed; the service runs without"
)


@pytest.fixture(scope="module")
def stored(model_store: Path) -> StoredVersion:
    return ModelStore(model_store).load(MODEL, newest(model_store))


@pytest.fixture(scope="module")
def batch(slices: list[Path], stored: StoredVersion) -> NDArray[np.uint8]:
    """Eight real slices, preprocessed."""
    spec = stored.preprocess
    return np.stack([preprocess(decode(path.read_bytes()).pixels, spec) for path in slices])


def litert(stored: StoredVersion, interpreters: int) -> LiteRtRuntime:
    file = stored.files[stored.manifest.artifacts["litert"]]
    return LiteRtRuntime(file, served_shapes(stored.manifest), interpreters)


def test_litert_gives_probabilities(stored: StoredVersion, batch: NDArray[np.uint8]) -> None:
    runtime = litert(stored, 2)
    output = runtime.predict(batch).probabilities
    runtime.close()
    assert output.dtype == np.float32
    assert output.shape == (len(batch), len(stored.manifest.classes))
    assert output.min() >= 0
    assert output.sum(axis=1) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("interpreters", [1, 2, 3, 16])
def test_litert_gives_each_image_its_own_row(
    stored: StoredVersion, batch: NDArray[np.uint8], interpreters: int
) -> None:
    alone = litert(stored, 1)
    expected = np.concatenate([alone.predict(image[None]).probabilities for image in batch])
    runtime = litert(stored, interpreters)
    for size in (1, 2, 3, len(batch)):
        np.testing.assert_array_equal(runtime.predict(batch[:size]).probabilities, expected[:size])
    runtime.close()
    alone.close()


@pytest.mark.parametrize("interpreters", [2, 3, 16])
def test_several_threads_for_one_image_change_nothing(
    stored: StoredVersion, batch: NDArray[np.uint8], interpreters: int
) -> None:
    runtime = litert(stored, interpreters)
    assert runtime.solo is not None
    for image in batch:
        expected = runtime.predict(image[None]).arrays
        found = runtime.solo.predict(image[None]).arrays
        assert found.keys() == expected.keys()
        for name, array in found.items():
            np.testing.assert_array_equal(array, expected[name])
    runtime.close()


def test_one_core_has_no_threads_to_share(stored: StoredVersion) -> None:
    runtime = litert(stored, 1)
    assert runtime.solo is None
    runtime.close()


def test_litert_refuses_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"junk" * 100)
    with pytest.raises(RuntimeUnusable, match="cannot read the model: The model is not a valid"):
        LiteRtRuntime(SealedFile(path), {"probabilities": (4,)}, 1)


@pytest.fixture(scope="module")
def in_tensorflow(model_store: Path) -> dict[str, Any]:
    """What TensorFlow does, in a process of its own: its warnings and threads are not these tests'."""
    output = run_python("-m", "tests.support.tensorflow_settings", str(model_store))
    return dict(json.loads(output))


@pytest.mark.tensorflow
@pytest.mark.slow(30)
@needs_tensorflow
def test_both_runtimes_agree_on_real_slices(
    in_tensorflow: dict[str, Any], slices: list[Path]
) -> None:
    rows = in_tensorflow["agreement"]
    assert len(rows) == len(slices)
    for litert_label, tensorflow_label, difference in rows:
        assert litert_label == tensorflow_label
        assert difference <= MAX_DIFFERENCE


@pytest.mark.tensorflow
@pytest.mark.slow
@needs_tensorflow
def test_settings_of_tensorflow(in_tensorflow: dict[str, Any]) -> None:
    found = in_tensorflow
    # Nothing but the padded sizes reaches TensorFlow, and after the warm-up nothing is traced anew.
    assert found["shapes"] == padded_sizes(4)
    assert found["traces"] == [len(padded_sizes(2))] * 2
    assert found["xla"] < 1e-4
    # Something changes, but not much: the answer is that of 8 bits of mantissa.
    assert 0 < found["mixed"] < MAX_DIFFERENCE
    # Not a silent CPU run, whether there is no GPU or the model does not run on it.
    assert found["gpu"] == "BRAIN_DEVICE is gpu, and TensorFlow sees no GPU"
    assert "to run on a GPU" in found["elsewhere"]
    assert "comes from a CPU" in found["elsewhere"]


def test_a_gpu_is_not_for_litert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAIN_DEVICE", "gpu")
    monkeypatch.setenv("BRAIN_RUNTIME", "litert")
    with pytest.raises(SettingsError, match="BRAIN_RUNTIME is litert"):
        Settings.from_environment()


def test_asking_for_tensorflow_without_it_is_a_clear_error(
    stored: StoredVersion, model_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None makes the import fail as if it were not installed.
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    settings = settings_for(model_store, runtime=RuntimeChoice.TENSORFLOW)
    with pytest.raises(RuntimeUnusable, match="not installed"):
        open_runtime(settings, stored)


def test_version_without_the_artifact_is_a_clear_error(
    stored: StoredVersion, model_store: Path
) -> None:
    artifacts = {"tensorflow": "saved_model"}
    manifest = stored.manifest.model_copy(update={"artifacts": artifacts})
    version = replace(stored, manifest=manifest)
    with pytest.raises(RuntimeUnusable, match="no artifact"):
        open_runtime(settings_for(model_store), version)


@pytest.mark.parametrize(
    ("choice", "device", "artifacts", "node", "chosen"),
    [
        pytest.param("litert", "auto", BOTH, "nvidia0", "litert", id="litert asked for"),
        pytest.param("tensorflow", "auto", BOTH, None, "tensorflow", id="tensorflow, no GPU"),
        pytest.param("auto", "auto", BOTH, None, "litert", id="auto, no GPU"),
        pytest.param("auto", "auto", BOTH, "nvidiactl", "litert", id="driver without a GPU"),
        pytest.param(
            "auto", "auto", frozenset({"litert"}), "nvidia0", "litert", id="no SavedModel"
        ),
        pytest.param("auto", "gpu", BOTH, None, "tensorflow", id="GPU asked for, none there"),
        pytest.param("auto", "cpu", BOTH, "nvidia0", "litert", id="GPU to be left alone"),
        pytest.param("tensorflow", "cpu", BOTH, "nvidia0", "tensorflow", id="TensorFlow on a CPU"),
    ],
)
def test_choice_of_runtime(
    tmp_path: Path,
    choice: str,
    device: str,
    artifacts: frozenset[RuntimeName],
    node: str | None,
    chosen: str,
) -> None:
    if node is not None:
        (tmp_path / node).touch()
    assert choose(RuntimeChoice(choice), Device(device), artifacts, tmp_path) == chosen


@pytest.mark.parametrize(("visible", "chosen"), [(True, "tensorflow"), (False, "litert")])
def test_auto_asks_tensorflow_only_where_there_may_be_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: bool, chosen: str
) -> None:
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr("service.runtimes.selection.find_spec", lambda _: object())
    monkeypatch.setattr("service.runtimes.tensorflow.gpu_is_visible", lambda: visible)
    assert choose(RuntimeChoice.AUTO, Device.AUTO, BOTH, tmp_path) == chosen


def test_auto_without_tensorflow_is_litert_even_with_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr("service.runtimes.selection.find_spec", lambda _: None)
    assert choose(RuntimeChoice.AUTO, Device.AUTO, BOTH, tmp_path) == "litert"


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [
        (1, [1]),
        (2, [1, 2]),
        (8, [1, 2, 4, 8]),
        (12, [1, 2, 4, 8, 12]),
        (33, [1, 2, 4, 8, 16, 32, 33]),
    ],
)
def test_batches_are_padded_to_few_sizes(largest: int, sizes: list[int]) -> None:
    assert padded_sizes(largest) == sizes
