"""Results on their way to the PACS: on the disk until the destination has taken them."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import time
from typing import NamedTuple

from service.dicom.results import MadeObject
from service.errors import SpoolFull
from service.pacs.inbox import Inbox, remove_unused
from service.pacs.ledger import IS_DUE, Ledger, due_times
from service.pacs.segments import Place, Segments, Unreadable
from service.pacs.series import Instance, Waiting
from service.pacs.waits import OldestAge

logger = logging.getLogger("service.pacs")

_COLUMNS = "id, result, kind, sop, segment, offset, length, attempts, alone, request_id"

_IS_FREE = "id NOT IN (SELECT value FROM json_each(?))"
"""The condition for the numbers of objects, as JSON, that are held back."""

_MAKE_DUE = "UPDATE objects SET due = 0 WHERE state = 'pending'"

_MAY_GO = f"{IS_DUE} AND {_IS_FREE}"


@dataclass(frozen=True, slots=True)
class Parcel:
    """An object to deliver.

    Attributes:
        number: its place in the outbox.
        result: objects of one result travel together.
        kind: modality.
        sop: SOP instance UID.
        place: its DICOM file.
        attempts: made before.
        alone: it is not sent together with others.
        request_id: of the request that brought the newest image that it is about.
    """

    number: int
    result: int
    kind: str
    sop: str
    place: Place
    attempts: int
    alone: bool
    request_id: str


@dataclass(frozen=True, slots=True)
class Dead:
    """An object that was given up: the destination will not take it, or it cannot be read.

    Attributes:
        sop: its SOP instance UID.
        reason: word for why.
        created: Unix seconds.
        request_id: of the request that brought the newest of its images.
    """

    kind: str
    sop: str
    reason: str
    attempts: int
    created: float
    request_id: str


class OutboxCounts(NamedTuple):
    """What there is in the outbox.

    Attributes:
        objects, bytes: to deliver.
        oldest_seconds: age of the oldest of them.
        dead: objects that were given up.
    """

    objects: int
    bytes: int
    oldest_seconds: float
    dead: int


class Outbox:
    """Any thread.

    Args:
        ledger: what there is.
        segments: where the bytes lie.
        inbox: where the series come from that the results are about.
        longest_seconds: nothing is put off for longer.
    """

    def __init__(
        self, ledger: Ledger, segments: Segments, inbox: Inbox, longest_seconds: float
    ) -> None:
        self._ledger = ledger
        self._segments = segments
        self._inbox = inbox
        self._longest_seconds = longest_seconds
        self._oldest = OldestAge()

    def post(
        self,
        series: Waiting,
        model: str,
        covered: Iterable[Instance],
        objects: Sequence[MadeObject],
    ) -> None:
        """Puts a result in; with it, the series is done. Both or neither, and on the disk.

        Args:
            series: what the result is about.
            model: see :func:`service.pacs.results.identity`.
            covered: the images that it is about.
            objects: the result.

        Raises:
            SpoolFull: there is no room.
        """
        segment = self._segments.create()
        places = []
        try:
            for item in objects:
                places.append(Place(segment.name, segment.size, len(item.content)))
                segment.write(item.content)
            segment.sync()
            now = time()
            with self._ledger.transaction() as connection:
                number, left = self._inbox.settle(connection, series, model, covered)
                connection.executemany(
                    "INSERT INTO objects (result, kind, sop, segment, offset, length, state,"
                    " created, due, attempts, alone, request_id)"
                    " VALUES (?, ?, ?, ?, ?, ?, 'pending', ?, 0, 0, 0, ?)",
                    [
                        (
                            *(number, item.modality, item.sop_instance_uid),
                            *(*place, now, series.request_id),
                        )
                        for item, place in zip(objects, places, strict=True)
                    ],
                )
        except BaseException:
            segment.discard()
            raise
        remove_unused(self._ledger, self._segments, left)

    def next(self, held: Sequence[int] = ()) -> list[Parcel]:
        """What to send now, in one request: the objects of one result that is due.

        It is the oldest of those that failed least, so that one that always fails holds up no other.

        Args:
            held: numbers of objects that are passed over.
        """
        times = (*due_times(self._longest_seconds), json.dumps(held))
        with self._ledger.reading() as connection:
            first = connection.execute(
                f"SELECT id, result, alone FROM objects WHERE state = 'pending' AND {_MAY_GO}"  # noqa: S608
                " ORDER BY attempts, id LIMIT 1",
                times,
            ).fetchone()
            if first is None:
                return []
            number, result, alone = first
            where = "id = ?" if alone else "result = ? AND alone = 0"
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM objects WHERE state = 'pending' AND {_MAY_GO} AND {where}"  # noqa: S608
                " ORDER BY id",
                (*times, number if alone else result),
            ).fetchall()
        return [
            Parcel(id_, result, kind, sop, Place(*place), attempts, bool(alone), request_id)
            for id_, result, kind, sop, *place, attempts, alone, request_id in rows
        ]

    def wait_seconds(self, held: Sequence[int] = ()) -> float | None:
        """Until the next one is due, but for those; None if there is nothing to send."""
        with self._ledger.reading() as connection:
            (due,) = connection.execute(
                f"SELECT min(due) FROM objects WHERE state = 'pending' AND {_IS_FREE}",  # noqa: S608
                (json.dumps(held),),
            ).fetchone()
        if due is None:
            return None
        now, latest = due_times(self._longest_seconds)
        return max(0.0, due - now) if due <= latest else 0.0

    def remove(self, parcels: Iterable[Parcel]) -> None:
        """They have been delivered."""
        parcels = list(parcels)
        with self._ledger.transaction() as connection:
            connection.executemany(
                "DELETE FROM objects WHERE id = ?", [(parcel.number,) for parcel in parcels]
            )
        names = {parcel.place.segment for parcel in parcels}
        remove_unused(self._ledger, self._segments, names)

    def postpone(self, parcels: Mapping[Parcel, str], seconds: float) -> None:
        """They are sent again later, and as together as they were.

        Args:
            parcels: each with the reason.
            seconds: until then.
        """
        due = time() + seconds
        with self._ledger.transaction() as connection:
            connection.executemany(
                "UPDATE objects SET due = ?, attempts = attempts + 1, reason = ? WHERE id = ?",
                [(due, reason, parcel.number) for parcel, reason in parcels.items()],
            )

    def hasten(self) -> None:
        """The destination is back: what waits for it to be is due now.

        What is sent alone may itself be the reason that it fails.
        """
        with self._ledger.transaction() as connection:
            connection.execute(
                "UPDATE objects SET due = 0 WHERE state = 'pending' AND alone = 0"
                " AND (reason LIKE 'http_%' AND reason <> 'http_500'"
                " OR reason IN ('timeout', 'unreachable', 'answer_too_large'))"
            )

    def make_due(self) -> None:
        """All that waits is due now."""
        with self._ledger.transaction() as connection:
            connection.execute(_MAKE_DUE)

    def separate(self, parcels: Iterable[Parcel]) -> None:
        """One of them may fail the others, and it is not known which: each is sent alone now."""
        with self._ledger.transaction() as connection:
            connection.executemany(
                "UPDATE objects SET alone = 1, attempts = attempts + 1 WHERE id = ?",
                [(parcel.number,) for parcel in parcels],
            )

    def park(self, parcels: Iterable[Parcel], reason: str) -> None:
        """They were given up; they stay as long as there is room."""
        parcels = list(parcels)
        with self._ledger.transaction() as connection:
            connection.executemany(
                "UPDATE objects SET state = 'dead', attempts = attempts + 1, reason = ?"
                " WHERE id = ?",
                [(reason, parcel.number) for parcel in parcels],
            )
        for parcel in parcels:
            self._isolate(parcel)

    def retry(self) -> int:
        """Lets parked objects be sent again, and makes due what waits; how many were parked."""
        with self._ledger.transaction() as connection:
            connection.execute(_MAKE_DUE)
            return connection.execute(
                "UPDATE objects SET state = 'pending', due = 0, attempts = 0, alone = 0"
                " WHERE state = 'dead'"
            ).rowcount

    def spare(self, missing: int) -> None:
        """Makes room: the oldest of what will not be taken goes."""
        target = self._segments.used - missing
        while self._segments.used > target:
            with self._ledger.transaction() as connection:
                row = connection.execute(
                    "DELETE FROM objects WHERE id ="
                    " (SELECT min(id) FROM objects WHERE state = 'dead') RETURNING segment"
                ).fetchone()
            if row is None:
                return
            logger.error("a result that had been given up was removed to make room")
            self._segments.remove(self._ledger.unused(row))

    def dead(self, limit: int) -> list[Dead]:
        """The newest objects that were given up."""
        with self._ledger.reading() as connection:
            rows = connection.execute(
                "SELECT kind, sop, reason, attempts, created, request_id FROM objects"
                " WHERE state = 'dead'"
                " ORDER BY id DESC LIMIT ?",
                (limit,),
            ).fetchall()
        return [Dead(*row) for row in rows]

    def counts(self, settled: Sequence[int] = ()) -> OutboxCounts:
        """What there is now.

        Args:
            settled: numbers of objects that are not to be delivered, though the ledger has it so.
        """
        pending = f"state = 'pending' AND {_IS_FREE}"
        with self._ledger.reading() as connection:
            objects, size, oldest, dead = connection.execute(
                f"SELECT count(*), coalesce(sum(length), 0), min(created),"  # noqa: S608
                f" (SELECT count(*) FROM objects WHERE state = 'dead') FROM objects WHERE {pending}",
                (json.dumps(settled),),
            ).fetchone()
        return OutboxCounts(objects, size, self._oldest.seconds(oldest), dead)

    def _isolate(self, parcel: Parcel) -> None:
        """Gives it a segment of its own: that of its result would stay as long as it does."""
        segment = None
        try:
            data = self._segments.read(parcel.place)
            segment = self._segments.create()
            segment.write(data)
            segment.sync()
            with self._ledger.transaction() as connection:
                connection.execute(
                    "UPDATE objects SET segment = ?, offset = 0 WHERE id = ?",
                    (segment.name, parcel.number),
                )
        except (FileNotFoundError, Unreadable, SpoolFull):
            if segment is not None:
                segment.discard()
        else:
            # Room for the copy may have been made at the cost of the object itself.
            names = (parcel.place.segment, segment.name)
            remove_unused(self._ledger, self._segments, names)
