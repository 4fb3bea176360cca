"""The bare loop: decode, preprocess and predict on all cores, without HTTP.

Runs in the environment of what it measures: ``python -m bench.ceiling labels FILES`` or
``rate MODE SECONDS FILES``, with the environment variables of :mod:`bench.peers.model`. Prints one line
of JSON.
"""

import json
import multiprocessing
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Barrier
from time import monotonic
from typing import Any, Final

from bench.peers.model import Model

CORES: Final = len(os.sched_getaffinity(0))
BATCH_SIZE: Final = 32
WARM_UP_IMAGES: Final = 64

LOAD_SECONDS: Final = 120.0
"""How long a process or thread waits until all have loaded and begin together."""


def labels(files: list[Path]) -> dict[str, Any]:
    """The right answer for each file: what the artifact itself says."""
    model = Model()
    prepared = [model.prepare(file.read_bytes()) for file in files]
    return {"labels": [model.predict([image])[0]["label"] for image in prepared]}


def one_by_one(files: list[Path], ready: Barrier, seconds: float) -> float:
    """Images a second of one thread, from the moment when all of them are ready."""
    model = Model()
    data = [file.read_bytes() for file in files]
    for item in islice(cycle(data), WARM_UP_IMAGES):
        model.predict([model.prepare(item)])
    ready.wait(LOAD_SECONDS)
    count = 0
    start = monotonic()
    for item in cycle(data):
        if monotonic() - start >= seconds:
            break
        model.predict([model.prepare(item)])
        count += 1
    return count / (monotonic() - start)


def in_batches(files: list[Path], seconds: float) -> float:
    """The same in batches that threads decode, for a runtime that takes all cores itself."""
    model = Model()
    items = cycle([file.read_bytes() for file in files])
    count = 0
    with ThreadPoolExecutor(CORES) as decoders:

        def predict_next() -> None:
            model.predict(list(decoders.map(model.prepare, islice(items, BATCH_SIZE))))

        for _ in range(WARM_UP_IMAGES // BATCH_SIZE):
            predict_next()
        start = monotonic()
        while monotonic() - start < seconds:
            predict_next()
            count += BATCH_SIZE
        return count / (monotonic() - start)


def _send(connection: Connection, files: list[Path], ready: Barrier, seconds: float) -> None:
    connection.send(one_by_one(files, ready, seconds))


def in_processes(files: list[Path], seconds: float) -> float:
    """One single-threaded model in a process for each core."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(CORES)
    receivers = []
    for _ in range(CORES):
        receiver, sender = context.Pipe(duplex=False)
        context.Process(target=_send, args=(sender, files, ready, seconds), daemon=True).start()
        # So that nobody waits for a process that has ended.
        sender.close()
        receivers.append(receiver)
    total: float = sum(receiver.recv() for receiver in receivers)
    return total


def in_threads(files: list[Path], seconds: float) -> float:
    """One single-threaded model in a thread for each core."""
    ready = Barrier(CORES)
    with ThreadPoolExecutor(CORES) as threads:
        return sum(threads.map(lambda _: one_by_one(files, ready, seconds), range(CORES)))


MODES: Final = {"processes": in_processes, "threads": in_threads, "batches": in_batches}


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "labels":
        result = labels([Path(name) for name in rest])
    else:
        mode, seconds, *names = rest
        rate = MODES[mode]([Path(name) for name in names], float(seconds))
        result = {"images_per_second": rate}
    sys.stdout.write(json.dumps(result) + "\n")
