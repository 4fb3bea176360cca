"""What the spool holds, in SQLite: which instances wait, which results are to be delivered.

A transaction that has been committed is on the disk. Times are Unix seconds, so that they hold across a
restart.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from time import time
from typing import Final

from service.disks import check_folder, disk_fails, is_in_place, kind, unusable
from service.errors import SpoolFull
from service.pacs.segments import FOLDER, SUFFIX, WAY_OUT
from service.settings import PassingFault, SettingsError

SCHEMA_VERSION: Final = 2

_DISK_ERRORS: Final = frozenset(
    {
        # What it makes of EIO where it reads.
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
    }
)

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_INSTANCES: Final = """
CREATE TABLE instances (
    id INTEGER PRIMARY KEY,
    series TEXT NOT NULL REFERENCES series (uid) ON DELETE CASCADE,
    sop TEXT NOT NULL,
    digest BLOB NOT NULL,          -- of the content; empty where it came before version 2
    analysed INTEGER NOT NULL,     -- or set aside, so that another file may take its place
    segment TEXT NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL,
    UNIQUE (series, sop, digest)
) STRICT;
CREATE INDEX instances_segment ON instances (segment);
"""

_SCHEMA: Final = f"""
CREATE TABLE series (
    uid TEXT PRIMARY KEY,
    state TEXT NOT NULL,           -- waiting: to be analysed; kept: was; dead: cannot be
    arrived REAL NOT NULL,         -- of the newest instance
    due REAL NOT NULL,             -- waiting: not before; kept: until then; dead: since then
    attempts INTEGER NOT NULL,     -- begun and not ended
    reason TEXT,                   -- error code of the last attempt
    sender TEXT,                   -- name of the API key
    request_id TEXT NOT NULL       -- of the newest instance
) STRICT;
{_INSTANCES}
CREATE TABLE results (
    id INTEGER PRIMARY KEY,
    series BLOB NOT NULL,          -- hash of the UID
    model TEXT NOT NULL,           -- hash of the version and of where it operates
    sops BLOB NOT NULL             -- hashes of UIDs and contents, sorted, one after the other
) STRICT;
CREATE INDEX results_series ON results (series, model);
CREATE TABLE objects (
    id INTEGER PRIMARY KEY,
    result INTEGER NOT NULL,       -- objects of one result travel together
    kind TEXT NOT NULL,            -- modality
    sop TEXT NOT NULL,
    segment TEXT NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL,
    state TEXT NOT NULL,           -- pending, dead
    created REAL NOT NULL,
    due REAL NOT NULL,             -- not before
    attempts INTEGER NOT NULL,
    alone INTEGER NOT NULL,        -- the destination refused it together with others
    reason TEXT,
    request_id TEXT NOT NULL
) STRICT;
CREATE INDEX objects_segment ON objects (segment);
CREATE INDEX objects_due ON objects (state, due);
"""

_FROM_VERSION_1: Final = f"""
DROP INDEX instances_segment;
ALTER TABLE instances RENAME TO instances_1;
{_INSTANCES}
INSERT INTO instances
    SELECT id, series, sop, x'', state = 'kept', segment, offset, length
    FROM instances_1 JOIN series ON series = uid;
DROP TABLE instances_1;
"""  # noqa: S608 - all of it is here


_TO_THIS_VERSION: Final = {0: _SCHEMA, 1: _FROM_VERSION_1}
"""What makes a ledger of this version of one of another; 0 is a new one."""

_REWRITE: Final = f"PRAGMA user_version = {SCHEMA_VERSION}"
"""Writes what stands there already."""

IS_DUE: Final = "(due <= ? OR due > ?)"
"""The condition for :func:`due_times`."""


def due_times(longest_seconds: float) -> tuple[float, float]:
    """Until when, and after when, something is due that was put off for that long at most.

    What is due even later was put off while the clock was ahead, and would wait until it is that late.
    """
    now = time()
    return now, now + longest_seconds


class Ledger:
    """The database; one process has it at a time. Any thread.

    Args:
        folder: where it lies, beside the segments.

    Raises:
        SettingsError: it is of a later release, or is damaged, or is a new one beside segments, or it
            cannot be opened.
        PassingFault: another process has it.
        service.disks.DiskFails: its disk is at fault.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "spool.sqlite"
        self._lock = RLock()
        self._failure = ""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Of this SQLite says the same as of a disk that is read-only.
            check_folder(folder)
            self._guard = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise unusable("BRAIN_SPOOL", error) from error
        try:
            fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._connection = _open(self._path)
            # SQLite keeps the file open, so no other one gets this identity.
            self._identity = self._path.stat()
        except BlockingIOError as error:
            os.close(self._guard)
            # One that hangs in the kernel still does where a supervisor has given it up.
            raise PassingFault("BRAIN_SPOOL: another process uses this folder") from error
        except (OSError, sqlite3.Error, SettingsError) as error:
            os.close(self._guard)
            raise _refusal(error) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and on the disk once it has ended.

        Raises:
            SpoolFull: the disk does not take it, or another one lies over it.
        """
        with self._lock:
            self._check_place()
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._commit()
            except BaseException as error:
                # Some errors of the disk have ended it already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error) and _is_of_the_disk(error):
                    self._failure = kind(error)
                    raise SpoolFull("the spool cannot be written to; try again") from error
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Looks at it.

        Raises:
            SpoolFull: the disk does not give it, or another one lies over it.
        """
        with self._lock:
            self._check_place()
            try:
                yield self._connection
            except sqlite3.Error as error:
                if _is_of_the_disk(error):
                    raise SpoolFull("the spool cannot be read; try again") from error
                raise

    def failure(self) -> str:
        """Why the disk takes nothing, or empty; if it did not the last time, this tries it."""
        if self._failure:
            with suppress(SpoolFull):
                with self.transaction() as connection:
                    connection.execute(_REWRITE)
                self._failure = ""
        return self._failure

    def _commit(self) -> None:
        """Ends a transaction; one that fails is not there after a crash either.

        If the disk fails once all of it stands in SQLite's log, it is taken back in this process alone.
        The next start would take it for committed, though the files that it refers to were deleted.
        """
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            # Written where that one begins, this ends its chain of checksums, even if it fails as well.
            with suppress(sqlite3.Error):
                self._connection.execute(_REWRITE)
            raise

    def _check_place(self) -> None:
        """Sees whether its path still leads to it, and so to the segments that it knows.

        Under a disk that is mounted later it would go on, while segments are opened on that disk: the
        next start would find there another ledger, and delete them.
        """
        if is_in_place(self._path, self._identity):
            return
        raise SpoolFull("another disk lies over the spool, or it was moved; restart the service")

    def segments(self) -> set[str]:
        """Names of all segments that something lies in."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT segment FROM instances UNION SELECT segment FROM objects"
            ).fetchall()
        return {name for (name,) in rows}

    def is_needed(self) -> bool:
        """Whether anything lies in them that was not given up."""
        query = (
            "SELECT EXISTS (SELECT 1 FROM instances JOIN series ON series = uid WHERE state <> 'dead')"
            " OR EXISTS (SELECT 1 FROM objects WHERE state <> 'dead')"
        )
        with self.reading() as connection:
            return bool(connection.execute(query).fetchone()[0])

    def unused(self, names: Iterable[str]) -> list[str]:
        """Those of some segments that nothing lies in any more."""
        query = (
            "SELECT EXISTS (SELECT 1 FROM instances WHERE segment = :name)"
            " OR EXISTS (SELECT 1 FROM objects WHERE segment = :name)"
        )
        with self.reading() as connection:
            return [
                name
                for name in set(names)
                if not connection.execute(query, {"name": name}).fetchone()[0]
            ]

    def close(self) -> None:
        """Lets another process have it."""
        with self._lock:
            self._connection.close()
            os.close(self._guard)


def _refusal(error: Exception) -> SettingsError:
    """What to say of a ledger that cannot be opened."""
    match error:
        case OSError():
            return unusable("BRAIN_SPOOL", error)
        case sqlite3.Error() if _code(error) in _DAMAGED:
            return SettingsError(f"BRAIN_SPOOL: its ledger is damaged ({error}): {WAY_OUT}")
        case sqlite3.Error() if _is_of_the_disk(error):
            return disk_fails("BRAIN_SPOOL", error)
    return SettingsError(f"BRAIN_SPOOL: {error}")


def _is_of_the_disk(error: sqlite3.Error) -> bool:
    return _code(error) in _DISK_ERRORS


def _code(error: sqlite3.Error) -> int:
    # The lowest byte is the primary code, whatever the extended one says beside it. What comes from
    # Python's side, as of a connection that is closed, has none.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _open(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    # Of these SQLite only says that it cannot open them, as where the disk fails.
    for part in (path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        with suppress(FileNotFoundError):
            os.close(os.open(part, os.O_RDWR))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    # In WAL mode, anything less may lose the last transactions with the power.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA secure_delete = ON")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    # Before anything is written: the next start must find it new as well.
    if version == 0 and _has_segments(path.with_name(FOLDER)):
        connection.close()
        raise SettingsError(f"its ledger is gone or empty, though files lie beside it: {WAY_OUT}")
    if version in _TO_THIS_VERSION:
        connection.executescript(
            f"BEGIN; {_TO_THIS_VERSION[version]} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
    elif version != SCHEMA_VERSION:
        connection.close()
        raise SettingsError("the folder was written by another release")
    return connection


def _has_segments(folder: Path) -> bool:
    # Not by a glob, to which a folder of another user is empty.
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.endswith(SUFFIX) for entry in entries)
    except FileNotFoundError:
        return False
