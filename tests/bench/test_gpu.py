"""What the measurement on a GPU takes for a fault, and what it shows."""

import pytest

from bench.gpu import CONFIGURATIONS, REFERENCE, Seen, faults, render
from bench.load import Measurement
from bench.server import Driven

GPU = "TensorFlow, GPU"
ANSWERED = Measurement((1000, 2000, 3000), 1_000_000, 0, 0, "", 3)


def seen(device: str, probability: float, measurement: Measurement = ANSWERED) -> Seen:
    return Seen(
        device,
        [1.5],
        {clients: [Driven(measurement, 1.0)] for clients in (1, 8, 32, 64)},
        probabilities=[[probability, 1 - probability]],
        alone={1: 100.0},
    )


def test_a_gpu_that_agrees_is_no_fault() -> None:
    both = {REFERENCE: seen("cpu", 0.7), GPU: seen("NVIDIA", 0.705)}
    assert list(faults(both)) == []
    assert "| TensorFlow, GPU | 3 | 3 | 3 | 3 | 2.0 | 3 | 1.5 | 0 | - | 0.0050 |" in render(both)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (seen("cpu", 0.7), "ran on the processor"),
        (seen("NVIDIA", 0.75), "a probability is 0.0500 off"),
        (seen("NVIDIA", 0.7, Measurement((), 1, 2, 0, "500 {}", 0)), "500 {}"),
        (seen("NVIDIA", 0.7, Measurement((), 1, 0, 1, "", 0)), "broken"),
    ],
    ids=["elsewhere", "otherwise", "wrong", "broken"],
)
def test_faults_are_named(found: Seen, words: str) -> None:
    assert any(words in fault for fault in faults({REFERENCE: seen("cpu", 0.7), GPU: found}))


def test_the_reference_is_one_of_them() -> None:
    assert REFERENCE in CONFIGURATIONS
