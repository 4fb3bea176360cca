"""The parts of the way from a PACS and back, put together: start, stop, and how they are."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from itertools import product, starmap
from time import monotonic
from typing import Any, Final, NamedTuple

from service.audit import Audit
from service.errors import SpoolFull, SpoolUnreachable
from service.metrics import Metrics
from service.pacs.analysis import RESULT_BYTES, Analysis
from service.pacs.delivery import Delivery
from service.pacs.destination import MAX_RETRY_AFTER, Destination
from service.pacs.inbox import Inbox, InboxCounts
from service.pacs.ledger import Ledger
from service.pacs.outbox import Dead, Outbox, OutboxCounts
from service.pacs.receiver import Limits, Receiver
from service.pacs.segments import FOLDER, Segments
from service.pacs.series import SetAside
from service.pacs.threads import Arguments, Result, Threads
from service.pacs.waits import longest
from service.settings import Settings
from service.state import State

logger = logging.getLogger("service.pacs")

THREADS: Final = 8
"""That wait for the disk, for requests of a PACS, analysis and delivery."""

STOP_SECONDS: Final = 5.0
"""How long results may still be sent once everything else has stopped; the others wait on the disk. As
long at most, each, is waited for a disk that stalls: for the series in hand, and for the ledger."""

COUNT_SECONDS: Final = 0.5
"""How long /health and /metrics wait for a disk that stalls; many a probe gives up after a second."""

STORE_ROUTES: Final = ("/dicom-web/studies", "/dicom-web/studies/{study}")

REFUSALS: Final = ("202", "409", "413")
"""What a request gets of which something is not stored for what it is, whenever it comes."""

TURNED_AWAY: Final = ("503",)
"""What one gets that might be stored at another time."""

STALL_SECONDS: Final = 10.0
"""A count that takes longer is of a disk that stalls, however long the one before took; so is a list of
what was given up."""


class Counts(NamedTuple):
    """What there is in the spool.

    Attributes:
        at: when it was counted, in monotonic seconds.
        seconds: how long that took.
        failure: why the disk takes nothing that is written; empty where it does, as far as is known.
    """

    inbox: InboxCounts
    outbox: OutboxCounts
    at: float
    seconds: float
    failure: str

    def age(self, seconds: float) -> float:
        """Of what was so old then; 0 stands for nothing."""
        return seconds and seconds + monotonic() - self.at


class Gateway:
    """What ``BRAIN_DICOMWEB_URL`` switches on.

    Args:
        settings: see :class:`Settings`.
        metrics: counts what passes.
        audit: is told of it.

    Attributes:
        threads: for what waits for the disk.

    Raises:
        SettingsError: the spool or a certificate is of no use.
    """

    def __init__(self, settings: Settings, metrics: Metrics, audit: Audit) -> None:
        self._settings = settings
        self._metrics = metrics
        self._destination = Destination(settings)
        self._ledger = Ledger(settings.spool)
        self._segments = Segments(settings.spool / FOLDER, settings.spool_max_bytes)
        self.inbox = Inbox(
            self._ledger,
            self._segments,
            settings.series_quiet_ms / 1000,
            settings.series_keep_seconds,
        )
        self.outbox = Outbox(
            self._ledger,
            self._segments,
            self.inbox,
            max(longest(settings.dicomweb_retry_max_ms / 1000), MAX_RETRY_AFTER),
        )
        self._segments.make_room = self._spare
        self._counts = Counts(
            InboxCounts(0, 0, 0, 0.0, 0), OutboxCounts(0, 0, 0.0, 0), monotonic(), 0.0, ""
        )
        self._counting: asyncio.Future[Counts] | None = None
        self._asked = 0.0
        self._stalls = False
        self._open_spool()
        self.threads = Threads(THREADS)
        # One of its own: while many bodies are written it need not wait behind them.
        self._counter = Threads(1)
        self._delivery = Delivery(
            self.outbox,
            self._segments,
            self.threads,
            self._destination,
            metrics,
            audit,
            settings.dicomweb_retry_ms / 1000,
            settings.dicomweb_retry_max_ms / 1000,
        )
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, state: State) -> None:
        """Analyses what waits, and delivers what is ready. Event loop only."""
        loop = asyncio.get_running_loop()
        analysis = Analysis(
            state,
            self.inbox,
            self.outbox,
            self._segments,
            self.threads,
            self._delivery.notify,
        )
        self._tasks = [
            loop.create_task(analysis.run()),
            loop.create_task(self._delivery.run()),
        ]

    async def stop(self) -> None:
        """Ends after what is on its way; everything else is on the disk.

        Raises:
            TimeoutError: the disk stalls, and keeps the spool until the process has ended.
        """
        analysis, delivery = self._tasks
        analysis.cancel()
        _, stalled = await asyncio.wait([analysis], timeout=STOP_SECONDS)
        try:
            await self._delivery.stop(0.0 if stalled else STOP_SECONDS, delivery)
        finally:
            # Otherwise no other process could have the spool as long as this one lives.
            async with asyncio.timeout(STOP_SECONDS):
                await self.threads.run(self._ledger.close)
            self.threads.close()
            self._counter.close()

    def receiver(self, content_type: str | None, study: str | None) -> Receiver:
        """Takes the body of one request. Any thread.

        Raises:
            UnsupportedRequestMedia, MalformedMultipart: see :class:`Receiver`.
            SpoolFull: the spool cannot be written to.
        """
        limits = Limits(
            self._settings.stow_max_body_bytes,
            self._settings.stow_max_instance_bytes,
            self._settings.stow_max_instances,
            self._settings.dicom_checks,
        )
        return Receiver(content_type, study, limits, self.inbox, self._segments)

    async def measure(self) -> None:
        """Sets the metrics of what there is now, or of what there was when the spool last said it."""
        await self._recount()
        inbox, outbox, *_ = counts = self._counts
        self._metrics.inbox_instances.set(inbox.instances)
        self._metrics.inbox_oldest_seconds.set(counts.age(inbox.oldest_seconds))
        self._metrics.inbox_dead.set(inbox.dead)
        self._metrics.outbox_objects.set(outbox.objects)
        self._metrics.outbox_oldest_seconds.set(counts.age(outbox.oldest_seconds))
        self._metrics.outbox_dead.set(outbox.dead)
        self._metrics.spool_bytes.set(self._segments.used)
        self._metrics.spool_waiting_bytes.set(inbox.bytes + outbox.bytes)
        self._metrics.spool_max_bytes.set(self._segments.max_bytes)

    async def report(self) -> dict[str, Any]:
        """What /health says of it."""
        await self._recount()
        inbox, outbox, *_ = counts = self._counts
        return {
            "destination": self._delivery.state,
            "spool": "unreachable" if self._unreachable else "ok",
            "series_waiting": inbox.series,
            "instances_waiting": inbox.instances,
            "series_dead": inbox.dead,
            "objects_waiting": outbox.objects,
            "objects_dead": outbox.dead,
            "oldest_seconds": round(counts.age(outbox.oldest_seconds), 1),
            "spool_bytes": self._segments.used,
            "spool_waiting_bytes": inbox.bytes + outbox.bytes,
            "spool_max_bytes": self._segments.max_bytes,
            "requests_refused": self._stored_with(REFUSALS),
            "requests_turned_away": self._stored_with(TURNED_AWAY),
        }

    def _stored_with(self, statuses: Sequence[str]) -> int:
        """Requests to store that were answered so since the start."""
        answers = starmap(self._metrics.requests.labels, product(STORE_ROUTES, statuses))
        return int(sum(next(iter(one.collect())).samples[0].value for one in answers))

    async def dead(self, limit: int) -> list[Dead]:
        """Results that were given up, the newest first.

        Raises:
            SpoolUnreachable: the spool cannot be read.
        """
        return await self._ask(self.outbox.dead, limit)

    async def set_aside(self, limit: int) -> list[SetAside]:
        """Series that cannot be analysed, the newest first.

        Raises:
            SpoolUnreachable: the spool cannot be read.
        """
        return await self._ask(self.inbox.dead, limit)

    async def retry(self) -> tuple[int, int]:
        """Tries again what was given up, and at once what waits.

        Returns:
            Series and objects that were given up.

        Raises:
            SpoolUnreachable: the spool does not take it now; a part may be tried again all the same.
        """
        series = await self._ask(self.inbox.retry)
        objects = await self._ask(self.outbox.retry)
        self._delivery.hurry()
        return series, objects

    async def _ask(
        self,
        function: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """What a function of the spool returns, unless the disk stalls; what was begun goes on then.

        Raises:
            SpoolUnreachable: the disk stalls or fails. Nothing was turned away for want of room, which
                alone :class:`SpoolFull` is to count.
        """
        try:
            async with asyncio.timeout(STALL_SECONDS):
                return await self.threads.run(function, *args, **kwargs)
        except TimeoutError:
            raise SpoolUnreachable("the spool does not answer; try again") from None
        except SpoolFull as failure:
            raise SpoolUnreachable(failure.detail) from failure

    @property
    def _unreachable(self) -> bool:
        """Whether the spool does not say what there is, or does not take what is to be written."""
        return self._stalls or bool(self._counts.failure) or self._delivery.notes.fails

    def _open_spool(self) -> None:
        """Says what there is, if the ledger does: predictions need not wait until somebody mends it."""
        try:
            self._segments.keep_only(self._ledger.segments(), needed=self._ledger.is_needed())
            self._counts = self._count()
        except (sqlite3.Error, SpoolFull) as error:
            self._segments.keep_only(None)
            self._set_stalls(True, error)

    async def _recount(self) -> None:
        """Counts what there is, unless the disk stalls or fails."""
        if self._counting is not None and self._counting.done():
            # Whoever asked for it had given up.
            self._take(self._counting)
        if self._counting is None:
            self._asked = monotonic()
            self._counting = asyncio.ensure_future(
                self._counter.run(self._count, self._delivery.notes.settled)
            )
            # At the end of the process nobody takes what the last one says.
            self._counting.add_done_callback(lambda done: done.cancelled() or done.exception())
        counting = self._counting
        left = max(0.0, self._asked + COUNT_SECONDS - monotonic())
        # Whoever gives up leaves it to the next one.
        await asyncio.wait([counting], timeout=left)
        if counting.done():
            self._take(counting)
        else:
            # Where there is much to count, each time takes about as long as the one before.
            usual = min(2 * self._counts.seconds, STALL_SECONDS)
            self._set_stalls(max(COUNT_SECONDS, monotonic() - self._asked) >= usual)
        self._metrics.spool_unreachable.set(self._unreachable)

    def _take(self, counting: asyncio.Future[Counts]) -> None:
        """What a count that has ended says."""
        if self._counting is counting:
            self._counting = None
        try:
            counts = counting.result()
        except (OSError, sqlite3.Error, SpoolFull) as error:
            self._set_stalls(True, error)
            return
        self._set_stalls(False)
        if counts.failure and not self._counts.failure:
            logger.error("the spool takes nothing", extra={"fields": {"cause": counts.failure}})
        elif self._counts.failure and not counts.failure:
            logger.info("the spool takes again what is written")
        self._counts = counts

    def _set_stalls(self, stalls: bool, error: Exception | None = None) -> None:
        if stalls and not self._stalls:
            logger.error("the spool does not say what there is", exc_info=error)
        elif self._stalls and not stalls:
            logger.info("the spool says again what there is")
        self._stalls = stalls

    def _count(self, settled: Sequence[int] = ()) -> Counts:
        start = monotonic()
        self._segments.check_place()
        inbox, outbox = self.inbox.counts(), self.outbox.counts(settled)
        failure = self._ledger.failure() or self._segments.failure(RESULT_BYTES)
        now = monotonic()
        return Counts(inbox, outbox, now, now - start, failure)

    def _spare(self, missing: int) -> None:
        before = self._segments.used
        self.inbox.spare(missing)
        freed = before - self._segments.used
        if freed < missing:
            self.outbox.spare(missing - freed)
