"""Decoding threads: from uploaded bytes to the model's input, each image on its own."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from time import monotonic
from typing import Final

from contract.decoding import open_source
from contract.errors import DecodeError, TooManyFrames
from contract.policy import Policy
from contract.preprocessing import preprocess_placed
from contract.region import Geometry
from contract.source import Source
from service.errors import DeadlineExceeded, Failure, QueueFull, ServiceError, UnpackedTooLarge
from service.jobs import Job

logger = logging.getLogger("service.decoding")

CLOSE_SECONDS: Final = 1.0
"""How long a thread may take to end; an image that it is stuck in does not stop the process."""

TOO_MANY_FRAMES: Final = "the request has more frames than are accepted"

Forward = Callable[[Job], None]
"""Where a decoded job goes; called in a decoding thread."""


class DecodePool:
    """A few threads that decode, for runtimes whose threads have better to do.

    A decoded job goes on to its batch straight from the decoding thread; a job that cannot be
    decoded never gets there, so it cannot harm its neighbours.

    Args:
        threads: how many.
        decoder: what they do.
        on_failure: gets a job that has no pixels; called in a decoding thread, or where none can be
            started.
    """

    def __init__(self, threads: int, decoder: "Decoder", on_failure: Callable[[Job], None]) -> None:
        self._decoder = decoder
        self._on_failure = on_failure
        self._queue: SimpleQueue[tuple[Job, Forward] | None] = SimpleQueue()
        self._count = threads
        self._threads: list[Thread] = []

    def submit(self, job: Job, forward: Forward) -> None:
        """Queues a job; never blocks, since the number of jobs in the service is bounded.

        One thread only. With the first job the others start: a runtime that decodes for itself has
        none.
        """
        try:
            while len(self._threads) < self._count:
                name = f"decode-{len(self._threads)}"
                thread = Thread(target=self._run, name=name, daemon=True)
                thread.start()
                self._threads.append(thread)
        except RuntimeError:
            # The system has none now: the next job tries again.
            if not self._threads:
                logger.exception("no thread can be started that decodes")
                job.outcome = ServiceError()
                self._on_failure(job)
                return
        self._queue.put((job, forward))

    def close(self) -> None:
        """Ends the threads; to be called when no request is left that waits for them."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            job, forward = item
            job.stop_waiting(monotonic())
            failure = self._decoder.decode(job)
            if failure is None:
                job.waiting_since = monotonic()
                forward(job)
            else:
                job.outcome = failure
                self._on_failure(job)
            # While this thread waits, it must not keep the last image alive.
            del item, job, forward, failure


class Decoder:
    """Opens files, decodes slices and preprocesses them. Any thread.

    Args:
        policy: what is accepted of a file.
        on_expand: gets the job and the source of a file that turns out to have several slices, before
            the job itself, which stands for the first of them, goes on; called in the same thread.
    """

    def __init__(self, policy: Policy, on_expand: Callable[[Job, Source], None]) -> None:
        self._policy = policy
        self._on_expand = on_expand

    def decode(self, job: Job) -> Failure | None:
        """Fills in a job's pixels and what belongs to them, or says why there are none."""
        if job.expired():
            return DeadlineExceeded("the deadline passed before the image was decoded")
        if job.upload.failure is not None:
            return job.upload.failure
        start = monotonic()
        source = job.source
        try:
            if source is None:
                source = self._open(job)
            job.header = source.header
            job.study = source.study_instance_uid
            decoded = source.slice(job.frame)
            job.pixels, placement = preprocess_placed(decoded.upright, job.spec)
            job.geometry = Geometry.of(decoded, placement, job.spec)
            job.coloured = decoded.coloured
            job.dicom = decoded.dicom
        except (DecodeError, QueueFull, UnpackedTooLarge) as error:
            if source is not None:
                with suppress(DecodeError):
                    job.dicom = source.reference(job.frame)
            # Of one that was opened and has too many frames it is known already.
            elif isinstance(error, DecodeError) and error.dicom is not None:
                job.study, job.dicom = error.study, error.dicom
            # Their frames hold the file and what it unpacked to, until the request is answered.
            error.__traceback__ = error.__context__ = error.__cause__ = None
            return error
        except Exception:
            logger.exception("decoding raised an unknown error")
            return ServiceError()
        finally:
            job.decode_seconds = monotonic() - start
        return None

    def _open(self, job: Job) -> Source:
        keep: Sequence[str] = ()
        if job.keep_header:
            # Imports pydicom, if nothing has yet.
            from service.dicom.headers import KEYWORDS

            keep = KEYWORDS
        source = open_source(job.upload.data, job.spec, self._policy, keep=keep)
        several = source.frames > 1
        if several and not job.group.reserve(source.frames - 1):
            # So that no other series of the request is taken to lack it.
            with suppress(DecodeError):
                job.study = source.study_instance_uid
                job.dicom = source.reference(job.frame)
            raise TooManyFrames(TOO_MANY_FRAMES)
        if source.held_bytes:
            job.group.claim.add(source.held_bytes)
        if several:
            self._on_expand(job, source)
        return source
