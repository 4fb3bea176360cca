"""Very many clients in one thread, each on a connection of its own with one request under way.

wrk needs a thread for each client to time it, and hundreds of threads take more of two cores than the
service; this one takes a twentieth of a core at a thousand requests a second.
"""

import re
import select
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from time import monotonic
from typing import Final

from bench.summary import ratio

HOST: Final = "127.0.0.1"
CHUNK_BYTES: Final = 65536

DRAIN_SECONDS: Final = 15.0
"""How long answers may take that are still to come at a load's end: BRAIN_DEADLINE_MS and more."""

REFUSED_SECONDS: Final = 0.1
"""After which a client asks again that could not connect."""

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_RETRY_AFTER = re.compile(rb"\r\nretry-after: *(\d+)\r\n", re.IGNORECASE)


@dataclass(slots=True)
class Tally:
    """What the clients saw after the warm-up.

    Attributes:
        latencies_ms: of every answer with 200, from its request's first byte to its own last one.
        statuses: how many answers had each status.
        late: the same of those that came after the load's end, when nobody asked any more.
        broken: connections that were refused or ended before their answer did, and requests without
            any.
        seconds: that were counted.
    """

    latencies_ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    late: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    seconds: float = 0.0

    @property
    def goodput(self) -> float:
        """Answers with 200 a second."""
        return ratio(self.statuses[200], self.seconds)

    def add(self, other: "Tally") -> None:
        """Counts what others saw as well."""
        self.latencies_ms += other.latencies_ms
        self.statuses += other.statuses
        self.late += other.late
        self.broken += other.broken
        self.seconds += other.seconds

    @property
    def refused(self) -> int:
        """Answers with 503."""
        return self.statuses[503]

    def others(self, *expected: int) -> int:
        """Answers with another status than those, and requests without any."""
        return self.broken + sum(
            count
            for status, count in [*self.statuses.items(), *self.late.items()]
            if status not in expected
        )


class _Client:
    """One connection and what is on its way over it."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.turn = place
        self.socket: socket.socket | None = None
        self.unsent = memoryview(b"")
        self.received = bytearray()
        self.started: float | None = None
        """When its request was sent; None when nothing is on its way."""


class Crowd:
    """Clients that POST in a closed loop.

    Args:
        port: of a server on this machine.
        path: where to POST.
        bodies: client ``n`` begins with the ``n``-th of them, and takes them in turn.
        media_type: of them all.
        clients: how many.
        patient: a client that gets 503 waits as long as ``Retry-After`` says.
    """

    def __init__(
        self,
        port: int,
        path: str,
        bodies: Sequence[bytes],
        media_type: str,
        clients: int,
        *,
        patient: bool = False,
    ) -> None:
        self._port = port
        self._requests = [
            f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {media_type}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
            for body in bodies
        ]
        self._patient = patient
        self._clients = [_Client(place) for place in range(clients)]
        self._poll = select.epoll()
        self._by_file: dict[int, _Client] = {}
        self._waiting: list[tuple[float, int]] = []

    def run(self, seconds: float, warm_up: float = 0.0) -> Tally:
        """Drives the server for a while, and then waits for what is on its way.

        Answers that come in the warm-up do not count.
        """
        tally, warming = Tally(seconds=seconds), Tally()
        begin = monotonic() + warm_up
        end = begin + seconds
        try:
            for client in self._clients:
                self._ask(client, warming if warm_up else tally)
            while (now := monotonic()) < end:
                until = min(end, self._waiting[0][0]) if self._waiting else end
                for file, _ in self._poll.poll(max(0.0, until - now)):
                    client = self._by_file[file]
                    seen = tally if monotonic() >= begin else warming
                    if (pause := self._step(client, seen, seen.statuses)) is None:
                        continue
                    if self._patient and pause:
                        heappush(self._waiting, (monotonic() + pause, client.place))
                    else:
                        self._ask(client, seen)
                now = monotonic()
                while self._waiting and self._waiting[0][0] <= now:
                    client = self._clients[heappop(self._waiting)[1]]
                    self._ask(client, tally if now >= begin else warming)
            self._drain(tally, end + DRAIN_SECONDS)
        finally:
            for client in self._clients:
                self._drop(client)
            self._poll.close()
        return tally

    def _drain(self, tally: Tally, end: float) -> None:
        asked = sum(client.started is not None for client in self._clients)
        while asked and (now := monotonic()) < end:
            for file, _ in self._poll.poll(end - now):
                asked -= self._step(self._by_file[file], tally, tally.late) is not None
        tally.broken += asked

    def _ask(self, client: _Client, tally: Tally) -> None:
        """Sends its next request, or lets it wait where it cannot connect."""
        if client.socket is None:
            try:
                client.socket = socket.create_connection((HOST, self._port))
            except OSError:
                tally.broken += 1
                heappush(self._waiting, (monotonic() + REFUSED_SECONDS, client.place))
                return
            client.socket.setblocking(False)
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._by_file[client.socket.fileno()] = client
            self._poll.register(client.socket, select.EPOLLIN)
        client.turn += 1
        client.unsent = memoryview(self._requests[client.turn % len(self._requests)])
        client.received.clear()
        client.started = monotonic()
        self._send(client)

    def _send(self, client: _Client) -> None:
        assert client.socket is not None  # noqa: S101 - it has just been asked or has an event
        try:
            client.unsent = client.unsent[client.socket.send(client.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            # The server has hung up; what it said before is still to be read.
            client.unsent = memoryview(b"")
        wanted = select.EPOLLIN | (select.EPOLLOUT if client.unsent else 0)
        self._poll.modify(client.socket, wanted)

    def _step(self, client: _Client, tally: Tally, statuses: Counter[int]) -> float | None:
        """Takes what has come.

        Returns:
            None while more has to come, or where nothing was asked; else how long to wait now.
        """
        assert client.socket is not None  # noqa: S101 - it has an event
        if client.unsent:
            self._send(client)
        try:
            piece = client.socket.recv(CHUNK_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            piece = b""
        if client.started is None:
            self._drop(client)
            return None
        client.received += piece
        answer = _complete(client.received)
        if answer is None and piece:
            return None
        status, pause = answer or (0, 0.0)
        if answer is None:
            tally.broken += 1
        else:
            statuses[status] += 1
            if status == 200:
                tally.latencies_ms.append((monotonic() - client.started) * 1000)
        if not piece or b"\r\nconnection: close" in client.received.lower():
            self._drop(client)
        client.started = None
        return pause

    def _drop(self, client: _Client) -> None:
        if client.socket is not None:
            self._poll.unregister(client.socket)
            del self._by_file[client.socket.fileno()]
            client.socket.close()
            client.socket = None


def _complete(received: bytearray) -> tuple[int, float] | None:
    """Status of a whole answer, and the seconds of its ``Retry-After``; None if more has to come."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(received[: end + 2])
    status, length = _STATUS.match(head), _LENGTH.search(head)
    if status is None or length is None or len(received) < end + 4 + int(length[1]):
        return None
    wait = _RETRY_AFTER.search(head)
    return int(status[1]), float(wait[1]) if wait else 0.0
