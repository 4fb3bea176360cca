"""The inbox by itself: what arrives at an awkward moment, and disks that take nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

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
    assert inbox.counts() == (0, 0, 1)
