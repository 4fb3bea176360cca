"""The bare loop: decode, preprocess and predict on all cores, without HTTP.

Runs in the environment of what it measures: ``python -m bench.ceiling labels|rate MODE SECONDS FILES``,
with the environment variables of :mod:`bench.peers.model`. Prints one line of JSON.
"""

import json
import multiprocessing
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any, Final

from bench.peers.model import Model

CORES: Final = len(os.sched_getaffinity(0))
BATCH_SIZE: Final = 32
WARM_UP_IMAGES: Final = 64

LOAD_SECONDS: Final = 4.0
"""From the start of a process or thread to the moment when all of them begin together."""


def labels(files: list[Path]) -> dict[str, Any]:
    """The right answer for each file: what the artifact itself says."""
    model = Model()
    prepared = [model.prepare(file.read_bytes()) for file in files]
    return {"labels": [model.predict([image])[0]["label"] for image in prepared]}


def one_by_one(files: list[Path], start: float, end: float) -> int:
    """Images that one thread predicts between two moments."""
    model = Model()
    data = [file.read_bytes() for file in files]
    for item in islice(cycle(data), WARM_UP_IMAGES):
        model.predict([model.prepare(item)])
    sleep(max(0.0, start - monotonic()))
    count = 0
    for item in cycle(data):
        if monotonic() >= end:
            break
        model.predict([model.prepare(item)])
        count += 1
    return count


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


def _send(connection: Connection, files: list[Path], start: float, end: float) -> None:
    connection.send(one_by_one(files, start, end))


def in_processes(files: list[Path], seconds: float) -> float:
    """One single-threaded model in a process for each core."""
    start = monotonic() + LOAD_SECONDS
    context = multiprocessing.get_context("spawn")
    running = []
    for _ in range(CORES):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_send, args=(sender, files, start, start + seconds))
        process.start()
        running.append((process, receiver))
    total = 0
    for process, receiver in running:
        total += receiver.recv()
        process.join()
    return total / seconds


def in_threads(files: list[Path], seconds: float) -> float:
    """One single-threaded model in a thread for each core."""
    start = monotonic() + LOAD_SECONDS
    counts: list[int] = []

    def work() -> None:
        counts.append(one_by_one(files, start, start + seconds))

    threads = [Thread(target=work) for _ in range(CORES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


MODES: Final = {"processes": in_processes, "threads": in_threads, "batches": in_batches}


if __name__ == "__main__":
    what, mode, seconds, *names = sys.argv[1:]
    paths = [Path(name) for name in names]
    if what == "labels":
        result = labels(paths)
    else:
        result = {"images_per_second": MODES[mode](paths, float(seconds))}
    sys.stdout.write(json.dumps(result) + "\n")
