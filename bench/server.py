"""One server under test: started, awaited, driven, weighed and stopped."""

import http.client
import os
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Final, Self

from bench.forms import Body
from bench.load import Measurement, Plan, run
from bench.processes import Memory, Tree
from bench.summary import ratio

HOST: Final = "127.0.0.1"
START_SECONDS: Final = 300.0
"""How long a start may take: a few seconds, or with XLA half a minute for each batch size."""

POLL_SECONDS: Final = 0.02
PORT_BLOCK: Final = 3
"""Consecutive ports that a server may take; MLServer has three."""


class StartError(Exception):
    """A server did not answer right in time; the message says what it did."""


@dataclass(frozen=True, slots=True)
class Driven:
    """A measurement and what it cost the server.

    Attributes:
        measurement: what the clients saw.
        cpu_ms: processor time of the server, milliseconds a right answer, warm-up included.
    """

    measurement: Measurement
    cpu_ms: float


class Server:
    """A running server; a context manager that ends it, whatever happens.

    Args:
        command, environment, folder, log: as of :class:`bench.processes.Tree`.
        port: where it listens.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
        port: int,
    ) -> None:
        self._tree = Tree(command, environment, folder, log)
        self._port = port

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tree.stop()

    @property
    def process_id(self) -> int:
        """Of the process that the command started."""
        return self._tree.process_id

    def await_answer(self, path: str, body: Body, answer: str) -> float:
        """Seconds from the start of the process to its first right answer with 200.

        Args:
            path: where to POST.
            body: an image.
            answer: pattern of the right answer.

        Raises:
            StartError: it ended, or it took too long.
        """
        seen = "no answer"
        while monotonic() - self._tree.started < START_SECONDS:
            if not self._tree.alive():
                raise StartError(f"it ended by itself; before: {seen}")
            with suppress(OSError, http.client.HTTPException):
                status, text = post(self._port, path, body)
                if status == 200:
                    if re.search(answer, text):
                        return monotonic() - self._tree.started
                    raise StartError(f"a wrong answer: {text[:300]}")
                seen = f"{status} {text[:300]}"
            sleep(POLL_SECONDS)
        raise StartError(f"not ready after {START_SECONDS:.0f} s: {seen}")

    def drive(self, path: str, plan: Plan, clients: int, warm_up: float, seconds: int) -> Driven:
        """Loads it and counts the processor time that it took."""
        before = self._tree.cpu_seconds()
        measurement = run(f"http://{HOST}:{self._port}{path}", plan, clients, warm_up, seconds)
        spent = self._tree.cpu_seconds() - before
        return Driven(measurement, ratio(spent * 1000, measurement.right))

    def memory(self) -> Memory:
        """Of all its processes, now."""
        return self._tree.memory()


def post(port: int, path: str, body: Body) -> tuple[int, str]:
    """Status and text of one POST on a connection of its own."""
    connection = http.client.HTTPConnection(HOST, port, timeout=START_SECONDS)
    try:
        connection.request("POST", path, body.content, {"Content-Type": body.media_type})
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    finally:
        connection.close()


def free_port() -> int:
    """A port that is free on loopback, as are those right after it."""
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        if port + PORT_BLOCK < 65536 and all(_is_free(port + i) for i in range(PORT_BLOCK)):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def environment(root: Path, more: Mapping[str, str]) -> dict[str, str]:
    """For a server: nothing of this shell that could change it, and no telemetry."""
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ
    }
    quiet = {
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    return kept | quiet | {"PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"} | dict(more)
