"""Answers that are sent before a body has come, and to a body that is none: who asked reads them."""

import gc
import http.client
import json
import logging
import socket
import weakref
from collections.abc import Iterator
from contextlib import closing
from time import monotonic, sleep
from typing import Any

import pytest

from service import crowd
from tests.support.service import (
    PATIENCE_SECONDS,
    FakeRuntimes,
    Service,
    serving,
    settings_for,
    wait_until,
)

LARGE = bytes(5_000_000)
"""More than the system takes of what is not read."""

TIMEOUT_MS = 1000
CLOSE = {"Content-Type": "text/plain", "Connection": "close"}
REQUEST_ID = "f034d653fe9943c1cf229188d3e5507c"
CHUNKED = (
    b"POST /predict HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Type: image/jpeg\r\nX-Request-ID: %b\r\n\r\n" % REQUEST_ID.encode()
)
BROKEN = b"5\r\nabcde\r\nno number\r\n"
WAITING = 4
"""Connections of the service."""


@pytest.fixture
def service(model_store: Any, runtimes: FakeRuntimes) -> Iterator[Service]:
    settings = settings_for(model_store, body_timeout_ms=TIMEOUT_MS, max_connections=WAITING)
    with serving(settings, runtimes) as running:
        running.client.headers["Connection"] = "close"
        running.client.get("/health")
        wait_until(lambda: not running._server.server_state.connections)
        yield running


def asked(service: Service, headers: dict[str, str], body: bytes = LARGE) -> tuple[int, Any]:
    """Status and content of an answer, by a client that looks for it once all is sent."""
    connection = http.client.HTTPConnection(*service.address, PATIENCE_SECONDS)
    with closing(connection):
        connection.request("POST", "/predict", body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def begun(service: Service, text: bytes) -> socket.socket:
    connection = socket.create_connection(service.address, PATIENCE_SECONDS)
    connection.sendall(text)
    return connection


def everything(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def counted(service: Service, sample: str) -> dict[tuple[str, ...], float]:
    """The samples of a counter, but for those of what the tests ask themselves."""
    return {
        tuple(found.labels.values()): found.value
        for family in service.state.metrics.registry.collect()
        for found in family.samples
        if found.name == sample and found.value and found.labels.get("route") != "/health"
    }


class Lines(logging.Handler):
    """What the service logs of requests."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.fields.append(record.fields)  # type: ignore[attr-defined]


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    logger = logging.getLogger("service.request")
    handler, level = Lines(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.fields
    logger.setLevel(level)
    logger.removeHandler(handler)


def test_of_a_connection_that_has_ended_nothing_is_left(service: Service) -> None:
    """Nor is it left to the garbage collector, which comes late."""
    gc.disable()
    try:
        with begun(service, b"GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n") as connection:
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            (served,) = map(weakref.ref, service._server.server_state.connections)
        wait_until(lambda: served() is None, PATIENCE_SECONDS / 3)
    finally:
        gc.enable()


class TestUnreadBody:
    def test_whoever_sends_on_and_closes_reads_why(self, service: Service) -> None:
        for _ in range(5):
            status, content = asked(service, CLOSE)
            assert (status, content["code"]) == (415, "unsupported_request_media_type")

    def test_the_answer_ends_at_once(self, service: Service) -> None:
        """A client that reads to the end of the connection need not send the rest of its body."""
        head = b"POST /predict HTTP/1.0\r\nContent-Type: text/plain\r\nContent-Length: 999\r\n\r\n"
        start = monotonic()
        with begun(service, head) as connection:
            assert everything(connection).startswith(b"HTTP/1.1 415 ")
        assert monotonic() - start < TIMEOUT_MS / 1000

    def test_while_it_drains(self, service: Service) -> None:
        """Every answer ends its connection then, and one with an answer waits for no body."""
        head = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: text/plain\r\n"
        head += b"Content-Length: %d\r\n\r\n" % len(LARGE)
        with begun(service, head) as answered:
            assert answered.recv(100).startswith(b"HTTP/1.1 415 ")
            service.state.drain()
            status, content = asked(service, {"Content-Type": "image/jpeg"})
            assert (status, content["code"]) == (503, "draining")
            for connection in list(service._server.server_state.connections):
                service._server.servers[0].get_loop().call_soon_threadsafe(connection.shutdown)
            assert everything(answered)
            answered.sendall(LARGE)

    def test_who_sends_without_end_is_let_go(self, service: Service) -> None:
        head = b"POST /predict HTTP/1.0\r\nContent-Type: text/plain\r\n"
        head += b"Content-Length: 999999999\r\n\r\n"
        start = monotonic()
        with begun(service, head) as connection:
            while monotonic() < start + PATIENCE_SECONDS:
                try:
                    connection.sendall(bytes(1000))
                except ConnectionError:
                    break
                sleep(0.01)
        assert TIMEOUT_MS / 1000 <= monotonic() - start < 5 * TIMEOUT_MS / 1000
        wait_until(lambda: not service._server.server_state.connections)

    def test_they_keep_nobody_out(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(crowd, "GRACE_SECONDS", 0)
        head = b"POST /predict HTTP/1.0\r\nContent-Type: text/plain\r\nContent-Length: 999\r\n\r\n"
        taken = []
        for _ in range(WAITING):
            taken.append(begun(service, head))
            assert everything(taken[-1])
        assert len(service._server.server_state.connections) == WAITING
        assert service.client.get("/health/live").status_code == 200
        for connection in taken:
            connection.close()


class TestBrokenBody:
    @pytest.mark.parametrize("pause", [0, 0.1], ids=["at once", "later"])
    def test_it_is_one_request(
        self, service: Service, lines: list[dict[str, Any]], pause: float
    ) -> None:
        before = {*counted(service, "brain_http_requests_total")}
        with begun(service, CHUNKED) as connection:
            sleep(pause)
            connection.sendall(BROKEN)
            answer = everything(connection)
        assert answer.startswith(b"HTTP/1.1 400 ")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"\r\nconnection: close" in head
        content = json.loads(body)
        assert (content["code"], content["request_id"]) == ("malformed_request", REQUEST_ID)
        requests = counted(service, "brain_http_requests_total")
        assert {key: requests[key] for key in {*requests} - before} == {("/predict", "400"): 1}
        assert counted(service, "brain_errors_total") == {("malformed_request",): 1}
        (line,) = [line for line in lines if line["request_id"] == REQUEST_ID]
        assert (line["route"], line["status"]) == ("/predict", 400)
        assert line["code"] == "malformed_request"

    def test_of_what_is_answered_without_it_it_takes_nothing_away(self, service: Service) -> None:
        head = b"GET /health/live HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
        with begun(service, head + BROKEN) as connection:
            answer = everything(connection)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert answer.startswith(b"HTTP/1.1 200 ")


class TestBrokenHead:
    @pytest.mark.parametrize(
        ("rest", "status", "code"),
        [
            (b"\r\n", 400, "malformed_request"),
            (b"Host: test\r\nX: %b\r\n\r\n" % bytes(70_000).replace(b"\0", b"a"), 431, None),
        ],
        ids=["no host", "large"],
    )
    def test_it_is_logged_under_the_id_that_its_client_has(
        self,
        service: Service,
        lines: list[dict[str, Any]],
        rest: bytes,
        status: int,
        code: str | None,
    ) -> None:
        code = code or "headers_too_large"
        head = b"GET /health HTTP/1.1\r\nX-Request-ID: %b\r\n" % REQUEST_ID.encode()
        with begun(service, head + rest) as connection:
            content = json.loads(everything(connection).partition(b"\r\n\r\n")[2])
        assert (content["status"], content["request_id"]) == (status, REQUEST_ID)
        assert [line for line in lines if line["request_id"] == REQUEST_ID] == [
            {"request_id": REQUEST_ID, "route": "unmatched", "status": status, "code": code}
        ]

    def test_what_is_no_request_has_no_id_of_an_earlier_one(
        self, service: Service, lines: list[dict[str, Any]]
    ) -> None:
        head = b"GET /health/live HTTP/1.1\r\nHost: a\r\nX-Request-ID: %b\r\n\r\n"
        with begun(service, head % REQUEST_ID.encode()) as connection:
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            connection.sendall(b"\0\1\2\3")
            content = json.loads(everything(connection).rpartition(b"\r\n\r\n")[2])
        assert content["request_id"] != REQUEST_ID
        assert content["request_id"] in {line["request_id"] for line in lines}

    def test_a_flood_is_counted_and_not_logged_one_by_one(
        self,
        service: Service,
        lines: list[dict[str, Any]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("service.pacing.REFUSALS_PER_SECOND", 0.1)
        for _ in range(3):
            with begun(service, b"\0\1\2\3") as connection:
                assert everything(connection).startswith(b"HTTP/1.1 400 ")
        assert service.metric("brain_errors_total", code="malformed_request") == 3
        assert len([line for line in lines if line["status"] == 400]) == 1
