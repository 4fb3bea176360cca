"""The spool's folder: what is in it is whole, on the disk, of this release, and for this user alone."""

import errno
import fcntl
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.audit import Audit
from service.dicom.results import MadeObject
from service.disks import DiskFails
from service.errors import SpoolFull
from service.metrics import Metrics
from service.pacs.gateway import Gateway
from service.pacs.inbox import Inbox
from service.pacs.ledger import Ledger
from service.pacs.outbox import Outbox
from service.pacs.segments import Place, Segments
from service.pacs.series import Instance
from service.settings import PassingFault, SettingsError
from tests.support.pacs import pacs_settings
from tests.support.spool import SERIES, failing, largest_file, put, sops_of


def test_a_ledger_that_the_disk_does_not_take(
    inbox: Inbox, segments: Segments, tmp_path: Path
) -> None:
    put(inbox, segments, "1.5.1")
    with largest_file((tmp_path / "spool.sqlite-wal").stat().st_size):
        for _ in range(2):
            with pytest.raises(SpoolFull):
                put(inbox, segments, "1.5.2")
    assert sops_of(inbox.begin(SERIES)) == ["1.5.1"]
    put(inbox, segments, "1.5.2")
    assert sops_of(inbox.begin(SERIES)) == ["1.5.1", "1.5.2"]


def test_a_segment_that_the_disk_does_not_take(
    segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", failing(errno.ENOSPC))
    with pytest.raises(SpoolFull):
        segments.create()


def test_a_disk_that_took_nothing_is_tried_until_it_does(
    inbox: Inbox,
    segments: Segments,
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody else may write to it, which would show that it is well again."""
    put(inbox, segments, "1.5.1")
    with largest_file((tmp_path / "spool.sqlite-wal").stat().st_size):
        assert not ledger.failure()
        with pytest.raises(SpoolFull):
            put(inbox, segments, "1.5.2")
        assert ledger.failure() == "OperationalError SQLITE_IOERR_WRITE"
    assert not ledger.failure()
    free = shutil.disk_usage(tmp_path).free
    for number, found in ((errno.EMFILE, ""), (errno.EDQUOT, "OSError EDQUOT")):
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", failing(number))
            with pytest.raises(SpoolFull):
                segments.create()
        assert segments.failure(2 * free) == found
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(errno.EIO))
        assert segments.failure(1)
    assert not segments.failure(1)


VERSION_1 = """
CREATE TABLE series (
    uid TEXT PRIMARY KEY, state TEXT NOT NULL, arrived REAL NOT NULL, due REAL NOT NULL,
    attempts INTEGER NOT NULL, reason TEXT, sender TEXT, request_id TEXT NOT NULL
) STRICT;
CREATE TABLE instances (
    id INTEGER PRIMARY KEY,
    series TEXT NOT NULL REFERENCES series (uid) ON DELETE CASCADE,
    sop TEXT NOT NULL,
    segment TEXT NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL,
    UNIQUE (series, sop)
) STRICT;
CREATE INDEX instances_segment ON instances (segment);
CREATE TABLE results (
    id INTEGER PRIMARY KEY, series BLOB NOT NULL, model TEXT NOT NULL, sops BLOB NOT NULL
) STRICT;
CREATE INDEX results_series ON results (series, model);
CREATE TABLE objects (
    id INTEGER PRIMARY KEY, result INTEGER NOT NULL, kind TEXT NOT NULL, sop TEXT NOT NULL,
    segment TEXT NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL, state TEXT NOT NULL,
    created REAL NOT NULL, due REAL NOT NULL, attempts INTEGER NOT NULL, alone INTEGER NOT NULL,
    reason TEXT, request_id TEXT NOT NULL
) STRICT;
CREATE INDEX objects_segment ON objects (segment);
CREATE INDEX objects_due ON objects (state, due);
INSERT INTO series VALUES ('1.5', 'waiting', 1, 0, 0, NULL, NULL, 'visit-1');
INSERT INTO series VALUES ('1.6', 'kept', 1, 1e12, 0, NULL, NULL, 'visit-2');
INSERT INTO instances VALUES (1, '1.5', '1.5.1', 'a', 0, 5), (2, '1.6', '1.6.1', 'a', 5, 5);
INSERT INTO instances VALUES (3, '1.5', '1.5.2', 'a', 10, 5);
PRAGMA user_version = 1;
"""


def test_a_spool_of_the_release_before_opens(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "spool.sqlite")
    connection.executescript(VERSION_1)
    connection.close()
    for _ in range(2):
        ledger = Ledger(tmp_path)
        segments = Segments(tmp_path / "segments", 10**6)
        inbox = Inbox(ledger, segments, quiet_seconds=0, keep_seconds=900)
        assert inbox.complete() == SERIES
        waiting = inbox.begin(SERIES)
        assert sops_of(waiting) == ["1.5.1", "1.5.2"]
        assert waiting.instances[Instance("1.5.1", b"")] == Place("a", 0, 5)
        ledger.close()
    ledger = Ledger(tmp_path)
    inbox = Inbox(ledger, segments, quiet_seconds=0, keep_seconds=900)
    # Nobody knows what the old one was, which is replaced as it was then.
    for uid in (SERIES, "1.6"):
        put(inbox, segments, f"{uid}.1", uid)
    assert sops_of(inbox.begin(SERIES)) == ["1.5.2", "1.5.1"]
    assert sops_of(inbox.begin("1.6")) == ["1.6.1"]
    ledger.close()


def test_what_is_accepted_is_on_the_disk_first(
    inbox: Inbox, segments: Segments, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        assert inbox.counts().instances == 0
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    put(inbox, segments, "1.5.1")
    (name,) = ledger.segments()
    assert synced == [str(segments.path(name)), str(segments.folder)]
    with ledger.reading() as connection:
        # FULL: SQLite waits for the disk at each commit.
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA secure_delete").fetchone() == (1,)


def test_only_this_user_can_read_the_spool(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    before = os.umask(0)
    try:
        ledger = Ledger(folder)
        segments = Segments(folder / "segments", 10**6)
        put(Inbox(ledger, segments, 0, 900), segments, "1.5.1")
        paths = [folder, *folder.rglob("*")]
        assert len(paths) >= 5
        assert not [path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077]
        ledger.close()
    finally:
        os.umask(before)


def test_a_spool_of_another_release_is_not_touched(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.reading() as connection:
        connection.execute("PRAGMA user_version = 9")
    ledger.close()
    with pytest.raises(SettingsError, match="another release"):
        Ledger(tmp_path)


@pytest.mark.parametrize(
    "number",
    [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EMFILE],
    ids=errno.errorcode.get,
)
@pytest.mark.parametrize("opens", [Ledger, lambda folder: Segments(folder, 10**6)])
def test_a_spool_whose_disk_fails_at_the_start_is_no_wrong_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opens: Callable[[Path], object], number: int
) -> None:
    for name in ("open", "scandir"):
        monkeypatch.setattr(os, name, failing(number))
    with pytest.raises(DiskFails, match=r"^BRAIN_SPOOL: its disk is full or fails"):
        opens(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOTDIR, errno.ELOOP], ids=errno.errorcode.get)
def test_a_spool_that_cannot_be_where_it_shall_be_is_a_wrong_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "open", failing(number))
    with pytest.raises(SettingsError, match=r"^BRAIN_SPOOL: it cannot be written to") as raised:
        Ledger(tmp_path)
    assert not isinstance(raised.value, PassingFault)


def test_locks_that_a_disk_does_not_give_yet_are_no_wrong_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a network's disk, while its service of locks is not there."""
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    with pytest.raises(DiskFails):
        Ledger(tmp_path)


@pytest.mark.parametrize(
    "opens", [Ledger, lambda folder: Segments(folder, 10**6)], ids=["ledger", "segments"]
)
def test_a_spool_on_a_read_only_mount_is_no_full_disk_and_not_another_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opens: Callable[[Path], object]
) -> None:
    """As where systemd lets the service write to other folders only; mended, it is worth a start."""
    usual = os.statvfs(tmp_path)
    read_only = SimpleNamespace(f_flag=usual.f_flag | os.ST_RDONLY)
    monkeypatch.setattr(os, "statvfs", lambda _: read_only)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(
        DiskFails, match=r"^BRAIN_SPOOL: the file system is read-only .*ReadWritePaths"
    ):
        opens(tmp_path)


def test_a_ledger_whose_disk_is_full_at_the_start_is_no_wrong_setting(tmp_path: Path) -> None:
    Ledger(tmp_path).close()
    with largest_file(0), pytest.raises(DiskFails, match=r"^BRAIN_SPOOL: its disk is full"):
        Ledger(tmp_path)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xff" * 3000)


def overwrite_schema(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 8)


def cut(path: Path) -> None:
    os.truncate(path, 5000)


@pytest.mark.parametrize("damage", [overwrite, overwrite_schema, cut])
def test_a_ledger_that_is_damaged_at_the_start_is_no_full_disk(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    Ledger(tmp_path).close()
    damage(tmp_path / "spool.sqlite")
    with pytest.raises(SettingsError, match=r"ledger is damaged .* move it away$") as raised:
        Ledger(tmp_path)
    assert not isinstance(raised.value, DiskFails)


def empty(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("damage", [empty, Path.unlink])
def test_a_new_ledger_beside_files_of_an_old_one_is_refused_and_they_stay(
    model_store: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """As after `delete the broken file`: a PACS was told that they are stored."""
    settings = pacs_settings(model_store, tmp_path, "http://127.0.0.1:9")
    ledger = Ledger(settings.spool)
    segments = Segments(settings.spool / "segments", 10**6)
    put(Inbox(ledger, segments, 0, 900), segments, "1.5.1")
    ledger.close()
    before = sorted(segments.folder.iterdir())
    damage(settings.spool / "spool.sqlite")
    # Whoever starts it once more changes nothing.
    for _ in range(2):
        with pytest.raises(SettingsError, match=r"ledger is gone or empty, .* move it away$"):
            Gateway(settings, Metrics(), Audit())
    assert sorted(segments.folder.iterdir()) == before != []


@pytest.mark.parametrize("others", [False, True], ids=["empty", "of another spool"])
def test_a_ledger_without_any_of_its_files_is_not_started_with(
    ledger: Ledger, inbox: Inbox, segments: Segments, others: bool
) -> None:
    """As where the files have a disk of their own that is not mounted, or it alone was put back."""
    put(inbox, segments, "1.5.1")
    (path,) = segments.folder.iterdir()
    away = path.rename(segments.folder.parent / path.name)
    if others:
        (segments.folder / "others.segment").touch()
    before = list(segments.folder.iterdir())
    with pytest.raises(DiskFails, match=r"none is there: mount .* move it away$"):
        segments.keep_only(ledger.segments())
    assert list(segments.folder.iterdir()) == before
    away.rename(path)
    segments.keep_only(ledger.segments())
    assert list(segments.folder.iterdir()) == [path]


def test_what_was_given_up_as_its_file_is_gone_stops_no_start(
    model_store: Path, tmp_path: Path
) -> None:
    settings = pacs_settings(model_store, tmp_path, "http://127.0.0.1:9")
    ledger, segments = opened(settings.spool)
    inbox = Inbox(ledger, segments, 0, 0)
    outbox = Outbox(ledger, segments, inbox, 300)
    put(inbox, segments, "1.5.1")
    begun = inbox.begin(SERIES)
    made = [MadeObject("SR", "1.2", "1.5.9", b"content")]
    outbox.post(begun, "model", begun.instances, made)
    inbox.expire()
    assert ledger.is_needed()
    outbox.park(outbox.next(), "missing")
    assert not ledger.is_needed()
    put(inbox, segments, "1.6.1", "1.6")
    assert ledger.is_needed()
    inbox.park(inbox.begin("1.6"), "missing")
    assert not ledger.is_needed()
    segments.remove(ledger.segments())
    ledger.close()
    gateway = Gateway(settings, Metrics(), Audit())
    assert len(gateway.inbox.dead(9)) == len(gateway.outbox.dead(9)) == 1
    for part in (gateway._ledger, gateway._counter, gateway.threads):
        part.close()


def test_a_new_ledger_beside_files_that_nobody_can_list_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would not be new any more once they can be."""
    (tmp_path / "segments").mkdir()
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", failing(errno.EACCES))
            with pytest.raises(SettingsError):
                Ledger(tmp_path)
    (tmp_path / "segments" / "of-before.segment").touch()
    with pytest.raises(SettingsError, match="gone or empty"):
        Ledger(tmp_path)


def opened(folder: Path) -> tuple[Ledger, Segments]:
    """As the service opens a spool."""
    return Ledger(folder), Segments(folder / "segments", 10**6)


@pytest.mark.parametrize("name", ["lock", "spool.sqlite", "spool.sqlite-wal", "segments"])
def test_a_spool_of_another_user_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As one that root has put back."""
    Ledger(tmp_path).close()
    (tmp_path / "spool.sqlite-wal").touch()

    def denied(call: Callable[..., Any], path: Any, *rest: Any) -> Any:
        if Path(path).name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return call(path, *rest)

    monkeypatch.setattr(os, "open", partial(denied, os.open))
    monkeypatch.setattr(os, "scandir", partial(denied, os.scandir))
    with pytest.raises(SettingsError, match=f"this user may not .*{name}; .* chown$") as raised:
        opened(tmp_path)
    assert not isinstance(raised.value, DiskFails)


@pytest.mark.parametrize("right", [os.R_OK, os.W_OK, os.X_OK], ids=["read", "write", "enter"])
@pytest.mark.parametrize("name", [".", "segments"])
def test_a_folder_that_only_another_user_may_use_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, right: int
) -> None:
    """Where the files in it are this user's, or may be listed."""
    ledger, _ = opened(tmp_path)
    ledger.close()
    access = os.access
    theirs = tmp_path / name

    def denied(path: Path, mode: int) -> bool:
        return not (path == theirs and mode & right) and access(path, mode)

    monkeypatch.setattr(os, "access", denied)
    with pytest.raises(SettingsError, match=f"this user may not .*{theirs}; change its") as raised:
        opened(tmp_path)
    assert not isinstance(raised.value, DiskFails)


def test_a_new_folder_that_only_another_user_may_write_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no file that is to come into it."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SettingsError, match=f"this user may not .* {tmp_path}; change its"):
        Ledger(tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_folder_that_this_user_may_not_make_is_to_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "spool"

    def denied(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(SettingsError, match=f"this user may not .* {folder}; make it .* chown$"):
        Ledger(folder)


def test_a_file_that_cannot_be_removed_at_the_start_stops_nothing(
    segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = segments.create()
    segment.write(b"of another user")
    segment.sync()
    monkeypatch.setattr(Path, "unlink", failing(errno.EACCES))
    segments.keep_only([])
    assert segments.used == len(b"of another user")


def test_files_that_nothing_refers_to_go_at_the_start(
    inbox: Inbox, segments: Segments, ledger: Ledger, tmp_path: Path
) -> None:
    put(inbox, segments, "1.5.1")
    cut_off = segments.create()
    cut_off.write(b"cut off by a crash")
    cut_off.sync()
    again = Segments(tmp_path / "segments", 10**6)
    again.keep_only(ledger.segments())
    assert again.used == 10
    assert [path.stem for path in again.folder.iterdir()] == [*ledger.segments()]


@pytest.mark.parametrize("used", [False, True], ids=["empty", "used-before"])
def test_nothing_is_accepted_while_another_disk_lies_over_the_spool(
    tmp_path: Path, used: bool
) -> None:
    """As where the disk is mounted after the start."""
    folder, below = tmp_path / "spool", tmp_path / "below"
    ledger, segments = opened(folder)
    inbox = Inbox(ledger, segments, 0, 900)
    put(inbox, segments, "1.5.1")
    folder.rename(below)
    if used:
        shutil.copytree(below, folder)
    else:
        (folder / "segments").mkdir(parents=True)
    for call in (lambda: put(inbox, segments, "1.5.2"), inbox.counts, ledger.segments):
        with pytest.raises(SpoolFull, match="another disk lies over the spool"):
            call()
    shutil.rmtree(folder)
    below.rename(folder)
    put(inbox, segments, "1.5.3")
    assert sops_of(inbox.begin(SERIES)) == ["1.5.1", "1.5.3"]
    ledger.close()


@pytest.mark.parametrize("another", [False, True], ids=["gone", "another"])
def test_nothing_goes_into_or_out_of_segments_that_are_not_those_of_the_start(
    inbox: Inbox, segments: Segments, tmp_path: Path, another: bool
) -> None:
    """As where they have a disk of their own."""
    put(inbox, segments, "1.5.1")
    (place,) = inbox.begin(SERIES).instances.values()
    below = tmp_path / "below"
    segments.folder.rename(below)
    if another:
        segments.folder.mkdir()
    for call in (
        lambda: put(inbox, segments, "1.5.2"),
        lambda: segments.read(place),
        segments.check_place,
    ):
        with pytest.raises(SpoolFull, match=r"over the spool's segments, .* restart the service$"):
            call()
    if another:
        # And nothing lies there.
        segments.folder.rmdir()
    below.rename(segments.folder)
    assert segments.read(place) == b"x" * 10
    put(inbox, segments, "1.5.2")


def test_a_disk_that_does_not_say_what_it_is_may_do_so_later(
    inbox: Inbox, segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", failing(errno.ESTALE))
        for call in (
            inbox.counts,
            lambda: put(inbox, segments, "1.5.1"),
            lambda: segments.read(Place("a", 0, 1)),
        ):
            with pytest.raises(SpoolFull, match="the spool cannot be read; try again"):
                call()
    put(inbox, segments, "1.5.1")


def test_a_result_that_the_ledger_does_not_take_leaves_nothing(
    inbox: Inbox, segments: Segments, ledger: Ledger, tmp_path: Path
) -> None:
    put(inbox, segments, "1.5.1")
    begun = inbox.begin(SERIES)
    box = Outbox(ledger, segments, inbox, 300)
    made = [MadeObject("SR", "1.2", "1.5.9", b"content")]
    with largest_file((tmp_path / "spool.sqlite-wal").stat().st_size), pytest.raises(SpoolFull):
        box.post(begun, "model", begun.instances, made)
    assert segments.used == 10
    assert len(list(segments.folder.iterdir())) == 1
    assert not inbox.is_known(begun, "model")
    # It is not done, and made again.
    assert inbox.complete() == SERIES
    box.post(begun, "model", begun.instances, made)
    (parcel,) = box.next()
    assert segments.read(parcel.place) == b"content"
    box.remove([parcel])
    assert segments.used == 10
    assert len(list(segments.folder.iterdir())) == 1


def test_a_result_whose_commit_fails_at_the_last_is_not_there_after_a_crash(
    inbox: Inbox, segments: Segments, ledger: Ledger, tmp_path: Path
) -> None:
    """The ledger's log holds all of it then: what it is comes from a copy where it does not fail."""
    put(inbox, segments, "1.5.1")
    made = [MadeObject("SR", "1.2", "1.5.9", b"content")]
    connection, log = ledger._connection, tmp_path / "spool.sqlite-wal"

    def copied(name: str) -> tuple[Path, Ledger, Inbox, Outbox]:
        folder = tmp_path / name
        shutil.copytree(tmp_path, folder, ignore=shutil.ignore_patterns("copy", "crashed"))
        copy, files = opened(folder)
        box = Inbox(copy, files, 0, 900)
        return folder, copy, box, Outbox(copy, files, box, 300)

    begun = inbox.begin(SERIES)
    folder, copy, _, outbox = copied("copy")
    outbox.post(begun, "model", begun.instances, made)
    written = (folder / log.name).read_bytes()
    copy.close()

    class Failing:
        in_transaction = False

        def execute(self, statement: str, *values: Any) -> Any:
            if statement != "COMMIT":
                return connection.execute(statement, *values)
            connection.execute("ROLLBACK")
            size = log.stat().st_size
            assert written[:size] == log.read_bytes()
            with log.open("r+b") as file:
                file.seek(size)
                file.write(written[size:])
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error

        def __getattr__(self, name: str) -> Any:
            return getattr(connection, name)

    ledger._connection = Failing()  # type: ignore[assignment]
    with pytest.raises(SpoolFull):
        Outbox(ledger, segments, inbox, 300).post(begun, "model", begun.instances, made)
    ledger._connection = connection
    _, copy, again, outbox = copied("crashed")
    assert outbox.counts().objects == 0
    assert again.complete() == SERIES
    copy.close()
