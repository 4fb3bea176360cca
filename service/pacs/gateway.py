"""The parts of the way from a PACS and back, put together: start, stop, and how they are."""

import asyncio
from typing import Any, Final

from service.audit import Audit
from service.metrics import Metrics
from service.pacs.analysis import Analysis
from service.pacs.delivery import Delivery
from service.pacs.destination import MAX_RETRY_AFTER, Destination
from service.pacs.inbox import Inbox, SetAside
from service.pacs.ledger import Ledger
from service.pacs.outbox import Dead, Outbox
from service.pacs.receiver import Limits, Receiver
from service.pacs.segments import Segments
from service.pacs.waits import longest
from service.settings import Settings
from service.state import State

STOP_SECONDS: Final = 5.0
"""How long results may still be sent once everything else has stopped; the others wait on the disk."""


class Gateway:
    """What ``BRAIN_DICOMWEB_URL`` switches on.

    Args:
        settings: see :class:`Settings`.
        metrics: counts what passes.
        audit: is told of it.

    Raises:
        SettingsError: the spool or a certificate is of no use.
    """

    def __init__(self, settings: Settings, metrics: Metrics, audit: Audit) -> None:
        self._settings = settings
        self._metrics = metrics
        self._destination = Destination(settings)
        self._ledger = Ledger(settings.spool)
        self._segments = Segments(settings.spool / "segments", settings.spool_max_bytes)
        self._segments.keep_only(self._ledger.segments())
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
        self._delivery = Delivery(
            self.outbox,
            self._segments,
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
        analysis = Analysis(state, self.inbox, self.outbox, self._segments, self._delivery.notify)
        self._tasks = [
            loop.create_task(analysis.run()),
            loop.create_task(self._delivery.run()),
        ]

    async def stop(self) -> None:
        """Ends after what is on its way; everything else is on the disk."""
        analysis, delivery = self._tasks
        analysis.cancel()
        await asyncio.wait([analysis])
        try:
            await self._delivery.stop(STOP_SECONDS, delivery)
        finally:
            # Otherwise no other process could have the spool as long as this one lives.
            await asyncio.to_thread(self._ledger.close)

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

    def measure(self) -> None:
        """Sets the metrics of what there is now. Any thread."""
        inbox, outbox = self.inbox.counts(), self.outbox.counts()
        self._metrics.inbox_instances.set(inbox.instances)
        self._metrics.inbox_oldest_seconds.set(inbox.oldest_seconds)
        self._metrics.inbox_dead.set(inbox.dead)
        self._metrics.outbox_objects.set(outbox.objects)
        self._metrics.outbox_oldest_seconds.set(outbox.oldest_seconds)
        self._metrics.outbox_dead.set(outbox.dead)
        self._metrics.spool_bytes.set(self._segments.used)
        self._metrics.spool_waiting_bytes.set(inbox.bytes + outbox.bytes)
        self._metrics.spool_max_bytes.set(self._segments.max_bytes)

    def report(self) -> dict[str, Any]:
        """What /health says of it. Any thread."""
        inbox, outbox = self.inbox.counts(), self.outbox.counts()
        return {
            "destination": self._delivery.state,
            "series_waiting": inbox.series,
            "instances_waiting": inbox.instances,
            "series_dead": inbox.dead,
            "objects_waiting": outbox.objects,
            "objects_dead": outbox.dead,
            "oldest_seconds": round(outbox.oldest_seconds, 1),
            "spool_bytes": self._segments.used,
            "spool_waiting_bytes": inbox.bytes + outbox.bytes,
            "spool_max_bytes": self._segments.max_bytes,
        }

    def dead(self, limit: int) -> list[Dead]:
        """Results that the PACS refuses, the newest first. Any thread."""
        return self.outbox.dead(limit)

    def set_aside(self, limit: int) -> list[SetAside]:
        """Series that cannot be analysed, the newest first. Any thread."""
        return self.inbox.dead(limit)

    async def retry(self) -> tuple[int, int]:
        """Tries again what was given up, and at once what waits.

        Returns:
            Series and objects that were given up.
        """
        series = await asyncio.to_thread(self.inbox.retry)
        objects = await asyncio.to_thread(self.outbox.retry)
        self._delivery.hurry()
        return series, objects

    def _spare(self, missing: int) -> None:
        before = self._segments.used
        self.inbox.spare(missing)
        freed = before - self._segments.used
        if freed < missing:
            self.outbox.spare(missing - freed)
