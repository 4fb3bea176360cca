"""Series from the inbox through the model (:mod:`service.pacs.prediction`) into the outbox."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final, NamedTuple

from contract.errors import ContractError, DecoderUnavailable
from service.disks import cause
from service.engine import Engine
from service.errors import ServiceError, SpoolFull, UnidentifiedSource
from service.logs import log_discreetly
from service.pacs import results
from service.pacs.inbox import Inbox
from service.pacs.outbox import Outbox
from service.pacs.prediction import Interrupted, Predicted, Predictor
from service.pacs.segments import UNREADABLE, Segments, Unreadable
from service.pacs.series import Waiting
from service.pacs.threads import Threads
from service.pacs.waits import SERIES_MAX_SECONDS, backoff
from service.state import State

logger = logging.getLogger("service.pacs")

ENDED: Final = "ended_the_process"
"""Reason of a series whose last attempt came to no end."""

MAX_ATTEMPTS: Final = 3
"""A series that failed so often, or ended the process so often, is not analysed again by itself."""

FIRST_RETRY_SECONDS: Final = 1.0
EXPIRE_SECONDS: Final = 10.0

WAITS_FOR: Final[Mapping[type[Exception], str]] = {
    SpoolFull: "the spool",
    DecoderUnavailable: "a process",
}
"""What a series waits for that met such an error, however long; an alert looks at its age."""

RESULT_BYTES: Final = 2**20
"""Room that a result is expected to need: a Secondary Capture is most of it."""


class Held(NamedTuple):
    """Of a series that waits for what says nothing of it.

    Attributes:
        by: the error that it met last: there is no room for its result, its disk fails, or no process
            is to be had for a decoder or for DICOM objects.
        attempts: made since.
        size: bytes of the result, or what is expected.
    """

    by: type[Exception] = SpoolFull
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
        self._predictor = Predictor(state, segments, threads)
        self._poll_seconds = min(1.0, state.settings.series_quiet_ms / 4000)
        self._expired = monotonic()
        self._held: dict[str, Held] = {}

    async def run(self) -> None:
        """Analyses one series after the other until cancelled."""
        failures = 0
        while True:
            try:
                if self._state.registry.active is not None:
                    # Results are certain to be wanted here, and the first ones need not wait for it.
                    await self._state.results.warm_up()
                busy = await self._step()
            except Exception as error:
                if not isinstance(error, SpoolFull):
                    logger.exception("the inbox failed")
                elif not failures:
                    fields = {"reason": error.detail, "cause": cause(error)}
                    logger.warning("the inbox waits for the spool", extra={"fields": fields})
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
        # Meanwhile it may have been lost.
        engine = self._state.registry.active
        if uid is None or engine is None:
            return False
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
        before = self._held.get(series.uid)
        try:
            await self._try(series, engine)
        except (SpoolFull, DecoderUnavailable) as failure:
            # Of many that wait for the same thing, each would say it every minute.
            if not self._waits_for(type(failure)):
                fields = {"request_id": series.request_id, "reason": failure.detail}
                if isinstance(failure, SpoolFull):
                    fields["cause"] = cause(failure) or "no room"
                text = f"a series waits for {WAITS_FOR[type(failure)]}"
                logger.warning(text, extra={"fields": fields})
            await self._hold(series, type(failure))
        else:
            self._held.pop(series.uid, None)
        if before is not None and not self._waits_for(before.by):
            logger.info("no series waits for %s any more", WAITS_FOR[before.by])

    def _waits_for(self, by: type[Exception]) -> bool:
        return any(held.attempts and held.by is by for held in self._held.values())

    async def _try(self, series: Waiting, engine: Engine) -> None:
        """What becomes of a series this time.

        Raises:
            SpoolFull: nothing, as there is no room for its result, or its disk fails.
            DecoderUnavailable: nothing, as no process is to be had now.
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
            size = self._held.get(series.uid, Held()).size
            if not await self._threads.run(self._segments.has_room, size):
                raise SpoolFull("the spool has no room for a result")
            await self._analyse(series, engine)
        except Interrupted as interruption:
            await self._postpone(series, interruption.code)
        except (SpoolFull, DecoderUnavailable):
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
        last = series.attempts >= MAX_ATTEMPTS - 1
        predicted = await self._predictor.predict(series, engine, last=last)
        try:
            outcome = await self._conclude(series, engine, predicted)
        except (SpoolFull, DecoderUnavailable):
            # It is analysed again, and counts then.
            raise
        except Exception:
            await self._record(series, engine, predicted)
            raise
        await self._record(series, engine, predicted)
        self._state.metrics.series.labels(outcome).inc()

    async def _conclude(self, series: Waiting, engine: Engine, predicted: Predicted) -> str:
        """Posts the result, if there is one; what came of the series.

        Args:
            series: what is analysed.
            engine: the version that predicted it.
            predicted: its slices.

        Raises:
            SpoolFull: there is no room for the result.
            DecoderUnavailable: there is no process that makes it.
            ServiceError: the result cannot be made.
        """
        jobs, entries, images = predicted
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
            self._held[series.uid] = self._held.get(series.uid, Held())._replace(size=size)
            raise
        self._posted()
        return "reported"

    async def _record(self, series: Waiting, engine: Engine, predicted: Predicted) -> None:
        """Counts the slices, and writes them into the audit log."""
        self._state.observe(predicted.jobs)
        for entry in predicted.entries:
            if "error" in entry:
                self._state.metrics.errors.labels(entry["error"]["code"]).inc()
        slices = zip(predicted.jobs, predicted.entries, strict=True)
        await self._state.record_slices("analyse", series.sender, series.request_id, slices, engine)

    async def _postpone(self, series: Waiting, code: str) -> None:
        wait_seconds = backoff(series.attempts + 1, FIRST_RETRY_SECONDS, SERIES_MAX_SECONDS)
        await self._threads.run(self._inbox.postpone, series, wait_seconds, code)
        self._state.metrics.series.labels("postponed").inc()
        fields = {"request_id": series.request_id, "code": code}
        logger.warning("a series is analysed later", extra={"fields": fields})

    async def _hold(self, series: Waiting, by: type[Exception]) -> None:
        """Delivery makes room again, or somebody mends disk or machine; this is no attempt."""
        while True:
            held = self._held.get(series.uid, Held())
            self._held[series.uid] = held._replace(by=by, attempts=held.attempts + 1)
            wait_seconds = backoff(held.attempts + 1, FIRST_RETRY_SECONDS, SERIES_MAX_SECONDS)
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
