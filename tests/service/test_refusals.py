"""Clients that are refused and ask again at once: each refusal costs little, and later ones less."""

import json
from pathlib import Path
from time import monotonic

import pytest
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tests.support.service import (
    FakeRuntimes,
    occupied,
    read_status,
    serving,
    settings_for,
    wait_until,
)


def test_a_refused_client_that_asks_again_at_once_is_slowed_down(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.pacing.REFUSALS_PER_SECOND", 10)
    with serving(settings_for(model_store, queue_size=1, max_files=1), runtimes) as service:
        headers = {"Content-Type": "image/jpeg"}
        with occupied(service, runtimes, jpeg) as (accepted, refused):
            start = monotonic()
            for _ in range(4):
                refused.request("POST", "/predict", jpeg, headers)
                assert read_status(refused) == 503
            assert monotonic() - start > 0.15
            assert service.client.get("/health").status_code == 200
            runtimes.last.gate.set()
            assert read_status(accepted) == 200
            refused.request("POST", "/predict", jpeg, headers)
            assert read_status(refused) == 200


def test_in_a_flood_the_connection_itself_refuses_and_goes_on(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.pacing.REFUSALS_PER_SECOND", 1)
    monkeypatch.setattr("service.pacing.MAX_PAUSE_SECONDS", 0)
    let_in: list[str] = []
    begin = HttpToolsProtocol._start_asgi_task

    def count(self: HttpToolsProtocol, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        let_in.append(cycle.scope["path"])
        begin(self, cycle, app)

    monkeypatch.setattr(HttpToolsProtocol, "_start_asgi_task", count)
    with serving(settings_for(model_store, queue_size=1, max_files=1), runtimes) as service:
        image = {"Content-Type": "image/jpeg"}
        with occupied(service, runtimes, jpeg) as (accepted, refused):
            answers = []
            for number in range(4):
                refused.request(
                    "POST", "/predict", jpeg, {**image, "X-Request-ID": f"{number:032x}"}
                )
                answer = refused.getresponse()
                answers.append((answer, json.loads(answer.read())))
            # The first one begins the flood, and so was a request like any other.
            assert let_in.count("/predict") == 2
            for number, (answer, content) in enumerate(answers):
                assert (answer.status, content["code"]) == (503, "queue_full")
                assert content["request_id"] == answer.headers["X-Request-ID"] == f"{number:032x}"
            first, last = (answer.headers for answer, _ in (answers[0], answers[-1]))
            assert {name.lower() for name in first} - {"date", "server"} == {
                name.lower() for name in last
            }
            assert (first["Retry-After"], last["Retry-After"]) == ("1", "3")
            assert service.metric("brain_errors_total", code="queue_full") == 4
            assert service.metric("brain_http_requests_total", route="/predict", status="503") == 4
            # Other addresses are open all the while, on the same connection too.
            refused.request("GET", "/health")
            assert read_status(refused) == 200
            runtimes.last.gate.set()
            assert read_status(accepted) == 200
            wait_until(lambda: service.state.pipeline.depth == 0)
            refused.request("POST", "/predict", jpeg, image)
            assert read_status(refused) == 200


def test_a_flood_of_refusals_is_counted_and_not_logged_one_by_one(
    model_store: Path,
    runtimes: FakeRuntimes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("service.pacing.REFUSALS_PER_SECOND", 1)
    caplog.set_level("INFO", "service.request")
    with serving(settings_for(model_store), runtimes) as service:
        for _ in range(3):
            assert service.predict_raw(b"text", "text/plain").status_code == 415
        assert service.metric("brain_http_requests_total", route="/predict", status="415") == 3
    logged = [record.fields for record in caplog.records if record.name == "service.request"]  # type: ignore[attr-defined]
    assert [fields["status"] for fields in logged].count(415) == 1
