"""Series from the inbox through the model into the outbox, a few slices at a time.

They take the same way as the images of ``/predict``, and wait where those are many: nobody sits in
front of the screen and waits for a series that a PACS forwards.
"""

import asyncio
import errno
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, Final, NamedTuple

from contract.errors import ContractError, TooManyFrames
from contract.preprocessing import DicomReference
from service.answers import MaskForm, entries_of
from service.content import content_digest
from service.engine import Engine
from service.errors import QueueFull, ServiceError, SpoolFull, UnidentifiedSource
from service.jobs import Job, Upload
from service.logs import log_discreetly
from service.pacs import results
from service.pacs.inbox import Inbox
from service.pacs.outbox import Outbox
from service.pacs.segments import UNREADABLE, Place, Segments, Unreadable
from service.pacs.series import Instance, Waiting
from service.pacs.threads import Threads
from service.pacs.waits import SERIES_MAX_SECONDS, backoff
from service.state import State

logger = logging.getLogger("service.pacs")

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

ENDED: Final = "ended_the_process"
"""Reason of a series whose last attempt came to no end."""

MAX_ATTEMPTS: Final = 3
"""A series that failed so often, or ended the process so often, is not analysed again by itself."""

FIRST_RETRY_SECONDS: Final = 1.0
EXPIRE_SECONDS: Final = 10.0

RESULT_BYTES: Final = 2**20
"""Room that a result is expected to need: a Secondary Capture is most of it."""


class Interrupted(Exception):
    """A series could not be analysed now, for a reason that lies not in its images.

    Attributes:
        code: the reason.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Full(NamedTuple):
    """Of a series for whose result there was no room, or whose disk failed.

    Attributes:
        attempts: made since.
        size: bytes of the result, or what is expected.
    """

    attempts: int = 0
    size: int = RESULT_BYTES


class Analysis:
    """The task that empties the inbox. Event loop only.

    Args:
        state: the running app, whose model and queue it uses.
        inbox, outbox, segments: where series come from and results go.
        threads: for those.
        posted: called when there is a new result.
    """

    def __init__(
        self,
        state: State,
        inbox: Inbox,
        outbox: Outbox,
        segments: Segments,
        threads: Threads,
        posted: Callable[[], None],
    ) -> None:
        self._state = state
        self._inbox = inbox
        self._outbox = outbox
        self._segments = segments
        self._threads = threads
        self._posted = posted
        self._poll_seconds = min(1.0, state.settings.series_quiet_ms / 4000)
        self._expired = monotonic()
        self._busy_seconds = 0.0
        self._full: dict[str, Full] = {}

    async def run(self) -> None:
        """Analyses one series after the other until cancelled."""
        failures = 0
        while True:
            try:
                if self._state.registry.active is not None:
                    # Results are certain to be wanted here, and the first ones need not wait for it.
                    await self._state.results.warm_up()
                busy = await self._step()
            except Exception:
                logger.exception("the inbox failed")
                failures += 1
                await asyncio.sleep(backoff(failures, self._poll_seconds, SERIES_MAX_SECONDS))
                continue
            failures = 0
            if not busy:
                await asyncio.sleep(self._poll_seconds)

    async def _step(self) -> bool:
        """Whether there was something to do."""
        if monotonic() - self._expired > EXPIRE_SECONDS:
            self._expired = monotonic()
            await self._threads.run(self._inbox.expire)
        if self._state.registry.active is None:
            return False
        uid = await self._threads.run(self._inbox.complete)
        if uid is None:
            return False
        engine = self._state.registry.engine()
        # A version that is replaced meanwhile must not be closed between two steps of the series.
        with engine.held():
            beginning = asyncio.ensure_future(self._threads.run(self._inbox.begin, uid))
            try:
                # A thread ends what it has begun: a stop meanwhile must not leave an attempt counted.
                await self._handle(await asyncio.shield(beginning), engine)
            except asyncio.CancelledError:
                await self._give_back(beginning)
                raise
        return True

    async def _give_back(self, beginning: asyncio.Future[Waiting]) -> None:
        try:
            series = await beginning
            await self._threads.run(self._inbox.give_back, series)
        except Exception:
            # In place of the cancellation, it would let the task go on, for which the stop waits.
            logger.exception("a series that was begun could not be given back")

    async def _handle(self, series: Waiting, engine: Engine) -> None:
        try:
            await self._try(series, engine)
        except SpoolFull as failure:
            # Of many that wait for the same thing, each would say it every minute.
            if not self._full:
                fields = {"request_id": series.request_id, "reason": failure.detail}
                fields["cause"] = _cause(failure) or "no room"
                logger.warning("a series waits for the spool", extra={"fields": fields})
            await self._wait_for_spool(series)
            return
        if self._full.pop(series.uid, None) is not None and not self._full:
            logger.info("no series waits for the spool any more")

    async def _try(self, series: Waiting, engine: Engine) -> None:
        """What becomes of a series this time.

        Raises:
            SpoolFull: nothing, as there is no room for its result, or its disk fails.
        """
        if series.attempts >= MAX_ATTEMPTS:
            await self._park(series, series.reason or ENDED)
            return
        start = monotonic()
        try:
            if await self._threads.run(self._inbox.is_known, series, results.identity(engine)):
                await self._threads.run(self._inbox.keep, series)
                self._state.metrics.series.labels("known").inc()
                return
            size = self._full.get(series.uid, Full()).size
            if not await self._threads.run(self._segments.has_room, size):
                raise SpoolFull("the spool has no room for a result")
            await self._analyse(series, engine)
        except Interrupted as interruption:
            await self._postpone(series, interruption.code)
        except SpoolFull:
            raise
        except Unreadable:
            await self._postpone(series, UNREADABLE)
        except (UnidentifiedSource, ContractError) as failure:
            await self._park(series, failure.code)
        except ServiceError as failure:
            await self._postpone(series, failure.code)
        except Exception as error:  # noqa: BLE001 - its text may quote the patient's attributes
            log_discreetly(logger, "a series could not be analysed", error)
            await self._postpone(series, ServiceError.code)
        else:
            fields = {
                "request_id": series.request_id,
                "instances": len(series.instances),
                "total_ms": round((monotonic() - start) * 1000, 2),
            }
            logger.info("series analysed", extra={"fields": fields})

    async def _analyse(self, series: Waiting, engine: Engine) -> None:
        self._busy_seconds = 0.0
        jobs: list[Job] = []
        entries: list[dict[str, Any]] = []
        images: list[Instance] = []
        most = min(STEP, self._state.settings.max_frames)
        for step in _steps(list(series.instances.items()), most):
            uploads = await self._threads.run(self._read, step)
            predicted = await self._predict_each(engine, uploads)
            names = {id(upload): image for upload, (image, _) in zip(uploads, step, strict=True)}
            for job in predicted:
                image = names[id(job.upload)]
                images.append(image)
                if job.dicom is None:
                    # It cannot be read, but by now it is known which image it is.
                    job.dicom = DicomReference(image.sop, series.uid, job.frame, None)
            described = await asyncio.to_thread(entries_of, predicted, MaskForm.NONE)
            for job in predicted:
                results.lighten(job)
            jobs += predicted
            entries += described
            # The files of a step must not stay while the next one is read.
            del uploads, predicted
        try:
            outcome = await self._conclude(series, engine, jobs, entries, images)
        except SpoolFull:
            # It is analysed again, and counts then.
            raise
        except Exception:
            await self._record(series, engine, jobs, entries)
            raise
        await self._record(series, engine, jobs, entries)
        self._state.metrics.series.labels(outcome).inc()

    async def _conclude(
        self,
        series: Waiting,
        engine: Engine,
        jobs: Sequence[Job],
        entries: Sequence[Mapping[str, Any]],
        images: Sequence[Instance],
    ) -> str:
        """Posts the result, if there is one; what came of the series.

        Args:
            series: what is analysed.
            engine: the version that predicted it.
            jobs: its slices.
            entries: what is answered for each of them.
            images: that each of them is of.

        Raises:
            SpoolFull: there is no room for the result.
            ServiceError: the result cannot be made.
        """
        if all("error" in entry for entry in entries):
            # There is nothing to report on; each slice's reason is in the audit log.
            await self._threads.run(self._inbox.keep, series)
            return "unsuitable"
        places = {
            job.upload.digest or b"": series.instances[image]
            for job, image in zip(jobs, images, strict=True)
        }
        objects = await self._threads.run(
            results.make,
            jobs,
            entries,
            engine,
            lambda digest: self._segments.read(places[digest]),
            self._state.results,
        )
        # An image that could not be read may come again, and better.
        unread = {image for image, entry in zip(images, entries, strict=True) if "error" in entry}
        covered = series.instances.keys() - unread
        identity = results.identity(engine)
        try:
            await self._threads.run(self._outbox.post, series, identity, covered, objects)
        except SpoolFull:
            size = sum(len(item.content) for item in objects)
            self._full[series.uid] = self._full.get(series.uid, Full())._replace(size=size)
            raise
        self._posted()
        return "reported"

    async def _record(
        self,
        series: Waiting,
        engine: Engine,
        jobs: Sequence[Job],
        entries: Sequence[Mapping[str, Any]],
    ) -> None:
        """Counts the slices, and writes them into the audit log."""
        self._state.observe(jobs)
        for entry in entries:
            if "error" in entry:
                self._state.metrics.errors.labels(entry["error"]["code"]).inc()
        slices = zip(jobs, entries, strict=True)
        await self._state.record_slices("analyse", series.sender, series.request_id, slices, engine)

    def _read(self, images: Sequence[tuple[Instance, Place]]) -> list[Upload]:
        uploads = []
        for image, place in images:
            data = self._segments.read(place)
            uploads.append(Upload(None, data, digest=image.digest or content_digest(data)))
        return uploads

    async def _predict_each(self, engine: Engine, uploads: Sequence[Upload]) -> list[Job]:
        """Likewise, with as many frames of each file as one request may have.

        Raises:
            Interrupted: see :meth:`_predict`.
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
            if isinstance(failure, ServiceError | ContractError) and failure.status >= 500:
                raise Interrupted(failure.code)
        return jobs

    async def _postpone(self, series: Waiting, code: str) -> None:
        wait_seconds = backoff(series.attempts + 1, FIRST_RETRY_SECONDS, SERIES_MAX_SECONDS)
        await self._threads.run(self._inbox.postpone, series, wait_seconds, code)
        self._state.metrics.series.labels("postponed").inc()
        fields = {"request_id": series.request_id, "code": code}
        logger.warning("a series is analysed later", extra={"fields": fields})

    async def _wait_for_spool(self, series: Waiting) -> None:
        """Delivery makes room again, or somebody mends the disk; this is no attempt."""
        while True:
            full = self._full.get(series.uid, Full())
            self._full[series.uid] = full._replace(attempts=full.attempts + 1)
            wait_seconds = backoff(full.attempts + 1, FIRST_RETRY_SECONDS, SERIES_MAX_SECONDS)
            try:
                await self._threads.run(self._inbox.give_back, series)
                await self._threads.run(self._inbox.postpone, series, wait_seconds, series.reason)
            except SpoolFull:
                # An attempt that stayed counted would be one that came to no end.
                await asyncio.sleep(wait_seconds)
            else:
                return

    async def _park(self, series: Waiting, code: str) -> None:
        await self._threads.run(self._inbox.park, series, code)
        self._state.metrics.series.labels("parked").inc()
        fields = {"request_id": series.request_id, "code": code}
        logger.error("a series cannot be analysed", extra={"fields": fields})


def _cause(failure: SpoolFull) -> str | None:
    """The type and the code of the error behind it; its text might name a file."""
    error = failure.__cause__
    if error is None:
        return None
    code = getattr(error, "sqlite_errorname", None)
    if isinstance(error, OSError):
        code = errno.errorcode.get(error.errno or 0)
    return " ".join(filter(None, (type(error).__name__, code)))


def _steps(
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
