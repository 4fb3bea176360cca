"""The inbox by itself: what arrives at an awkward moment, and disks that take nothing."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.errors import SpoolFull
from service.pacs.identity import Identity
from service.pacs.inbox import Inbox, Received
from service.pacs.ledger import Ledger
from service.pacs.segments import Segments

SERIES = "1.5"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path)
    yield ledger
    ledger.close()


@pytest.fixture
def segments(tmp_path: Path) -> Segments:
    return Segments(tmp_path / "segments", 10**6)


@pytest.fixture
def inbox(ledger: Ledger, segments: Segments) -> Inbox:
    return Inbox(ledger, segments, quiet_seconds=0, keep_seconds=900)


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


def put(inbox: Inbox, segments: Segments, sop: str) -> None:
    segment = segments.create()
    segment.write(b"x" * 10)
    received = Received(Identity("1.2", sop, SERIES, "1.9"), 0, 10)
    inbox.accept(segment, [received], "pacs-1", "visit-1")


def test_a_series_with_a_late_slice_is_not_parked(inbox: Inbox, segments: Segments) -> None:
    put(inbox, segments, "1.5.1")
    begun = inbox.begin(SERIES)
    put(inbox, segments, "1.5.2")
    inbox.park(begun, "unidentified_source")
    assert inbox.complete() == SERIES
    whole = inbox.begin(SERIES)
    assert list(whole.instances) == ["1.5.1", "1.5.2"]
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
    assert list(inbox.begin(SERIES).instances) == ["1.5.1"]
    put(inbox, segments, "1.5.2")
    assert list(inbox.begin(SERIES).instances) == ["1.5.1", "1.5.2"]


def test_a_segment_that_the_disk_does_not_take(
    segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> int:
        raise OSError(28, "no space left")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(SpoolFull):
        segments.create()
