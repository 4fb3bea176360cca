"""Models with more than probabilities, in the runtimes: the tiny ones of tests/support/models.py."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.answer import Outputs
from contract.preprocessing import preprocess
from contract.store import ModelStore
from contract.version import StoredVersion
from service.choices import RuntimeChoice
from service.errors import RuntimeUnusable
from service.runtimes.base import served_shapes
from service.runtimes.litert import LiteRtRuntime
from service.runtimes.selection import open_runtime
from tests.support.models import (
    EXPLAINED,
    MAPS,
    NAME,
    QUANTISED,
    TWO_HEADS,
    embedding,
    head,
)
from tests.support.service import FakeRuntime, run_python, settings_for

BATCH = np.stack([preprocess(head()), preprocess(head(patch=None)), preprocess(head()[:, ::-1])])


def load(store: Path, version: int) -> StoredVersion:
    return ModelStore(store).load(NAME, version)


def predicted(store: Path, version: int, batch: NDArray[np.uint8] = BATCH) -> Outputs:
    runtime = open_runtime(settings_for(store), load(store, version))
    outputs = runtime.predict(batch)
    runtime.close()
    return outputs


def test_litert_gives_every_output_by_its_name(tiny_store: Path) -> None:
    outputs = predicted(tiny_store, TWO_HEADS)
    assert outputs.arrays.keys() == {"probabilities", "logits", "mask", "embedding"}
    assert outputs.logits is not None
    assert outputs.mask is not None
    assert outputs.embedding is not None
    np.testing.assert_allclose(outputs.embedding, embedding(BATCH), atol=1e-5)
    powers = np.exp(outputs.logits)
    np.testing.assert_allclose(
        outputs.probabilities, powers / powers.sum(axis=1, keepdims=True), atol=1e-5
    )
    cells = BATCH.reshape(len(BATCH), 112, 2, 112, 2).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(outputs.mask, 1 / (1 + np.exp(-30 * (cells - 0.8))), atol=1e-4)


def test_quantised_outputs_come_back_as_the_numbers_they_stand_for(tiny_store: Path) -> None:
    exact, rounded = predicted(tiny_store, TWO_HEADS), predicted(tiny_store, QUANTISED)
    for name, tolerance in {"probabilities": 0.1, "mask": 0.1, "embedding": 0.02}.items():
        difference = np.abs(exact.arrays[name] - rounded.arrays[name])
        assert np.quantile(difference, 0.99) < tolerance, name
        assert rounded.arrays[name].dtype == np.float32


def test_slices_of_a_batch_are_not_mixed_up(tiny_store: Path) -> None:
    together = predicted(tiny_store, TWO_HEADS)
    for index in range(len(BATCH)):
        alone = predicted(tiny_store, TWO_HEADS, BATCH[index : index + 1])
        for name, array in together.at(index).arrays.items():
            np.testing.assert_array_equal(array, alone.arrays[name])


def test_activation_maps_are_an_output(tiny_store: Path) -> None:
    outputs = predicted(tiny_store, MAPS)
    assert outputs.arrays.keys() == {"probabilities", "cam"}
    assert outputs.cam is not None
    assert outputs.cam.shape == (len(BATCH), 28, 28, 4)


def test_an_output_that_the_artifact_lacks_is_a_clear_error(tiny_store: Path) -> None:
    stored = load(tiny_store, EXPLAINED)
    file = stored.files[stored.manifest.artifacts["litert"]]
    shapes = {**served_shapes(stored.manifest), "mask": (112, 112)}
    with pytest.raises(RuntimeUnusable, match="lacks the output mask"):
        LiteRtRuntime(file, shapes, 1)


@pytest.mark.parametrize("name", ["mask", "embedding", "logits"])
def test_an_output_of_another_shape_than_the_manifest_s_fails_the_warm_up(
    tiny_store: Path, name: str
) -> None:
    stored = load(tiny_store, TWO_HEADS)
    outputs = dict(stored.manifest.outputs)
    batch, *sizes = outputs[name].shape
    outputs[name] = outputs[name].model_copy(update={"shape": (batch, *sizes[:-1], 3)})
    wrong = replace(stored, manifest=stored.manifest.model_copy(update={"outputs": outputs}))
    with pytest.raises((RuntimeUnusable, ValueError)):
        open_runtime(settings_for(tiny_store), wrong)


class _Odd(FakeRuntime):
    """Answers with one output that is not what it should be."""

    def __init__(self, **arrays: NDArray[np.float32]) -> None:
        super().__init__({"probabilities": (4,), "mask": (2, 2)}, 1)
        self._arrays = arrays

    def predict(self, batch: NDArray[np.uint8]) -> Outputs:
        return replace(super().predict(batch), **self._arrays)


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        pytest.param(np.zeros((1, 2, 3), np.float32), "shapes", id="shape"),
        pytest.param(np.zeros((1, 2, 2), np.float64), "shapes", id="dtype"),
        pytest.param(np.full((1, 2, 2), np.nan, np.float32), "finite", id="not a number"),
        pytest.param(np.full((1, 2, 2), 1.5, np.float32), "mask", id="above 1"),
        pytest.param(np.full((1, 2, 2), -0.5, np.float32), "mask", id="below 0"),
    ],
)
def test_a_mask_that_is_none_fails_the_warm_up(array: NDArray[np.float32], problem: str) -> None:
    with pytest.raises(RuntimeUnusable, match=problem):
        _Odd(mask=array).warm_up(8, 8, {"probabilities": (4,), "mask": (2, 2)})


@pytest.mark.tensorflow
@pytest.mark.slow
def test_tensorflow_gives_the_same_outputs(tiny_store: Path) -> None:
    """In a process of its own: its warnings and threads are not these tests'."""
    code = f"""
import numpy as np
from pathlib import Path
from tests.service.test_outputs import BATCH, load
from service.runtimes.selection import open_runtime
from service.choices import RuntimeChoice
from tests.support.service import settings_for
store = Path({str(tiny_store)!r})
for version in ({TWO_HEADS}, {MAPS}, {EXPLAINED}):
    one, other = (
        open_runtime(settings_for(store, runtime=choice, max_batch_size=4), load(store, version))
        .predict(BATCH).arrays
        for choice in ({RuntimeChoice.LITERT.value!r}, {RuntimeChoice.TENSORFLOW.value!r})
    )
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=1e-4, err_msg=name)
"""
    run_python("-c", code)
