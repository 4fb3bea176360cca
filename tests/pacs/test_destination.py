"""The destination's address, and answers that are too large or never end."""

import asyncio
import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

import pytest

from service.pacs.destination import MAX_ANSWER_BYTES, Destination, Verdict
from service.settings import Settings, SettingsError
from tests.support.pacs import pacs_settings
from tests.support.service import PATIENCE_SECONDS

HEAD = b"HTTP/1.1 %d Answer\r\nContent-Type: application/dicom+json\r\n"


@pytest.mark.parametrize("end", ["?x=1", "#a", "?", "/?a=b#c"])
def test_an_address_that_nothing_can_be_added_to_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str
) -> None:
    monkeypatch.setenv("BRAIN_SPOOL", str(tmp_path))
    monkeypatch.setenv("BRAIN_DICOMWEB_URL", f"https://pacs.example/dicom-web{end}")
    with pytest.raises(SettingsError, match=r"^BRAIN_DICOMWEB_URL: an address without a query"):
        Settings.from_environment()


@contextmanager
def answering(
    answer: Callable[[socket.socket], None], bytes_per_second: float | None = None
) -> Iterator[str]:
    """A destination for one request, which it reads to its end, or to the client's; its address."""

    def serve() -> None:
        connection, _ = listening.accept()
        with connection, suppress(ConnectionError):
            received = b""
            while not received.endswith(b"--\r\n"):
                if bytes_per_second is not None:
                    sleep(8192 / bytes_per_second)
                piece = connection.recv(65536 if bytes_per_second is None else 8192)
                if not piece:
                    return
                received = received[-8:] + piece
            answer(connection)

    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        if bytes_per_second is not None:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def sent(
    store: Path, folder: Path, url: str, timeout_ms: float = 30_000, content: bytes = b"content"
) -> Verdict:
    async def send() -> Verdict:
        destination = Destination(pacs_settings(store, folder, url, dicomweb_timeout_ms=timeout_ms))
        try:
            return await destination.send({"a": content})
        finally:
            await destination.close()

    return asyncio.run(send())


@pytest.mark.parametrize("status", [200, 409, 400])
def test_of_an_answer_without_end_only_so_much_is_read(
    model_store: Path, tmp_path: Path, status: int
) -> None:
    """It does not say what is stored; that all is refused, its status does."""
    taken: list[int] = []

    def answer(connection: socket.socket) -> None:
        connection.sendall(HEAD % status + b"\r\n")
        for _ in range(64 * 2**20 // 65536):
            connection.sendall(b" " * 65536)
            taken.append(65536)

    with answering(answer) as url:
        verdict = sent(model_store, tmp_path, url)
    assert sum(taken) < MAX_ANSWER_BYTES + 16 * 2**20
    if status == 200:
        assert verdict.later == {"a": "answer_too_large"}
        assert verdict.unreachable
    else:
        assert verdict.refused == {"a": f"http_{status}"}


@pytest.mark.parametrize(
    ("coding", "layers", "size"),
    [("gzip", 1, MAX_ANSWER_BYTES + 1), ("gzip, gzip", 2, 100), ("br", 0, 100)],
    ids=["bomb", "twice", "unknown"],
)
def test_an_answer_that_is_packed_is_unpacked_so_far_as_an_answer_may_be(
    model_store: Path, tmp_path: Path, coding: str, layers: int, size: int
) -> None:
    packed = b" " * size
    for _ in range(layers):
        packed = gzip.compress(packed)
    head = HEAD % 200 + b"Content-Encoding: %b\r\n" % coding.encode()

    def answer(connection: socket.socket) -> None:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(packed) + packed)

    with answering(answer) as url:
        verdict = sent(model_store, tmp_path, url)
    assert verdict.later == {"a": "answer_too_large"}


def test_a_refusal_that_is_packed_is_read(model_store: Path, tmp_path: Path) -> None:
    item = {"00081155": {"Value": ["a"]}, "00081197": {"Value": [0x0110]}}
    packed = gzip.compress(json.dumps({"00081198": {"Value": [item]}}).encode())
    head = HEAD % 200 + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    with answering(lambda connection: connection.sendall(head + packed)) as url:
        verdict = sent(model_store, tmp_path, url)
    assert verdict.refused == {"a": "refused_0110"}


def test_an_answer_that_drips_is_not_waited_for(model_store: Path, tmp_path: Path) -> None:
    """Never silent for long, and never at its end."""
    stop = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.sendall(HEAD % 200 + b"Content-Length: 1000000\r\n\r\n")
        end = monotonic() + 10
        while not stop.wait(0.05) and monotonic() < end:
            connection.sendall(b" ")

    with answering(answer) as url:
        start = monotonic()
        verdict = sent(model_store, tmp_path, url, 500)
        stop.set()
        assert monotonic() - start < 5
    assert verdict.later == {"a": "timeout"}
    assert verdict.unreachable


def test_a_slow_link_is_not_cut_off(model_store: Path, tmp_path: Path) -> None:
    """As long as it takes bytes: all of them take longer than any limit."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(HEAD % 200 + b"Content-Length: 0\r\n\r\n")

    with answering(answer, 10**6) as url:
        start = monotonic()
        verdict = sent(model_store, tmp_path, url, 1500, b"x" * 4 * 10**6)
        assert monotonic() - start > 3
    assert verdict.delivered == ["a"]


def test_a_client_that_leaves_early_ends_the_destination_of_these_tests() -> None:
    with answering(lambda _connection: None) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        socket.create_connection((host, int(port))).close()


def test_an_answer_may_be_compressed(model_store: Path, tmp_path: Path) -> None:
    failed = {"00081155": {"Value": ["a"]}, "00081197": {"Value": [0x0122]}}
    content = gzip.compress(json.dumps({"00081198": {"Value": [failed]}}).encode())

    def answer(connection: socket.socket) -> None:
        length = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(content)
        connection.sendall(HEAD % 409 + length + content)

    with answering(answer) as url:
        assert sent(model_store, tmp_path, url).refused == {"a": "refused_0122"}
