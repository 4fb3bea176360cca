"""The workers of one version, and what they have in hand; see :mod:`service.worker`.

They are there for the mass of requests: slices that are to be answered and nothing more, while the
service has several of them. All else, and all while no worker is there, the engine's own threads do.

Under a runtime that predicts in batches a slice goes to a worker twice: as a file, which comes back
decoded and goes into a batch, and with the model's outputs, which come back as an answer.
"""

import asyncio
import logging
import math
import pickle
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from contract.answer import Outputs
from contract.sealing import SealedFile
from service.errors import DeadlineExceeded, Failure, RuntimeLost
from service.forks import Forks
from service.jobs import TOO_LATE, Job
from service.link import Link, Reply
from service.metrics import Metrics
from service.rebuilding import rebuild_seconds
from service.worker import Meaning, Order, Verdict, may_be_one_slice

logger = logging.getLogger("service.crew")

IN_HAND: Final = 3
"""Slices that a worker has at most, so that it need not wait for the event loop between two."""

LOOK_SECONDS: Final = 1.0
"""How often each worker is looked at."""

GRACE_SECONDS: Final = 5.0
"""How long after its time a worker may take to end by itself; one that stands still never does."""

HIRE_SECONDS: Final = 60.0
"""How long a worker may take from when it is asked for; the process that forks it may have to start.
Twice as long with each attempt that failed: on a slow machine it takes what it takes."""

MAX_DOUBLINGS: Final = 4
"""Of that time, which is 16 minutes then."""


class Crew:
    """A few workers, replaced when they end; event loop only.

    One that neither answers nor ends is killed: while it stands still, so does its own limit of time.
    Here its time is counted in looks at it, so that a pause of the whole machine, or of this process,
    is but one of them.

    A slice that a worker had begun when it ended is refused, since it may be the reason; what waited
    behind it goes to the others, or to ``others`` if there are none.

    Args:
        size: how many workers.
        forks: where they come from.
        model: what they predict with; None where they do not.
        order: what else they work with.
        settle: gets settled jobs, answered or not; may submit others meanwhile.
        others: takes a job that no worker is there for.
        predict: takes a job that was decoded, where workers do not predict; it comes back to
            :meth:`answer`.
        metrics: counts what they do.
    """

    def __init__(
        self,
        size: int,
        forks: Forks,
        model: SealedFile | None,
        order: Order,
        settle: Callable[[Sequence[Job]], None],
        others: Callable[[Job], None],
        predict: Callable[[Job], None],
        metrics: Metrics,
    ) -> None:
        self._forks = forks
        self._model = model
        self._order = pickle.dumps(order)
        self._rules = order.rules
        self._most_looks = 1 + math.ceil((order.task_seconds + GRACE_SECONDS) / LOOK_SECONDS)
        self._settle = settle
        self._others = others
        self._predict = predict
        self._metrics = metrics
        self._workers: list[Link] = []
        self._queue: deque[Job] = deque()
        # What workers have decoded and a batch has not brought back.
        self._predicting: set[Job] = set()
        self._loop = asyncio.get_running_loop()
        self._tasks = [self._loop.create_task(self._keep()) for _ in range(size)]

    @property
    def size(self) -> int:
        """Workers that are there now."""
        return len(self._workers)

    def takes(self, job: Job) -> bool:
        """Whether it is one for the workers."""
        return (
            bool(self._workers)
            and job.answer_only
            and job.rules is self._rules
            and job.upload.failure is None
            # Of a file of several slices the first one has been looked at.
            and job.source is None
            and may_be_one_slice(job.upload.data)
        )

    def submit(self, job: Job) -> None:
        """Queues a job that it :meth:`takes`."""
        self._queue.append(job)
        self._hand_out()

    def answer(self, jobs: Sequence[Job]) -> None:
        """Has slices of a batch answered before all that waits; settles what no worker decoded."""
        mine: list[Job] = []
        rest: list[Job] = []
        for job in jobs:
            (mine if self._answers(job) else rest).append(job)
        self._predicting.difference_update(jobs)
        self._queue.extendleft(reversed(mine))
        self._hand_out()
        self._settle(rest)

    def close(self) -> None:
        """Ends the workers; to be called when no job is left, or :meth:`abandon` is."""
        for task in self._tasks:
            task.cancel()
        # One that was cancelled keeps where that happened, and so this crew and its version.
        self._tasks.clear()
        for worker in self._workers:
            worker.dismiss()
        self._metrics.workers.dec(self.size)
        self._workers.clear()

    def abandon(self, failure: Failure) -> None:
        """Fails everything that was submitted, and ends the workers."""
        jobs = [*(job for worker in self._workers for job in worker.jobs), *self._queue]
        for worker in self._workers:
            worker.jobs.clear()
        self._queue.clear()
        self.close()
        self._fail(jobs, failure)

    async def _keep(self) -> None:
        """Has one worker there, again and again."""
        attempt = 0
        while True:
            await asyncio.sleep(rebuild_seconds(attempt))
            patience_seconds = HIRE_SECONDS * 2 ** min(attempt, MAX_DOUBLINGS)
            try:
                worker, forks = await self._hire(patience_seconds)
            except Exception:
                # Whatever it was, RuntimeError where there are too many threads: its place stays open.
                attempt += 1
                logger.exception("no worker can be started")
                continue
            try:
                await asyncio.wait(
                    [worker.ready, worker.gone],
                    timeout=patience_seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if worker.ready.done():
                    attempt = 0
                    await self._employ(worker)
                else:
                    attempt += 1
                    if worker.gone.done():
                        logger.error("a worker ended before it was ready")
                    else:
                        logger.error("a worker is not ready in time")
                        self._forks.doubt(forks)
            finally:
                worker.dismiss()

    async def _employ(self, worker: Link) -> None:
        """Gives a worker pictures until it ends, or does not answer."""
        self._workers.append(worker)
        self._metrics.workers.inc()
        self._hand_out()
        while not worker.gone.done() and worker.silent < self._most_looks:
            await asyncio.wait([worker.gone], timeout=LOOK_SECONDS)
            worker.silent = worker.silent + 1 if worker.jobs else 0
        self._workers.remove(worker)
        self._metrics.workers.dec()
        self._metrics.worker_restarts.inc()
        what = "ended" if worker.gone.done() else "does not answer"
        logger.warning("a worker %s; another one takes its place", what)
        self._lose(worker)

    async def _hire(self, patience_seconds: float) -> tuple[Link, int]:
        """A worker that is not ready yet, and the id of the process that it comes from."""
        connection, forks = await asyncio.to_thread(self._forks.connect, self._model)
        _, worker = await asyncio.get_running_loop().create_connection(
            lambda: Link(self._order, self._take_back), sock=connection
        )
        worker.begin(patience_seconds)
        return worker, forks

    def _answers(self, job: Job) -> bool:
        """Whether a worker is to say what a slice's outputs mean."""
        return (
            bool(self._workers)
            and job in self._predicting
            and isinstance(job.outcome, Outputs)
            and not job.delivered
        )

    def _hand_out(self) -> None:
        # One that has just ended is still counted until its task comes to see to what it had in hand.
        there = [worker for worker in self._workers if not worker.gone.done()]
        while self._queue and there:
            worker = min(there, key=lambda worker: len(worker.jobs))
            if len(worker.jobs) >= IN_HAND:
                return
            job = self._queue.popleft()
            if job.expired():
                self._fail([job], DeadlineExceeded(TOO_LATE))
            else:
                worker.give(job)

    def _take_back(self, worker: Link, replies: Sequence[Reply]) -> None:
        # After abandon() nobody waits for what still comes.
        jobs = [worker.jobs.popleft() for _ in replies if worker.jobs]
        # First of all, so that no worker waits for what the event loop does with the answers.
        self._hand_out()
        settled = []
        for job, reply in zip(jobs, replies, strict=False):
            if isinstance(reply, Meaning):
                job.answer, job.outcome = reply.answer, reply.failure or job.outcome
            elif not self._take(job, reply):
                continue
            settled.append(job)
        self._settle(settled)

    def _take(self, job: Job, verdict: Verdict) -> bool:
        """Notes what became of a file; whether that settles it."""
        if verdict.outcome is None and verdict.decoded is None:
            self._others(job)
            return False
        job.outcome, job.answer, job.dicom = verdict.outcome, verdict.answer, verdict.dicom
        job.study = verdict.study
        job.decode_seconds = verdict.decode_seconds
        job.inference_seconds = verdict.inference_seconds
        job.stop_waiting(verdict.started)
        if verdict.decoded is not None:
            job.pixels, job.geometry, job.coloured = verdict.decoded
            job.waiting_since = verdict.started + verdict.decode_seconds
            self._predicting.add(job)
            self._predict(job)
            return False
        if isinstance(verdict.outcome, Outputs):
            self._metrics.observe_batch(1, verdict.inference_seconds)
        return True

    def _lose(self, worker: Link) -> None:
        """Of a worker that has ended: refuses what it had begun, and keeps the rest."""
        if worker.jobs:
            begun = worker.jobs.popleft()
            self._fail([begun], RuntimeLost("the process that worked on the image ended"))
        self._queue.extendleft(reversed(worker.jobs))
        worker.jobs.clear()
        if self._workers:
            self._hand_out()
            return
        while self._queue:
            job = self._queue.popleft()
            if job.outcome is None:
                self._others(job)
            else:
                self._settle([job])

    def _fail(self, jobs: Sequence[Job], failure: Failure) -> None:
        for job in jobs:
            job.outcome = failure
        # Not within submit(): who submits has not counted the job yet, and the next one would expire
        # inside of this one.
        self._loop.call_soon(self._settle, jobs)
