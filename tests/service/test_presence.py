"""Clients that leave before their answer: their work is dropped, and what was accepted is kept."""

import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from tests.support.service import (
    PATIENCE_SECONDS,
    FakeRuntimes,
    Service,
    serving,
    settings_for,
    wait_until,
)

FILES = 12
BOUNDARY = b"leaves"


@pytest.fixture
def service(model_store: Path, tmp_path: Path, runtimes: FakeRuntimes) -> Iterator[Service]:
    settings = settings_for(model_store, queue_size=4, audit_log=tmp_path / "audit")
    with serving(settings, runtimes) as running:
        yield running


def form(image: bytes, files: int = FILES) -> bytes:
    """A large body, by the zeros behind each image; a single one is read in one piece."""
    part = b'--%b\r\nContent-Disposition: form-data; name="files"\r\n\r\n%b\r\n' % (
        BOUNDARY,
        image + bytes(max(0, 120_000 // files - len(image))),
    )
    return part * files + b"--%b--\r\n" % BOUNDARY


def request(path: bytes, body: bytes) -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n" % (path, len(body))
    return head + b"Content-Type: multipart/form-data; boundary=%b\r\n\r\n" % BOUNDARY + body


def leave(connection: socket.socket) -> None:
    """Closes it as one does who does not wait: with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def counted(service: Service, status: str, route: str = "/predict") -> float:
    return service.metric("brain_http_requests_total", route=route, status=status)


def audited(folder: Path) -> list[dict[str, Any]]:
    path = folder / "audit"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [line for line in map(json.loads, lines) if line["action"] in {"predict", "explain"}]


def gone(service: Service, runtimes: FakeRuntimes, text: bytes) -> None:
    """A client has left while the first of its slices was predicted."""
    runtimes.last.gate.clear()
    connection = socket.create_connection(service.address, PATIENCE_SECONDS)
    # Of a large body that comes in one piece, nothing more is asked for.
    head, end, body = text.partition(b"\r\n\r\n")
    connection.sendall(head + end)
    sleep(0.1)
    connection.sendall(body)
    assert runtimes.last.entered.wait(PATIENCE_SECONDS)
    leave(connection)


def test_the_work_of_a_client_that_has_left_is_dropped(
    service: Service, runtimes: FakeRuntimes, jpeg: bytes, tmp_path: Path
) -> None:
    gone(service, runtimes, request(b"/predict", form(jpeg)))
    wait_until(lambda: counted(service, "499") == 1, PATIENCE_SECONDS / 3)
    runtimes.last.gate.set()
    wait_until(lambda: service.state.pipeline.depth == 0)
    # What is in hand goes to its end.
    assert len(runtimes.last.batches) == 1
    assert service.state.buffers.used == 0
    assert service.predict(jpeg).status_code == 200
    wait_until(lambda: audited(tmp_path))
    assert len(audited(tmp_path)) == 1
    assert counted(service, "200") == 1
    assert not service.metric("brain_errors_total", code="deadline_exceeded")


def test_to_leave_is_no_error(service: Service, runtimes: FakeRuntimes, jpeg: bytes) -> None:
    gone(service, runtimes, request(b"/explain", form(jpeg, 1)))
    wait_until(lambda: counted(service, "499", "/explain") == 1)
    runtimes.last.gate.set()
    wait_until(lambda: service.state.pipeline.depth == 0)
    assert not service.metric("brain_errors_total", code="internal_error")


def test_who_sends_nothing_more_still_waits(
    service: Service, runtimes: FakeRuntimes, jpeg: bytes, tmp_path: Path
) -> None:
    runtimes.last.gate.clear()
    with socket.create_connection(service.address, PATIENCE_SECONDS) as connection:
        connection.sendall(request(b"/predict", form(jpeg)))
        assert runtimes.last.entered.wait(PATIENCE_SECONDS)
        connection.shutdown(socket.SHUT_WR)
        runtimes.last.gate.set()
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    wait_until(lambda: len(audited(tmp_path)) == FILES)
