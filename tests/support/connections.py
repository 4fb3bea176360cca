"""Clients that speak to a service over a socket of their own, as no HTTP library would."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from service.connections import Connection
from tests.support.service import (
    PATIENCE_SECONDS,
    FakeRuntimes,
    Service,
    serving,
    settings_for,
    wait_until,
)

HEAD = b"GET /health/live HTTP/1.1\r\nHost: test\r\n"
IMAGE = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: image/jpeg\r\n"
CHUNKED = b"POST /predict HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n"
BUNDLE = b"GET /static/vendor/swagger-ui/swagger-ui-bundle.js HTTP/1.1\r\nHost: test\r\n\r\n"
SHEET = b"GET /static/app.css HTTP/1.1\r\nHost: test\r\n"
"""Its answer is less than what makes the event loop say that it waits."""

JUNK = {
    "bytes": b"\0\1\2\3",
    "words": b"no request\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "tunnel": b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
    "other host": b"GET http://evil.com?x=1 HTTP/1.1\r\nHost: test\r\n\r\n",
}
"""What is no request that may be made, and how it is not."""

TIMEOUT_MS = 300
"""How long a service that is strict waits."""


@contextmanager
def of_few(store: Path, runtimes: FakeRuntimes, **changes: Any) -> Iterator[Service]:
    """A service of four connections, all of which are free."""
    with serving(settings_for(store, max_connections=4, **changes), runtimes) as service:
        service.client.headers["Connection"] = "close"
        service.client.get("/health")
        wait_until(lambda: not service.connections)
        yield service


def connected(service: Service, text: bytes = b"", address: str = "127.0.0.1") -> socket.socket:
    """A client that says something; from an address of its own, which this machine has many of."""
    connection = socket.create_connection(service.address, PATIENCE_SECONDS, (address, 0))
    connection.sendall(text)
    return connection


def idle(service: Service, address: str = "127.0.0.1") -> socket.socket:
    """A client that has its answer and keeps its connection."""
    with ExitStack() as stack:
        connection = stack.enter_context(connected(service, HEAD + b"\r\n", address))
        assert status(first_answer(connection)) == 200
        # Left open only where it has its answer: a service that ends would not like it.
        stack.pop_all()
    return connection


@contextmanager
def slow(service: Service, text: bytes) -> Iterator[socket.socket]:
    """A client that asks, and for which the system holds little of an answer.

    What the system holds it takes from the service at once, and whether it is read is not seen.
    """
    for listening in service.sockets:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with socket.socket() as connection:
        connection.settimeout(PATIENCE_SECONDS)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(service.address)
        connection.sendall(text)
        yield connection


@contextmanager
def deaf(service: Service, text: bytes) -> Iterator[socket.socket]:
    """The same, which has read nothing so far; the answer waits in the service."""
    with slow(service, text) as connection:
        wait_until(
            lambda: any(
                isinstance(one, Connection) and one.transport.get_write_buffer_size()
                for one in service.connections
            )
        )
        yield connection


@contextmanager
def held_up(service: Service, runtimes: FakeRuntimes, jpeg: bytes) -> Iterator[socket.socket]:
    """A client whose first request is answered once the runtime's gate is set."""
    runtimes.last.gate.clear()
    with connected(service, IMAGE + b"Content-Length: %d\r\n\r\n" % len(jpeg) + jpeg) as connection:
        wait_until(lambda: service.state.pipeline.depth == 1)
        yield connection


def only(service: Service) -> Connection:
    """The only connection that a service has."""
    (served,) = service.connections
    assert isinstance(served, Connection)
    return served


def first_answer(connection: socket.socket) -> bytes:
    """A whole answer, and nothing of the next one, which may come with it."""
    received, size = bytearray(), None
    while len(received) != size:
        piece = connection.recv(size - len(received) if size else 1)
        assert piece, received
        received += piece
        if size is None and received.endswith(b"\r\n\r\n"):
            [length] = re.findall(rb"\r\ncontent-length: (\d+)\r\n", received)
            size = len(received) + int(length)
    return bytes(received)


def everything(connection: socket.socket) -> bytes:
    """All that comes until the service ends the connection."""
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def all_answers(connection: socket.socket) -> list[bytes]:
    """The answers that come until the service ends the connection."""
    return [b"HTTP/1.1 " + rest for rest in everything(connection).split(b"HTTP/1.1 ")[1:]]


def status(answer: bytes) -> int:
    """The status of an answer."""
    version, number = answer.split(maxsplit=2)[:2]
    assert version == b"HTTP/1.1"
    return int(number)


def is_whole(answer: bytes) -> bool:
    """Whether an answer has all of its content."""
    fields, _, content = answer.lower().partition(b"\r\n\r\n")
    return b"content-length: %d" % len(content) in fields.split(b"\r\n")


def problem(answer: bytes) -> tuple[int, str]:
    """Status and code of a refusal, after which the service ends the connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert b"content-type: application/problem+json" in lines
    assert b"connection: close" in lines
    assert b"x-content-type-options: nosniff" in lines
    assert b"cache-control: no-store" in lines
    content: dict[str, Any] = json.loads(body)
    assert status(answer) == content["status"]
    assert f"x-request-id: {content['request_id']}".encode() in lines
    return content["status"], content["code"]
