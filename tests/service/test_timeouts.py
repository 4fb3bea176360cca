"""Clients that are slow, or say or read nothing, over real sockets: each is let go in time."""

import socket
from time import monotonic, sleep

import pytest

from service import connections, sending
from tests.support.connections import (
    BUNDLE,
    HEAD,
    SHEET,
    TIMEOUT_MS,
    all_answers,
    connected,
    deaf,
    everything,
    first_answer,
    held_up,
    is_whole,
    problem,
    slow,
    status,
)
from tests.support.service import (
    PATIENCE_SECONDS,
    FakeRuntimes,
    Service,
    wait_until,
)


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
        assert status(first_answer(connection)) == 200
        connection.sendall(HEAD[:size])
        assert problem(everything(connection)) == (408, "headers_timeout")
    assert strict.metric("brain_errors_total", code="headers_timeout") == 1


def test_headers_that_stop_take_no_earlier_answer_away(
    strict: Service, runtimes: FakeRuntimes, jpeg: bytes
) -> None:
    """The first request is predicted for longer than the headers of the second one may take."""
    with held_up(strict, runtimes, jpeg) as connection:
        connection.sendall(HEAD)
        sleep(2 * TIMEOUT_MS / 1000)
        runtimes.last.gate.set()
        assert status(first_answer(connection)) == 200
        assert problem(everything(connection)) == (408, "headers_timeout")


def test_a_client_that_asks_nothing_more_is_let_go(strict: Service) -> None:
    strict._server.config.timeout_keep_alive = 1
    with connected(strict) as connection:
        connection.sendall(HEAD + b"\r\n")
        assert status(first_answer(connection)) == 200
        assert everything(connection) == b""


@pytest.mark.parametrize("rest", [b"\r\n", b"\n\r\n"])
def test_an_empty_line_after_a_request_is_none(strict: Service, rest: bytes) -> None:
    with connected(strict) as connection:
        connection.sendall(HEAD + b"\r\n")
        assert status(first_answer(connection)) == 200
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
        assert status(first_answer(connection)) == 200
        trickle(connection, b"\r\n")


def test_a_body_that_nobody_wants_is_not_waited_for(strict: Service) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: text/plain\r\n"
    head += b"Content-Length: 1000000\r\n\r\n"
    with connected(strict) as connection:
        connection.sendall(head)
        assert status(first_answer(connection)) == 415
        trickle(connection, b"x")


def test_an_answer_that_is_never_read_is_given_up(
    strict: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "SEND_SECONDS", TIMEOUT_MS / 1000)
    with deaf(strict, BUNDLE * 20):
        wait_until(lambda: not strict.connections)


def test_a_client_that_reads_slowly_gets_the_answer_to_its_end(
    strict: Service, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "SEND_SECONDS", TIMEOUT_MS / 3000)
    monkeypatch.setattr(sending, "SEND_BYTES", 1000)
    # Its answer is written at once, and has the names of the files in it.
    files = [("files", (f"{number:04000}.jpg", jpeg)) for number in range(64)]
    request = strict.client.build_request("POST", "/predict", files=files)
    head = b"".join(name + b": " + value + b"\r\n" for name, value in request.headers.raw)
    text = b"POST /predict HTTP/1.1\r\n" + head + b"\r\n" + request.read()
    with slow(strict, text) as connection:
        answer = connection.recv(1024)
        length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        start = monotonic()
        while len(answer.partition(b"\r\n\r\n")[2]) < length:
            piece = connection.recv(8192)
            assert piece, "cut off"
            answer += piece
            sleep(len(piece) / length)
        assert monotonic() - start > 2 * sending.SEND_SECONDS


def test_who_sends_nothing_more_and_reads_nothing_is_given_up(
    strict: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "SEND_SECONDS", TIMEOUT_MS / 1000)
    with deaf(strict, BUNDLE) as connection:
        connection.shutdown(socket.SHUT_WR)
        wait_until(lambda: not strict.connections)


@pytest.mark.parametrize("ending", ["asked", "idle", "deaf"])
def test_the_rest_of_an_answer_that_is_never_read_is_given_up(
    strict: Service, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """It is so little that the service is not told that it waits."""
    monkeypatch.setattr(sending, "SEND_SECONDS", TIMEOUT_MS / 1000)
    strict._server.config.timeout_keep_alive = 1
    text = SHEET + (b"Connection: close\r\n\r\n" if ending == "asked" else b"\r\n")
    with deaf(strict, text) as connection:
        if ending == "deaf":
            connection.shutdown(socket.SHUT_WR)
        wait_until(lambda: not strict.connections)


@pytest.mark.parametrize("junk", [b"\0\1\2\3", b""], ids=["behind it", "none"])
def test_a_client_that_reads_slowly_gets_its_answer_before_a_refusal(
    crowded: Service, monkeypatch: pytest.MonkeyPatch, junk: bytes
) -> None:
    """The time to read the refusal begins when all before it is sent."""
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.1)
    with deaf(crowded, SHEET + b"\r\n" + junk) as connection:
        if not junk:
            connection.sendall(b"\0\1\2\3")
        sleep(5 * connections.LINGER_SECONDS)
        # What waits for it is in memory.
        assert len(crowded.connections) == 1
        answer, refused = all_answers(connection)
    assert is_whole(answer)
    assert problem(refused) == (400, "malformed_request")
    wait_until(lambda: not crowded.connections)


def test_a_refused_client_that_never_reads_is_given_up(
    strict: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.1)
    monkeypatch.setattr(sending, "SEND_SECONDS", TIMEOUT_MS / 1000)
    with deaf(strict, SHEET + b"\r\n\0\1\2\3"):
        wait_until(lambda: not strict.connections)
