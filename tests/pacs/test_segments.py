"""Room on a disk that is smaller than the spool may be, as one that something else fills too."""

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.consistency import INTAKE_SHARE
from service.errors import SpoolFull
from service.pacs.inbox import Inbox
from service.pacs.segments import FULL, Segments
from tests.support.spool import failing, largest_file, put


class SmallDisk:
    """What lies in a folder has so many bytes, and no more; nobody but who asks first is refused.

    Attributes:
        size: in bytes.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.size = 0
        self._folder = folder
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=self.free))

    @property
    def free(self) -> int:
        return self.size - sum(path.stat().st_size for path in self._folder.iterdir())


@pytest.fixture
def disk(segments: Segments, monkeypatch: pytest.MonkeyPatch) -> SmallDisk:
    return SmallDisk(segments.folder, monkeypatch)


def keep(inbox: Inbox, segments: Segments, *series: str) -> None:
    """They were analysed, and stay for late slices. Each has 10 bytes."""
    for uid in series:
        put(inbox, segments, f"{uid}.1", uid)
        inbox.keep(inbox.begin(uid))


def try_to_write(segments: Segments, size: int) -> None:
    """As a request with so many bytes, of which nothing stays if they are not taken."""
    segment = segments.create(INTAKE_SHARE)
    try:
        for _ in range(size // 10):
            segment.write(b"x" * 10)
        segment.sync()
    except SpoolFull:
        segment.discard()
        raise


def test_on_a_full_disk_what_is_only_kept_makes_room(
    inbox: Inbox, segments: Segments, disk: SmallDisk
) -> None:
    segments.make_room = inbox.spare
    disk.size = 100
    put(inbox, segments, "1.5.1", "1.5")
    inbox.park(inbox.begin("1.5"), "unidentified_source")
    put(inbox, segments, "1.6.1", "1.6")
    keep(inbox, segments, *(f"1.7.{number}" for number in range(7)))
    try_to_write(segments, 30)
    # No more than is needed for it to have three quarters of the disk.
    assert segments.used == 70
    assert [item.uid for item in inbox.dead(9)] == ["1.5"]
    # A result needs room too, and may have all of it.
    assert segments.has_room(50)
    assert segments.used == 50
    assert not segments.failure(1)
    # What waits is never spared.
    with pytest.raises(SpoolFull):
        try_to_write(segments, 60)
    assert inbox.complete() == "1.6"
    assert inbox.dead(9) == []


def test_a_disk_that_is_full_is_said_until_it_has_the_room_that_was_asked_for(
    segments: Segments, disk: SmallDisk
) -> None:
    disk.size = 100
    with pytest.raises(SpoolFull):
        try_to_write(segments, 90)
    # By then 80 bytes would have been its, and a quarter of the disk has to stay.
    for disk.size, found in ((104, FULL), (105, "")):
        assert segments.failure(1) == found
    try_to_write(segments, 40)
    assert not segments.has_room(66)
    for disk.size, found in ((105, FULL), (106, "")):
        assert segments.failure(1) == found


def test_a_disk_that_takes_what_it_had_no_room_for_is_well_though_little_is_left(
    segments: Segments, disk: SmallDisk
) -> None:
    disk.size = 100
    with pytest.raises(SpoolFull):
        try_to_write(segments, 90)
    # Of three quarters, 80 bytes.
    disk.size = 107
    try_to_write(segments, 80)
    assert not segments.failure(1)


def test_a_disk_that_does_not_take_a_file_is_said_until_it_takes_such_a_one(
    segments: Segments, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.size = 10**6
    # A network file system may say only at the end that there was no room.
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(errno.ENOSPC))
        with pytest.raises(SpoolFull):
            try_to_write(segments, 30)
    for disk.size, found in ((29, "OSError ENOSPC"), (30, "")):
        assert segments.failure(1) == found
    disk.size = 10**6
    with largest_file(25), pytest.raises(SpoolFull):
        try_to_write(segments, 90)
    for disk.size, found in ((29, "OSError EFBIG"), (200, "")):
        assert segments.failure(1) == found
    with largest_file(25), pytest.raises(SpoolFull):
        try_to_write(segments, 90)
    disk.size = 29
    try_to_write(segments, 10)
    assert segments.failure(1)
    disk.size = 40
    segment = segments.create()
    for _ in range(3):
        segment.write(b"x" * 10)
    segment.sync()
    assert not segments.failure(1)


def test_where_nobody_can_say_how_much_is_free_nothing_is_removed(
    inbox: Inbox, segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments.make_room = inbox.spare
    keep(inbox, segments, "1.5")

    def fail(_: Path) -> None:
        raise OSError

    monkeypatch.setattr(shutil, "disk_usage", fail)
    assert not segments.has_room(10)
    try_to_write(segments, 10)
    assert segments.used == 20
