"""Delivery of results: one request at a time, again and again until the destination has them.

Each object is delivered at least once; its UID follows from what it is made of, so a second delivery
changes nothing there.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic, time
from typing import Final

from service.audit import Audit
from service.disks import cause
from service.errors import SpoolFull
from service.metrics import Metrics
from service.pacs.destination import Destination, Verdict
from service.pacs.notes import Notes
from service.pacs.outbox import Outbox, Parcel
from service.pacs.segments import UNREADABLE, Segments, Unreadable
from service.pacs.threads import Threads
from service.pacs.waits import SERIES_MAX_SECONDS, backoff

logger = logging.getLogger("service.pacs")

IDLE_SECONDS: Final = 60.0

MAX_STRIKES: Final = 3
"""A result that failed so often, each time before another was taken, is itself the reason."""

MAX_UNREADABLE: Final = 3
"""An object that could not be read so often, while the disk was well otherwise, is parked."""

CLOCK_SECONDS: Final = 5.0
"""A clock that was set back by more than this has what waits tried at once."""


class Delivery:
    """The task that empties the outbox. Event loop only.

    Args:
        outbox: what to send.
        segments: where its bytes lie.
        threads: for both.
        destination: where to.
        metrics: counts what became of it.
        audit: is told of each object.
        first_seconds: wait after a first failure.
        max_seconds: longest wait.

    Attributes:
        notes: what became of objects, until the ledger has it.
    """

    def __init__(
        self,
        outbox: Outbox,
        segments: Segments,
        threads: Threads,
        destination: Destination,
        metrics: Metrics,
        audit: Audit,
        first_seconds: float,
        max_seconds: float,
    ) -> None:
        self._outbox = outbox
        self._segments = segments
        self._threads = threads
        self._destination = destination
        self._metrics = metrics
        self._audit = audit
        self.notes = Notes(threads, first_seconds, max_seconds)
        self._first_seconds = first_seconds
        self._max_seconds = max_seconds
        self._failures = 0
        self._failed: set[int] = set()
        self._strikes: Counter[int] = Counter()
        # By an object's number, how often it could not be read.
        self._unread: Counter[int] = Counter()
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stopping = False
        self._empty = False
        self._reads = True
        self._clock = time() - monotonic()

    @property
    def state(self) -> str:
        """``unreachable`` since the last request that the destination did not answer, else ``ok``."""
        return "unreachable" if self._failures else "ok"

    def notify(self) -> None:
        """There is something new to send."""
        self._wake.set()

    def hurry(self) -> None:
        """Somebody wants it sent now, even if the destination did not answer a moment ago."""
        self.notes.hasten()
        self._wake.set()
        self._hurry.set()

    async def run(self) -> None:
        """Delivers until :meth:`stop`."""
        failures = 0
        while not self._stopping:
            self._wake.clear()
            self._hurry.clear()
            try:
                wait_seconds = await self._step()
                failures = 0
            except SpoolFull as error:
                if not failures:
                    fields = {"reason": error.detail, "cause": cause(error)}
                    logger.warning("delivery waits for the spool", extra={"fields": fields})
                failures += 1
                # As the inbox waits for the same disk, however long the destination is left alone.
                max_seconds = min(self._max_seconds, SERIES_MAX_SECONDS)
                wait_seconds = backoff(failures, self._first_seconds, max_seconds)
            except Exception:
                logger.exception("delivering failed")
                wait_seconds = self._max_seconds
            if wait_seconds and not self._stopping:
                await self._sleep(wait_seconds)

    async def stop(self, patience_seconds: float, task: asyncio.Task[None]) -> None:
        """Sends what can be sent at once, as long as the patience lasts; the rest stays on the disk."""
        end = monotonic() + patience_seconds
        try:
            with suppress(TimeoutError, SpoolFull):
                async with asyncio.timeout(patience_seconds):
                    while self._failures == 0:
                        held = self.notes.held
                        if await self._threads.run(self._outbox.wait_seconds, held) != 0.0:
                            break
                        await asyncio.sleep(0.05)
        finally:
            self._stopping = True
            self.hurry()
            await asyncio.wait([task], timeout=max(0.0, end - monotonic()))
            task.cancel()
            await self._destination.close()

    async def _step(self) -> float:
        """Sends one result, if one is due; seconds until it is worth to look again."""
        await self.notes.catch_up()
        await self._mind_the_clock()
        parcels = await self._threads.run(self._outbox.next, self.notes.held)
        if not parcels:
            # All others have had their turn.
            self.notes.release()
            parcels = await self._threads.run(self._outbox.next, self.notes.held)
        if not parcels:
            held = self.notes.held
            due_seconds = await self._threads.run(self._outbox.wait_seconds, held)
            self._empty = due_seconds is None
            wait_seconds = IDLE_SECONDS if due_seconds is None else due_seconds
            return min(wait_seconds + 0.01, self.notes.wait_seconds + 0.01, IDLE_SECONDS)
        self._empty = False
        start = monotonic()
        try:
            objects = await self._threads.run(self._read, parcels)
        except (FileNotFoundError, Unreadable, SpoolFull) as error:
            return await self._settle_unread(parcels, error, monotonic() - start)
        self._reads = True
        for parcel in parcels:
            del self._unread[parcel.number]
        if any(parcel.attempts for parcel in parcels):
            self._metrics.outbox_retries.inc()
        verdict = await self._destination.send(objects)
        return await self._settle(parcels, verdict, monotonic() - start)

    async def _mind_the_clock(self) -> None:
        """Times in the ledger are of the clock: set back, it makes them wait longer."""
        before, self._clock = self._clock, time() - monotonic()
        if before - self._clock > CLOCK_SECONDS:
            logger.warning("the clock was set back: what waits for the destination is tried now")
            await self.notes.write(self._outbox.make_due, seconds=0.0)

    def _read(self, parcels: Sequence[Parcel]) -> dict[str, bytes]:
        return {parcel.sop: self._segments.read(parcel.place) for parcel in parcels}

    async def _settle_unread(
        self, parcels: Sequence[Parcel], error: Exception, seconds: float
    ) -> float:
        """What becomes of objects that cannot be read; seconds until it is worth to look again."""
        # Where it is the disk, all results say the same, again and again.
        if self._reads:
            logger.error("a result cannot be read from the spool", exc_info=error)
        self._reads = not isinstance(error, SpoolFull)
        for parcel in parcels:
            self._record(parcel, UNREADABLE, seconds)
        if isinstance(error, Unreadable) and len(parcels) > 1:
            # It may be but one of them that lies on a bad sector.
            await self._separate(parcels)
            return 0.0
        if isinstance(error, Unreadable):
            self._unread.update(parcel.number for parcel in parcels)
        if (
            isinstance(error, FileNotFoundError)
            or self._unread[parcels[0].number] >= MAX_UNREADABLE
        ):
            self._count_failed(parcels, UNREADABLE)
            await self.notes.write(partial(self._outbox.park, parcels, UNREADABLE), parcels)
            del self._unread[parcels[0].number]
            return 0.0
        # What else keeps a file from being read, such as too many open ones, may pass.
        wait_seconds = self._wait(max(parcel.attempts for parcel in parcels) + 1)
        await self._postpone(dict.fromkeys(parcels, UNREADABLE), wait_seconds)
        return wait_seconds if isinstance(error, SpoolFull) else 0.0

    async def _settle(self, parcels: Sequence[Parcel], verdict: Verdict, seconds: float) -> float:
        to_blame = verdict.unreachable and self._strikes[parcels[0].result] >= MAX_STRIKES
        was_away = self._failures > 0
        # First, as what follows waits for the spool's disk, which says nothing of the destination.
        if to_blame:
            self._failures, rest_seconds = 0, 0.0
        else:
            rest_seconds = self._rest(parcels[0], verdict)
        delivered = [parcel for parcel in parcels if parcel.sop in verdict.delivered]
        if delivered:
            for parcel in delivered:
                self._metrics.outbox_delivered.labels(parcel.kind).inc()
                self._record(parcel, "delivered", seconds)
            await self.notes.write(partial(self._outbox.remove, delivered), delivered)
        for parcel in parcels:
            if (reason := verdict.refused.get(parcel.sop)) is not None:
                self._count_failed([parcel], reason)
                self._record(parcel, reason, seconds)
                await self.notes.write(partial(self._outbox.park, [parcel], reason), [parcel])
        later = {
            parcel: verdict.later[parcel.sop] for parcel in parcels if parcel.sop in verdict.later
        }
        if later and not to_blame:
            attempts = max(parcel.attempts for parcel in later) + 1
            wait_seconds = max(self._wait(attempts), verdict.after_seconds)
            await self._postpone(later, wait_seconds)
        for parcel, reason in later.items():
            self._record(parcel, reason, seconds)
        if verdict.separate or to_blame:
            await self._separate(parcels)
            del self._strikes[parcels[0].result]
        if was_away and not verdict.unreachable:
            self.notes.hasten()
            await self.notes.write(self._outbox.hasten, seconds=0.0)
        return rest_seconds

    def _rest(self, parcel: Parcel, verdict: Verdict) -> float:
        """How long the destination is left alone after a request with this object."""
        if not verdict.unreachable:
            self._failed.discard(parcel.result)
            self._strikes.update(self._failed)
            self._failed.clear()
            del self._strikes[parcel.result]
            if self._failures:
                logger.info("the destination takes results again")
                self._failures = 0
            return 0.0
        if parcel.alone:
            # The others show how the destination is.
            return 0.0
        self._failed.add(parcel.result)
        self._failures += 1
        if self._failures == 1:
            reason = next(iter(verdict.later.values()), "")
            fields = {"reason": reason}
            logger.warning("the destination takes no results", extra={"fields": fields})
        return max(self._wait(self._failures), verdict.after_seconds)

    async def _postpone(self, reasons: Mapping[Parcel, str], seconds: float) -> None:
        note = partial(self._outbox.postpone, reasons, seconds)
        await self.notes.write(note, reasons, seconds)

    async def _separate(self, parcels: Sequence[Parcel]) -> None:
        # Where this cannot be noted they go together once more, after the others.
        note = partial(self._outbox.separate, parcels)
        await self.notes.write(note, parcels, self._max_seconds)

    def _wait(self, failures: int) -> float:
        return backoff(failures, self._first_seconds, self._max_seconds)

    async def _sleep(self, seconds: float) -> None:
        """Something new wakes it, but not while the destination is to be left alone.

        With nothing left to send it is not tried again either, and something new is the next try.
        """
        event = self._hurry if self._failures and not self._empty else self._wake
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return

    def _count_failed(self, parcels: Iterable[Parcel], reason: str) -> None:
        for parcel in parcels:
            self._metrics.outbox_failed.labels(parcel.kind).inc()
            fields = {"result": parcel.result, "kind": parcel.kind, "reason": reason}
            logger.error("a result was parked", extra={"fields": fields})

    def _record(self, parcel: Parcel, result: str, seconds: float) -> None:
        self._audit.record(
            "deliver",
            who=None,
            request_id=parcel.request_id,
            instance=parcel.sop,
            result=result,
            seconds=seconds,
            kind=parcel.kind,
        )
