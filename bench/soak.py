"""Very many requests: does the service hold on to memory, threads, files or tasks?

usage: python -m bench.soak [--requests 200000] [--clients 16] [--version latest]

Clients in a closed loop send real slices. What the process holds is read after a warm-up and at the
end, each time when nothing is under way. Exits with 1 where it has grown: resident memory by 5 % or
more, or any process, thread, file or task.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from bench.crowd import Crowd
from bench.machine import describe
from bench.overload import served
from bench.processes import descendants, memory, take_charge
from bench.terminal import positive, say

WARM_UP_REQUESTS: Final = 5000
TURN_SECONDS: Final = 5.0
"""After each, the requests are counted and the connections are made anew."""

SETTLE_SECONDS: Final = 3.0
MOST_GROWTH: Final = 0.05


@dataclass(frozen=True, slots=True)
class Held:
    """What a service holds, itself and its workers.

    Attributes:
        resident: RSS of all its processes together, in bytes.
        processes: how many these are.
        threads: of the first process, as what follows.
        files: open descriptors.
        tasks: of its event loop, that of the request that asks among them.
    """

    resident: int
    processes: int
    threads: int
    files: int
    tasks: int

    @classmethod
    def by(cls, process: int, port: int) -> "Held":
        """Of a running service, which listens on that port."""
        folder = Path("/proc") / str(process)
        # First of all: the connection that asks for the tasks is a file as well, and may take a while
        # to be closed.
        files = len(list((folder / "fd").iterdir()))
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        found = {family.name: family for family in text_string_to_metric_families(metrics)}
        tree = [process, *descendants(process)]
        return cls(
            memory(tree).resident,
            len(tree),
            len(list((folder / "task").iterdir())),
            files,
            int(found["brain_event_loop_tasks"].samples[0].value),
        )


def main() -> int:
    """Runs it; returns the process' exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--requests", type=positive, default=200_000)
    parser.add_argument("--clients", type=positive, default=16)
    parser.add_argument("--version", default="latest", help="of brain-tumor")
    options = parser.parse_args()
    take_charge()
    for name, value in describe():
        say(f"{name}: {value}")
    with served("soak.log", options.version) as service:
        send(service.port, service.bodies, options.clients, WARM_UP_REQUESTS)
        before = Held.by(service.process_id, service.port)
        say(f"after {WARM_UP_REQUESTS} requests: {before}")
        start = monotonic()
        other = send(service.port, service.bodies, options.clients, options.requests)
        seconds = monotonic() - start
        after = Held.by(service.process_id, service.port)
    growth = after.resident / before.resident - 1
    say(f"after {options.requests} more in {seconds:.0f} s: {after}")
    say(f"resident memory {growth:+.1%}, answers that were not 200: {other}")
    more = any(
        getattr(after, name) > getattr(before, name)
        for name in ("processes", "threads", "files", "tasks")
    )
    grown = growth >= MOST_GROWTH or more
    return 1 if grown or other else 0


def send(port: int, bodies: list[bytes], clients: int, requests: int) -> int:
    """Sends that many at least; how many had another answer than 200, or none.

    Raises:
        SystemExit: nobody is answered any more.
    """
    done = other = 0
    while done < requests:
        seen = Crowd(port, "/predict", bodies, "image/jpeg", clients).run(TURN_SECONDS)
        answers = (seen.statuses + seen.late).total()
        if not answers:
            raise SystemExit(f"soak: no answer to {clients} clients, after {done} others")
        done += answers
        other += seen.others(200)
    # For the last turn's connections to end.
    sleep(SETTLE_SECONDS)
    return other


if __name__ == "__main__":
    sys.exit(main())
