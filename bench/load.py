"""Load: wrk with a script that sends different files, checks answers and keeps every latency."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.forms import Body

SCRIPT: Final = Path(__file__).with_name("load.lua")
PREFIX: Final = "bench "
TIMEOUT_SECONDS: Final = 30
"""Of one request."""


class LoadError(Exception):
    """wrk failed, or its output is not what the script writes."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one run of the load generator saw, after its warm-up.

    Attributes:
        latencies_us: of every right answer, ascending.
        window_us: from the end of the warm-up to the end of the load.
        wrong: answers with another status or label.
        broken: what wrk calls errors, warm-up included (connections refused or reset, answers after
            :data:`TIMEOUT_SECONDS`), and requests without an answer at the end that had waited for
            longer than 2 s, or than half of the window where that is less.
        first_wrong: status and beginning of the first wrong answer.
        right: right answers of the whole load, warm-up included.
    """

    latencies_us: tuple[int, ...]
    window_us: int
    wrong: int
    broken: int
    first_wrong: str
    right: int

    @property
    def throughput(self) -> float:
        """Right answers a second."""
        return len(self.latencies_us) / self.window_us * 1e6


@dataclass(frozen=True, slots=True)
class Plan:
    """Bodies on disk and the answer that each of them must get.

    Attributes:
        path: the file that ``load.lua`` reads.
        media_type: of every body.
    """

    path: Path
    media_type: str

    @classmethod
    def write(cls, folder: Path, bodies: Sequence[Body], patterns: Sequence[str]) -> "Plan":
        """Writes bodies and plan into a folder of their own."""
        folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for number, (body, pattern) in enumerate(zip(bodies, patterns, strict=True)):
            file = folder / f"{number}.body"
            file.write_bytes(body.content)
            lines.append(f"{file}\t{pattern}\n")
        path = folder / "plan"
        path.write_text("".join(lines), encoding="utf-8")
        return cls(path, bodies[0].media_type)


def command(url: str, plan: Plan, clients: int, warm_up: float, seconds: int) -> list[str]:
    """The wrk command line; as many threads as clients, see ``load.lua``."""
    return [
        *("wrk", f"--threads={clients}", f"--connections={clients}"),
        *(f"--duration={seconds}s", f"--timeout={TIMEOUT_SECONDS}s"),
        *(f"--script={SCRIPT}", url, "--", str(plan.path), plan.media_type),
        *(str(clients), str(round(warm_up * 1e6)), str(round(seconds * 1e6))),
    ]


def run(url: str, plan: Plan, clients: int, warm_up: float, seconds: int) -> Measurement:
    """Drives a server, which must be on this machine.

    Args:
        url: where to POST.
        plan: what to send.
        clients: connections, each with one request under way.
        warm_up: seconds at the start that do not count.
        seconds: of the whole run; wrk takes no fractions.

    Raises:
        LoadError: wrk failed.
    """
    if not url.startswith("http://127.0.0.1:"):
        raise LoadError("a load goes to the loopback address and nowhere else")
    line = command(url, plan, clients, warm_up, seconds)
    limit = seconds + 2 * TIMEOUT_SECONDS
    done = subprocess.run(line, capture_output=True, text=True, timeout=limit, check=False)  # noqa: S603
    if done.returncode:
        raise LoadError(f"wrk: {(done.stderr or done.stdout).strip()[-300:]}")
    return parse(done.stdout, round((seconds - warm_up) * 1e6))


def parse(output: str, window_us: int) -> Measurement:
    """What ``load.lua`` wrote of so long a load, out of all that wrk wrote.

    Raises:
        LoadError: a line is missing or malformed.
    """
    latencies: list[int] = []
    values: dict[str, str] = {}
    for line in output.splitlines():
        if not line.startswith(PREFIX):
            continue
        name, _, value = line.removeprefix(PREFIX).partition(" ")
        if name == "latencies_us":
            latencies += _integers(value)
        else:
            values[name] = value
    wrong, _, first_wrong = _value(values, "wrong").partition(" ")
    return Measurement(
        tuple(sorted(latencies)),
        window_us,
        _integers(wrong)[0],
        _integers(_value(values, "broken"))[0],
        first_wrong.strip(),
        _integers(_value(values, "right"))[0],
    )


def _value(values: Mapping[str, str], name: str) -> str:
    if not values.get(name):
        raise LoadError(f"the load script did not write {name!r}")
    return values[name]


def _integers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split()]
    except ValueError as error:
        raise LoadError(f"no whole numbers: {text[:50]!r}") from error
