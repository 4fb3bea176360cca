"""The receiver by itself: what becomes of requests and parts, and of a disk that fails meanwhile."""

import errno
import io
import os
import sqlite3
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from service.errors import SpoolFull
from service.pacs.inbox import Inbox
from service.pacs.ledger import Ledger
from service.pacs.segments import Segments
from tests.support.dicom import encoded
from tests.support.pacs import form, series
from tests.support.spool import LIMITS, failing, finish, put, receive, receiver_of, sops_of


def test_a_series_is_not_complete_while_more_of_it_arrives(
    inbox: Inbox, segments: Segments
) -> None:
    first, second, third = series(3)
    put(inbox, segments, first.sop, first.series)
    content_type, body = form([second.data, third.data])
    receiver = receiver_of(inbox, segments, content_type)
    receiver.feed(body[: 3 * len(body) // 4])
    assert inbox.complete() is None
    # The request breaks off: nobody waits for the rest of it.
    receiver.abandon()
    assert inbox.complete() == first.series
    assert sops_of(inbox.begin(first.series)) == [first.sop]


def test_a_refused_instance_leaves_none_of_its_bytes(inbox: Inbox, segments: Segments) -> None:
    (item,) = series(1)
    content_type, body = form([b"no DICOM" * 100, item.data])
    receiver = receiver_of(inbox, segments, content_type)
    receiver.feed(body)
    receipt = finish(receiver)
    assert [one.sop for one in receipt.stored] == [item.sop]
    assert segments.used == len(item.data)
    (place,) = inbox.begin(item.series).instances.values()
    assert segments.read(place) == item.data


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
    (identity,) = receive(inbox, segments, data).stored
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
    receiver = receiver_of(inbox, segments, limits=limits)
    receiver.feed(junk)
    (refused,) = finish(receiver).refused
    assert (refused.sop, refused.file) == (None, sha256(junk).hexdigest())


def test_an_image_that_comes_through_another_archive_is_the_same(
    inbox: Inbox, segments: Segments
) -> None:
    """It has other file meta information there, which says nothing of the image."""
    (item,) = series(1)
    dataset = dcmread(io.BytesIO(item.data))
    dataset.file_meta.SourceApplicationEntityTitle = "GATEWAY2"
    for data in (item.data, encoded(dataset)):
        receiver = receiver_of(inbox, segments)
        # The pieces end where they happen to.
        for at in range(0, len(data), 1000):
            receiver.feed(data[at : at + 1000])
        finish(receiver)
    waiting = inbox.begin(item.series)
    assert sops_of(waiting) == [item.sop]
    (place,) = waiting.instances.values()
    assert segments.read(place) == data != item.data


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
        receipt = receive(inbox, segments, item.data)
        assert [one.sop for one in receipt.stored] == [item.sop]
    assert "could not be removed" in caplog.text
    (place,) = inbox.begin(item.series).instances.values()
    assert segments.read(place) == item.data


class Closing:
    """A file whose quota is found to be exceeded as it is closed, as on NFS."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        self._file.close()
        failing(errno.EDQUOT)()


@pytest.mark.parametrize("fault", ["close", "unlink"])
def test_a_request_that_breaks_off_on_a_bad_disk_holds_up_its_series_no_longer(
    inbox: Inbox, segments: Segments, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    first, second = series(2)
    receive(inbox, segments, first.data)
    content_type, body = form([second.data] * 2)
    receiver = receiver_of(inbox, segments, content_type)
    receiver.feed(body[: 3 * len(body) // 4])
    assert inbox.complete() is None
    if fault == "close":
        receiver._segment._file = Closing(receiver._segment._file)  # type: ignore[assignment]
    else:
        monkeypatch.setattr(Path, "unlink", failing(errno.EIO))
    receiver.abandon()
    assert inbox.complete() == first.series
    assert segments.used == len(first.data)
    assert len(list(segments.folder.iterdir())) == (1 if fault == "close" else 2)


def test_a_request_whose_file_cannot_be_closed_leaves_nothing(
    inbox: Inbox, segments: Segments
) -> None:
    (one,) = series(1)
    receiver = receiver_of(inbox, segments)
    receiver.feed(one.data)
    receiver._segment._file = Closing(receiver._segment._file)  # type: ignore[assignment]
    with pytest.raises(SpoolFull):
        finish(receiver)
    receiver.abandon()
    assert segments.used == 0
    assert list(segments.folder.iterdir()) == []
    assert inbox._arriving == {}


@pytest.mark.parametrize("call", ["pread", "truncate"])
def test_a_disk_that_fails_within_a_part_is_said_to_be_the_spool(
    inbox: Inbox, segments: Segments, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    receiver = receiver_of(inbox, segments)
    if call == "pread":
        receiver.feed(series(1)[0].data)
        monkeypatch.setattr(os, "pread", failing(errno.EIO))
    else:
        receiver.feed(b"no DICOM file")
        file = receiver._segment._file

        class Faulty:
            truncate = staticmethod(failing(errno.EIO))

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

        receiver._segment._file = Faulty()  # type: ignore[assignment]
    with pytest.raises(SpoolFull):
        finish(receiver)
    receiver.abandon()
    assert segments.used == 0
