"""Instances that arrived and are to be analysed, series by series; what was accepted is on the disk.

A series is analysed once it has been quiet for a while. Its instances are then kept for a time, so that
slices that come late give a result of the whole series.
"""

import logging
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from threading import Lock
from time import monotonic, time
from typing import NamedTuple

from service.pacs import memory
from service.pacs.ledger import IS_DUE, Ledger, due_times
from service.pacs.segments import Place, Segment, Segments
from service.pacs.series import Instance, Received, SetAside, Waiting
from service.pacs.waits import SERIES_MAX_SECONDS, OldestAge, longest

logger = logging.getLogger("service.pacs")


class InboxCounts(NamedTuple):
    """What there is in the inbox.

    Attributes:
        series: that wait.
        instances, bytes: of them.
        oldest_seconds: how long the first of them to be complete has waited.
        dead: series that cannot be analysed.
    """

    series: int
    instances: int
    bytes: int
    oldest_seconds: float
    dead: int


class Inbox:
    """Takes instances and gives them out as series. Any thread.

    Args:
        ledger: what there is.
        segments: where the bytes lie.
        quiet_seconds: nothing new for so long, and a series is complete.
        keep_seconds: how long the instances of an analysed series stay.
    """

    def __init__(
        self, ledger: Ledger, segments: Segments, quiet_seconds: float, keep_seconds: float
    ) -> None:
        self._ledger = ledger
        self._segments = segments
        self._quiet_seconds = quiet_seconds
        self._keep_seconds = keep_seconds
        # In this process' own time: neither a restart nor a changed clock makes a series complete.
        self._started = monotonic()
        self._last_arrival: dict[str, float] = {}
        self._arriving: Counter[str] = Counter()
        self._lock = Lock()
        self._oldest = OldestAge()

    def announce(self, series: str) -> None:
        """An instance of a series is arriving; until :meth:`dismiss` the series is not complete."""
        with self._lock:
            self._arriving[series] += 1

    def dismiss(self, announced: Iterable[str]) -> None:
        """They have arrived, or never will."""
        with self._lock:
            for series in announced:
                self._arriving[series] -= 1
                self._last_arrival[series] = monotonic()
            self._arriving = +self._arriving

    def accept(
        self, segment: Segment, received: Sequence[Received], sender: str | None, request_id: str
    ) -> None:
        """Makes instances this service's own; returns once that would survive a power cut.

        An instance that is here already is replaced. Another file under the same UID replaces one that
        was analysed, or is of a series that was set aside; one that still waits stays beside it: they
        may be different images, of which none must be lost.

        Raises:
            SpoolFull: the disk does not take them; none was accepted.
        """
        segment.sync()
        now = time()
        replaced = []
        with self._ledger.transaction() as connection:
            for series in {item.identity.series for item in received}:
                connection.execute(
                    "INSERT INTO series VALUES (?, 'waiting', ?, 0, 0, NULL, ?, ?)"
                    " ON CONFLICT (uid) DO UPDATE SET state = 'waiting', arrived = excluded.arrived,"
                    " due = 0, attempts = 0, sender = excluded.sender,"
                    " request_id = excluded.request_id",
                    (series, now, sender, request_id),
                )
            for item in received:
                key = (item.identity.series, item.identity.sop, item.digest)
                replaced += connection.execute(
                    "DELETE FROM instances WHERE series = ? AND sop = ?"
                    " AND (digest IN (?, x'') OR analysed) RETURNING segment",
                    key,
                ).fetchall()
                connection.execute(
                    "INSERT INTO instances (series, sop, digest, analysed, segment, offset, length)"
                    " VALUES (?, ?, ?, 0, ?, ?, ?)",
                    (*key, segment.name, item.offset, item.length),
                )
        remove_unused(self._ledger, self._segments, (name for (name,) in replaced))

    def complete(self) -> str | None:
        """The series that has waited longest of those that are complete and due.

        One that was put off has waited since it is due again, so that newer ones have their turn.
        """
        with self._ledger.reading() as connection:
            rows = connection.execute(
                f"SELECT uid FROM series WHERE state = 'waiting' AND {IS_DUE}"  # noqa: S608
                " ORDER BY max(arrived, due)",
                due_times(longest(SERIES_MAX_SECONDS)),
            ).fetchall()
        before = monotonic() - self._quiet_seconds
        with self._lock:
            for (uid,) in rows:
                last = self._last_arrival.get(uid, self._started)
                if last <= before and uid not in self._arriving:
                    return str(uid)
        return None

    def begin(self, uid: str) -> Waiting:
        """A series to analyse now.

        That it was begun is on the disk, so that one that ends the process each time is found out.
        """
        with self._ledger.transaction() as connection:
            attempts, reason, sender, request_id = connection.execute(
                "SELECT attempts, reason, sender, request_id FROM series WHERE uid = ?", (uid,)
            ).fetchone()
            connection.execute(
                "UPDATE series SET attempts = attempts + 1, reason = NULL WHERE uid = ?", (uid,)
            )
            instances = _instances(connection, uid)
        return Waiting(uid, attempts, reason, sender, request_id, instances)

    def is_known(self, series: Waiting, model: str) -> bool:
        """Whether a result of this model covers all of these instances."""
        with self._ledger.reading() as connection:
            return memory.covers(connection, series, model)

    def settle(
        self,
        connection: sqlite3.Connection,
        series: Waiting,
        model: str,
        covered: Iterable[Instance],
    ) -> tuple[int, list[str]]:
        """Within a transaction: the series has its result. What arrived meanwhile waits for the next.

        Args:
            connection: of the transaction.
            series: what the result is about.
            model: see :func:`service.pacs.results.identity`.
            covered: the images that it is about.

        Returns:
            The result's number, and the segments that images were removed from: for
            :func:`remove_unused`, after the transaction.
        """
        left = self._keep(connection, series)
        return memory.remember(connection, series.uid, model, covered), left

    def keep(self, series: Waiting) -> None:
        """The series needs no result."""
        with self._ledger.transaction() as connection:
            left = self._keep(connection, series)
        remove_unused(self._ledger, self._segments, left)

    def _keep(self, connection: sqlite3.Connection, series: Waiting) -> list[str]:
        """The segments of images that went, as a newer one under their UID came meanwhile."""
        if _is_whole(connection, series):
            connection.execute(
                "UPDATE series SET state = 'kept', due = ?, attempts = 0, reason = NULL"
                " WHERE uid = ?",
                (time() + self._keep_seconds, series.uid),
            )
        connection.executemany(
            "UPDATE instances SET analysed = 1 WHERE series = ? AND sop = ? AND digest = ?",
            [(series.uid, *instance) for instance in series.instances],
        )
        rows = connection.execute(
            "DELETE FROM instances AS old WHERE series = ? AND analysed AND EXISTS"
            " (SELECT 1 FROM instances AS new WHERE new.series = old.series AND new.sop = old.sop"
            " AND new.id > old.id AND NOT new.analysed) RETURNING segment",
            (series.uid,),
        ).fetchall()
        return [name for (name,) in rows]

    def give_back(self, series: Waiting) -> None:
        """It is as if the series had not been begun, such as where the service stops."""
        update = "UPDATE series SET attempts = ?, reason = ? WHERE uid = ?"
        self._change(series, update, series.attempts, series.reason)

    def postpone(self, series: Waiting, seconds: float, reason: str | None) -> None:
        """The series is tried again later; with what arrived meanwhile, once it is complete."""
        update = "UPDATE series SET due = ?, reason = ? WHERE uid = ?"
        self._change(series, update, time() + seconds, reason)

    def park(self, series: Waiting, reason: str) -> None:
        """The series cannot be analysed; it stays as long as there is room.

        With what arrived meanwhile it is tried again. What is sent later takes the place of what could
        not be analysed: a sender that has mended its images must not have them beside the wrong ones.
        """
        with self._ledger.transaction() as connection:
            if _is_whole(connection, series):
                connection.execute(
                    "UPDATE series SET state = 'dead', due = ?, reason = ? WHERE uid = ?",
                    (time(), reason, series.uid),
                )
                connection.execute(
                    "UPDATE instances SET analysed = 1 WHERE series = ?", (series.uid,)
                )

    def _change(self, series: Waiting, update: str, *values: float | str | None) -> None:
        """Unless something has arrived since: its attempts count anew then, and it is due."""
        with self._ledger.transaction() as connection:
            if _is_whole(connection, series):
                connection.execute(update, (*values, series.uid))

    def dead(self, limit: int) -> list[SetAside]:
        """The series that cannot be analysed, the newest of them first."""
        with self._ledger.reading() as connection:
            rows = connection.execute(
                "SELECT uid, reason, (SELECT count(*) FROM instances WHERE series = uid), due,"
                " request_id FROM series WHERE state = 'dead' ORDER BY due DESC, rowid DESC LIMIT ?",
                (limit,),
            ).fetchall()
        return [SetAside(*row) for row in rows]

    def retry(self) -> int:
        """Lets series that could not be analysed wait again; how many there were.

        Those that are put off are due as well.
        """
        with self._ledger.transaction() as connection:
            connection.execute("UPDATE series SET due = 0 WHERE state = 'waiting'")
            return connection.execute(
                "UPDATE series SET state = 'waiting', due = 0, attempts = 0 WHERE state = 'dead'"
            ).rowcount

    def expire(self) -> None:
        """Removes instances that have been kept long enough."""
        with self._ledger.reading() as connection:
            rows = connection.execute(
                f"SELECT uid FROM series WHERE state = 'kept' AND {IS_DUE}",  # noqa: S608
                due_times(self._keep_seconds),
            ).fetchall()
        for (uid,) in rows:
            self._drop(uid, "kept")
        self._forget_arrivals()

    def spare(self, missing: int) -> None:
        """Makes room: what is only kept goes first, then what cannot be analysed."""
        target = self._segments.used - missing
        for state in ("kept", "dead"):
            with self._ledger.reading() as connection:
                rows = connection.execute(
                    "SELECT uid FROM series WHERE state = ? ORDER BY arrived", (state,)
                ).fetchall()
            for (uid,) in rows:
                if self._segments.used <= target:
                    return
                if self._drop(uid, state) and state == "dead":
                    logger.error("a series that could not be analysed was removed to make room")

    def counts(self) -> InboxCounts:
        """What there is now."""
        with self._ledger.reading() as connection:
            series, dead, oldest = connection.execute(
                "SELECT count(*) FILTER (WHERE state = 'waiting'),"
                " count(*) FILTER (WHERE state = 'dead'),"
                " min(arrived) FILTER (WHERE state = 'waiting') FROM series"
            ).fetchone()
            instances, size = connection.execute(
                "SELECT count(*), coalesce(sum(length), 0) FROM instances"
                " JOIN series ON series = uid WHERE state = 'waiting'"
            ).fetchone()
        return InboxCounts(series, instances, size, self._oldest.seconds(oldest), dead)

    def _forget_arrivals(self) -> None:
        """Those before the quiet time tell no more than the start, which counts where none is known.

        Not even those of series that are removed go earlier: a late slice may just have come.
        """
        before = monotonic() - self._quiet_seconds
        with self._lock:
            self._last_arrival = {
                uid: last for uid, last in self._last_arrival.items() if last > before
            }

    def _drop(self, uid: str, state: str) -> bool:
        with self._ledger.transaction() as connection:
            rows = connection.execute(
                "SELECT DISTINCT segment FROM instances JOIN series ON series = uid"
                " WHERE uid = ? AND state = ?",
                (uid, state),
            ).fetchall()
            connection.execute("DELETE FROM series WHERE uid = ? AND state = ?", (uid, state))
        remove_unused(self._ledger, self._segments, (name for (name,) in rows))
        return bool(rows)


def remove_unused(ledger: Ledger, segments: Segments, names: Iterable[str]) -> None:
    """Removes those of some segments that nothing lies in any more.

    It follows a commit, which no error may undo; files that stay go at the next start.
    """
    try:
        segments.remove(ledger.unused(names))
    except Exception:
        logger.exception("files that nothing refers to could not be removed")


def _is_whole(connection: sqlite3.Connection, series: Waiting) -> bool:
    """Whether nothing of the series has arrived since it was begun."""
    return _instances(connection, series.uid) == series.instances


def _instances(connection: sqlite3.Connection, series: str) -> dict[Instance, Place]:
    """Those of a series, in the order of arrival."""
    rows = connection.execute(
        "SELECT sop, digest, segment, offset, length FROM instances WHERE series = ? ORDER BY id",
        (series,),
    ).fetchall()
    return {Instance(sop, digest): Place(*place) for sop, digest, *place in rows}
