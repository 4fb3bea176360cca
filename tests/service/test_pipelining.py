"""Requests that come one behind another on a connection: each has its answer, in their order."""

import socket
from http.client import HTTPResponse
from time import sleep

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service import connections
from tests.support.connections import (
    BUNDLE,
    CHUNKED,
    HEAD,
    IMAGE,
    JUNK,
    SHEET,
    TIMEOUT_MS,
    all_answers,
    connected,
    everything,
    first_answer,
    held_up,
    is_whole,
    only,
    problem,
    slow,
    status,
)
from tests.support.service import (
    FakeRuntimes,
    Service,
    wait_until,
)


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
@pytest.mark.parametrize("head", [HEAD, SHEET], ids=["at once", "from a file"])
@pytest.mark.parametrize("requests", [1, 2])
def test_what_is_wrong_behind_requests_takes_none_of_their_answers_away(
    strict: Service, requests: int, head: bytes, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with connected(strict) as connection:
        connection.sendall((head + b"\r\n") * requests + junk)
        *answers, refused = all_answers(connection)
    assert [status(answer) for answer in answers] == [200] * requests
    assert problem(refused) == (400, "malformed_request")
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
        wait_until(lambda: len(only(strict).pipeline) == 1)
        runtimes.last.gate.set()
        *answers, refused = all_answers(connection)
    assert [status(answer) for answer in answers] == [200] * 2
    assert problem(refused) == (400, "malformed_request")


@pytest.mark.parametrize("chunk", [b"no number", b"4\r\nabcd\r\nno number"], ids=["first", "next"])
def test_a_body_that_is_wrong_takes_no_earlier_answer_away(
    strict: Service, runtimes: FakeRuntimes, jpeg: bytes, chunk: bytes
) -> None:
    """Its request waits for its turn, and what comes behind it is not heard."""
    with held_up(strict, runtimes, jpeg) as connection:
        connection.sendall(CHUNKED + b"\r\n" + chunk + b"\r\n" + (HEAD + b"\r\n") * 2)
        # Whoever waits for an answer is one of the connections.
        sleep(2 * TIMEOUT_MS / 1000)
        assert len(strict.connections) == 1
        runtimes.last.gate.set()
        answer, refused = all_answers(connection)
    assert status(answer) == 200
    assert problem(refused) == (400, "malformed_request")
    wait_until(lambda: not strict.connections and not strict.tasks)


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
        wait_until(lambda: len(only(strict).pipeline) >= connections.MAX_QUEUED)
        sleep(TIMEOUT_MS / 1000)
        assert len(only(strict).pipeline) == connections.MAX_QUEUED
        # Nor is time spent on those behind them, for which others would wait.
        assert begun.count(begun[-1]) <= connections.MAX_QUEUED + 2
        assert strict.client.get("/health/live").status_code == 200
        runtimes.last.gate.set()
        answers = all_answers(connection)
    # That which was being answered, and those that waited.
    most = connections.MAX_QUEUED + 1
    assert [status(answer) for answer in answers[:most]] == [200] * most
    refused = answers[most:]
    assert [problem(answer) for answer in refused] == ([(429, "rate_exceeded")] if excess else [])
    assert all(b"\r\nretry-after: 1\r\n" in answer for answer in refused)


def test_while_a_request_waits_its_client_is_not_listened_to(
    strict: Service, runtimes: FakeRuntimes, jpeg: bytes
) -> None:
    """Nor when one before it is answered: what is sent without end would wait in memory."""
    with held_up(strict, runtimes, jpeg) as connection:
        for _ in range(2):
            connection.sendall((HEAD + b"\r\n") * (connections.MAX_QUEUED - 1))
            sleep(0.1)
        assert len(only(strict).pipeline) == connections.MAX_QUEUED - 1
        connection.sendall(HEAD + b"Connection: close\r\n\r\n")
        runtimes.last.gate.set()
        answers = all_answers(connection)
    # Had one piece been read while another waited, they would be too many.
    assert [status(answer) for answer in answers] == [200] * (2 * connections.MAX_QUEUED)


def test_the_rest_of_a_head_has_its_time_once_it_is_listened_to(
    strict: Service, runtimes: FakeRuntimes, jpeg: bytes
) -> None:
    with held_up(strict, runtimes, jpeg) as connection:
        connection.sendall((HEAD + b"\r\n") * 2 + HEAD)
        wait_until(lambda: len(only(strict).pipeline) == 2)
        served = only(strict)
        runs_out = served._timer
        runtimes.last.gate.set()
        answers = connection.recv(65536)
        while answers.count(b"HTTP/1.1 200 ") < 3:
            answers += connection.recv(65536)
        assert served._timer is not runs_out
        connection.sendall(b"Connection: close\r\n\r\n")
        assert status(everything(connection)) == 200


@pytest.mark.parametrize("behind", [b"", HEAD, JUNK["bytes"]], ids=["nothing", "half", "junk"])
@pytest.mark.parametrize("others", [0, 3])
def test_who_sends_nothing_more_gets_the_answers_that_are_due(
    strict: Service, runtimes: FakeRuntimes, jpeg: bytes, others: int, behind: bytes
) -> None:
    """As `nc -N` does when its input ends."""
    with held_up(strict, runtimes, jpeg) as connection:
        connection.sendall((HEAD + b"\r\n") * others + behind)
        connection.shutdown(socket.SHUT_WR)
        sleep(0.1)
        runtimes.last.gate.set()
        *answers, last = all_answers(connection)
    if behind == JUNK["bytes"]:
        assert problem(last) == (400, "malformed_request")
    else:
        answers.append(last)
    assert [status(answer) for answer in answers] == [200] * (1 + others)
    wait_until(lambda: not strict.connections)
    assert not strict.metric("brain_errors_total", code="headers_timeout")


@pytest.mark.parametrize(
    "body", [b"Content-Length: 9\r\n\r\nx", b"Transfer-Encoding: chunked\r\n\r\n1"]
)
@pytest.mark.parametrize("first", [False, True], ids=["behind another", "alone"])
def test_who_sends_nothing_more_of_a_body_has_no_answer_to_it(
    strict: Service, runtimes: FakeRuntimes, jpeg: bytes, body: bytes, first: bool
) -> None:
    with connected(strict) if first else held_up(strict, runtimes, jpeg) as connection:
        connection.sendall(IMAGE + body)
        if not first:
            wait_until(lambda: len(only(strict).pipeline) == 1)
        connection.shutdown(socket.SHUT_WR)
        sleep(0.1)
        runtimes.last.gate.set()
        assert len(all_answers(connection)) == (0 if first else 1)
    wait_until(lambda: not strict.connections and not strict.tasks)
    assert strict.state.buffers.used == 0


@pytest.mark.parametrize("text", [b"", HEAD, HEAD + b"\r\n"], ids=["silent", "half", "answered"])
def test_who_sends_nothing_more_and_has_its_answers_is_let_go_at_once(
    crowded: Service, text: bytes
) -> None:
    with connected(crowded, text) as connection:
        if text.endswith(b"\r\n\r\n"):
            assert status(first_answer(connection)) == 200
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection) == b""
    wait_until(lambda: not crowded.connections)


def test_behind_the_last_request_nothing_is_wrong(strict: Service) -> None:
    with connected(strict) as connection:
        connection.sendall(HEAD + b"Connection: close\r\n\r\n" + JUNK["bytes"])
        assert len(all_answers(connection)) == 1


def test_a_refusal_is_not_written_into_an_earlier_answer(strict: Service) -> None:
    with slow(strict, BUNDLE) as connection:
        answer = connection.recv(1024)
        assert status(answer) == 200
        connection.sendall(b"\0\1\2\3")
        sleep(0.1)
        answer, refused = (answer + everything(connection)).split(b"HTTP/1.1 ")[1:]
    assert is_whole(b"HTTP/1.1 " + answer)
    assert problem(b"HTTP/1.1 " + refused) == (400, "malformed_request")


def test_a_request_without_a_host_takes_no_earlier_answer_away(strict: Service) -> None:
    with connected(strict) as connection:
        connection.sendall(HEAD + b"\r\n")
        assert status(first_answer(connection)) == 200
        connection.sendall(b"GET /health/live HTTP/1.1\r\n\r\n")
        assert problem(everything(connection)) == (400, "malformed_request")
