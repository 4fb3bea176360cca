"""The service at ten times the load that it can serve: who is answered, how fast, and who is refused.

usage: python -m bench.overload [--rounds 3] [--seconds 6] [--times 10] [--version latest]

Closed loops of clients that each have one request under way. Full load is a client for each slice that
the service lets in (``BRAIN_QUEUE_SIZE``), so that nobody is refused. Overload is ten times as many,
once patient (a refused client waits as long as ``Retry-After`` says) and once impatient (it asks again
at once, as no client should). All the while /health and /metrics are asked on new connections. Exits
with 1 where a bar is missed.
"""

import argparse
import http.client
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from time import monotonic, sleep
from typing import Final, NamedTuple

from bench.crowd import HOST, Crowd, Tally
from bench.environments import FOLDER, ROOT
from bench.forms import Form, encode
from bench.machine import busy_share, describe
from bench.processes import take_charge
from bench.server import Server, environment, free_port
from bench.slices import SHIPPED, choose
from bench.summary import percentile, ratio
from bench.terminal import positive, say

QUEUE_SIZE: Final = 64
"""The default of BRAIN_QUEUE_SIZE, and so the clients of full load."""

LIGHTER: Final = (8, 32)
"""Clients of loads at which throughput may peak already."""

IMAGES: Final = 8
WARM_UP_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 1.0
"""Between two loads, for the connections to end."""

PROBE_SECONDS: Final = 0.05
PROBES: Final = ("/health", "/metrics")

LEAST_GOODPUT: Final = 0.9
MOST_OF_P99: Final = 3.0
MOST_PROBE_MS: Final = 100.0


@dataclass(slots=True)
class Load:
    """One load and what was seen of it.

    Attributes:
        name: in words.
        seen: by the clients.
        probes_ms: how long each probe took, by address; infinite where it failed.
    """

    name: str
    clients: int
    seen: Tally
    probes_ms: dict[str, list[float]]

    @property
    def goodput(self) -> float:
        """Answers with 200 a second."""
        return self.seen.goodput

    def latency_ms(self, percent: float) -> float:
        """Percentile of the time to an answer with 200, as its client saw it."""
        return percentile(sorted(self.seen.latencies_ms), percent)

    def slowest_probe_ms(self, path: str) -> float:
        """The longest time that an address took to answer; no number if it was not asked."""
        return max(self.probes_ms[path], default=math.nan)

    @property
    def other(self) -> int:
        """Answers with another status than 200 and 503, and requests without any."""
        return self.seen.others(200, 503)

    def row(self) -> str:
        """A line of the table."""
        refused = self.seen.refused / self.seen.seconds
        probes = " ".join(f"{self.slowest_probe_ms(path):>9.0f}" for path in PROBES)
        return (
            f"{self.name:<22}{self.clients:>8}{self.goodput:>10.0f}{refused:>10.0f}"
            f"{self.latency_ms(50):>8.0f}{self.latency_ms(99):>8.0f} {probes}{self.other:>7}"
        )


HEAD: Final = (
    f"{'load':<22}{'clients':>8}{'answers/s':>10}{'refused/s':>10}{'p50 ms':>8}{'p99 ms':>8} "
    f"{'health ms':>9} {'metrics ms':>9}{'other':>6}"
)


def main() -> int:
    """Runs it; returns the process' exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.overload", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rounds", type=positive, default=3, help="of all loads")
    parser.add_argument("--seconds", type=positive, default=6, help="of each load")
    parser.add_argument("--times", type=positive, default=10, help="overload, in full loads")
    parser.add_argument("--version", default="latest", help="of brain-tumor")
    options = parser.parse_args()
    take_charge()
    for name, value in describe():
        say(f"{name}: {value}")
    say(f"Busy before: {busy_share():.0%}\n")
    with served("overload.log", options.version) as service:
        rounds = []
        for _ in range(options.rounds):
            rounds.append(measure(service.port, service.bodies, options.seconds, options.times))
            say("")
    loads = [pooled(same) for same in zip(*rounds, strict=True)]
    say("\n".join([HEAD, *(load.row() for load in loads)]))
    missed = [text for text, held in verdicts(loads) if not held]
    say("")
    for text, held in verdicts(loads):
        say(f"{'holds ' if held else 'MISSED'} {text}")
    return 1 if missed else 0


class Served(NamedTuple):
    """The service as it runs.

    Attributes:
        process_id: of it.
        port: where it listens.
        bodies: real slices to send.
    """

    process_id: int
    port: int
    bodies: list[bytes]


@contextmanager
def served(log_name: str, version: str) -> Iterator[Served]:
    """The service with its defaults and that version; its output goes into the log of that name."""
    FOLDER.mkdir(exist_ok=True)
    files = choose([SHIPPED], IMAGES).files
    bodies = [encode(file.read_bytes(), Form.RAW, "") for file in files]
    port = free_port()
    variables = {
        "BRAIN_PORT": str(port),
        "BRAIN_MODEL_STORE": str(ROOT / "model_store"),
        "BRAIN_MODEL_VERSION": version,
    }
    command = [sys.executable, "-m", "service"]
    with Server(command, environment(ROOT, variables), ROOT, FOLDER / log_name, port) as server:
        server.await_answer("/predict", bodies[0], '"label"')
        yield Served(server.process_id, port, [body.content for body in bodies])


def measure(port: int, bodies: Sequence[bytes], seconds: float, times: int) -> list[Load]:
    """Loads one after the other: the lighter ones, full load, patient and impatient overload."""
    many = QUEUE_SIZE * times
    wanted = [
        *((f"{clients} clients", clients, False) for clients in LIGHTER),
        ("full load", QUEUE_SIZE, False),
        (f"{times} times, patient", many, True),
        (f"{times} times, impatient", many, False),
    ]
    say(HEAD)
    loads = []
    for name, clients, patient in wanted:
        crowd = Crowd(port, "/predict", bodies, "image/jpeg", clients, patient=patient)
        with probed(port) as probes:
            seen = crowd.run(seconds, WARM_UP_SECONDS)
        loads.append(Load(name, clients, seen, probes))
        say(loads[-1].row())
        sleep(PAUSE_SECONDS)
    return loads


def pooled(loads: Sequence[Load]) -> Load:
    """One load in several rounds, as if it had been one."""
    seen = Tally()
    probes: dict[str, list[float]] = {path: [] for path in PROBES}
    for load in loads:
        seen.add(load.seen)
        for path in PROBES:
            probes[path] += load.probes_ms[path]
    return Load(loads[0].name, loads[0].clients, seen, probes)


@contextmanager
def probed(port: int) -> Iterator[dict[str, list[float]]]:
    """Asks the probes' addresses in turn, each time on a new connection; how long each took."""
    times: dict[str, list[float]] = {path: [] for path in PROBES}
    stop = Event()

    def ask(path: str) -> float:
        start = monotonic()
        connection = http.client.HTTPConnection(HOST, port, timeout=10)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            response.read()
            failed = response.status != 200
        except (OSError, http.client.HTTPException):
            failed = True
        finally:
            connection.close()
        return math.inf if failed else (monotonic() - start) * 1000

    def watch() -> None:
        sleep(WARM_UP_SECONDS)
        while not stop.wait(PROBE_SECONDS):
            for path in PROBES:
                times[path].append(ask(path))

    thread = Thread(target=watch)
    thread.start()
    try:
        yield times
    finally:
        stop.set()
        thread.join()


def verdicts(loads: Sequence[Load]) -> list[tuple[str, bool]]:
    """Each bar in words, and whether it holds; the last three loads are full and both overloads."""
    full, *over = loads[-3:]
    peak = max(load.goodput for load in loads[:-2])
    found = []
    for load in over:
        goodput = ratio(load.goodput, peak)
        slower = ratio(load.latency_ms(99), full.latency_ms(99))
        found += [
            (f"{load.name}: goodput {goodput:.2f} of its peak", goodput >= LEAST_GOODPUT),
            (f"{load.name}: p99 {slower:.2f} of that at full load", slower < MOST_OF_P99),
        ]
        for path in PROBES:
            slowest = load.slowest_probe_ms(path)
            found.append((f"{load.name}: {path} in {slowest:.0f} ms", slowest <= MOST_PROBE_MS))
    for load in loads:
        found.append(
            (f"{load.name}: {load.other} answers of another kind, or none", not load.other)
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
