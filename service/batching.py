"""Micro-batching: whoever waits when the runtime becomes free is predicted together.

One mechanism for every runtime; it knows only ``predict(batch)``. There is no artificial wait by
default: on an idle service an image is predicted at once, and under load the batches grow by
themselves, because a busy runtime lets the queue grow.
"""

import logging
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from contract.answer import Outputs
from service.errors import DeadlineExceeded, Failure, InferenceFailed, RuntimeLost
from service.jobs import Job

logger = logging.getLogger("service.batching")

MAX_FAILURES: Final = 3
"""Batches that may fail in a row before the runtime itself is taken to be broken."""


class Predictor(Protocol):
    """The part of a runtime that batching needs."""

    def predict(self, batch: NDArray[np.uint8]) -> Outputs:
        """uint8 (n, height, width) to outputs for ``n`` slices."""
        ...


class Batcher:
    """A queue and the thread that predicts what is in it.

    Args:
        predictor: called in this thread only, with 1 to ``max_batch_size`` images.
        max_batch_size: most images in a batch.
        max_wait_seconds: how long an incomplete batch waits for more, from its first image on.
        deliver: gets settled jobs, a whole batch at a time; called in this thread or in the one
            that submits or abandons.
        observe: gets the size and the seconds of each batch.
    """

    def __init__(
        self,
        predictor: Predictor,
        max_batch_size: int,
        max_wait_seconds: float,
        deliver: Callable[[Sequence[Job]], None],
        observe: Callable[[int, float], None],
    ) -> None:
        self._predictor = predictor
        self._max_batch_size = max_batch_size
        self._max_wait_seconds = max_wait_seconds
        self._deliver = deliver
        self._observe = observe
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._lost: Failure | None = None
        self._current: Sequence[Job] = ()
        self._busy_since: float | None = None
        self._failures = 0
        self._closing = False
        self._thread = Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queues a decoded job; never blocks. Any thread."""
        self._queue.put(job)
        if self._lost is not None:
            # The thread may have ended between its last look at the queue and this job.
            self._fail_queued(self._lost)

    def close(self) -> None:
        """Predicts everything that was submitted, then ends the thread."""
        self._closing = True
        self._queue.put(None)
        self._thread.join()

    @property
    def idle(self) -> bool:
        """Whether nothing is being predicted, or waits for it. Any thread."""
        return self._busy_since is None and self._queue.empty()

    def problem(self, batch_timeout_seconds: float) -> str | None:
        """What is wrong with the thread or the runtime, if anything is. Any thread."""
        if not self._thread.is_alive() and not self._closing:
            return "the inference thread died"
        busy_since = self._busy_since
        if busy_since is not None and monotonic() - busy_since > batch_timeout_seconds:
            return "a batch takes longer than its limit"
        if self._failures >= MAX_FAILURES:
            return "the runtime fails on every batch"
        return None

    def abandon(self, failure: Failure) -> None:
        """Fails everything submitted and yet to be submitted, and leaves the thread to itself.

        The thread ends by itself if it ever comes back from its batch; what it returns then is
        ignored.
        """
        self._lost = failure
        current = self._current
        self._fail(current, failure)
        self._fail_queued(failure)
        self._queue.put(None)

    def _run(self) -> None:
        try:
            while self._lost is None and (batch := self._collect()):
                self._predict(batch)
                del batch
        except BaseException:
            # Only this makes readiness drop; whatever ended the thread, nobody may wait for ever.
            logger.exception("the inference thread died")
            self._lost = RuntimeLost("the inference thread died; a new runtime is being built")
            self._fail(self._current, self._lost)
        finally:
            if self._lost is not None:
                self._fail_queued(self._lost)

    def _collect(self) -> list[Job]:
        """The next batch; empty when the queue is closed and used up."""
        first = self._queue.get()
        if first is None:
            return []
        batch = [first]
        end = first.waiting_since + self._max_wait_seconds
        while len(batch) < self._max_batch_size:
            try:
                if self._max_wait_seconds > 0:
                    job = self._queue.get(timeout=max(0.0, end - monotonic()))
                else:
                    job = self._queue.get_nowait()
            except Empty:
                break
            if job is None:
                # Closed: predict what is in hand, and find the mark again next time.
                self._queue.put(None)
                break
            batch.append(job)
        return batch

    def _predict(self, batch: Sequence[Job]) -> None:
        start = monotonic()
        live = []
        for job in batch:
            job.stop_waiting(start)
            if job.expired():
                job.outcome = DeadlineExceeded("the deadline passed before the image was predicted")
            else:
                live.append(job)
        self._current = batch
        if live:
            self._busy_since = start
            self._infer(live)
            self._busy_since = None
            seconds = monotonic() - start
            for job in live:
                job.inference_seconds = seconds
            self._observe(len(live), seconds)
        self._deliver(batch)
        self._current = ()

    def _infer(self, jobs: Sequence[Job]) -> None:
        try:
            pixels = np.stack([job.pixels for job in jobs if job.pixels is not None])
            outputs = self._predictor.predict(pixels)
            for name, array in outputs.arrays.items():
                if len(array) != len(jobs) or not np.isfinite(array).all():
                    raise ValueError(f"{name} of {len(jobs)} images: {array.shape}, or not finite")
        except Exception:
            self._failures += 1
            logger.exception("inference failed", extra={"fields": {"images": len(jobs)}})
            for job in jobs:
                job.outcome = InferenceFailed("the model failed on the batch with this image")
            return
        self._failures = 0
        for index, job in enumerate(jobs):
            job.outcome = outputs.at(index)

    def _fail(self, jobs: Sequence[Job], failure: Failure) -> None:
        for job in jobs:
            job.outcome = failure
        if jobs:
            self._deliver(jobs)

    def _fail_queued(self, failure: Failure) -> None:
        jobs: list[Job] = []
        while True:
            try:
                job = self._queue.get_nowait()
            except Empty:
                break
            if job is not None:
                jobs.append(job)
        self._fail(jobs, failure)
