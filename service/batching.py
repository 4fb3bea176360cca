"""Micro-batching: whoever waits when the runtime becomes free is predicted together.

One mechanism for every runtime; it knows only ``predict(batch)``. There is no artificial wait by
default: on an idle service an image is predicted at once, and under load the batches grow by
themselves, because a busy runtime lets the queue grow.

A runtime that gains nothing from batches has several lanes instead, one for each core: each is a thread
that takes one slice all the way, from file to answer, because each hop between threads costs processor
time and the interpreter's lock.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from time import monotonic
from typing import Final

import numpy as np
from numpy.typing import NDArray

from contract.answer import Outputs
from service.answers import answer_job
from service.errors import DeadlineExceeded, Failure, InferenceFailed, RuntimeLost, ServiceError
from service.jobs import TOO_LATE, Job
from service.runtimes import Predictor

logger = logging.getLogger("service.batching")

MAX_FAILURES: Final = 3
"""Batches that may fail in a row before the runtime itself is taken to be broken."""


Decode = Callable[[Job], Failure | None]
"""Fills in a job's pixels, or says why there are none."""


class _Lane:
    """A predictor and the thread that calls it.

    Attributes:
        current: what it has in hand.
        busy_since: monotonic seconds since when it has been predicting or answering, if it is.
        decoding_since: likewise, a single slice.
        failures: batches that failed in a row.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.thread: Thread
        self.current: Sequence[Job] = ()
        self.busy_since: float | None = None
        self.decoding_since: float | None = None
        self.failures = 0


class Batcher:
    """A queue and the threads that predict what is in it.

    Args:
        predictors: one for each thread, which alone calls it, with 1 to ``max_batch_size`` images.
        max_batch_size: most images in a batch.
        max_wait_seconds: how long an incomplete batch waits for more, from its first image on.
        deliver: gets settled jobs, a whole batch at a time; called in this thread or in the one
            that submits or abandons.
        observe: gets the size and the seconds of each batch.
        decode: what is submitted has yet to be decoded, by this, and is answered as well; without it,
            jobs come decoded, and go out with the model's outputs.
        solo: predicts in place of a thread's own predictor while no other thread has anything to do.
    """

    def __init__(
        self,
        predictors: Sequence[Predictor],
        max_batch_size: int,
        max_wait_seconds: float,
        deliver: Callable[[Sequence[Job]], None],
        observe: Callable[[int, float], None],
        decode: Decode | None = None,
        solo: Predictor | None = None,
    ) -> None:
        self._max_batch_size = max_batch_size
        self._max_wait_seconds = max_wait_seconds
        self._deliver = deliver
        self._observe = observe
        self._decode = decode
        self._solo = solo
        self._solo_lock = Lock()
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._lost: Failure | None = None
        self._closing = False
        self._lanes = [_Lane(predictor) for predictor in predictors]
        for number, lane in enumerate(self._lanes):
            name = f"inference-{number}"
            lane.thread = Thread(target=self._run, args=(lane,), name=name, daemon=True)
            lane.thread.start()

    @property
    def decodes(self) -> bool:
        """Whether it takes jobs that have yet to be decoded."""
        return self._decode is not None

    def submit(self, job: Job) -> None:
        """Queues a job; never blocks. Any thread."""
        self._queue.put(job)
        if self._lost is not None:
            # The threads may have ended between their last look at the queue and this job.
            self._fail_queued(self._lost)

    def close(self) -> None:
        """Predicts everything that was submitted, then ends the threads; what comes later fails."""
        self._closing = True
        self._queue.put(None)
        for lane in self._lanes:
            lane.thread.join()
        # Whoever still has this batcher must not keep the model's memory.
        self._lanes = []
        self._solo = None
        self._lost = self._lost or RuntimeLost("the version was replaced before the image came")
        self._fail_queued(self._lost)

    @property
    def idle(self) -> bool:
        """Whether nothing is being predicted, or waits for it. Any thread."""
        return not any(lane.current for lane in self._lanes) and self._queue.empty()

    def problem(self, batch_timeout_seconds: float, decode_timeout_seconds: float) -> str | None:
        """What is wrong with a thread or the runtime, if anything is. Any thread."""
        for lane in self._lanes:
            if not lane.thread.is_alive() and not self._closing:
                return "the inference thread died"
            busy_since = lane.busy_since
            if busy_since is not None and monotonic() - busy_since > batch_timeout_seconds:
                return "a batch takes longer than its limit"
            decoding_since = lane.decoding_since
            if decoding_since is not None and monotonic() - decoding_since > decode_timeout_seconds:
                return "a slice takes longer to decode than its limit"
            if lane.failures >= MAX_FAILURES:
                return "the runtime fails on every batch"
        return None

    def abandon(self, failure: Failure) -> None:
        """Fails everything submitted and yet to be submitted, and leaves the threads to themselves.

        A thread ends by itself if it ever comes back from its batch; what it returns then is ignored.
        """
        self._lost = failure
        for lane in self._lanes:
            self._fail(lane.current, failure)
        self._fail_queued(failure)
        self._queue.put(None)

    def _run(self, lane: _Lane) -> None:
        try:
            while self._lost is None and (batch := self._collect()):
                self._take(lane, batch)
                del batch
        except BaseException:
            # Only this makes readiness drop; whatever ended the thread, nobody may wait for ever.
            logger.exception("the inference thread died")
            self._lost = RuntimeLost("the inference thread died; a new runtime is being built")
            self._fail(lane.current, self._lost)
        finally:
            if self._lost is not None:
                self._fail_queued(self._lost)
                # The other threads end as well; the runtime is rebuilt as a whole.
                self._queue.put(None)

    def _collect(self) -> list[Job]:
        """The next batch; empty when the queue is closed and used up."""
        first = self._queue.get()
        if first is None:
            # Each thread finds the mark.
            self._queue.put(None)
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

    def _take(self, lane: _Lane, batch: Sequence[Job]) -> None:
        lane.current = batch
        if self._lost is not None:
            # Whoever abandoned it may not have seen what was not in hand yet.
            self._fail(batch, self._lost)
            return
        now = monotonic()
        for job in batch:
            job.stop_waiting(now)
        if self._decode is not None:
            for job in batch:
                lane.decoding_since = monotonic()
                job.outcome = self._decode(job)
            lane.decoding_since = None
        live = []
        for job in batch:
            if job.outcome is None and job.expired():
                job.outcome = DeadlineExceeded(TOO_LATE)
            elif job.outcome is None:
                live.append(job)
        if live:
            self._predict(lane, live)
        if self._decode is not None:
            lane.busy_since = monotonic()
            for job in live:
                answer_soundly(job)
            lane.busy_since = None
        self._deliver(batch)
        lane.current = ()

    def _predict(self, lane: _Lane, jobs: Sequence[Job]) -> None:
        lane.busy_since = start = monotonic()
        worked = infer(partial(self._outputs, lane), jobs)
        lane.failures = 0 if worked else lane.failures + 1
        lane.busy_since = None
        seconds = monotonic() - start
        for job in jobs:
            job.inference_seconds = seconds
        self._observe(len(jobs), seconds)

    def _outputs(self, lane: _Lane, pixels: NDArray[np.uint8]) -> Outputs:
        solo = self._solo
        if solo is not None and self._is_alone(lane) and self._solo_lock.acquire(blocking=False):
            try:
                return solo.predict(pixels)
            finally:
                self._solo_lock.release()
        return lane.predictor.predict(pixels)

    def _is_alone(self, lane: _Lane) -> bool:
        others = (other for other in self._lanes if other is not lane)
        return self._queue.empty() and not any(other.current for other in others)

    def _fail(self, jobs: Sequence[Job], failure: Failure) -> None:
        # A thread may have delivered what it still has in hand; it is being answered by now.
        failed = [job for job in jobs if not job.delivered]
        for job in failed:
            job.outcome = job.lost = failure
        if failed:
            self._deliver(failed)

    def _fail_queued(self, failure: Failure) -> None:
        jobs: list[Job] = []
        closed = False
        while True:
            try:
                job = self._queue.get_nowait()
            except Empty:
                break
            if job is None:
                closed = True
            else:
                jobs.append(job)
        if closed:
            self._queue.put(None)
        self._fail(jobs, failure)


def infer(predict: Callable[[NDArray[np.uint8]], Outputs], jobs: Sequence[Job]) -> bool:
    """Gives decoded jobs their outcome: outputs, or that inference failed. Any thread.

    Args:
        predict: uint8 (n, height, width) to outputs for ``n`` slices.
        jobs: of one batch.

    Returns:
        Whether the model worked.
    """
    try:
        pixels = np.stack([job.pixels for job in jobs if job.pixels is not None])
        outputs = predict(pixels)
        for name, array in outputs.arrays.items():
            if len(array) != len(jobs) or not np.isfinite(array).all():
                raise ValueError(f"{name} of {len(jobs)} images: {array.shape}, or not finite")
    except Exception:
        logger.exception("inference failed", extra={"fields": {"images": len(jobs)}})
        for job in jobs:
            job.outcome = InferenceFailed("the model failed on the batch with this image")
        return False
    for index, job in enumerate(jobs):
        job.outcome = outputs.at(index)
    return True


def answer_soundly(job: Job) -> None:
    """Answers what was predicted; what goes wrong with that is the job's outcome. Any thread."""
    try:
        answer_job(job)
    except Exception:
        logger.exception("answering raised an unknown error")
        job.outcome = ServiceError()
