"""What a service holds on to: nothing of a request that has ended, however it ended."""

import asyncio
import gc
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from bench.soak import Held
from contract.answer import Rules
from contract.sealing import SealedFile
from service.engine import Engine
from service.jobs import Upload
from service.runtimes.litert import Interpreter
from tests.contract.samples import RANGE, grey_slice, mr_frames
from tests.support.service import (
    MODEL,
    Service,
    add_version,
    newest,
    process,
    serving,
    settings_for,
    wait_until,
)

CLIENTS = 8
REQUESTS = 60
"""Of each client; ``python -m bench.soak`` sends many more."""


def test_threads_files_and_tasks_are_given_back(model_store: Path, slices: Sequence[Path]) -> None:
    whole = slices[0].read_bytes()
    bodies = [whole, whole[:9000], b"junk"]

    def client(requests: int) -> set[int]:
        # A connection is closed with its client.
        with httpx.Client(headers={"Content-Type": "image/jpeg"}, timeout=60) as connection:
            return {
                connection.post(url, content=bodies[number % len(bodies)]).status_code
                for number in range(requests)
            }

    with (
        process(model_store, BRAIN_WORKERS="2", BRAIN_LOG_LEVEL="error") as (child, port),
        ThreadPoolExecutor(CLIENTS) as clients,
    ):
        base = f"http://127.0.0.1:{port}"
        url = f"{base}/predict"
        # Workers come after the service is ready.
        wait_until(lambda: "brain_workers 2.0" in httpx.get(f"{base}/metrics").text)
        list(clients.map(client, [len(bodies)] * CLIENTS))
        idle = settled(child.pid, port)
        assert set().union(*clients.map(client, [REQUESTS] * CLIENTS)) == {200, 422, 415}
        wait_until(lambda: Held.by(child.pid, port).files <= idle.files)
        left = settled(child.pid, port)
        assert left.processes <= idle.processes
        assert left.threads <= idle.threads
        assert left.tasks <= idle.tasks


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What holds itself in a circle stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("path", ["/predict", "/explain"])
@pytest.mark.parametrize("kind", ["slice", "frames", "damaged", "junk"])
def test_a_body_is_let_go_with_its_answer(
    service: Service, jpeg: bytes, path: str, kind: str
) -> None:
    """The collector comes seldom, as a request makes few objects, and a body may be large."""
    bodies = {
        "slice": jpeg,
        "frames": mr_frames([grey_slice()] * 3, attributes=RANGE),
        "damaged": jpeg[:9000],
        "junk": b"junk",
    }
    expected = {"damaged": 422, "junk": 415}.get(kind, 200)
    for _ in range(3):
        answer = service.client.post(path, files={"files": bodies[kind]})
        assert answer.status_code == expected
    wait_until(lambda: not any(isinstance(thing, Upload) for thing in gc.get_objects()))


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_version_is_let_go_once_another_one_serves(store_copy: Path, workers: int) -> None:
    """The model, its file in memory, and what answers from it; of one that is refused, too."""
    numbers = [newest(store_copy), add_version(store_copy)]
    damaged = add_version(store_copy)
    (store_copy / MODEL / str(damaged) / "model.int8.tflite").write_bytes(b"junk")

    def alive() -> Counter[type]:
        kinds = {Engine, Interpreter, Rules, SealedFile}
        return Counter(type(thing) for thing in gc.get_objects() if type(thing) in kinds)

    settings = settings_for(store_copy, workers=workers, model_version=str(numbers[0]))
    with serving(settings) as service:
        first = alive()
        for number in (numbers[1], numbers[0], damaged, numbers[1]):
            answer = service.client.post(f"/models/{MODEL}/{number}/activate")
            assert answer.status_code == (409 if number == damaged else 200)
        wait_until(lambda: alive() == first)
        # What the watcher does when a thread of the engine dies.
        registry, loop = service.state.registry, service.state.pipeline._loop
        asyncio.run_coroutine_threadsafe(registry._replace(registry.engine(), "a test"), loop)
        wait_until(lambda: service.metric("brain_runtime_restarts_total") == 1)
        wait_until(lambda: alive() == first)


def test_requests_that_find_no_model_leave_nothing_behind(model_store: Path, jpeg: bytes) -> None:
    """Each is refused with the same error, which holds what it was raised among."""
    settings = settings_for(model_store, model_version="999")
    with serving(settings, ready=False) as service:
        registry = service.state.registry
        wait_until(lambda: registry.failure.code == "version_not_found")

        def frames() -> int:
            assert service.predict_raw(jpeg).status_code == 503
            return len(list(traceback.walk_tb(registry.failure.__traceback__)))

        assert frames() == frames()


def settled(process_id: int, port: int) -> Held:
    """What a process holds once its last connections are closed: the same at two looks."""
    seen = [Held.by(process_id, port)]

    def same() -> bool:
        seen.append(Held.by(process_id, port))
        return (seen[-1].files, seen[-1].tasks) == (seen[-2].files, seen[-2].tasks)

    wait_until(same)
    return seen[-1]
