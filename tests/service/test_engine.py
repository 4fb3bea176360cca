"""How long a version that was replaced is waited for, and calls that may never return."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from contract.store import ModelStore
from service.batching import Batcher
from service.engine import Engine
from service.forks import Forks
from service.patience import call_within
from tests.support.service import MODEL, RULES, FakeRuntime, newest

PATIENCE = 0.1


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


def made(store: Path, runtime: FakeRuntime) -> Engine:
    engine = Engine(ModelStore(store).load(MODEL, newest(store)), RULES, runtime)
    engine.batcher = Batcher([runtime], 1, 0.0, lambda _: None, lambda *_: None)
    return engine


def test_a_replaced_version_is_kept_as_long_as_a_series_needs_it(
    model_store: Path, runtime: FakeRuntime
) -> None:
    async def retire() -> None:
        engine = made(model_store, runtime)
        with engine.held():
            closing = asyncio.create_task(engine.close(PATIENCE))
            # Longer than the patience in all: steps of a series, and what lies between them.
            for _ in range(4):
                engine.acquire(1)
                await asyncio.sleep(0.5 * PATIENCE)
                engine.release()
            await asyncio.sleep(2.5 * PATIENCE)
            assert not closing.done()
            assert not runtime.closed
        await closing
        assert runtime.closed

    asyncio.run(retire())


def test_a_job_that_is_never_settled_is_given_up_even_if_a_series_waits_for_it(
    model_store: Path, runtime: FakeRuntime
) -> None:
    async def retire() -> None:
        engine = made(model_store, runtime)
        with engine.held():
            engine.acquire(1)
            await asyncio.wait_for(engine.close(PATIENCE), 50 * PATIENCE)
        assert not runtime.closed, "its thread may hang in it"

    asyncio.run(retire())


def test_what_comes_when_the_patience_has_just_ended_is_not_lost() -> None:
    late: list[str] = []
    came = threading.Event()

    def load() -> str:
        came.set()
        return "engine"

    async def wait() -> None:
        waiting = asyncio.create_task(call_within(60, late.append, load))
        await asyncio.sleep(0)
        assert came.wait(10)
        # The loop is busy while the result comes; next in its queue is the end of the patience, which
        # cancels just so.
        time.sleep(0.05)  # noqa: ASYNC251
        asyncio.get_running_loop().call_soon(waiting.cancel)
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(wait())
    assert late == ["engine"]


def test_no_process_is_started_for_workers_once_the_service_ends() -> None:
    forks = Forks()
    forks.close()
    with pytest.raises(OSError, match="ends"):
        forks.connect()
    assert forks.pid is None
