"""Overload, deadlines, and runtimes that raise, hang or die: every request gets an answer."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import pytest

from service import patience
from tests.support.service import (
    MODEL,
    PATIENCE_SECONDS,
    FakeRuntimes,
    add_version,
    newest,
    serving,
    settings_for,
    wait_until,
)
from tests.support.threads import at_once


@pytest.fixture(params=[False, True], ids=["batches", "lanes"])
def runtimes(request: pytest.FixtureRequest) -> FakeRuntimes:
    """Runtimes that misbehave on command, as TensorFlow's are and as LiteRT's."""
    return FakeRuntimes(whole=request.param)


def refused(response: httpx.Response) -> tuple[int, str]:
    code: str = response.json()["code"]
    return response.status_code, code


def test_full_queue_refuses_at_once(model_store: Path, jpeg: bytes, runtimes: FakeRuntimes) -> None:
    with serving(settings_for(model_store, queue_size=4, max_files=4), runtimes) as service:
        runtimes.last.gate.clear()

        def overflow() -> httpx.Response:
            wait_until(lambda: service.state.pipeline.depth == 4)
            answer = service.predict(jpeg)
            assert service.client.get("/health/ready").status_code == 200
            runtimes.last.gate.set()
            return answer

        pair = partial(service.predict, jpeg, jpeg)
        first, second, third = at_once(pair, pair, overflow)
        assert (first.status_code, second.status_code) == (200, 200)
        assert refused(third) == (503, "queue_full")
        assert int(third.headers["retry-after"]) > 0
        assert service.metric("brain_errors_total", code="queue_full") == 1
        assert service.predict(jpeg).status_code == 200


def test_request_whose_share_finds_no_room(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    with serving(settings_for(model_store, queue_size=4), runtimes) as service:
        runtimes.last.gate.clear()

        def overflow() -> httpx.Response:
            wait_until(lambda: service.state.pipeline.depth == 3)
            answer = service.predict(jpeg, jpeg, jpeg)
            assert service.state.pipeline.depth == 3
            runtimes.last.gate.set()
            return answer

        one, two, three = at_once(
            partial(service.predict, jpeg), partial(service.predict, jpeg, jpeg), overflow
        )
        assert (one.status_code, two.status_code) == (200, 200)
        assert refused(three) == (503, "queue_full")
        assert service.predict(jpeg, jpeg, jpeg).status_code == 200


def test_request_larger_than_the_queue_is_fed_bit_by_bit(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    with serving(settings_for(model_store, queue_size=4), runtimes) as service:
        runtimes.last.gate.clear()

        def meanwhile() -> httpx.Response:
            wait_until(runtimes.last.entered.is_set)
            wait_until(lambda: service.state.pipeline.depth == 2)
            sleep(0.3)
            runtimes.last.gate.set()
            return service.predict(jpeg)

        large, small = at_once(partial(service.predict, *[jpeg] * 50), meanwhile)
        assert len(large.json()["predictions"]) == 50
        assert all("label" in entry for entry in large.json()["predictions"])
        # That they waited for one another is no sign of a service that is slow.
        assert service.metric("brain_queue_duration_seconds_bucket", le="0.25") >= 48
        assert small.status_code == 200
        assert service.state.pipeline.depth == 0


def test_deadline_in_the_middle_of_a_large_request(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    settings = settings_for(model_store, queue_size=4, deadline_ms=300.0)
    with serving(settings, runtimes) as service:
        runtimes.last.gate.clear()
        answer = service.predict(*[jpeg] * 20)
        assert refused(answer) == (504, "deadline_exceeded")
        assert len(answer.json()["errors"]) == 20
        runtimes.last.gate.set()
        # What had been let in comes back, and nothing is let in any more.
        wait_until(lambda: service.state.pipeline.depth == 0)
        assert service.predict(jpeg).status_code == 200


def test_deadline_passes_and_expired_work_is_never_predicted(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    with serving(
        settings_for(model_store, deadline_ms=300.0, max_batch_size=1), runtimes
    ) as service:
        runtimes.last.gate.clear()
        answers = at_once(*[partial(service.predict, jpeg)] * 3)
        assert [answer.status_code for answer in answers] == [504] * 3
        assert {answer.json()["code"] for answer in answers} == {"deadline_exceeded"}
        assert service.state.pipeline.depth == 3
        runtimes.last.gate.set()
        wait_until(lambda: service.state.pipeline.depth == 0)
        # The first batch hung with one image; the other two expired while they waited for it.
        assert runtimes.last.batches == [1]
        assert service.predict(jpeg).status_code == 200


def test_runtime_that_raises_fails_only_its_batch(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(settings_for(model_store), runtimes) as service:
        runtimes.last.error = ValueError("secret of the runtime")
        failed = service.predict(jpeg, b"junk")
        assert (failed.status_code, failed.json()["code"]) == (500, "inference_failed")
        assert "secret" not in failed.text
        assert [entry["error"]["status"] for entry in failed.json()["errors"]] == [500, 415]
        assert "secret of the runtime" in caplog.text
        runtimes.last.error = None
        assert service.predict(jpeg).status_code == 200
        assert len(runtimes.opened) == 1


def test_runtime_that_always_raises_is_rebuilt(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    with serving(settings_for(model_store), runtimes) as service:
        runtimes.last.error = ValueError("broken for good")
        for _ in range(3):
            assert service.predict(jpeg).status_code in {500, 503}
        wait_until(lambda: len(runtimes.opened) == 2)
        wait_until(lambda: service.client.get("/health").status_code == 200)
        assert service.predict(jpeg).status_code == 200
        assert service.metric("brain_runtime_restarts_total") == 1


def test_inference_thread_that_dies_is_replaced(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    with serving(settings_for(model_store), runtimes) as service:
        runtimes.last.error = SystemExit()
        failed = service.predict(jpeg)
        assert (failed.status_code, failed.json()["code"]) == (503, "runtime_lost")
        wait_until(lambda: len(runtimes.opened) == 2)
        wait_until(lambda: service.client.get("/health").status_code == 200)
        assert service.predict(jpeg).status_code == 200
        assert service.state.pipeline.depth == 0


def test_lost_runtime_is_rebuilt_although_no_thread_can_be_started_for_it_at_first(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a container has it that holds as many threads as it may for a moment."""
    with serving(settings_for(model_store), runtimes) as service:
        failures = ["can't start new thread", "can't start new thread"]
        monkeypatch.setattr(patience, "Thread", partial(_Thread, failures))
        runtimes.last.error = SystemExit()
        assert service.predict(jpeg).status_code == 503
        wait_until(lambda: not failures)
        wait_until(lambda: service.client.get("/health").status_code == 200)
        assert service.predict(jpeg).status_code == 200


class _Thread(threading.Thread):
    """Cannot be started as long as there are failures."""

    def __init__(self, failures: list[str], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._failures = failures

    def start(self) -> None:
        if self._failures:
            raise RuntimeError(self._failures.pop())
        super().start()


def test_first_load_that_gets_no_thread_says_so(
    model_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = ["can't start new thread"]
    monkeypatch.setattr(patience, "Thread", partial(_Thread, failures))
    with serving(settings_for(model_store), ready=False) as service:
        wait_until(lambda: service.client.get("/health").json()["code"] == "runtime_unusable")


def test_lost_runtime_is_rebuilt_of_what_was_verified_while_the_store_is_away(
    store_copy: Path, jpeg: bytes
) -> None:
    settings = settings_for(store_copy, runtime="litert", workers=0)
    with serving(settings) as service:
        before = service.predict(jpeg).json()
        store_copy.rename(store_copy.with_name("away"))
        registry = service.state.registry
        replaced = registry._replace(registry.engine(), "a test")
        asyncio.run_coroutine_threadsafe(replaced, service.state.pipeline._loop)
        wait_until(lambda: service.metric("brain_runtime_restarts_total") == 1)
        after = service.predict(jpeg).json()
    for part in ("model", "predictions"):
        assert after[part] == before[part]


def test_lost_runtime_is_rebuilt_while_an_activation_hangs(
    store_copy: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    first, second = newest(store_copy), add_version(store_copy)
    settings = settings_for(store_copy, model_version=str(first))
    with serving(settings, runtimes) as service, ThreadPoolExecutor(1) as clients:
        runtimes.held = second
        runtimes.gate.clear()
        path = f"/models/{MODEL}/{second}/activate"
        activation = clients.submit(service.client.post, path, timeout=None)
        wait_until(runtimes.reached.is_set)
        runtimes.last.error = SystemExit()
        assert refused(service.predict(jpeg)) == (503, "runtime_lost")
        wait_until(lambda: service.metric("brain_runtime_restarts_total") == 1)
        assert service.predict(jpeg).json()["model"]["version"] == first
        runtimes.gate.set()
        assert activation.result().status_code == 200
        assert service.predict(jpeg).json()["model"]["version"] == second


def test_runtime_that_is_rebuilt_after_an_activation_is_closed(
    store_copy: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    first, second = newest(store_copy), add_version(store_copy)
    with serving(settings_for(store_copy, model_version=str(first)), runtimes) as service:
        runtimes.held = first
        runtimes.gate.clear()
        runtimes.last.error = SystemExit()
        assert refused(service.predict(jpeg)) == (503, "runtime_lost")
        wait_until(runtimes.reached.is_set)
        path = f"/models/{MODEL}/{second}/activate"
        assert service.client.post(path).status_code == 200
        runtimes.gate.set()
        wait_until(lambda: len(runtimes.opened) == 3 and runtimes.last.closed)
        assert service.predict(jpeg).json()["model"]["version"] == second
        assert service.metric("brain_runtime_restarts_total") == 0


def test_batch_that_hangs_is_given_up_and_the_runtime_rebuilt(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    with serving(settings_for(model_store, batch_timeout_ms=300.0), runtimes) as service:
        hanging = runtimes.last
        hanging.gate.clear()
        answers = at_once(*[partial(service.predict, jpeg)] * 3)
        assert [answer.status_code for answer in answers] == [503] * 3
        assert {answer.json()["code"] for answer in answers} == {"runtime_lost"}
        wait_until(lambda: service.client.get("/health").status_code == 200)
        assert service.predict(jpeg).status_code == 200
        # The lost batch comes back late: nobody is answered twice and nothing is counted twice.
        hanging.gate.set()
        assert service.predict(jpeg).status_code == 200
        assert service.state.pipeline.depth == 0


def test_readiness_drops_while_the_runtime_cannot_be_rebuilt(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    with serving(settings_for(model_store), runtimes) as service:
        runtimes.error = RuntimeError("the device is gone")
        runtimes.last.error = SystemExit()
        assert service.predict(jpeg).status_code == 503
        wait_until(lambda: service.client.get("/health").json().get("code") == "runtime_unusable")
        assert service.client.get("/health/ready").status_code == 503
        assert "\nbrain_ready 0.0\n" in service.client.get("/metrics").text
        assert service.predict(jpeg).json()["code"] == "runtime_unusable"
        # It is tried again and again; once the device is back, so is the service.
        runtimes.error = None
        wait_until(lambda: service.predict(jpeg).status_code == 200)
        assert "\nbrain_ready 1.0\n" in service.client.get("/metrics").text


def test_service_stops_even_if_a_batch_hangs(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    with serving(settings_for(model_store, deadline_ms=200.0), runtimes) as service:
        runtimes.last.gate.clear()
        assert refused(service.predict(jpeg)) == (504, "deadline_exceeded")
        start = monotonic()
    assert monotonic() - start < PATIENCE_SECONDS / 2
    runtimes.last.gate.set()


def test_hanging_batch_of_a_replaced_version_is_given_up(
    store_copy: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    first = str(newest(store_copy))
    add_version(store_copy)
    settings = settings_for(
        store_copy, deadline_ms=200.0, batch_timeout_ms=200.0, model_version=first
    )
    with serving(settings, runtimes) as service:
        runtimes.last.gate.clear()
        assert refused(service.predict(jpeg)) == (504, "deadline_exceeded")
        assert service.client.post(f"/models/{MODEL}/latest/activate").status_code == 200
        wait_until(lambda: service.state.pipeline.depth == 0)
        assert service.predict(jpeg).status_code == 200
        runtimes.opened[0].gate.set()


def test_unknown_error_is_a_generic_text_and_its_traceback_is_logged(
    model_store: Path,
    jpeg: bytes,
    runtimes: FakeRuntimes,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_count: int = 1) -> None:
        raise KeyError("secret of the service")

    with serving(settings_for(model_store), runtimes) as service:
        monkeypatch.setattr(service.state.pipeline, "admit", fail)
        response = service.predict(jpeg)
        assert (response.status_code, response.json()["code"]) == (500, "internal_error")
        assert response.headers["content-type"] == "application/problem+json"
        assert "secret" not in response.text
        assert "secret of the service" in caplog.text
