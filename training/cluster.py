"""The processes that share a run, as the environment variable ``TF_CONFIG`` lists them.

No TensorFlow: which of them writes the run's folder is asked before anything is read.
"""

import json
import os
import socket
import time
from typing import Final, NamedTuple

from training.errors import StrategyError

START_TIMEOUT_S: Final = 600.0
"""How long a worker waits for the others: one may read its data far slower than another."""
_RETRY_S: Final = 0.2


class Cluster(NamedTuple):
    """Who shares a run.

    Attributes:
        workers: ``HOST:PORT`` of each process.
        place: which of them this one is; the first writes the run's folder.
    """

    workers: tuple[str, ...]
    place: int


def cluster() -> Cluster:
    """What ``TF_CONFIG`` says.

    Raises:
        StrategyError: it is not set, or describes no worker.
    """
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        workers, task = tuple(config["cluster"]["worker"]), config["task"]
        index = int(task["index"])
        for address in workers:
            _split(address)
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        raise StrategyError(
            "multiworker needs TF_CONFIG: "
            '{"cluster": {"worker": ["HOST:PORT", …]}, "task": {"type": "worker", "index": 0}}'
        ) from error
    if task.get("type") != "worker" or not 0 <= index < len(workers):
        raise StrategyError("TF_CONFIG's task must be one of its cluster's workers")
    return Cluster(workers, index)


def await_workers(found: Cluster, seconds: float) -> None:
    """Returns when all workers are there.

    TensorFlow would wait for them without a word and without end, deaf to SIGTERM.

    Raises:
        StrategyError: one did not come in that time, or this one's port is taken.
    """
    missing = [a for number, a in enumerate(found.workers) if number != found.place]
    if not missing:
        return
    print(f"waiting for {len(missing)} workers at {', '.join(missing)}", flush=True)
    deadline = time.monotonic() + seconds
    # Until TensorFlow listens there itself; who asks in between asks again.
    with _listening(_split(found.workers[found.place])[1]):
        while missing := [address for address in missing if not _answers(address)]:
            if time.monotonic() > deadline:
                raise StrategyError(
                    f"no worker at {', '.join(missing)} within {seconds:.0f} s; start all of them with "
                    "the same TF_CONFIG but for its index, or raise --start-timeout"
                )
            time.sleep(_RETRY_S)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    number = int(port)
    if not 0 < number < 2**16:
        raise ValueError(f"{number} is no port")
    return host.strip("[]"), number


def _listening(port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128
            )
        return socket.create_server(("", port), backlog=128)
    except OSError as error:
        raise StrategyError(
            f"port {port} of this worker cannot be used: {error.strerror}"
        ) from error


def _answers(address: str) -> bool:
    try:
        socket.create_connection(_split(address), timeout=1.0).close()
    except OSError:
        return False
    return True
