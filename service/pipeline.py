"""The way of a request's images: admission, decoding, batch, and back to the event loop."""

import asyncio
from collections.abc import Sequence
from time import monotonic

from service.decoding import DecodePool
from service.errors import DeadlineExceeded, QueueFull
from service.jobs import Group, Job, Upload
from service.metrics import Metrics
from service.registry import Engine


class Pipeline:
    """Bounds the number of images in the service and sees each of them through.

    All its methods but :meth:`deliver` belong to the event loop, so that nothing here needs a lock.

    Args:
        loop: the event loop that serves requests.
        capacity: most images in the service at a time.
        decode_threads: threads that decode.
        max_pixels: limit for one image.
        metrics: counts what passes.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        capacity: int,
        decode_threads: int,
        max_pixels: int,
        metrics: Metrics,
    ) -> None:
        self._loop = loop
        self._capacity = capacity
        self._metrics = metrics
        self._decoders = DecodePool(decode_threads, max_pixels, lambda job: self.deliver([job]))
        self.depth = 0

    def admit(self, images: int = 1) -> None:
        """Checks that so many images still fit.

        Raises:
            QueueFull: they do not.
        """
        if self.depth + images > self._capacity:
            raise QueueFull("the service has as many images as it can take; try again")

    async def predict(
        self, engine: Engine, uploads: Sequence[Upload], deadline: float
    ) -> list[Job]:
        """Decodes and predicts the images of one request.

        Args:
            engine: the version that predicts them.
            uploads: at least one.
            deadline: monotonic seconds.

        Returns:
            One job for each upload, in order, each with an outcome.

        Raises:
            QueueFull: there is no room for all of them; none was started.
        """
        self.admit(len(uploads))
        group = Group(len(uploads), engine.release, self._loop)
        spec = engine.stored.preprocess
        jobs = [Job(upload, spec, deadline, group) for upload in uploads]
        self.depth += len(jobs)
        engine.acquire(len(jobs))
        for job in jobs:
            self._decoders.submit(job, engine.batcher.submit)
        timer = self._loop.call_later(max(0.0, deadline - monotonic()), group.finish)
        try:
            await group.done
        finally:
            timer.cancel()
        for job in jobs:
            if not job.delivered:
                job.outcome = DeadlineExceeded("the deadline passed before the image was predicted")
        return jobs

    def deliver(self, jobs: Sequence[Job]) -> None:
        """Hands settled jobs to the event loop with a single wake-up. Any thread."""
        try:
            self._loop.call_soon_threadsafe(self._settle, jobs)
        except RuntimeError:
            # A batch that hung came back after the service had stopped.
            if not self._loop.is_closed():
                raise

    def _settle(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.delivered:
                continue
            job.delivered = True
            self.depth -= 1
            self._metrics.decode_seconds.observe(job.decode_seconds)
            self._metrics.queue_seconds.observe(job.queue_seconds)
            job.group.settle()

    def close(self) -> None:
        """Ends the decoding threads; to be called when no request is left."""
        self._decoders.close()
