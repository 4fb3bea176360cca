"""What became of results, kept in memory while the disk does not take it.

On a disk that is full or read-only, what the destination has would else be sent again and again, and
nothing but that.
"""

import logging
from collections.abc import Callable, Iterable
from math import inf
from time import monotonic

from service.errors import SpoolFull
from service.pacs.outbox import Parcel
from service.pacs.threads import Threads
from service.pacs.waits import SERIES_MAX_SECONDS, backoff

logger = logging.getLogger("service.pacs")


class Notes:
    """Writes to the ledger, at once or later. Event loop only.

    Args:
        threads: for what waits for the disk.
        first_seconds: wait after a first failure.
        max_seconds: longest wait; a minute, where that is shorter.
    """

    def __init__(self, threads: Threads, first_seconds: float, max_seconds: float) -> None:
        self._threads = threads
        self._first_seconds = first_seconds
        # As a series waits for the same disk, however long the destination is left alone.
        self._max_seconds = min(max_seconds, SERIES_MAX_SECONDS)
        self._unwritten: list[Callable[[], None]] = []
        self._held: dict[int, float] = {}
        self._failures = 0
        self._due = 0.0
        self._is_reported = False

    @property
    def fails(self) -> bool:
        """Whether there is something in memory that the disk did not take."""
        return bool(self._unwritten)

    @property
    def held(self) -> list[int]:
        """Numbers of the objects that are not to be sent before others, whatever the ledger says."""
        return list(self._held)

    @property
    def settled(self) -> list[int]:
        """Those of them that are never to be sent again."""
        return [number for number, end in self._held.items() if end == inf]

    @property
    def wait_seconds(self) -> float:
        """Until there is something to do here; infinite where there is not."""
        times = [*self._held.values(), *([self._due] if self._unwritten else [])]
        return max(0.0, min(times, default=inf) - monotonic())

    async def write(
        self, note: Callable[[], None], parcels: Iterable[Parcel] = (), seconds: float = inf
    ) -> None:
        """Writes a note. Where the disk does not take it, its objects are held back.

        Args:
            note: a call of the outbox.
            parcels: the objects that it is about.
            seconds: how long they are held back at least, until :meth:`release`. The note is forgotten
                then; one without an end is kept, and holds them, until :meth:`catch_up` has written it.
        """
        try:
            await self._threads.run(note)
        except SpoolFull as error:
            if not seconds:
                # Nothing depends on it, and nothing would say that the disk is well again.
                return
            self._fail(error)
            end = monotonic() + seconds
            self._held.update((parcel.number, end) for parcel in parcels)
            if seconds == inf:
                self._unwritten.append(note)
                self._due = max(self._due, monotonic() + self._first_seconds)
        else:
            # So it may take the others as well.
            self._due = 0.0
            self._succeed()

    async def catch_up(self) -> None:
        """Writes what the disk did not take, if it is time to try it again."""
        if not self._unwritten or monotonic() < self._due:
            return
        try:
            while self._unwritten:
                await self._threads.run(self._unwritten[0])
                del self._unwritten[0]
        except SpoolFull as error:
            self._fail(error)
            self._failures += 1
            wait_seconds = backoff(self._failures, self._first_seconds, self._max_seconds)
            self._due = monotonic() + wait_seconds
        else:
            self._failures = 0
            self._held = {number: end for number, end in self._held.items() if end < inf}
            self._succeed()

    def release(self) -> None:
        """Lets go what has been held back for long enough."""
        now = monotonic()
        self._held = {number: end for number, end in self._held.items() if end > now}

    def hasten(self) -> None:
        """Lets go what is held back for a time, and has what is to be written tried."""
        self._held = {number: end for number, end in self._held.items() if end == inf}
        self._due = 0.0

    def _fail(self, error: SpoolFull) -> None:
        if not self._is_reported:
            logger.error("delivery outcomes cannot be written to the spool", exc_info=error)
        self._is_reported = True

    def _succeed(self) -> None:
        # As long as something is left that it did not take, it is not well.
        if self._is_reported and not self._unwritten:
            logger.info("delivery outcomes are written to the spool again")
            self._is_reported = False
