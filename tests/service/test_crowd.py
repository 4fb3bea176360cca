"""More clients than there may be connections: who gives way to whom."""

import asyncio
from contextlib import ExitStack
from http.client import HTTPResponse
from pathlib import Path
from time import sleep

import pytest
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.utils import get_remote_addr

from service import connections, crowd
from service.crowd import Party, Standing
from tests.support.connections import (
    HEAD,
    IMAGE,
    SHEET,
    connected,
    deaf,
    everything,
    first_answer,
    idle,
    only,
    problem,
    status,
)
from tests.support.service import (
    PATIENCE_SECONDS,
    FakeRuntimes,
    Service,
    serving,
    settings_for,
    wait_until,
)


def test_too_many_connections_are_refused_until_one_ends(
    strict: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "GRACE_SECONDS", PATIENCE_SECONDS)
    taken = [idle(strict) for _ in range(4)]
    with connected(strict) as connection:
        answer = everything(connection)
        assert problem(answer) == (503, "too_many_connections")
        assert b"\r\nretry-after: 1\r\n" in answer
    taken[0].sendall(HEAD + b"\r\n")
    assert status(first_answer(taken[0])) == 200
    for connection in taken:
        connection.close()
    wait_until(lambda: not strict.connections)
    assert strict.client.get("/health").status_code == 200


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
            taken.append(stack.enter_context(connected(crowded, text)))
            if text == REFUSED_BODY:
                assert status(first_answer(taken[-1])) == 415
            wait_until(lambda: len(crowded.connections) == len(taken))
        probe = stack.enter_context(connected(crowded, HEAD + b"\r\n"))
        assert status(first_answer(probe)) == 200
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
            other = stack.enter_context(connected(crowded, HEAD + b"\r\n", "127.0.0.2"))
            assert status(first_answer(other)) == 200
        ended = [everything(connection) for connection in taken[:2]]
        assert ended == [b"", b""]
        # Each has half by now.
        for address in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
            refused = stack.enter_context(connected(crowded, b"", address))
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
        other = stack.enter_context(connected(crowded, HEAD + b"\r\n", "127.0.1.1"))
        assert status(first_answer(other)) == 200
        assert everything(taken[0]) == b""


@pytest.mark.parametrize("extra", [0, 4], ids=["idle", "opened"])
def test_who_keeps_all_connections_takes_none_of_a_client_that_has_just_connected(
    crowded: Service, extra: int
) -> None:
    """It may be far away, and its request on its way."""
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(idle(crowded))
        before = set(crowded.connections)
        far = stack.enter_context(connected(crowded, b"", "127.0.0.2"))
        wait_until(lambda: set(crowded.connections) - before)
        for _ in range(extra):
            refused = stack.enter_context(connected(crowded, HEAD + b"\r\n"))
            assert problem(everything(refused)) == (503, "too_many_connections")
        stack.enter_context(idle(crowded, "127.0.0.3"))
        far.sendall(HEAD + b"\r\n")
        assert status(first_answer(far)) == 200


def test_what_has_been_idle_for_longest_makes_room_for_its_own_address(
    crowded: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All users behind a proxy are one address, and it copes with the end of what is idle."""
    monkeypatch.setattr(crowd, "GRACE_SECONDS", 0.5)
    with ExitStack() as stack:
        taken = [stack.enter_context(idle(crowded)) for _ in range(4)]
        sleep(0.6)
        taken[0].sendall(HEAD + b"\r\n")
        assert status(first_answer(taken[0])) == 200
        stack.enter_context(idle(crowded))
        assert everything(taken[1]) == b""
        for connection in (taken[0], *taken[2:]):
            connection.sendall(HEAD + b"\r\n")
            assert status(first_answer(connection)) == 200


@pytest.mark.parametrize("more", [b"", b"GET /health"], ids=["idle", "begun"])
def test_an_answer_that_is_still_being_read_makes_no_room(
    crowded: Service, monkeypatch: pytest.MonkeyPatch, more: bytes
) -> None:
    monkeypatch.setattr(crowd, "GRACE_SECONDS", 0)
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.1)
    with deaf(crowded, SHEET + b"\r\n" + more) as client, ExitStack() as stack:
        served = only(crowded)
        for _ in range(3):
            stack.enter_context(idle(crowded))
        stack.enter_context(idle(crowded, "127.0.0.2"))
        stack.enter_context(idle(crowded))
        assert served in crowded.connections
        sleep(2 * connections.LINGER_SECONDS)
        answer = HTTPResponse(client)
        answer.begin()
        assert len(answer.read()) == int(answer.headers["Content-Length"])


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
    with serving(settings, runtimes) as service, ExitStack() as stack:
        service.client.close()
        wait_until(lambda: not service.connections)
        for _ in range(16):
            stack.enter_context(connected(service, IMAGE + b"Content-Length: 9\r\n\r\nx"))
        wait_until(lambda: service.state.buffers.used == 16)
        refused = stack.enter_context(connected(service, HEAD + b"\r\n"))
        assert problem(everything(refused)) == (503, "too_many_connections")
        probe = stack.enter_context(connected(service, HEAD + b"\r\n", "127.0.0.2"))
        assert status(first_answer(probe)) == 200
        refused = stack.enter_context(connected(service, HEAD + b"\r\n", "127.0.0.3"))
        assert problem(everything(refused)) == (503, "too_many_connections")
