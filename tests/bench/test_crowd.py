"""What many clients count: who is answered, who is refused, and who never hears anything."""

import math
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Thread
from time import sleep

import pytest

from bench import crowd, overload, soak
from bench.crowd import Crowd, Tally
from bench.overload import PROBES, Load, probed, verdicts
from bench.server import free_port

Behaviour = Callable[[socket.socket, int], None]
"""Is given a connection with a whole request on it, and how many requests came before."""

Start = Callable[[Behaviour], int]

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
REFUSED = b"HTTP/1.1 503 Busy\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"
TRUNCATED = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}"


@pytest.fixture
def misbehaving() -> Iterator[Start]:
    """Starts a server on a free port, which it gives; each connection has a thread."""
    listeners: list[socket.socket] = []

    def start(behaviour: Behaviour) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        requests: list[None] = []

        def talk(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                while connection.recv(65536):
                    requests.append(None)
                    behaviour(connection, len(requests) - 1)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

        Thread(target=serve, daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def answer_once(connection: socket.socket, before: int) -> None:
    if not before:
        connection.sendall(OK)


def never_answer(_connection: socket.socket, _before: int) -> None:
    pass


def answer_slowly(connection: socket.socket, _before: int) -> None:
    sleep(0.5)
    connection.sendall(OK)


def refuse_and_hang_up(connection: socket.socket, _before: int) -> None:
    connection.sendall(REFUSED)
    sleep(0.2)
    connection.shutdown(socket.SHUT_RDWR)


def answer_half(connection: socket.socket, _before: int) -> None:
    connection.sendall(TRUNCATED)
    connection.shutdown(socket.SHUT_RDWR)


def load(port: int, clients: int, *, patient: bool = False) -> Tally:
    return Crowd(port, "/", [b"x"], "text/plain", clients, patient=patient).run(0.4)


def test_who_is_never_answered_is_counted(
    misbehaving: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "DRAIN_SECONDS", 0.1)
    seen = load(misbehaving(answer_once), 3)
    assert (seen.statuses, seen.broken, seen.others(200)) == ({200: 1}, 3, 3)


def test_an_answer_after_the_end_has_its_latency_but_is_no_goodput(misbehaving: Start) -> None:
    seen = load(misbehaving(answer_slowly), 2)
    assert (seen.statuses, seen.late, seen.broken) == ({}, {200: 2}, 0)
    assert len(seen.latencies_ms) == 2
    assert min(seen.latencies_ms) >= 500
    assert seen.goodput == 0
    assert seen.others(200) == 0


def test_a_patient_client_is_refused_once_though_its_connection_ends(misbehaving: Start) -> None:
    seen = load(misbehaving(refuse_and_hang_up), 2, patient=True)
    assert (seen.statuses, seen.broken) == ({503: 2}, 0)


def test_a_probe_without_a_whole_answer_has_failed(
    misbehaving: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.overload.WARM_UP_SECONDS", 0.0)
    with probed(misbehaving(answer_half)) as probes:
        sleep(0.4)
    assert all(len(times) > 1 and set(times) == {math.inf} for times in probes.values())


@pytest.mark.parametrize("times", [[], [math.inf, 1.0]], ids=["missing", "failed"])
def test_no_bar_holds_without_probes(times: list[float]) -> None:
    seen = Tally([1.0] * 9, seconds=1.0)
    seen.statuses[200] = 9
    loads = [Load(name, 1, seen, dict.fromkeys(PROBES, times)) for name in "abc"]
    held = dict(verdicts([loads[0], *loads]))
    assert [held[text] for text in held if any(path in text for path in PROBES)] == [False] * 4


def test_nobody_may_go_without_an_answer_at_full_load_either() -> None:
    seen = [Tally([1.0], Counter({200: 1}), broken=broken, seconds=1.0) for broken in (0, 2, 0, 0)]
    loads = [
        Load(name, 1, one, {path: [1.0] for path in PROBES})
        for name, one in zip("abcd", seen, strict=True)
    ]
    missed = [text for text, held in verdicts(loads) if not held]
    assert missed == ["b: 2 answers of another kind, or none"]


def test_a_soak_without_any_answer_ends(
    misbehaving: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "DRAIN_SECONDS", 0.1)
    monkeypatch.setattr(soak, "TURN_SECONDS", 0.1)
    for port in (misbehaving(never_answer), free_port()):
        with pytest.raises(SystemExit, match="no answer to 2 clients"):
            soak.send(port, [b"x"], 2, 10)


def test_an_overload_of_nobody_ends_with_its_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(overload, "WARM_UP_SECONDS", 0.1)
    monkeypatch.setattr(overload, "PAUSE_SECONDS", 0.0)
    loads = overload.measure(free_port(), [b"x"], 0.3, 1)
    # A client that cannot connect asks again, but not at once.
    assert [0 < load.other / load.clients < 5 for load in loads] == [True] * 5
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert not any(held for _, held in verdicts(loads))
