"""Memory that clients share: one may have all of it, until another one needs some."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPResponse
from pathlib import Path

import pytest

from service.buffers import NEED_SECONDS, Buffers, Claim
from service.errors import QueueFull
from service.keys import Role, make_key
from tests.support.keys import write_keys
from tests.support.service import (
    PATIENCE_SECONDS,
    FakeRuntimes,
    Service,
    serving,
    settings_for,
    wait_until,
)

MAX_BODY_BYTES = 1_000_000
LIMIT = 1024
RESERVE = LIMIT // 16
SMALL = RESERVE // 8

MADE = {name: make_key(name, [Role.PREDICT]) for name in ("greedy", "modest")}


@pytest.fixture
def shared(model_store: Path, tmp_path: Path) -> Iterator[Service]:
    keys = write_keys(tmp_path / "keys", *(key for _, key in MADE.values()))
    settings = settings_for(
        model_store,
        api_keys_file=keys,
        max_body_bytes=MAX_BODY_BYTES,
        max_buffered_bytes=2 * MAX_BODY_BYTES,
    )
    with serving(settings, FakeRuntimes()) as service:
        yield service


def unfinished(service: Service, name: str) -> socket.socket:
    """The largest body that is accepted, but for its last byte."""
    connection = socket.create_connection(service.address, PATIENCE_SECONDS)
    head = f"POST /predict HTTP/1.1\r\nHost: test\r\nX-API-Key: {MADE[name][0]}\r\n"
    head += f"Content-Type: image/png\r\nContent-Length: {MAX_BODY_BYTES}\r\n\r\n"
    connection.sendall(head.encode() + bytes(MAX_BODY_BYTES - 1))
    return connection


def status(connection: socket.socket) -> int:
    answer = HTTPResponse(connection)
    answer.begin()
    answer.read()
    return answer.status


def test_two_bodies_that_stop_keep_nobody_else_out(shared: Service, jpeg: bytes) -> None:
    """The service holds as many bytes as it can, all of one client, which sends no more."""
    headers = {"X-API-Key": MADE["modest"][0]}
    with ExitStack() as stack:
        first, second = (stack.enter_context(unfinished(shared, "greedy")) for _ in range(2))
        wait_until(lambda: shared.state.buffers.used == 2 * (MAX_BODY_BYTES - 1))
        large = jpeg + bytes(MAX_BODY_BYTES // 2)
        assert shared.predict_raw(large, headers=headers).status_code == 200
        # One of the two had to make room, and whoever it was may not have so much again for now.
        first.setblocking(False)
        second.setblocking(False)
        ended = [item for item in (first, second) if _has_answer(item)]
        assert len(ended) == 1
        ended[0].setblocking(True)
        assert status(ended[0]) == 503
        assert shared.metric("brain_errors_total", code="queue_full") == 1
        third = stack.enter_context(unfinished(shared, "greedy"))
        assert status(third) == 503
        assert shared.predict_raw(large, headers=headers).status_code == 200


def test_a_client_that_is_alone_may_have_all_of_it(shared: Service) -> None:
    with unfinished(shared, "greedy") as first, unfinished(shared, "greedy") as second:
        wait_until(lambda: shared.state.buffers.used == 2 * (MAX_BODY_BYTES - 1))
        with unfinished(shared, "greedy") as third:
            assert status(third) == 503
        for connection in (first, second):
            connection.sendall(b"\0")
            assert status(connection) == 415
    wait_until(lambda: shared.state.buffers.used == 0)


def _has_answer(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


class TestShares:
    """Buffers by themselves."""

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        now = [1000.0]
        monkeypatch.setattr("service.buffers.monotonic", lambda: now[0])
        return now

    @pytest.fixture
    def stack(self) -> Iterator[ExitStack]:
        with ExitStack() as stack:
            yield stack

    @pytest.fixture
    def buffers(self, clock: list[float]) -> Buffers:
        del clock
        return Buffers(LIMIT)

    def test_the_service_itself_waits_for_room(self, buffers: Buffers, stack: ExitStack) -> None:
        """Its analyses of series try again later."""
        given_up: list[int] = []
        users = [stack.enter_context(buffers.claim("a")) for _ in range(2)]
        for claim in users:
            stack.enter_context(claim.arriving(lambda: given_up.append(1)))
            claim.add(LIMIT // 2)
        with buffers.claim() as own, pytest.raises(QueueFull):
            own.add(LIMIT // 4)
        assert given_up == []

    def test_what_is_silent_longest_makes_room(
        self, buffers: Buffers, clock: list[float], stack: ExitStack
    ) -> None:
        given_up: list[int] = []
        claims = [stack.enter_context(buffers.claim("a")) for _ in range(4)]
        for number, claim in enumerate(claims):
            arriving = claim.arriving(lambda number=number: given_up.append(number))  # type: ignore[misc]
            if number == 1:
                stack.enter_context(pytest.raises(QueueFull))
            stack.enter_context(arriving)
            claim.add(LIMIT // 4)
        clock[0] += 1
        for number in (0, 2, 3):
            claims[number].add(0)
        stack.enter_context(buffers.claim("b")).add(LIMIT // 8)
        assert given_up == [1]
        assert buffers.used == 3 * LIMIT // 4 + LIMIT // 8

    def test_what_has_arrived_is_not_given_up(self, buffers: Buffers, stack: ExitStack) -> None:
        claim = stack.enter_context(buffers.claim("a"))
        with claim.arriving(pytest.fail):
            claim.add(LIMIT)
        with pytest.raises(QueueFull):
            stack.enter_context(buffers.claim("b")).add(LIMIT // 8)

    def test_nobody_makes_room_for_who_has_more(self, buffers: Buffers, stack: ExitStack) -> None:
        claim = stack.enter_context(buffers.claim("a"))
        stack.enter_context(claim.arriving(pytest.fail))
        claim.add(LIMIT // 2 + 1)
        # Beside what it could get, it asks for more than its share.
        with pytest.raises(QueueFull):
            stack.enter_context(buffers.claim("b")).add(LIMIT // 2 + 1)
        with pytest.raises(QueueFull):
            stack.enter_context(buffers.claim("a")).add(LIMIT // 2)

    def test_nobody_is_given_up_where_that_makes_too_little_room(
        self, buffers: Buffers, stack: ExitStack
    ) -> None:
        claim = stack.enter_context(buffers.claim("a"))
        stack.enter_context(claim.arriving(pytest.fail))
        claim.add(LIMIT // 8)
        stack.enter_context(buffers.claim("a")).add(7 * LIMIT // 8)
        with pytest.raises(QueueFull):
            stack.enter_context(buffers.claim("b")).add(LIMIT // 4)

    def test_small_ones_of_others_get_through(self, buffers: Buffers, stack: ExitStack) -> None:
        stack.enter_context(buffers.claim("a")).add(LIMIT)
        for _ in range(RESERVE // SMALL):
            stack.enter_context(buffers.claim("b")).add(SMALL)
        for owner, size in (("b", 1), ("a", 1), ("c", SMALL + 1)):
            with pytest.raises(QueueFull):
                stack.enter_context(buffers.claim(owner)).add(size)

    def test_while_others_need_room_half_is_the_most_but_for_a_single_request(
        self, buffers: Buffers, clock: list[float], stack: ExitStack
    ) -> None:
        held = stack.enter_context(buffers.claim("a"))
        held.add(LIMIT)
        refused = stack.enter_context(buffers.claim("b"))
        with pytest.raises(QueueFull):
            refused.add(LIMIT // 4)
        held.free(LIMIT // 2)

        def other(size: int) -> Claim:
            claim = stack.enter_context(buffers.claim("a"))
            claim.add(size)
            return claim

        with pytest.raises(QueueFull, match="share"):
            other(1)
        # One request alone, and what it unpacks to.
        held.add(LIMIT // 2)
        held.free(LIMIT // 2)
        refused.add(LIMIT // 4)
        clock[0] += NEED_SECONDS + 1
        other(LIMIT // 4)
