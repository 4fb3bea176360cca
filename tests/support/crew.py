"""Services whose processes are there, and what may happen to them under any runtime."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from bench.processes import descendants
from contract.version import StoredVersion
from service.crew import Crew
from service.runtimes import Runtime
from service.settings import Settings
from tests.support.service import MODEL, Service, codes, serving, settings_for, wait_until
from tests.support.threads import at_once

WORKERS = 2

Open = Callable[[Settings, StoredVersion], Runtime]


@contextmanager
def manned(store: Path, open_runtime: Open | None = None, **changes: Any) -> Iterator[Service]:
    """A service whose workers are there."""
    with serving(settings_for(store, workers=WORKERS, **changes), open_runtime) as service:
        wait_until(lambda: crew_of(service).size == WORKERS)
        yield service


def crew_of(service: Service) -> Crew:
    """The processes of the version that serves."""
    crew = service.state.registry.engine().crew
    assert crew is not None
    return crew


def workers_of(service: Service) -> list[int]:
    """Process ids of the workers."""
    forks = service.state.registry._forks.pid
    assert forks is not None
    return [pid for pid in descendants(forks) if pid != forks]


@contextmanager
def stopped(service: Service) -> Iterator[None]:
    """Its workers do nothing until they are let go on."""
    pids = workers_of(service)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def swap_under_load(service: Service, versions: Sequence[int], jpeg: bytes) -> None:
    """Activates versions in turn while four clients post; nothing may be lost, or left behind."""
    stop = False

    def post() -> list[int]:
        found = []
        while not stop:
            found.append(service.predict(jpeg, jpeg, jpeg).status_code)
        return found

    with ThreadPoolExecutor(4) as clients:
        posts = [clients.submit(post) for _ in range(4)]
        for number in (1, 0, 1):
            activate = f"/models/{MODEL}/{versions[number]}/activate"
            assert service.client.post(activate).status_code == 200
            wait_until(lambda: crew_of(service).size == WORKERS)
        stop = True
        statuses = [status for done in posts for status in done.result()]
    assert set(statuses) == {200}
    # Those of the versions that were replaced end.
    wait_until(lambda: len(workers_of(service)) == WORKERS)
    assert service.metric("brain_workers") == WORKERS
    assert service.metric("brain_worker_restarts_total") == 0


def replace_engine(service: Service, jpeg: bytes) -> None:
    """Replaces an engine that has slices in hand, whose workers hang; none may wait for ever."""
    lost = service.state.registry.engine()
    pids = workers_of(service)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    loop = service.state.pipeline._loop

    def lose() -> httpx.Response:
        wait_until(lambda: service.state.pipeline.depth >= 4)
        # What the watcher does when a thread of the engine hangs.
        asyncio.run_coroutine_threadsafe(service.state.registry._replace(lost, "a test"), loop)
        return service.client.get("/health/live")

    try:
        answers = at_once(partial(service.predict, *[jpeg] * 6), lose)
        assert set(codes(answers[0])) <= {None, "runtime_lost"}
        assert "runtime_lost" in codes(answers[0])
        wait_until(lambda: service.client.get("/health/ready").status_code == 200)
        wait_until(lambda: crew_of(service).size == WORKERS)
        assert codes(service.predict(*[jpeg] * 6)) == [None] * 6
        # Stopped, they would outlive the service.
        wait_until(lambda: not {*pids} & {*workers_of(service)})
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def expire_in_hand(service: Service, jpeg: bytes, predicted: Callable[[], float]) -> None:
    """Lets slices expire that workers have in hand; none of them may be predicted.

    Args:
        service: with a deadline below a second.
        jpeg: a slice.
        predicted: how many slices have been.
    """
    assert codes(service.predict(*[jpeg] * 3)) == [None] * 3
    before = predicted()
    with stopped(service):
        answer = service.predict(*[jpeg] * 20)
        assert set(codes(answer)) == {None, "deadline_exceeded"}
        in_time = codes(answer).count(None)
    wait_until(lambda: service.state.pipeline.depth == 0)
    assert predicted() == before + in_time
    assert codes(service.predict(*[jpeg] * 3)) == [None] * 3
