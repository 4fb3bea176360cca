"""The way of a request's images: admission, decoding, batch, and back to the event loop."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from time import monotonic

from starlette.requests import ClientDisconnect

from contract.answer import Rules
from contract.errors import TooManyFrames
from contract.policy import Policy
from contract.source import Source
from service.batching import Batcher
from service.buffers import Claim
from service.decoding import TOO_MANY_FRAMES, DecodePool, Decoder
from service.engine import Engine
from service.errors import QueueFull
from service.jobs import Group, Job, Upload
from service.metrics import Metrics
from service.presence import Presence

Take = Callable[[Sequence[Job]], None]


class Pipeline:
    """Bounds the number of images in the service and sees each of them through.

    All its methods but :meth:`deliver` belong to the event loop, so that nothing here needs a lock.

    Args:
        loop: the event loop that serves requests.
        capacity: most images in the service at a time; one request has half of that at most.
        decode_threads: threads that decode, where the engine's own do not.
        policy: what is accepted of a file; its frames are counted for the whole request.
        metrics: counts what passes.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        capacity: int,
        decode_threads: int,
        policy: Policy,
        metrics: Metrics,
    ) -> None:
        self._loop = loop
        self._capacity = capacity
        self._share = max(1, capacity // 2)
        self._max_frames = policy.max_frames
        self._metrics = metrics
        self.decoder = Decoder(policy, self._expand)
        self._decoders = DecodePool(decode_threads, self.decoder, lambda job: self.deliver([job]))
        self.depth = 0

    def admit(self, images: int = 1) -> None:
        """Checks that so many images still fit.

        Raises:
            QueueFull: they do not.
        """
        if self.depth + images > self._capacity:
            raise QueueFull("the service has as many images as it can take; try again")

    async def predict(
        self,
        engine: Engine,
        uploads: Sequence[Upload],
        rules: Rules,
        deadline: float,
        claim: Claim,
        presence: Presence | None = None,
        *,
        keep_headers: bool = False,
        answers_only: bool = False,
    ) -> list[Job]:
        """Decodes and predicts the slices of one request.

        Args:
            engine: the version that predicts them.
            uploads: at least one.
            rules: how its outputs become answers.
            deadline: monotonic seconds.
            claim: of the request's memory, to be held until it is answered.
            presence: of the client; None where the answer is not for one that waits.
            keep_headers: keep what results are made of, of DICOM objects, in :attr:`Job.header`.
            answers_only: nothing is wanted of a job but its outcome and its answer; pixels, masks and
                embeddings need not come back.

        Returns:
            One job for each slice, in order, each with an outcome; one for a file that is not readable.

        Raises:
            QueueFull: there is no room for the request's share; nothing was started.
            ClientDisconnect: the client has left; what was not predicted by then never is.
        """
        presence = presence or Presence()
        if presence.has_left:
            raise ClientDisconnect
        self.admit(min(len(uploads), self._share))

        def start(job: Job) -> bool:
            if self.depth >= self._capacity:
                return False
            self.depth += 1
            # Before, it waited for others of its own request.
            job.waiting_since = monotonic()
            engine.acquire(1)
            crew = engine.crew
            # What is alone in the service is predicted on all cores, which a worker does not do.
            if crew is not None and self.depth > 1 and crew.takes(job):
                crew.submit(job)
            else:
                self.by_threads(engine.batcher, job)
            return True

        group = Group(start, engine.release, self._share, self._max_frames, claim, self._loop)
        spec = engine.stored.preprocess
        # A version that is replaced meanwhile ends only after the last slice of this request.
        engine.acquire(1)
        timer = self._loop.call_later(max(0.0, deadline - monotonic()), group.finish)
        try:
            with presence.watched(group.abandon):
                group.begin(
                    [
                        Job(upload, spec, rules, deadline, group, keep_headers, answers_only)
                        for upload in self._bounded(uploads)
                    ]
                )
                await group.done
        finally:
            timer.cancel()
            group.finish()
            jobs = group.release()
            engine.release()
        if presence.has_left:
            raise ClientDisconnect
        return [job.settled() for job in jobs]

    def _bounded(self, uploads: Sequence[Upload]) -> Iterator[Upload]:
        """Files whose first slice is beyond the limit have that for their failure."""
        yield from uploads[: self._max_frames]
        for upload in uploads[self._max_frames :]:
            failure = upload.failure or TooManyFrames(TOO_MANY_FRAMES)
            yield replace(upload, failure=failure)

    def by_threads(self, batcher: Batcher, job: Job) -> None:
        """Has a job decoded and predicted by threads of this process."""
        if batcher.decodes:
            batcher.submit(job)
        else:
            self._decoders.submit(job, batcher.submit)

    def deliver(self, jobs: Sequence[Job], take: Take | None = None) -> None:
        """Hands jobs to the event loop with a single wake-up. Any thread.

        Args:
            jobs: that have an outcome.
            take: gets them there; without it, they are settled.
        """
        try:
            self._loop.call_soon_threadsafe(take or self.settle, jobs)
        except RuntimeError:
            # A batch that hung came back after the service had stopped.
            if not self._loop.is_closed():
                raise

    def settle(self, jobs: Sequence[Job]) -> None:
        """Counts jobs as done, and wakes the requests that have no others left."""
        for job in jobs:
            if job.delivered:
                continue
            job.delivered = True
            job.source = None
            self.depth -= 1
            self._metrics.decode_seconds.observe(job.decode_seconds)
            self._metrics.queue_seconds.observe(job.queue_seconds)
            job.group.settle()

    def _expand(self, job: Job, source: Source) -> None:
        """Queues the further frames of a file before its first one is settled. A decoding thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits for them
            self._loop.call_soon_threadsafe(job.group.expand, job, source)

    def close(self) -> None:
        """Ends the decoding threads; to be called when no request is left."""
        self._decoders.close()
