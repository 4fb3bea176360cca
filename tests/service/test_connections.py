"""What is no HTTP, or too large for it, over real sockets: each client is told why, and let go."""

from http.client import HTTPResponse
from pathlib import Path
from time import sleep

import pytest

from service import connections
from service.catalogue import CODES
from tests.support.connections import (
    CHUNKED,
    HEAD,
    IMAGE,
    TIMEOUT_MS,
    all_answers,
    connected,
    everything,
    first_answer,
    only,
    problem,
    status,
)
from tests.support.service import (
    FakeRuntimes,
    Service,
    serving,
    settings_for,
    wait_until,
)

UPGRADES = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEA\r\n"


@pytest.mark.parametrize("pieces", ["whole", "apart", "bytes"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_an_offer_of_another_protocol_is_ignored(
    strict: Service, jpeg: bytes, pieces: str, is_chunked: bool
) -> None:
    """As Java's HttpClient makes it with every request."""
    head = IMAGE + UPGRADES
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
        assert status(connection.recv(65536)) in {400, 404, 405}


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
        assert status(answer) == 200


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


@pytest.mark.parametrize("line", [b"X-A: b\r\n", b"b"], ids=["many", "endless"])
def test_trailers_have_a_largest_size(strict: Service, line: bytes) -> None:
    with connected(strict) as connection:
        connection.sendall(CHUNKED + b"Content-Type: image/jpeg\r\n\r\n1\r\nx\r\n0\r\n")
        connection.sendall(b"X-A: " + line * (connections.MAX_HEAD_BYTES * 8 // len(line)))
        assert problem(everything(connection)) == (431, "headers_too_large")
    wait_until(lambda: not strict.tasks)


def test_trailers_after_the_answer_get_no_second_one(
    model_store: Path, runtimes: FakeRuntimes
) -> None:
    with serving(settings_for(model_store), runtimes) as service, connected(service) as connection:
        connection.sendall(CHUNKED + b"Content-Type: text/plain\r\n\r\n0\r\n")
        assert status(first_answer(connection)) == 415
        connection.sendall(b"X-A: b\r\n" * connections.MAX_HEAD_BYTES)
        assert everything(connection) == b""
        assert not service.metric("brain_errors_total", code="headers_too_large")


def test_trailers_are_no_headers(strict: Service, jpeg: bytes) -> None:
    body = b"%x\r\n%b\r\n0\r\nX-Late: b\r\n\r\n" % (len(jpeg), jpeg)
    with connected(strict) as connection:
        connection.sendall(CHUNKED + b"Content-Type: image/jpeg\r\n\r\n" + body)
        assert status(first_answer(connection)) == 200
        assert [name for name, _ in only(strict).headers] == [
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
        assert status(answer) == 200
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
        assert status(answer) == (200 if accepted else 404)


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
        first, second = all_answers(connection)
    assert status(first) == 200
    assert status(second) == (200 if method == b"GET" else 405)
    assert (b"<title>" in second) == (method == b"GET")


@pytest.mark.parametrize("host", [b"", b"Host: test\r\n"], ids=["none", "one"])
def test_an_absolute_target_says_nothing_that_a_host_does_not(strict: Service, host: bytes) -> None:
    """Nobody who looks at the header alone is to be told anything else, under HTTP/1.0 either."""
    with connected(strict) as connection:
        connection.sendall(b"GET http://test/health/live HTTP/1.0\r\n" + host + b"\r\n")
        answer = everything(connection)
    assert status(answer) == (200 if host else 400)


@pytest.mark.parametrize("pieces", [b"", b"Host: test\r\n", b"Host: a\r\nHost: b\r\n"], ids=str)
def test_of_http_1_0_none_is_asked(strict: Service, pieces: bytes) -> None:
    with connected(strict) as connection:
        connection.sendall(b"GET /health/live HTTP/1.0\r\n" + pieces + b"\r\n")
        answer = everything(connection)
    assert status(answer) == (400 if pieces.count(b"Host") > 1 else 200)


@pytest.mark.parametrize(
    ("codings", "accepted"),
    [
        ([b"chunked"], True),
        ([b" Chunked "], True),
        ([b"gzip, chunked"], False),
        ([b"identity, chunked"], False),
        ([b"gzip", b"chunked"], False),
        ([b"chunked, chunked"], False),
        ([b"chunked", b"chunked"], False),
        ([b"gzip"], False),
    ],
    ids=str,
)
def test_a_body_is_chunked_and_coded_in_no_other_way(
    strict: Service, jpeg: bytes, codings: list[bytes], accepted: bool
) -> None:
    """RFC 9112, 6.1: what a proxy would unpack is another body than the one that came."""
    fields = b"".join(b"Transfer-Encoding: " + coding + b"\r\n" for coding in codings)
    with connected(strict) as connection:
        connection.sendall(IMAGE + fields + b"Connection: close\r\n\r\n")
        connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(jpeg), jpeg))
        answer = everything(connection)
    if accepted:
        assert status(answer) == 200
    else:
        assert problem(answer) == (400, "malformed_request")


def test_a_body_that_is_wrong_before_it_is_asked_for_is_no_failure_of_the_service(
    strict: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing may be written behind the refusal, of which the end is sent."""
    head = CHUNKED + b"Content-Type: image/jpeg\r\nExpect: 100-continue\r\n\r\n"
    with connected(strict) as connection:
        connection.sendall(head + b"no number\r\n")
        assert problem(everything(connection)) == (400, "malformed_request")
    wait_until(lambda: not strict.tasks)
    assert not strict.metric("brain_errors_total", code="internal_error")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(("version", "asked"), [(b"1.0", 0), (b"1.1", 1)])
def test_a_body_is_asked_for_where_the_client_knows_what_that_means(
    strict: Service, version: bytes, asked: int
) -> None:
    """A client of HTTP/1.0 would take it for the answer (RFC 9110, section 10.1.1)."""
    head = IMAGE.replace(b"1.1", version) + b"Expect: 100-continue\r\nConnection: close\r\n"
    with connected(strict) as connection:
        connection.sendall(head + b"Content-Length: 3\r\n\r\n\xff\xd8\xff")
        answer = everything(connection)
    assert answer.count(b"HTTP/1.1 100 Continue\r\n\r\n") == asked
    assert answer.count(b"HTTP/1.1 422 ") == 1


def test_a_request_that_breaks_off_in_its_body_leaves_nothing(strict: Service) -> None:
    with connected(strict) as connection:
        connection.sendall(IMAGE + b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\nno number\r\n")
        assert problem(everything(connection)) == (400, "malformed_request")
    wait_until(lambda: not strict.tasks)
