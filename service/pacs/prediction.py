"""The slices of a series through the model, a few at a time.

They take the same way as the images of ``/predict``, and wait where those are many: nobody sits in
front of the screen and waits for a series that a PACS forwards.
"""

import asyncio
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Any, Final, NamedTuple

from contract.errors import ContractError, DecoderFailed, DecoderUnavailable, TooManyFrames
from contract.preprocessing import DicomReference
from service.answers import MaskForm, entries_of
from service.content import content_digest
from service.engine import Engine
from service.errors import QueueFull, ServiceError
from service.jobs import Job, Upload
from service.pacs import results
from service.pacs.segments import Place, Segments
from service.pacs.series import Instance, Waiting
from service.pacs.threads import Threads
from service.state import State

STEP: Final = 8
"""Files that are in the service at a time; an image of ``/predict`` may have to wait for them."""

STEP_BYTES: Final = 64 * 1024 * 1024
"""And their bytes, but for a file that is larger by itself."""

BUSY_SHARE: Final = 0.25
"""Share of the queue in use above which a series waits."""

BUSY_SECONDS: Final = 0.02

MAX_BUSY_SECONDS: Final = 60.0
"""A series that has waited so long in all goes on whenever there is room in the queue."""

PATIENCE_SECONDS: Final = 120.0
"""For a step; only a runtime that hangs takes so long."""


class Interrupted(Exception):
    """A series could not be analysed now, for a reason that lies not in its images.

    Attributes:
        code: the reason.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Predicted(NamedTuple):
    """The slices of a series, in the order of arrival.

    Attributes:
        jobs: the slices, without their files and pixels.
        entries: what /predict would answer for each of them.
        images: that each of them is of.
    """

    jobs: list[Job]
    entries: list[dict[str, Any]]
    images: list[Instance]


class Predictor:
    """Has series predicted, one after the other. Event loop only.

    Args:
        state: the running app, whose model and queue it uses.
        segments: where the files lie.
        threads: for those.
    """

    def __init__(self, state: State, segments: Segments, threads: Threads) -> None:
        self._state = state
        self._segments = segments
        self._threads = threads
        self._busy_seconds = 0.0

    async def predict(self, series: Waiting, engine: Engine, *, last: bool) -> Predicted:
        """Predicts every slice of a series; one that cannot be has its reason in its entry.

        Args:
            series: what is predicted.
            engine: what with.
            last: there is no further attempt, and a decoder that fails has failed for good.

        Raises:
            Interrupted: the service could not, or a decoder failed, and may not the next time.
            DecoderUnavailable: there is no process for a decoder now.
            Unreadable: a file cannot be read from the disk.
            SpoolFull: the disk fails.
        """
        self._busy_seconds = 0.0
        whole = Predicted([], [], [])
        most = min(STEP, self._state.settings.max_frames)
        for step in steps(list(series.instances.items()), most):
            part = await self._predict_step(series.uid, step, engine)
            if not last:
                _check_decoders(part.jobs)
            whole.jobs.extend(part.jobs)
            whole.entries.extend(part.entries)
            whole.images.extend(part.images)
        return whole

    async def _predict_step(
        self, uid: str, step: Sequence[tuple[Instance, Place]], engine: Engine
    ) -> Predicted:
        """Some files of a series, which do not stay in memory while the next ones are read."""
        uploads = await self._threads.run(self._read, step)
        jobs = await self._predict_files(engine, uploads)
        named = {id(upload): image for upload, (image, _) in zip(uploads, step, strict=True)}
        images = [named[id(job.upload)] for job in jobs]
        for job, image in zip(jobs, images, strict=True):
            if job.dicom is None:
                # It cannot be read, but by now it is known which image it is.
                job.dicom = DicomReference(image.sop, uid, job.frame, None)
        entries = await asyncio.to_thread(entries_of, jobs, MaskForm.NONE)
        self._state.registry.compare(jobs, engine)
        for job in jobs:
            results.lighten(job)
        return Predicted(jobs, entries, images)

    def _read(self, images: Sequence[tuple[Instance, Place]]) -> list[Upload]:
        uploads = []
        for image, place in images:
            data = self._segments.read(place)
            uploads.append(Upload(None, data, digest=image.digest or content_digest(data)))
        return uploads

    async def _predict_files(self, engine: Engine, uploads: Sequence[Upload]) -> list[Job]:
        """The slices of files, with as many frames of each as one request may have.

        Raises:
            Interrupted, DecoderUnavailable: see :meth:`_predict`.
        """
        jobs = []
        for job in await self._predict(engine, uploads):
            if len(uploads) > 1 and isinstance(job.outcome, TooManyFrames):
                jobs += await self._predict(engine, [job.upload])
            else:
                jobs.append(job)
        return jobs

    async def _predict(self, engine: Engine, uploads: Sequence[Upload]) -> list[Job]:
        """Their slices, each with a prediction or an error that it has by itself.

        Raises:
            Interrupted: the service could not.
            DecoderUnavailable: there is no process for a decoder now.
        """
        room = BUSY_SHARE * self._state.settings.queue_size
        while True:
            if self._state.pipeline.depth <= room or self._busy_seconds > MAX_BUSY_SECONDS:
                try:
                    deadline = monotonic() + PATIENCE_SECONDS
                    with self._state.buffers.claim() as claim:
                        jobs = await self._state.pipeline.predict(
                            engine, uploads, engine.rules, deadline, claim, keep_headers=True
                        )
                except QueueFull:
                    pass
                else:
                    break
            await asyncio.sleep(BUSY_SECONDS)
            self._busy_seconds += BUSY_SECONDS
        for job in jobs:
            failure = job.outcome
            if isinstance(failure, DecoderUnavailable):
                raise DecoderUnavailable(failure.detail)
            if isinstance(failure, ServiceError | ContractError) and failure.status >= 500:
                raise Interrupted(failure.code)
        return jobs


def _check_decoders(jobs: Sequence[Job]) -> None:
    """Takes a decoder that failed for the machine's fault: it may have been stopped, or killed.

    Raises:
        Interrupted: one failed.
    """
    for job in jobs:
        if isinstance(job.outcome, DecoderFailed):
            raise Interrupted(job.outcome.code)


def steps(
    images: Sequence[tuple[Instance, Place]], most: int
) -> Iterator[Sequence[tuple[Instance, Place]]]:
    """Images that are read together: at most so many, and not too many bytes."""
    step: list[tuple[Instance, Place]] = []
    size = 0
    for image, place in images:
        if step and (len(step) == most or size + place.length > STEP_BYTES):
            yield step
            step, size = [], 0
        step.append((image, place))
        size += place.length
    if step:
        yield step
