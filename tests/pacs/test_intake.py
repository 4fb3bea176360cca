"""Bodies from a PACS that are under way: counted, on the disk soon, and not without number."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPResponse
from pathlib import Path

import pytest

from tests.support.pacs import Pacs, form, pacs_settings, series, settled
from tests.support.service import (
    PATIENCE_SECONDS,
    FakeRuntimes,
    Service,
    serving,
    wait_until,
)

PIECE_BYTES = 2**18
BODIES = 4


@pytest.fixture
def service(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    monkeypatch.setattr("service.state.MOST_STOW_BODIES", BODIES, raising=False)
    settings = pacs_settings(model_store, tmp_path, destination.url)
    with serving(settings, FakeRuntimes()) as running:
        yield running
        wait_until(lambda: settled(running))


def begun(
    service: Service, content_type: str, size: int, beginning: bytes, address: str = "127.0.0.1"
) -> socket.socket:
    """A request whose body is under way."""
    connection = socket.create_connection(service.address, PATIENCE_SECONDS, (address, 0))
    head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: test\r\nContent-Type: {content_type}\r\n"
    connection.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode() + beginning)
    return connection


def outcome(connection: socket.socket) -> tuple[int, str | None]:
    answer = HTTPResponse(connection)
    answer.begin()
    answer.read()
    return answer.status, answer.headers["Retry-After"]


def segments(service: Service) -> list[int]:
    """Sizes of the files of the spool, of which the service may remove one meanwhile."""
    sizes = []
    for path in (service.state.settings.spool / "segments").iterdir():
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sizes


def test_a_body_in_memory_is_counted_and_has_no_file_yet(service: Service) -> None:
    (item,) = series(1)
    content_type, body = form([item.data])
    with begun(service, content_type, len(body), body[:-1]) as connection:
        wait_until(lambda: service.state.buffers.used == len(body) - 1)
        assert segments(service) == []
        connection.sendall(body[-1:])
        assert outcome(connection) == (200, None)
    assert service.state.buffers.used == 0
    assert segments(service) == [len(item.data)]


def test_what_is_on_the_disk_is_not_in_memory(service: Service) -> None:
    beginning = bytes(3 * PIECE_BYTES + PIECE_BYTES // 2)
    with begun(service, "application/dicom", 2**24, beginning):
        wait_until(lambda: sum(segments(service)) >= 3 * PIECE_BYTES)
        wait_until(lambda: sum(segments(service)) + service.state.buffers.used == len(beginning))
        assert service.state.buffers.used < PIECE_BYTES
    wait_until(lambda: service.state.buffers.used == 0)
    wait_until(lambda: segments(service) == [])


def test_where_there_is_no_memory_a_body_is_refused(service: Service) -> None:
    limit = service.state.settings.max_buffered_bytes
    with service.state.buffers.claim("127.0.0.1") as others:
        others.add(limit)
        with begun(service, "application/dicom", 1000, b"abc") as connection:
            assert outcome(connection) == (503, "1")
        # For another client there is the reserve.
        (item,) = series(1)
        content_type, body = form([item.data])
        with begun(service, content_type, len(body), body, "127.0.0.2") as connection:
            assert outcome(connection) == (200, None)


def test_only_so_many_bodies_are_under_way_and_half_of_them_of_one_client(
    service: Service,
) -> None:
    wait = "application/dicom", 1000, b"abc"
    taken = [begun(service, *wait) for _ in range(BODIES // 2)]
    wait_until(lambda: service.state.buffers.used == 3 * len(taken))
    with begun(service, *wait) as refused:
        assert outcome(refused) == (503, "1")
    # Another client, until all are taken.
    taken += [begun(service, *wait, "127.0.0.2") for _ in range(BODIES // 2)]
    wait_until(lambda: service.state.buffers.used == 3 * len(taken))
    with begun(service, *wait, "127.0.0.3") as refused:
        assert outcome(refused) == (503, "1")
    taken.pop().close()
    wait_until(lambda: service.state.buffers.used == 3 * len(taken))
    (item,) = series(1)
    content_type, body = form([item.data])
    with begun(service, content_type, len(body), body, "127.0.0.3") as accepted:
        assert outcome(accepted) == (200, None)
    for connection in taken:
        connection.close()
