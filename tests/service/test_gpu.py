"""On a real GPU: where it computes, and that it answers as the processor does."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from service.runtimes.selection import GPU_DEVICE_NODES
from tests.support.service import run_python

MAX_DIFFERENCE = 0.02
"""Of a probability; a GPU of NVIDIA multiplies float32 with 10 bits of mantissa by default."""

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(
        not any(any(Path("/dev").glob(pattern)) for pattern in GPU_DEVICE_NODES),
        reason="this machine has no GPU",
    ),
    pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed"),
]


def test_the_model_runs_on_the_gpu_with_every_setting(model_store: Path) -> None:
    found = json.loads(run_python("-m", "tests.support.on_gpu", str(model_store)))
    assert found["on_processor"] == "cpu"
    name, device = found["auto"]
    assert name == "tensorflow"
    assert device != "cpu"
    assert len(found["differences"]) == 4
    assert max(found["differences"].values()) <= MAX_DIFFERENCE
    # Memory is taken as it is needed, not all at once: other services may share the GPU.
    assert 0 < found["peak_bytes"] < 8 * 2**30
