"""Slow, greedy and too many clients, over real sockets: each is told why and let go."""

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import get_remote_addr

from service import connections, crowd, sending
from service.catalogue import CODES
from service.crowd import Party, Standing
from tests.support.service import (
    PATIENCE_SECONDS,
    FakeRuntimes,
    Service,
    occupied,
    read_status,
    serving,
    settings_for,
    wait_until,
)

HEAD = b"GET /health/live HTTP/1.1\r\nHost: test\r\n"
BUNDLE = b"GET /static/vendor/swagger-ui/swagger-ui-bundle.js HTTP/1.1\r\nHost: test\r\n\r\n"
SHEET = b"GET /static/app.css HTTP/1.1\r\nHost: test\r\n"
"""Its answer is less than what makes the event loop say that it waits."""

TIMEOUT_MS = 300


@pytest.fixture
def strict(model_store: Path, runtimes: FakeRuntimes) -> Iterator[Service]:
    settings = settings_for(
        model_store,
        header_timeout_ms=TIMEOUT_MS,
        body_timeout_ms=TIMEOUT_MS,
        max_connections=4,
    )
    with serving(settings, runtimes) as running:
        running.client.headers["Connection"] = "close"
        running.client.get("/health")
        yield running


@contextmanager
def connected(service: Service) -> Iterator[socket.socket]:
    with socket.create_connection(service.address, PATIENCE_SECONDS) as connection:
        yield connection


def first_answer(connection: socket.socket) -> bytes:
    """A whole answer, whose head and body may come one after the other."""
    received = bytearray()
    size = None
    while size is None or len(received) < size:
        piece = connection.recv(65536)
        assert piece, received
        received += piece
        end = re.search(rb"\r\ncontent-length: (\d+)\r\n(?s:.*?\r\n)?\r\n", received)
        size = end and end.end() + int(end[1])
    return bytes(received)


def everything(connection: socket.socket) -> bytes:
    """All that comes until the service ends the connection."""
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def problem(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert b"content-type: application/problem+json" in lines
    assert b"connection: close" in lines
    assert b"x-content-type-options: nosniff" in lines
    assert b"cache-control: no-store" in lines
    content: dict[str, Any] = json.loads(body)
    assert int(head.split()[1]) == content["status"]
    assert f"x-request-id: {content['request_id']}".encode() in lines
    return content["status"], content["code"]


def trickle(connection: socket.socket, piece: bytes) -> None:
    """Sends a piece ten times a second until the service has had enough."""
    end = monotonic() + PATIENCE_SECONDS
    connection.setblocking(False)
    while monotonic() < end:
        try:
            connection.send(piece)
            if not connection.recv(65536):
                return
        except BlockingIOError:
            pass
        except OSError:
            return
        sleep(TIMEOUT_MS / 3000)
    pytest.fail("a slow client was never let go")


def test_headers_that_stop_are_not_waited_for(strict: Service) -> None:
    with connected(strict) as connection:
        connection.sendall(HEAD)
        assert problem(everything(connection)) == (408, "headers_timeout")
    assert strict.metric("brain_errors_total", code="headers_timeout") == 1


@pytest.mark.parametrize("size", [1, len(HEAD)], ids=["byte", "lines"])
def test_headers_of_a_later_request_that_stop_are_not_waited_for(
    strict: Service, size: int
) -> None:
    with connected(strict) as connection:
        connection.sendall(HEAD + b"\r\n")
        assert first_answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(HEAD[:size])
        assert problem(everything(connection)) == (408, "headers_timeout")
    assert strict.metric("brain_errors_total", code="headers_timeout") == 1


def test_headers_that_stop_take_no_earlier_answer_away(
    strict: Service, runtimes: FakeRuntimes, jpeg: bytes
) -> None:
    """The first request is predicted for longer than the headers of the second one may take."""
    head = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: image/jpeg\r\n"
    runtimes.last.gate.clear()
    with connected(strict) as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(jpeg) + jpeg)
        wait_until(lambda: strict.state.pipeline.depth == 1)
        connection.sendall(HEAD)
        sleep(2 * TIMEOUT_MS / 1000)
        runtimes.last.gate.set()
        assert first_answer(connection).startswith(b"HTTP/1.1 200 ")
        assert problem(everything(connection)) == (408, "headers_timeout")


def test_a_client_that_asks_nothing_more_is_let_go(strict: Service) -> None:
    strict._server.config.timeout_keep_alive = 1
    with connected(strict) as connection:
        connection.sendall(HEAD + b"\r\n")
        assert first_answer(connection).startswith(b"HTTP/1.1 200 ")
        assert everything(connection) == b""


@pytest.mark.parametrize("rest", [b"\r\n", b"\n\r\n"])
def test_an_empty_line_after_a_request_is_none(strict: Service, rest: bytes) -> None:
    with connected(strict) as connection:
        connection.sendall(HEAD + b"\r\n")
        assert first_answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(rest)
        assert everything(connection) == b""


def test_headers_that_trickle_are_not_waited_for(strict: Service) -> None:
    with connected(strict) as connection:
        connection.sendall(HEAD)
        trickle(connection, b"X-A: b\r\n")


def test_a_client_that_says_nothing_is_let_go(strict: Service) -> None:
    with connected(strict) as connection:
        assert everything(connection) == b""


def test_empty_lines_between_requests_keep_nothing_open(strict: Service) -> None:
    with connected(strict) as connection:
        connection.sendall(HEAD + b"\r\n")
        assert first_answer(connection).startswith(b"HTTP/1.1 200 ")
        trickle(connection, b"\r\n")


def test_a_body_that_nobody_wants_is_not_waited_for(strict: Service) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: text/plain\r\n"
    head += b"Content-Length: 1000000\r\n\r\n"
    with connected(strict) as connection:
        connection.sendall(head)
        assert first_answer(connection).startswith(b"HTTP/1.1 415 ")
        trickle(connection, b"x")


def test_an_answer_that_is_never_read_is_given_up(
    strict: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "SEND_SECONDS", TIMEOUT_MS / 1000)
    open_connections = strict._server.server_state.connections
    wait_until(lambda: not open_connections)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(strict.address)
        connection.sendall(BUNDLE * 20)
        wait_until(lambda: open_connections)
        wait_until(lambda: not open_connections)


def test_a_client_that_reads_slowly_gets_the_answer_to_its_end(
    strict: Service, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "SEND_SECONDS", TIMEOUT_MS / 3000)
    monkeypatch.setattr(sending, "SEND_BYTES", 1000)
    # What the system holds of an answer, it takes at once, and is not seen to be read.
    for listening in strict._server.servers[0].sockets:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(strict.address)
        # Its answer is written at once, and has the names of the files in it.
        files = [("files", (f"{number:04000}.jpg", jpeg)) for number in range(64)]
        request = strict.client.build_request("POST", "/predict", files=files)
        head = b"".join(name + b": " + value + b"\r\n" for name, value in request.headers.raw)
        connection.sendall(b"POST /predict HTTP/1.1\r\n" + head + b"\r\n" + request.read())
        answer = connection.recv(1024)
        length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        start = monotonic()
        while len(answer.partition(b"\r\n\r\n")[2]) < length:
            piece = connection.recv(8192)
            assert piece, "cut off"
            answer += piece
            sleep(len(piece) / length)
        assert monotonic() - start > 2 * sending.SEND_SECONDS


UPGRADES = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEA\r\n"


@pytest.mark.parametrize("pieces", ["whole", "apart", "bytes"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_an_offer_of_another_protocol_is_ignored(
    strict: Service, jpeg: bytes, pieces: str, is_chunked: bool
) -> None:
    """As Java's HttpClient makes it with every request."""
    head = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: image/jpeg\r\n" + UPGRADES
    if is_chunked:
        head += b"Transfer-Encoding: chunked\r\n\r\n"
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(jpeg), jpeg)
    else:
        head += b"Content-Length: %d\r\n\r\n" % len(jpeg)
        body = jpeg
    with connected(strict) as connection:
        # And once more on the same connection.
        for _ in range(2):
            if pieces == "whole":
                connection.sendall(head + body)
            else:
                for piece in [head] if pieces == "apart" else map(bytes, zip(head, strict=True)):
                    connection.sendall(piece)
                sleep(0.05)
                connection.sendall(body)
            # Read whole: what is left of it would be taken for the answer to the next request.
            answer = HTTPResponse(connection)
            answer.begin()
            assert answer.status == 200
            assert len(answer.read()) == int(answer.headers["Content-Length"])
            answer.close()


def test_offers_may_come_one_after_the_other(strict: Service) -> None:
    with connected(strict) as connection:
        connection.sendall((HEAD + UPGRADES + b"\r\n") * 2 + HEAD + b"Connection: close\r\n\r\n")
        assert everything(connection).count(b"HTTP/1.1 200 ") == 3


def test_a_tunnel_is_refused(strict: Service) -> None:
    with connected(strict) as connection:
        connection.sendall(b"CONNECT test:443 HTTP/1.1\r\nHost: test\r\n\r\n")
        assert connection.recv(65536).split()[1] in {b"400", b"404", b"405"}


@pytest.mark.parametrize("excess", [0, 1])
@pytest.mark.parametrize("where", ["line", "field"])
def test_the_largest_head_is_exact(strict: Service, where: str, excess: int) -> None:
    fields = b"Host: test\r\nConnection: close\r\n"
    room = connections.MAX_HEAD_BYTES + excess - len(fields)
    if where == "line":
        start = b"GET /health?"
        text = start + b"a" * (room - len(b"/health?")) + b" HTTP/1.1\r\n" + fields
    else:
        field = b"X-A: \r\n"
        text = b"GET /health HTTP/1.1\r\n" + fields
        text += b"X-A: " + b"b" * (room - len(b"/health") - len(field)) + b"\r\n"
    with connected(strict) as connection:
        connection.sendall(text + b"\r\n")
        answer = everything(connection)
    if excess:
        assert problem(answer) == (431, "headers_too_large")
    else:
        assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("name", [b"X-A", b"X" * 10_000], ids=["many", "long"])
def test_headers_have_a_largest_size(strict: Service, name: bytes) -> None:
    with connected(strict) as connection:
        line = name + b": b\r\n"
        connection.sendall(HEAD + line * (connections.MAX_HEAD_BYTES // len(line) + 1))
        assert problem(everything(connection)) == (431, "headers_too_large")


@pytest.mark.parametrize("rest", [b"no number\r\n", b"0\r\n\r\n" + HEAD], ids=["broken", "another"])
def test_what_follows_headers_that_are_refused_is_not_refused_as_well(
    strict: Service, caplog: pytest.LogCaptureFixture, rest: bytes
) -> None:
    field = b"X-A: " + b"b" * connections.MAX_HEAD_BYTES + b"\r\n\r\n"
    with connected(strict) as connection:
        connection.sendall(CHUNKED + field + rest)
        assert problem(everything(connection)) == (431, "headers_too_large")
        sleep(2 * TIMEOUT_MS / 1000)
    refusals = {code: strict.metric("brain_errors_total", code=code) for code in CODES}
    assert {code: count for code, count in refusals.items() if count} == {"headers_too_large": 1}
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


JUNK = {
    "bytes": b"\0\1\2\3",
    "words": b"no request\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "tunnel": b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
    "other host": b"GET http://evil.com?x=1 HTTP/1.1\r\nHost: test\r\n\r\n",
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
@pytest.mark.parametrize("head", [HEAD, SHEET], ids=["at once", "from a file"])
@pytest.mark.parametrize("requests", [1, 2])
def test_what_is_wrong_behind_requests_takes_none_of_their_answers_away(
    strict: Service, requests: int, head: bytes, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with connected(strict) as connection:
        connection.sendall((head + b"\r\n") * requests + junk)
        *answers, refused = everything(connection).split(b"HTTP/1.1 ")[1:]
    assert [answer[:4] for answer in answers] == [b"200 "] * requests
    assert problem(b"HTTP/1.1 " + refused) == (400, "malformed_request")
    assert strict.metric("brain_errors_total", code="malformed_request") == 1
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_what_is_wrong_after_an_answer_is_told(strict: Service, junk: bytes) -> None:
    with connected(strict) as connection:
        connection.sendall(HEAD + b"\r\n")
        answer = HTTPResponse(connection)
        answer.begin()
        assert (answer.status, bool(answer.read())) == (200, True)
        connection.sendall(junk)
        assert problem(everything(connection)) == (400, "malformed_request")


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_what_is_wrong_takes_no_answer_of_a_queue_away(
    strict: Service, runtimes: FakeRuntimes, jpeg: bytes, junk: bytes
) -> None:
    with held_up(strict, runtimes, jpeg) as connection:
        connection.sendall(HEAD + b"\r\n" + junk)
        wait_until(lambda: queued(strict) == 1)
        runtimes.last.gate.set()
        *answers, refused = everything(connection).split(b"HTTP/1.1 ")[1:]
    assert [answer[:4] for answer in answers] == [b"200 "] * 2
    assert problem(b"HTTP/1.1 " + refused) == (400, "malformed_request")


@contextmanager
def held_up(service: Service, runtimes: FakeRuntimes, jpeg: bytes) -> Iterator[socket.socket]:
    """A client whose first request is answered once the runtime's gate is set."""
    head = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: image/jpeg\r\n"
    runtimes.last.gate.clear()
    counted = service._server.server_state.connections
    wait_until(lambda: not counted)
    with connected(service) as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(jpeg) + jpeg)
        wait_until(lambda: service.state.pipeline.depth == 1)
        yield connection


@pytest.mark.parametrize("chunk", [b"no number", b"4\r\nabcd\r\nno number"], ids=["first", "next"])
def test_a_body_that_is_wrong_takes_no_earlier_answer_away(
    strict: Service, runtimes: FakeRuntimes, jpeg: bytes, chunk: bytes
) -> None:
    """Its request waits for its turn, and what comes behind it is not heard."""
    counted = strict._server.server_state.connections
    with held_up(strict, runtimes, jpeg) as connection:
        connection.sendall(CHUNKED + b"\r\n" + chunk + b"\r\n" + (HEAD + b"\r\n") * 2)
        # Whoever waits for an answer is one of the connections.
        sleep(2 * TIMEOUT_MS / 1000)
        assert len(counted) == 1
        runtimes.last.gate.set()
        answer, refused = everything(connection).split(b"HTTP/1.1 ")[1:]
    assert answer.startswith(b"200 ")
    assert problem(b"HTTP/1.1 " + refused) == (400, "malformed_request")
    wait_until(lambda: not counted and not strict._server.server_state.tasks)


def queued(service: Service) -> int:
    """How many requests of the only connection wait for their turn."""
    (served,) = service._server.server_state.connections
    assert isinstance(served, connections.Connection)
    return len(served.pipeline)


@pytest.mark.parametrize("excess", [0, 1, 5000])
def test_of_what_comes_in_one_piece_only_so_many_requests_wait(
    strict: Service,
    runtimes: FakeRuntimes,
    jpeg: bytes,
    excess: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[HttpToolsProtocol] = []
    begin = HttpToolsProtocol.on_message_begin

    def count(self: HttpToolsProtocol) -> None:
        begun.append(self)
        begin(self)

    monkeypatch.setattr(HttpToolsProtocol, "on_message_begin", count)
    with held_up(strict, runtimes, jpeg) as connection:
        last = HEAD + (b"\r\n" if excess else b"Connection: close\r\n\r\n")
        connection.sendall((HEAD + b"\r\n") * (connections.MAX_QUEUED + excess - 1) + last)
        wait_until(lambda: queued(strict) >= connections.MAX_QUEUED)
        sleep(TIMEOUT_MS / 1000)
        assert queued(strict) == connections.MAX_QUEUED
        # Nor is time spent on those behind them, for which others would wait.
        assert begun.count(begun[-1]) <= connections.MAX_QUEUED + 2
        assert strict.client.get("/health/live").status_code == 200
        runtimes.last.gate.set()
        answers = everything(connection).split(b"HTTP/1.1 ")[1:]
    # That which was being answered, and those that waited.
    most = connections.MAX_QUEUED + 1
    assert [answer[:4] for answer in answers[:most]] == [b"200 "] * most
    refused = answers[most:]
    assert [problem(b"HTTP/1.1 " + answer) for answer in refused] == (
        [(429, "rate_exceeded")] if excess else []
    )
    assert all(b"\r\nretry-after: 1\r\n" in answer for answer in refused)


def test_while_a_request_waits_its_client_is_not_listened_to(
    strict: Service, runtimes: FakeRuntimes, jpeg: bytes
) -> None:
    """Nor when one before it is answered: what is sent without end would wait in memory."""
    with held_up(strict, runtimes, jpeg) as connection:
        for _ in range(2):
            connection.sendall((HEAD + b"\r\n") * (connections.MAX_QUEUED - 1))
            sleep(0.1)
        assert queued(strict) == connections.MAX_QUEUED - 1
        connection.sendall(HEAD + b"Connection: close\r\n\r\n")
        runtimes.last.gate.set()
        answers = everything(connection).split(b"HTTP/1.1 ")[1:]
    # Had one piece been read while another waited, they would be too many.
    assert [answer[:4] for answer in answers] == [b"200 "] * (2 * connections.MAX_QUEUED)


def test_the_rest_of_a_head_has_its_time_once_it_is_listened_to(
    strict: Service, runtimes: FakeRuntimes, jpeg: bytes
) -> None:
    with held_up(strict, runtimes, jpeg) as connection:
        connection.sendall((HEAD + b"\r\n") * 2 + HEAD)
        wait_until(lambda: queued(strict) == 2)
        (served,) = strict._server.server_state.connections
        assert isinstance(served, connections.Connection)
        runs_out = served._timer
        runtimes.last.gate.set()
        answers = connection.recv(65536)
        while answers.count(b"HTTP/1.1 200 ") < 3:
            answers += connection.recv(65536)
        assert served._timer is not runs_out
        connection.sendall(b"Connection: close\r\n\r\n")
        assert everything(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("behind", [b"", HEAD, JUNK["bytes"]], ids=["nothing", "half", "junk"])
@pytest.mark.parametrize("others", [0, 3])
def test_who_sends_nothing_more_gets_the_answers_that_are_due(
    strict: Service, runtimes: FakeRuntimes, jpeg: bytes, others: int, behind: bytes
) -> None:
    """As `nc -N` does when its input ends."""
    counted = strict._server.server_state.connections
    with held_up(strict, runtimes, jpeg) as connection:
        connection.sendall((HEAD + b"\r\n") * others + behind)
        connection.shutdown(socket.SHUT_WR)
        sleep(0.1)
        runtimes.last.gate.set()
        *answers, last = everything(connection).split(b"HTTP/1.1 ")[1:]
    if behind == JUNK["bytes"]:
        assert problem(b"HTTP/1.1 " + last) == (400, "malformed_request")
    else:
        answers.append(last)
    assert [answer[:4] for answer in answers] == [b"200 "] * (1 + others)
    wait_until(lambda: not counted)
    assert not strict.metric("brain_errors_total", code="headers_timeout")


@pytest.mark.parametrize(
    "body", [b"Content-Length: 9\r\n\r\nx", b"Transfer-Encoding: chunked\r\n\r\n1"]
)
@pytest.mark.parametrize("first", [False, True], ids=["behind another", "alone"])
def test_who_sends_nothing_more_of_a_body_has_no_answer_to_it(
    strict: Service, runtimes: FakeRuntimes, jpeg: bytes, body: bytes, first: bool
) -> None:
    state = strict._server.server_state
    head = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: image/jpeg\r\n"
    with connected(strict) if first else held_up(strict, runtimes, jpeg) as connection:
        connection.sendall(head + body)
        if not first:
            wait_until(lambda: queued(strict) == 1)
        connection.shutdown(socket.SHUT_WR)
        sleep(0.1)
        runtimes.last.gate.set()
        assert everything(connection).count(b"HTTP/1.1 ") == (0 if first else 1)
    wait_until(lambda: not state.connections and not state.tasks)
    assert strict.state.buffers.used == 0


def test_who_sends_nothing_more_and_reads_nothing_is_given_up(
    strict: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "SEND_SECONDS", TIMEOUT_MS / 1000)
    counted = strict._server.server_state.connections
    wait_until(lambda: not counted)
    with deaf(strict, BUNDLE) as connection:
        connection.shutdown(socket.SHUT_WR)
        wait_until(lambda: not counted)


@pytest.mark.parametrize("text", [b"", HEAD, HEAD + b"\r\n"], ids=["silent", "half", "answered"])
def test_who_sends_nothing_more_and_has_its_answers_is_let_go_at_once(
    crowded: Service, text: bytes
) -> None:
    with connected(crowded) as connection:
        connection.sendall(text)
        if text.endswith(b"\r\n\r\n"):
            assert first_answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection) == b""
    wait_until(lambda: not crowded._server.server_state.connections)


def test_behind_the_last_request_nothing_is_wrong(strict: Service) -> None:
    with connected(strict) as connection:
        connection.sendall(HEAD + b"Connection: close\r\n\r\n" + JUNK["bytes"])
        assert everything(connection).count(b"HTTP/1.1 ") == 1


def test_a_refusal_is_not_written_into_an_earlier_answer(strict: Service) -> None:
    # What the system holds of an answer, it takes at once, and the answer has ended.
    for listening in strict._server.servers[0].sockets:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with socket.socket() as connection:
        connection.settimeout(PATIENCE_SECONDS)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(strict.address)
        connection.sendall(BUNDLE)
        answer = connection.recv(1024)
        assert answer.startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"\0\1\2\3")
        sleep(0.1)
        answer, refused = (answer + everything(connection)).split(b"HTTP/1.1 ")[1:]
    fields, _, content = answer.partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % len(content) in fields.lower() + b"\r\n"
    assert problem(b"HTTP/1.1 " + refused) == (400, "malformed_request")


CHUNKED = b"POST /predict HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n"


@pytest.mark.parametrize("line", [b"X-A: b\r\n", b"b"], ids=["many", "endless"])
def test_trailers_have_a_largest_size(strict: Service, line: bytes) -> None:
    with connected(strict) as connection:
        connection.sendall(CHUNKED + b"Content-Type: image/jpeg\r\n\r\n1\r\nx\r\n0\r\n")
        connection.sendall(b"X-A: " + line * (connections.MAX_HEAD_BYTES * 8 // len(line)))
        assert problem(everything(connection)) == (431, "headers_too_large")
    wait_until(lambda: not strict._server.server_state.tasks)


def test_trailers_after_the_answer_get_no_second_one(
    model_store: Path, runtimes: FakeRuntimes
) -> None:
    with serving(settings_for(model_store), runtimes) as service, connected(service) as connection:
        connection.sendall(CHUNKED + b"Content-Type: text/plain\r\n\r\n0\r\n")
        assert first_answer(connection).startswith(b"HTTP/1.1 415 ")
        connection.sendall(b"X-A: b\r\n" * connections.MAX_HEAD_BYTES)
        assert everything(connection) == b""
        assert not service.metric("brain_errors_total", code="headers_too_large")


def test_trailers_are_no_headers(strict: Service, jpeg: bytes) -> None:
    wait_until(lambda: not strict._server.server_state.connections)
    body = b"%x\r\n%b\r\n0\r\nX-Late: b\r\n\r\n" % (len(jpeg), jpeg)
    with connected(strict) as connection:
        connection.sendall(CHUNKED + b"Content-Type: image/jpeg\r\n\r\n" + body)
        assert first_answer(connection).startswith(b"HTTP/1.1 200 ")
        (served,) = strict._server.server_state.connections
        assert isinstance(served, HttpToolsProtocol)
        assert [name for name, _ in served.headers] == [
            b"host",
            b"transfer-encoding",
            b"content-type",
        ]


@pytest.mark.parametrize("text", [b"\0\1\2\3", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nA B\r\n\r\n"])
def test_what_is_no_http_is_a_problem(strict: Service, text: bytes) -> None:
    with connected(strict) as connection:
        connection.sendall(text)
        assert problem(everything(connection)) == (400, "malformed_request")


@pytest.mark.parametrize(
    ("hosts", "accepted"),
    [
        ([b"test"], True),
        ([b"test:8000"], True),
        ([b"my_service.example.org."], True),
        ([b"[::1]:8000"], True),
        ([b"192.0.2.7:"], True),
        ([b""], True),
        ([], False),
        ([b"test", b"test"], False),
        ([b"[::1].evil.com"], False),
        ([b"[::1.evil.example]"], False),
        ([b"evil%2ecom"], False),
        ([b"evil\xe3\x80\x82com"], False),
        ([b"a b"], False),
        ([b"test:80:80"], False),
        ([b"test:x"], False),
        ([b"user@test"], False),
        ([b"test/x"], False),
        ([b"::1"], False),
    ],
    ids=str,
)
def test_a_request_names_one_host(strict: Service, hosts: list[bytes], accepted: bool) -> None:
    """RFC 9112, 3.2."""
    fields = b"".join(b"Host: " + host + b"\r\n" for host in hosts)
    with connected(strict) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\n" + fields + b"Connection: close\r\n\r\n")
        answer = everything(connection)
    if accepted:
        assert answer.startswith(b"HTTP/1.1 200 ")
    else:
        assert problem(answer) == (400, "malformed_request")


@pytest.mark.parametrize(
    ("target", "host", "accepted"),
    [
        (b"http://test", b"test", True),
        (b"HTTP://Test", b"tesT", True),
        (b"http://[::1]:80", b"[::1]:80", True),
        (b"http://[0::1]", b"[::1]:", True),
        (b"http://[::1]", b"[::2]", False),
        # As a client may write the scheme's own port, or leave it away.
        (b"http://test:80", b"test", True),
        (b"http://test", b"test:80", True),
        (b"http://test:", b"test", True),
        (b"http://test:99999", b"test:99999", True),
        (b"https://test:443", b"test", True),
        (b"https://test:80", b"test", False),
        (b"http://test:443", b"test", False),
        (b"any+scheme://test:80", b"test", False),
        (b"//evil.com/..", b"test", None),
        (b"http://evil.com", b"test", False),
        (b"https://evil.com", b"test", False),
        (b"any+scheme://evil.com", b"test", False),
        (b"http://test:8000", b"test", False),
        (b"http://test", b"", False),
        (b"http://user@test", b"test", False),
        (b"http://user@test", b"user@test", False),
        (b"http://evil.com%2f", b"evil.com", False),
    ],
    ids=str,
)
def test_an_absolute_target_is_of_the_same_host(
    strict: Service, target: bytes, host: bytes, accepted: bool | None
) -> None:
    """RFC 9112, 3.2.2; what begins with slashes is no such target, and there is nothing at it."""
    with connected(strict) as connection:
        connection.sendall(b"GET %b/health/live HTTP/1.1\r\nHost: %b\r\n" % (target, host))
        connection.sendall(b"Connection: close\r\n\r\n")
        answer = everything(connection)
    if accepted is False:
        assert problem(answer) == (400, "malformed_request")
    else:
        assert answer.startswith(b"HTTP/1.1 200 " if accepted else b"HTTP/1.1 404 ")


@pytest.mark.parametrize("query", [b"", b"?x=1", b"?x=/health/live"], ids=str)
@pytest.mark.parametrize("method", [b"GET", b"OPTIONS"], ids=str)
def test_an_absolute_target_without_a_path_is_the_page(
    strict: Service, method: bytes, query: bytes
) -> None:
    """RFC 9110, 4.2.3."""
    with connected(strict) as connection:
        connection.sendall(HEAD + b"\r\n")
        connection.sendall(method + b" http://test" + query + b" HTTP/1.1\r\nHost: test\r\n")
        connection.sendall(b"Connection: close\r\n\r\n")
        first, second = everything(connection).split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"200 ")
    assert second.startswith(b"200 " if method == b"GET" else b"405 ")
    assert (b"<title>" in second) == (method == b"GET")


@pytest.mark.parametrize("host", [b"", b"Host: test\r\n"], ids=["none", "one"])
def test_an_absolute_target_says_nothing_that_a_host_does_not(strict: Service, host: bytes) -> None:
    """Nobody who looks at the header alone is to be told anything else, under HTTP/1.0 either."""
    with connected(strict) as connection:
        connection.sendall(b"GET http://test/health/live HTTP/1.0\r\n" + host + b"\r\n")
        status = everything(connection).split()[1]
    assert status == (b"200" if host else b"400")


@pytest.mark.parametrize("pieces", [b"", b"Host: test\r\n", b"Host: a\r\nHost: b\r\n"], ids=str)
def test_of_http_1_0_none_is_asked(strict: Service, pieces: bytes) -> None:
    with connected(strict) as connection:
        connection.sendall(b"GET /health/live HTTP/1.0\r\n" + pieces + b"\r\n")
        status = everything(connection).split()[1]
    assert status == (b"400" if pieces.count(b"Host") > 1 else b"200")


def test_a_request_without_a_host_takes_no_earlier_answer_away(strict: Service) -> None:
    with connected(strict) as connection:
        connection.sendall(HEAD + b"\r\n")
        assert first_answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /health/live HTTP/1.1\r\n\r\n")
        assert problem(everything(connection)) == (400, "malformed_request")


def test_a_body_that_is_wrong_before_it_is_asked_for_is_no_failure_of_the_service(
    strict: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing may be written behind the refusal, of which the end is sent."""
    head = CHUNKED + b"Content-Type: image/jpeg\r\nExpect: 100-continue\r\n\r\n"
    with connected(strict) as connection:
        connection.sendall(head + b"no number\r\n")
        assert problem(everything(connection)) == (400, "malformed_request")
    wait_until(lambda: not strict._server.server_state.tasks)
    assert not strict.metric("brain_errors_total", code="internal_error")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_request_that_breaks_off_in_its_body_leaves_nothing(strict: Service) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: image/jpeg\r\n"
    with connected(strict) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\nno number\r\n")
        assert problem(everything(connection)) == (400, "malformed_request")
    wait_until(lambda: not strict._server.server_state.tasks)


def test_too_many_connections_are_refused_until_one_ends(
    strict: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "GRACE_SECONDS", PATIENCE_SECONDS)
    wait_until(lambda: not strict._server.server_state.connections)
    taken = [socket.create_connection(strict.address, PATIENCE_SECONDS) for _ in range(4)]
    for connection in taken:
        connection.sendall(HEAD + b"\r\n")
        assert first_answer(connection).startswith(b"HTTP/1.1 200 ")
    with connected(strict) as connection:
        answer = everything(connection)
        assert problem(answer) == (503, "too_many_connections")
        assert b"\r\nretry-after: 1\r\n" in answer
    taken[0].sendall(HEAD + b"\r\n")
    assert first_answer(taken[0]).startswith(b"HTTP/1.1 200 ")
    for connection in taken:
        connection.close()
    wait_until(lambda: not strict._server.server_state.connections)
    assert strict.client.get("/health").status_code == 200


@pytest.fixture
def crowded(model_store: Path, runtimes: FakeRuntimes) -> Iterator[Service]:
    settings = settings_for(model_store, max_connections=4, header_timeout_ms=60_000)
    with serving(settings, runtimes) as running:
        running.client.headers["Connection"] = "close"
        running.client.get("/health")
        wait_until(lambda: not running._server.server_state.connections)
        yield running


def opened(service: Service, text: bytes, address: str = "127.0.0.1") -> socket.socket:
    """A client that says something; from an address of its own, which this machine has many of."""
    connection = socket.create_connection(service.address, PATIENCE_SECONDS, (address, 0))
    connection.sendall(text)
    return connection


def idle(service: Service, address: str = "127.0.0.1") -> socket.socket:
    """A client that has its answer and keeps its connection."""
    with ExitStack() as stack:
        connection = stack.enter_context(opened(service, HEAD + b"\r\n", address))
        assert first_answer(connection).startswith(b"HTTP/1.1 200 ")
        # Left open only where it has its answer: a service that ends would not like it.
        stack.pop_all()
    return connection


REFUSED_BODY = (
    b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 1000000\r\n\r\n"
)


@pytest.mark.parametrize("text", [b"", HEAD, REFUSED_BODY], ids=["silent", "half", "unwanted"])
def test_where_connections_are_full_the_oldest_without_a_request_makes_room(
    crowded: Service, text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "GRACE_SECONDS", 0)
    with ExitStack() as stack:
        taken = []
        for _ in range(4):
            taken.append(stack.enter_context(opened(crowded, text)))
            if text == REFUSED_BODY:
                assert first_answer(taken[-1]).startswith(b"HTTP/1.1 415 ")
            wait_until(lambda: len(crowded._server.server_state.connections) == len(taken))
        probe = stack.enter_context(opened(crowded, HEAD + b"\r\n"))
        assert first_answer(probe).startswith(b"HTTP/1.1 200 ")
        answer = everything(taken[0])
        assert (problem(answer) if answer else None) == (
            None if text == REFUSED_BODY else (503, "too_many_connections")
        )
        for connection in taken[1:]:
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):
                connection.recv(1)


def test_who_keeps_more_than_half_of_the_connections_makes_room_for_others(
    crowded: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "GRACE_SECONDS", PATIENCE_SECONDS)
    with ExitStack() as stack:
        taken = [stack.enter_context(idle(crowded)) for _ in range(4)]
        for _ in range(2):
            other = stack.enter_context(opened(crowded, HEAD + b"\r\n", "127.0.0.2"))
            assert first_answer(other).startswith(b"HTTP/1.1 200 ")
        ended = [everything(connection) for connection in taken[:2]]
        assert ended == [b"", b""]
        # Each has half by now.
        for address in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
            refused = stack.enter_context(opened(crowded, b"", address))
            assert problem(everything(refused)) == (503, "too_many_connections")


def test_who_has_a_network_of_addresses_is_one_client(
    crowded: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As everybody has with IPv6, and this machine need not."""

    def spelled_anew(transport: asyncio.Transport) -> tuple[str, int]:
        peer = get_remote_addr(transport)
        assert peer is not None
        _, _, network, host = peer[0].split(".")
        return f"2001:db8:0:{network}::{host}", peer[1]

    for module in (connections, httptools_impl):
        monkeypatch.setattr(module, "get_remote_addr", spelled_anew)
    monkeypatch.setattr(crowd, "GRACE_SECONDS", PATIENCE_SECONDS)
    with ExitStack() as stack:
        taken = [stack.enter_context(idle(crowded, f"127.0.0.{last}")) for last in range(1, 5)]
        other = stack.enter_context(opened(crowded, HEAD + b"\r\n", "127.0.1.1"))
        assert first_answer(other).startswith(b"HTTP/1.1 200 ")
        assert everything(taken[0]) == b""


@pytest.mark.parametrize("extra", [0, 4], ids=["idle", "opened"])
def test_who_keeps_all_connections_takes_none_of_a_client_that_has_just_connected(
    crowded: Service, extra: int
) -> None:
    """It may be far away, and its request on its way."""
    counted = crowded._server.server_state.connections
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(idle(crowded))
        before = set(counted)
        far = stack.enter_context(opened(crowded, b"", "127.0.0.2"))
        wait_until(lambda: set(counted) - before)
        for _ in range(extra):
            refused = stack.enter_context(opened(crowded, HEAD + b"\r\n"))
            assert problem(everything(refused)) == (503, "too_many_connections")
        stack.enter_context(idle(crowded, "127.0.0.3"))
        far.sendall(HEAD + b"\r\n")
        assert first_answer(far).startswith(b"HTTP/1.1 200 ")


def test_what_has_been_idle_for_longest_makes_room_for_its_own_address(
    crowded: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All users behind a proxy are one address, and it copes with the end of what is idle."""
    monkeypatch.setattr(crowd, "GRACE_SECONDS", 0.5)
    with ExitStack() as stack:
        taken = [stack.enter_context(idle(crowded)) for _ in range(4)]
        sleep(0.6)
        taken[0].sendall(HEAD + b"\r\n")
        assert first_answer(taken[0]).startswith(b"HTTP/1.1 200 ")
        stack.enter_context(idle(crowded))
        assert everything(taken[1]) == b""
        for connection in (taken[0], *taken[2:]):
            connection.sendall(HEAD + b"\r\n")
            assert first_answer(connection).startswith(b"HTTP/1.1 200 ")


def hold_little(service: Service) -> None:
    """What the system holds of an answer, it takes at once, and is not seen to be read."""
    for listening in service._server.servers[0].sockets:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


@contextmanager
def deaf(service: Service, text: bytes) -> Iterator[socket.socket]:
    """A client that asks, and has read nothing so far; the answer waits in the service."""
    hold_little(service)
    with socket.socket() as connection:
        connection.settimeout(PATIENCE_SECONDS)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(service.address)
        connection.sendall(text)
        served = service._server.server_state.connections
        wait_until(
            lambda: any(
                isinstance(one, connections.Connection) and one.transport.get_write_buffer_size()
                for one in served
            )
        )
        yield connection


@pytest.mark.parametrize("more", [b"", b"GET /health"], ids=["idle", "begun"])
def test_an_answer_that_is_still_being_read_makes_no_room(
    crowded: Service, monkeypatch: pytest.MonkeyPatch, more: bytes
) -> None:
    monkeypatch.setattr(crowd, "GRACE_SECONDS", 0)
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.1)
    open_connections = crowded._server.server_state.connections
    with deaf(crowded, SHEET + b"\r\n" + more) as slow, ExitStack() as stack:
        (served,) = open_connections
        for _ in range(3):
            stack.enter_context(idle(crowded))
        stack.enter_context(idle(crowded, "127.0.0.2"))
        stack.enter_context(idle(crowded))
        assert served in open_connections
        sleep(2 * connections.LINGER_SECONDS)
        answer = HTTPResponse(slow)
        answer.begin()
        assert len(answer.read()) == int(answer.headers["Content-Length"])


@pytest.mark.parametrize("ending", ["asked", "idle", "deaf"])
def test_the_rest_of_an_answer_that_is_never_read_is_given_up(
    strict: Service, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """It is so little that the service is not told that it waits."""
    monkeypatch.setattr(sending, "SEND_SECONDS", TIMEOUT_MS / 1000)
    strict._server.config.timeout_keep_alive = 1
    open_connections = strict._server.server_state.connections
    wait_until(lambda: not open_connections)
    text = SHEET + (b"Connection: close\r\n\r\n" if ending == "asked" else b"\r\n")
    with deaf(strict, text) as connection:
        if ending == "deaf":
            connection.shutdown(socket.SHUT_WR)
        wait_until(lambda: not open_connections)


@pytest.mark.parametrize("junk", [b"\0\1\2\3", b""], ids=["behind it", "none"])
def test_a_client_that_reads_slowly_gets_its_answer_before_a_refusal(
    crowded: Service, monkeypatch: pytest.MonkeyPatch, junk: bytes
) -> None:
    """The time to read the refusal begins when all before it is sent."""
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.1)
    counted = crowded._server.server_state.connections
    with deaf(crowded, SHEET + b"\r\n" + junk) as slow:
        if not junk:
            slow.sendall(b"\0\1\2\3")
        sleep(5 * connections.LINGER_SECONDS)
        # What waits for it is in memory.
        assert len(counted) == 1
        answer, refused = everything(slow).split(b"HTTP/1.1 ")[1:]
    fields, _, content = answer.partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % len(content) in fields.lower() + b"\r\n"
    assert problem(b"HTTP/1.1 " + refused) == (400, "malformed_request")
    wait_until(lambda: not counted)


def test_a_refused_client_that_never_reads_is_given_up(
    strict: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.1)
    monkeypatch.setattr(sending, "SEND_SECONDS", TIMEOUT_MS / 1000)
    counted = strict._server.server_state.connections
    wait_until(lambda: not counted)
    with deaf(strict, SHEET + b"\r\n\0\1\2\3"):
        wait_until(lambda: not counted)


class Reading:
    """A connection whose client is still reading an answer."""

    looks = 0

    def __init__(self, address: str) -> None:
        self.address = address
        self.party: Party | None = None
        self.standing = Standing.BUSY

    @property
    def has_sent_all(self) -> bool:
        Reading.looks += 1
        return False

    def make_way(self) -> None:
        pytest.fail("its answer is cut off")


@pytest.mark.parametrize("standing", Standing, ids=lambda standing: standing.name.lower())
@pytest.mark.parametrize("addresses", [1, 850])
def test_a_flood_of_refused_clients_looks_at_few_connections(
    monkeypatch: pytest.MonkeyPatch, standing: Standing, addresses: int
) -> None:
    """On the event loop, each time."""
    monkeypatch.setattr(crowd, "GRACE_SECONDS", 0)
    monkeypatch.setattr(Reading, "looks", 0)
    full = crowd.Crowd(800)
    members = [Reading(f"192.0.2.{number % addresses}") for number in range(850)]
    for member in members:
        full.add(member)
        full.move(member, standing)
    assert not full.make_room("192.0.2.0")
    assert not full.make_room("198.51.100.1")
    # Of an address and of all; what is unfinished and what is idle.
    assert Reading.looks <= 4 * crowd.MAX_LOOKS
    for member in members:
        full.remove(member)
        full.remove(member)
    assert not full.is_full


def test_who_keeps_all_connections_busy_leaves_others_some(
    model_store: Path, runtimes: FakeRuntimes
) -> None:
    settings = settings_for(model_store, max_connections=16)
    head = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: image/jpeg\r\n"
    with serving(settings, runtimes) as service, ExitStack() as stack:
        service.client.close()
        wait_until(lambda: not service._server.server_state.connections)
        for _ in range(16):
            stack.enter_context(opened(service, head + b"Content-Length: 9\r\n\r\nx"))
        wait_until(lambda: service.state.buffers.used == 16)
        refused = stack.enter_context(opened(service, HEAD + b"\r\n"))
        assert problem(everything(refused)) == (503, "too_many_connections")
        probe = stack.enter_context(opened(service, HEAD + b"\r\n", "127.0.0.2"))
        assert first_answer(probe).startswith(b"HTTP/1.1 200 ")
        refused = stack.enter_context(opened(service, HEAD + b"\r\n", "127.0.0.3"))
        assert problem(everything(refused)) == (503, "too_many_connections")


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
