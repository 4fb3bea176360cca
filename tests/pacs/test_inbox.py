"""The inbox by itself: what arrives at an awkward moment, and disks that take nothing."""

import io
import os
import resource
import signal
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from time import time

import pytest
from pydicom import dcmread

from service.dicom.results import MadeObject
from service.errors import SpoolFull
from service.pacs.identity import Identity
from service.pacs.inbox import Inbox
from service.pacs.ledger import Ledger
from service.pacs.outbox import Outbox
from service.pacs.receiver import Receiver
from service.pacs.segments import Place, Segments
from service.pacs.series import Instance, Received, Waiting
from service.pacs.waits import SERIES_MAX_SECONDS, longest
from service.settings import SettingsError
from tests.support.pacs import LIMITS, form, series, written

SERIES = "1.5"


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may become larger, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def put(
    inbox: Inbox, segments: Segments, sop: str, uid: str = SERIES, content: bytes = b"x" * 10
) -> None:
    segment = segments.create()
    segment.write(content)
    identity = Identity("1.2", sop, uid, "1.9")
    received = Received(identity, sha256(content).digest(), 0, len(content))
    inbox.accept(segment, [received], "pacs-1", "visit-1")


def sops_of(waiting: Waiting) -> list[str]:
    return [instance.sop for instance in waiting.instances]


def test_a_series_with_a_late_slice_is_not_parked(inbox: Inbox, segments: Segments) -> None:
    put(inbox, segments, "1.5.1")
    begun = inbox.begin(SERIES)
    put(inbox, segments, "1.5.2")
    inbox.park(begun, "unidentified_source")
    assert inbox.complete() == SERIES
    whole = inbox.begin(SERIES)
    assert sops_of(whole) == ["1.5.1", "1.5.2"]
    inbox.park(whole, "unidentified_source")
    assert inbox.complete() is None
    counts = inbox.counts()
    assert (counts.series, counts.instances, counts.bytes, counts.dead) == (0, 0, 0, 1)


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
    def fail(*_arguments: object) -> int:
        raise OSError(28, "no space left")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(SpoolFull):
        segments.create()


def test_a_series_is_not_complete_while_more_of_it_arrives(
    inbox: Inbox, segments: Segments
) -> None:
    first, second, third = series(3)
    put(inbox, segments, first.sop, first.series)
    content_type, body = form([second.data, third.data])
    receiver = Receiver(content_type, None, LIMITS, inbox, segments)
    receiver.feed(body[: 3 * len(body) // 4])
    assert inbox.complete() is None
    # The request breaks off: nobody waits for the rest of it.
    receiver.abandon()
    assert inbox.complete() == first.series
    assert sops_of(inbox.begin(first.series)) == [first.sop]


def test_a_refused_instance_leaves_none_of_its_bytes(inbox: Inbox, segments: Segments) -> None:
    (item,) = series(1)
    content_type, body = form([b"no DICOM" * 100, item.data])
    receiver = Receiver(content_type, None, LIMITS, inbox, segments)
    receiver.feed(body)
    receipt = receiver.finish("pacs-1", "visit-1")
    assert [one.sop for one in receipt.stored] == [item.sop]
    assert segments.used == len(item.data)
    (place,) = inbox.begin(item.series).instances.values()
    assert segments.read(place) == item.data


def test_a_slice_that_comes_as_its_series_expires_is_kept(inbox: Inbox, segments: Segments) -> None:
    put(inbox, segments, "1.5.1")
    inbox.keep(inbox.begin(SERIES))
    put(inbox, segments, "1.5.2")
    # It was found to be due before the slice came.
    assert not inbox._drop(SERIES, "kept")
    assert sops_of(inbox.begin(SERIES)) == ["1.5.1", "1.5.2"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the inbox takes for the time, in seconds."""
    now = [1000.0]
    for module in ("inbox", "waits"):
        monkeypatch.setattr(f"service.pacs.{module}.monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("ahead_seconds", [3600, 365 * 86_400], ids=["hour", "year"])
def test_what_was_put_off_while_the_clock_was_ahead_is_due(
    ledger: Ledger, segments: Segments, monkeypatch: pytest.MonkeyPatch, ahead_seconds: int
) -> None:
    inbox = Inbox(ledger, segments, quiet_seconds=0, keep_seconds=900)
    outbox = Outbox(ledger, segments, inbox, 300)
    with monkeypatch.context() as then:
        for module in ("inbox", "outbox"):
            then.setattr(f"service.pacs.{module}.time", lambda: time() + ahead_seconds)
        put(inbox, segments, "1.5.1")
        inbox.postpone(inbox.begin(SERIES), 60, "inference_failed")
        put(inbox, segments, "1.6.1", "1.6")
        begun = inbox.begin("1.6")
        outbox.post(begun, "model", begun.instances, [MadeObject("SR", "1.2", "a", b"content")])
        outbox.postpone(dict.fromkeys(outbox.next(), "http_503"), 300)
    assert inbox.complete() == SERIES
    assert outbox.wait_seconds() == 0
    (parcel,) = outbox.next()
    assert parcel.sop == "a"
    assert len(list(segments.folder.iterdir())) == 3
    inbox.expire()
    assert len(list(segments.folder.iterdir())) == 2


def test_what_came_while_the_clock_was_ahead_grows_older(
    ledger: Ledger, segments: Segments, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = Inbox(ledger, segments, quiet_seconds=0, keep_seconds=900)
    outbox = Outbox(ledger, segments, inbox, 300)
    with monkeypatch.context() as then:
        for module in ("inbox", "outbox"):
            then.setattr(f"service.pacs.{module}.time", lambda: time() + 86_400)
        put(inbox, segments, "1.6.1", "1.6")
        begun = inbox.begin("1.6")
        outbox.post(begun, "model", begun.instances, [MadeObject("SR", "1.2", "a", b"content")])
        put(inbox, segments, "1.5.1")
    assert inbox.counts().oldest_seconds == outbox.counts().oldest_seconds == 0
    clock[0] += 1000
    assert inbox.counts().oldest_seconds == outbox.counts().oldest_seconds == 1000


def test_a_wait_is_kept_to_and_an_administrator_need_not_wait(
    inbox: Inbox, segments: Segments
) -> None:
    put(inbox, segments, "1.5.1")
    inbox.postpone(inbox.begin(SERIES), longest(SERIES_MAX_SECONDS), "inference_failed")
    assert inbox.complete() is None
    assert inbox.retry() == 0
    assert inbox.complete() == SERIES


def test_of_a_large_instance_only_the_beginning_is_read(
    inbox: Inbox, segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    (item,) = series(1)
    data = item.data + bytes(20)
    monkeypatch.setattr("service.pacs.receiver.HEAD_BYTES", len(item.data) - 100)
    read: list[int] = []
    pread = os.pread

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        read.append(size)
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    receiver = Receiver("application/dicom", None, LIMITS, inbox, segments)
    receiver.feed(data)
    (identity,) = receiver.finish("pacs-1", "visit-1").stored
    assert read == [len(item.data) - 100]
    (place,) = inbox.begin(identity.series).instances.values()
    assert segments.read(place) == data


@pytest.mark.parametrize("size", [1, 1000, 5 * 2**20])
def test_a_part_that_has_no_uid_is_named_by_its_content(
    inbox: Inbox, segments: Segments, size: int
) -> None:
    limits = replace(LIMITS, body_bytes=10**8, instance_bytes=10**8)
    segments = Segments(segments.folder, 10**8)
    junk = os.urandom(size)
    receiver = Receiver("application/dicom", None, limits, inbox, segments)
    receiver.feed(junk)
    (refused,) = receiver.finish("pacs-1", "visit-1").refused
    assert (refused.sop, refused.file) == (None, sha256(junk).hexdigest())


def test_a_series_that_comes_again_as_it_expires_is_not_complete(
    ledger: Ledger, segments: Segments, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = Inbox(ledger, segments, quiet_seconds=5, keep_seconds=0)
    put(inbox, segments, "1.5.1")
    inbox.keep(inbox.begin(SERIES))
    drop = inbox._drop

    def meet(uid: str, state: str) -> bool:
        inbox.announce(SERIES)
        put(inbox, segments, "1.5.2")
        inbox.dismiss([SERIES])
        return drop(uid, state)

    monkeypatch.setattr(inbox, "_drop", meet)
    clock[0] += 60
    inbox.expire()
    assert inbox.complete() is None
    clock[0] += 6
    inbox.expire()
    assert inbox.complete() == SERIES


def test_uploads_that_broke_off_leave_nothing(
    ledger: Ledger, segments: Segments, clock: list[float]
) -> None:
    inbox = Inbox(ledger, segments, quiet_seconds=5, keep_seconds=0)
    for uid in ("1.5", "1.6"):
        inbox.announce(uid)
        inbox.dismiss([uid])
    clock[0] += 6
    inbox.expire()
    assert inbox._last_arrival == {}


def test_attempts_count_anew_with_a_new_slice_and_when_asked_for(
    inbox: Inbox, segments: Segments
) -> None:
    put(inbox, segments, "1.5.1")
    assert [inbox.begin(SERIES).attempts for _ in range(3)] == [0, 1, 2]
    put(inbox, segments, "1.5.2")
    begun = inbox.begin(SERIES)
    assert begun.attempts == 0
    inbox.park(begun, "unidentified_source")
    assert inbox.retry() == 1
    assert inbox.begin(SERIES).attempts == 0


def test_what_became_of_a_series_is_not_that_of_the_one_with_a_new_slice(
    inbox: Inbox, segments: Segments
) -> None:
    put(inbox, segments, "1.5.1")
    begun = [inbox.begin(SERIES) for _ in range(3)][-1]
    put(inbox, segments, "1.5.2")
    inbox.give_back(begun)
    inbox.postpone(begun, 60, "overloaded")
    assert inbox.complete() == SERIES
    again = inbox.begin(SERIES)
    assert (again.attempts, again.reason) == (0, None)
    inbox.give_back(again)
    inbox.postpone(again, 60, "overloaded")
    assert inbox.complete() is None
    given_back = inbox.begin(SERIES)
    assert (given_back.attempts, given_back.reason) == (0, "overloaded")


def test_the_series_that_waits_longest_comes_first(inbox: Inbox, segments: Segments) -> None:
    for uid in ("1.6", "1.5", "1.7"):
        put(inbox, segments, f"{uid}.1", uid)
    found = []
    while (next_uid := inbox.complete()) is not None:
        found.append(next_uid)
        inbox.keep(inbox.begin(next_uid))
    assert found == ["1.6", "1.5", "1.7"]


def test_what_was_analysed_makes_room_before_what_could_not_be(
    inbox: Inbox, segments: Segments
) -> None:
    for uid in ("1.5", "1.6", "1.7"):
        put(inbox, segments, f"{uid}.1", uid)
    inbox.park(inbox.begin("1.5"), "unidentified_source")
    inbox.keep(inbox.begin("1.6"))
    inbox.spare(10)
    assert segments.used == 20
    assert [item.uid for item in inbox.dead(9)] == ["1.5"]
    inbox.spare(20)
    # What waits is never spared.
    assert inbox.dead(9) == []
    assert inbox.complete() == "1.7"
    assert segments.used == 10


def test_an_instance_that_comes_again_takes_no_more_room(inbox: Inbox, segments: Segments) -> None:
    put(inbox, segments, "1.5.1")
    put(inbox, segments, "1.5.1")
    assert segments.used == 10
    assert len(list(segments.folder.iterdir())) == 1


def test_another_file_under_the_uid_of_one_that_waits_stays_beside_it(
    inbox: Inbox, segments: Segments
) -> None:
    """They may be different images of an anonymiser, and the last one must not hide the others."""
    for content in (b"tumour", b"healthy", b"tumour"):
        put(inbox, segments, "1.5.1", content=content)
    waiting = inbox.begin(SERIES)
    assert sops_of(waiting) == ["1.5.1", "1.5.1"]
    found = [segments.read(place) for place in waiting.instances.values()]
    assert sorted(found) == [b"healthy", b"tumour"]
    assert segments.used == len(b"tumour") + len(b"healthy")


def test_another_file_under_the_uid_of_one_that_was_analysed_takes_its_place(
    inbox: Inbox, segments: Segments, ledger: Ledger
) -> None:
    for sop in ("1.5.1", "1.5.2"):
        put(inbox, segments, sop)
    begun = inbox.begin(SERIES)
    with ledger.transaction() as connection:
        inbox.settle(connection, begun, "model", begun.instances)
    # A corrected series comes in several requests, of which the first one lets it wait again.
    for sop in ("1.5.1", "1.5.2"):
        put(inbox, segments, sop, content=b"corrected")
    again = inbox.begin(SERIES)
    assert sops_of(again) == ["1.5.1", "1.5.2"]
    assert {segments.read(place) for place in again.instances.values()} == {b"corrected"}
    assert not inbox.is_known(again, "model")
    put(inbox, segments, "1.5.1", content=b"and again")
    assert sops_of(inbox.begin(SERIES)) == ["1.5.1", "1.5.2", "1.5.1"]


def test_what_is_sent_after_a_series_was_set_aside_takes_its_place(
    inbox: Inbox, segments: Segments
) -> None:
    """Else it could never be mended. Two images of one UID set it aside again."""
    for content in (b"one", b"another"):
        put(inbox, segments, "1.5.1", content=content)
    put(inbox, segments, "1.5.2")
    inbox.park(inbox.begin(SERIES), "unidentified_source")
    assert inbox.retry() == 1
    assert sops_of(inbox.begin(SERIES)) == ["1.5.1", "1.5.1", "1.5.2"]
    put(inbox, segments, "1.5.1", content=b"right")
    mended = inbox.begin(SERIES)
    assert sops_of(mended) == ["1.5.2", "1.5.1"]
    assert [segments.read(place) for place in mended.instances.values()] == [b"x" * 10, b"right"]
    assert segments.used == len(b"right") + 10
    put(inbox, segments, "1.5.1", content=b"another")
    assert sops_of(inbox.begin(SERIES)) == ["1.5.2", "1.5.1", "1.5.1"]


@pytest.mark.parametrize("ending", ["settle", "keep"])
def test_a_correction_that_comes_during_the_analysis_takes_the_place_of_what_it_corrects(
    inbox: Inbox, segments: Segments, ledger: Ledger, ending: str
) -> None:
    for sop in ("1.5.1", "1.5.2"):
        put(inbox, segments, sop)
    begun = inbox.begin(SERIES)
    put(inbox, segments, "1.5.1", content=b"corrected")
    put(inbox, segments, "1.5.3")
    if ending == "settle":
        made = [MadeObject("SR", "1.2", "1.5.9", b"content")]
        Outbox(ledger, segments, inbox, 300).post(begun, "model", begun.instances, made)
        assert segments.used == 10 + len(b"corrected") + 10 + len(b"content")
    else:
        inbox.keep(begun)
        assert segments.used == 10 + len(b"corrected") + 10
    assert inbox.complete() == SERIES
    again = inbox.begin(SERIES)
    assert sops_of(again) == ["1.5.2", "1.5.1", "1.5.3"]
    found = [segments.read(place) for place in again.instances.values()]
    assert found == [b"x" * 10, b"corrected", b"x" * 10]
    # What came meanwhile was not analysed, and another image of its UID stays beside it.
    for sop in ("1.5.2", "1.5.3"):
        put(inbox, segments, sop, content=b"another")
    assert sops_of(inbox.begin(SERIES)) == ["1.5.1", "1.5.3", "1.5.2", "1.5.3"]


def test_an_image_that_comes_through_another_archive_is_the_same(
    inbox: Inbox, segments: Segments
) -> None:
    """It has other file meta information there, which says nothing of the image."""
    (item,) = series(1)
    dataset = dcmread(io.BytesIO(item.data))
    dataset.file_meta.SourceApplicationEntityTitle = "GATEWAY2"
    for data in (item.data, written(dataset)):
        receiver = Receiver("application/dicom", None, LIMITS, inbox, segments)
        # The pieces end where they happen to.
        for at in range(0, len(data), 1000):
            receiver.feed(data[at : at + 1000])
        receiver.finish("pacs-1", "visit-1")
    waiting = inbox.begin(item.series)
    assert sops_of(waiting) == [item.sop]
    (place,) = waiting.instances.values()
    assert segments.read(place) == data != item.data


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


def test_what_is_accepted_stays_though_what_it_replaces_cannot_be_removed(
    inbox: Inbox,
    segments: Segments,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_names: object) -> list[str]:
        raise sqlite3.OperationalError("disk I/O error")

    (item,) = series(1)
    monkeypatch.setattr(ledger, "unused", fail)
    for _ in range(2):
        receiver = Receiver("application/dicom", None, LIMITS, inbox, segments)
        receiver.feed(item.data)
        receipt = receiver.finish("pacs-1", "visit-1")
        assert [one.sop for one in receipt.stored] == [item.sop]
    assert "could not be removed" in caplog.text
    (place,) = inbox.begin(item.series).instances.values()
    assert segments.read(place) == item.data


def test_results_of_other_series_are_not_forgotten(
    inbox: Inbox, segments: Segments, ledger: Ledger
) -> None:
    for uid in ("1.5", "1.6"):
        put(inbox, segments, f"{uid}.1", uid)
    begun = [inbox.begin(uid) for uid in ("1.5", "1.6")]
    for item in begun:
        with ledger.transaction() as connection:
            inbox.settle(connection, item, "model", item.instances)
    assert all(inbox.is_known(item, "model") for item in begun)


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
