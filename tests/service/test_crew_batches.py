"""Processes beside a runtime that predicts in batches, as on a GPU: they decode, and answer."""

import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.answer import Outputs, Rules
from contract.decoding import decode
from contract.policy import DEFAULT_POLICY
from contract.preprocessing import preprocess
from contract.store import ModelStore
from contract.version import StoredVersion
from service.choices import LogLevel
from service.errors import ServiceError
from service.forks import Forks
from service.runtimes import Runtime
from service.runtimes.base import served_shapes
from service.runtimes.litert import Interpreter
from service.settings import Settings
from service.worker import LENGTH, START, Bench, Order, Predicted
from tests.contract.samples import DATA, RANGE, grey_slice, mr_frames, mr_object
from tests.support.broken_worker import POISON, Command
from tests.support.crew import (
    WORKERS,
    crew_of,
    expire_in_hand,
    manned,
    replace_engine,
    swap_under_load,
    workers_of,
)
from tests.support.inputs import in_colour
from tests.support.service import (
    MODEL,
    PATIENCE_SECONDS,
    Service,
    add_version,
    codes,
    entries,
    newest,
    serving,
    settings_for,
    wait_until,
)
from tests.support.slow_model import LOAD_SECONDS


class Batches(Runtime):
    """The shipped model, in batches, as TensorFlow would.

    Attributes:
        sizes: of the batches since the warm-up.
        poisoned: preprocessed slice that a broken worker is to end on.
        meanwhile: is called while a batch is predicted.
    """

    name = "tensorflow"
    device = "a GPU"
    batch_sizes = (1, 8)

    def __init__(self, stored: StoredVersion) -> None:
        path = stored.path / stored.manifest.artifacts["litert"]
        self._interpreter = Interpreter(path, served_shapes(stored.manifest))
        self.sizes: list[int] = []
        self.poisoned: NDArray[np.uint8] | None = None
        self.meanwhile: Callable[[], None] = lambda: None

    def predict(self, batch: NDArray[np.uint8]) -> Outputs:
        self.sizes.append(len(batch))
        self.meanwhile()
        each = [self._interpreter.predict(slice_[None]).arrays for slice_ in batch]
        arrays = {name: np.concatenate([one[name] for one in each]) for name in each[0]}
        for index, slice_ in enumerate(batch):
            if self.poisoned is not None and np.array_equal(slice_, self.poisoned):
                arrays["mask"][index].flat[0] = POISON
        return Outputs(**arrays)


class Opened:
    """Opens :class:`Batches`, and keeps the last one."""

    last: Batches

    def __call__(self, settings: Settings, stored: StoredVersion) -> Runtime:  # noqa: ARG002
        made = Batches(stored)
        spec = stored.preprocess
        made.warm_up(spec.height, spec.width, served_shapes(stored.manifest))
        made.sizes.clear()
        self.last = made
        return made


@pytest.fixture
def poison(slices: list[Path]) -> bytes:
    """Another slice than ``jpeg``."""
    return slices[1].read_bytes()


def signal_all(pids: Sequence[int], how: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, how)


def pixels(picture: bytes) -> NDArray[np.uint8]:
    """As the model sees it."""
    return preprocess(decode(picture).pixels)


@pytest.fixture
def opened() -> Opened:
    return Opened()


@contextmanager
def thread_work(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Notes what the service's own threads decode."""
    decoder = service.state.pipeline.decoder
    decode = decoder.decode
    jobs: list[object] = []

    def noted(job: Any) -> Any:
        jobs.append(job)
        return decode(job)

    with monkeypatch.context() as patched:
        patched.setattr(decoder, "decode", noted)
        yield jobs


@pytest.mark.parametrize("mask", ["none", "rle"])
def test_workers_answer_as_threads_do(
    model_store: Path,
    service: Service,
    slices: Sequence[Path],
    mask: str,
    opened: Opened,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = [path.read_bytes() for path in slices]
    images.append(in_colour(images[0]))
    images += [images[0][:9000], b"junk", b"\x89PNG\r\n\x1a\nnothing else"]
    expected = service.predict(*images, params={"mask": mask})
    with manned(model_store, opened) as other, thread_work(other, monkeypatch) as by_threads:
        answer = other.predict(*images, params={"mask": mask})
        assert entries(answer) == entries(expected)
        # The first one, which was alone in the service when it came, and what no worker looks at.
        assert len(by_threads) == 2
        assert sum(opened.last.sizes) == len(slices) + 1
        assert other.metric("brain_batch_images_sum") == len(slices) + 1
        assert other.metric("brain_batch_images_count") == len(opened.last.sizes)
        assert other.state.pipeline.depth == 0
    assert entries(answer)[len(slices)]["in_distribution"] is False
    assert codes(answer)[-3:] == ["truncated_image", "unsupported_media_type", "undecodable_image"]


def test_workers_answer_objects_as_threads_do(
    model_store: Path,
    service: Service,
    jpeg: bytes,
    opened: Opened,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grey = grey_slice()
    real = [path.read_bytes() for path in sorted((DATA / "dicom").glob("*.dcm"))]
    not_mr = mr_object(grey, attributes={"Modality": "CT"})
    frames = mr_frames([grey, grey[::-1], grey], attributes=RANGE)
    images = [jpeg, *real, not_mr, frames, *real]
    expected = service.predict(*images)
    with manned(model_store, opened) as other, thread_work(other, monkeypatch) as by_threads:
        answer = other.predict(*images)
        assert entries(answer) == entries(expected)
        assert answer.json()["series"] == expected.json()["series"]
        # The first image, which was alone when it came, and three slices of one object.
        assert len(by_threads) == 4
        assert other.state.pipeline.depth == 0
    assert "not_mr" in codes(answer)


def test_other_work_stays_with_the_threads(
    model_store: Path,
    jpeg: bytes,
    dicom: bytes,
    opened: Opened,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        manned(model_store, opened) as service,
        thread_work(service, monkeypatch) as by_threads,
    ):
        # Of whole objects more is wanted than an answer.
        as_objects = {"accept": "multipart/related; type=application/dicom"}
        assert service.predict(dicom, dicom, headers=as_objects).status_code == 200
        assert len(by_threads) == 2
        # An operating point of its own, whose rules the workers do not have.
        answer = service.predict(jpeg, jpeg, jpeg, params={"tumor_threshold": "1e-9"})
        assert {entry["decision"] for entry in entries(answer)} <= {"tumor", "refer"}
        assert len(by_threads) == 5


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("command", [Command.HANG, Command.CRASH])
def test_a_worker_that_ends_costs_one_picture(
    model_store: Path, jpeg: bytes, command: Command, opened: Opened
) -> None:
    with manned(model_store, opened, batch_timeout_ms=1000.0) as service:
        answer = service.predict(jpeg, jpeg, command.on(jpeg), *[jpeg] * 12)
        assert codes(answer) == [None, None, "runtime_lost", *[None] * 12]
        wait_until(lambda: crew_of(service).size == WORKERS)
        assert service.metric("brain_worker_restarts_total") == 1
        assert service.metric("brain_runtime_restarts_total") == 0
        assert service.state.pipeline.depth == 0


@pytest.mark.usefixtures("broken")
def test_a_worker_that_ends_over_an_answer_costs_that_one(
    model_store: Path, jpeg: bytes, poison: bytes, opened: Opened
) -> None:
    with manned(model_store, opened) as service:
        opened.last.poisoned = pixels(poison)
        # Not the first, which no worker answers.
        answer = service.predict(*[jpeg] * 3, poison, *[jpeg] * 10)
        assert codes(answer) == [*[None] * 3, "runtime_lost", *[None] * 10]
        wait_until(lambda: crew_of(service).size == WORKERS)
        assert service.metric("brain_worker_restarts_total") == 1
        assert service.state.pipeline.depth == 0


@pytest.mark.usefixtures("broken")
def test_when_all_workers_end_the_service_answers_itself(
    model_store: Path, jpeg: bytes, opened: Opened
) -> None:
    with manned(model_store, opened) as service:
        pids, crew = workers_of(service), crew_of(service)

        def stop_all() -> None:
            # From the first batch on that holds what they decoded, which waits behind what they have in
            # hand. The first picture, which was alone, the service decodes and answers itself.
            if crew._predicting:
                signal_all(pids, signal.SIGSTOP)

        def end_all() -> None:
            waiting = crew._queue
            wait_until(lambda: any(isinstance(job.outcome, Outputs) for job in waiting.copy()))
            opened.last.meanwhile = lambda: None
            signal_all(pids, signal.SIGKILL)

        opened.last.meanwhile = stop_all
        with ThreadPoolExecutor(1) as other:
            ending = other.submit(end_all)
            answer = service.predict(*[jpeg] * 16)
            ending.result()
        lost = codes(answer).count("runtime_lost")
        assert 1 <= lost <= WORKERS
        assert codes(answer).count(None) == 16 - lost
        wait_until(lambda: crew_of(service).size == WORKERS)
        assert service.state.pipeline.depth == 0


def test_what_cannot_be_answered_is_an_error_of_its_own(
    model_store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = ModelStore(model_store).load(MODEL, newest(model_store))
    rules = Rules.read(stored)
    order = Order({}, stored.preprocess, rules, DEFAULT_POLICY, 1.0, LogLevel.INFO)
    outputs = Outputs(np.zeros((1, 4), np.float32))
    # The version's answers need its logits and its embedding.
    meaning = Bench(order, None).answer(pickle.dumps(Predicted(outputs, None, coloured=False)))
    assert meaning.answer is None
    assert isinstance(meaning.failure, ServiceError)
    assert "answering raised an unknown error" in caplog.text


@pytest.mark.parametrize(
    ("seconds", "is_ready"),
    [(10 * LOAD_SECONDS, True), (LOAD_SECONDS / 4, False)],
    ids=["waited for", "given up"],
)
def test_a_worker_has_as_long_to_load_as_it_is_waited_for(
    model_store: Path, seconds: float, is_ready: bool
) -> None:
    stored = ModelStore(model_store).load(MODEL, newest(model_store))
    order = pickle.dumps(
        Order({}, stored.preprocess, Rules.read(stored), DEFAULT_POLICY, 1.0, LogLevel.INFO)
    )
    forks = Forks("tests.support.slow_model")
    try:
        connection, _ = forks.connect()
        with connection:
            connection.settimeout(PATIENCE_SECONDS)
            connection.sendall(START.pack(seconds, len(order)) + order)
            assert len(connection.recv(LENGTH.size)) == is_ready * LENGTH.size
    finally:
        forks.close()


def test_there_are_none_where_batches_are_predicted_on_the_processor(
    model_store: Path, jpeg: bytes, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Batches, "device", "cpu")
    with serving(settings_for(model_store, workers=WORKERS), opened) as service:
        assert service.state.registry.engine().crew is None
        assert codes(service.predict(*[jpeg] * 8)) == [None] * 8


def test_what_has_expired_is_not_begun(model_store: Path, jpeg: bytes, opened: Opened) -> None:
    with manned(model_store, opened, deadline_ms=600.0) as service:
        expire_in_hand(service, jpeg, lambda: sum(opened.last.sizes))


def test_swaps_under_load_lose_nothing(store_copy: Path, jpeg: bytes, opened: Opened) -> None:
    versions = [newest(store_copy), add_version(store_copy)]
    with manned(store_copy, opened, model_version=str(versions[0])) as service:
        swap_under_load(service, versions, jpeg)


def test_an_engine_that_is_replaced_leaves_no_picture_waiting(
    model_store: Path, jpeg: bytes, opened: Opened
) -> None:
    with manned(model_store, opened) as service:
        replace_engine(service, jpeg)
