"""The bare loop counts from when all of it is ready, however long that takes."""

from collections.abc import Iterator
from pathlib import Path
from threading import BrokenBarrierError
from time import monotonic, sleep

import pytest

from bench import ceiling

PREDICT_SECONDS = 0.01


class Model:
    """Loads quickly the first time, and slowly the second."""

    waits: Iterator[float]
    loaded: list[float]
    predicted: list[float]

    def __init__(self) -> None:
        sleep(next(self.waits))
        self.loaded.append(monotonic())

    def prepare(self, data: bytes) -> bytes:
        return data

    def predict(self, _images: list[bytes]) -> None:
        self.predicted.append(monotonic())
        sleep(PREDICT_SECONDS)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    Model.waits, Model.loaded, Model.predicted = iter([0.0, 0.5]), [], []
    monkeypatch.setattr(ceiling, "Model", Model)
    monkeypatch.setattr(ceiling, "CORES", 2)
    monkeypatch.setattr(ceiling, "WARM_UP_IMAGES", 0)
    path = tmp_path / "a.jpg"
    path.write_bytes(b"a")
    return path


def test_nothing_counts_before_all_are_ready(file: Path) -> None:
    rate = ceiling.in_threads([file], 0.3)
    assert min(Model.predicted) >= max(Model.loaded)
    assert 0 < rate <= 2 / PREDICT_SECONDS


def test_a_part_that_never_gets_ready_is_no_lower_figure(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ceiling, "LOAD_SECONDS", 0.1)
    with pytest.raises(BrokenBarrierError):
        ceiling.in_threads([file], 0.3)
