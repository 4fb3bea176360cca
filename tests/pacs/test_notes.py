"""What became of results while the disk does not take it: what is kept, and for how long."""

import asyncio
import errno
import logging
from collections.abc import Coroutine, Iterator, Sequence
from math import inf
from typing import Any, cast

import pytest

from service.audit import Audit
from service.dicom.results import MadeObject
from service.errors import SpoolFull
from service.metrics import Metrics
from service.pacs import delivery, waits
from service.pacs.delivery import Delivery
from service.pacs.destination import Destination, Verdict
from service.pacs.inbox import Inbox
from service.pacs.ledger import Ledger
from service.pacs.notes import Notes
from service.pacs.outbox import Outbox, Parcel
from service.pacs.segments import Place, Segments, Unreadable
from service.pacs.threads import Threads
from tests.support.spool import put


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads(1)
    yield threads
    threads.close()


@pytest.fixture(autouse=True)
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "JITTER", 0)


class Clock:
    """Monotonic time of the notes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("service.pacs.notes.monotonic", lambda: self.now)


def fail() -> None:
    raise SpoolFull("the spool cannot be written to")


def parcel(number: int) -> Parcel:
    return Parcel(number, number, "SR", f"1.2.{number}", Place("a", 0, 1), 0, False, "visit-1")


def done(step: Coroutine[Any, Any, object]) -> None:
    asyncio.run(step)


def test_one_write_that_fails_is_no_disk_that_fails(
    threads: Threads, caplog: pytest.LogCaptureFixture
) -> None:
    """What is not tried again by itself would say so until something else is written."""
    caplog.set_level(logging.INFO)
    notes = Notes(threads, 1.0, 8.0)
    for _ in range(2):
        done(notes.write(fail, [parcel(1)], 3600.0))
        assert (notes.fails, notes.held) == (False, [1])
    done(notes.write(lambda: None))
    assert [record.message for record in caplog.records] == [
        "delivery outcomes cannot be written to the spool",
        "delivery outcomes are written to the spool again",
    ]


def test_what_must_be_written_is_tried_less_and_less_until_it_is(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    notes = Notes(threads, 1.0, 8.0)
    fails, tried = True, []

    def note() -> None:
        tried.append(clock.now)
        if fails:
            fail()

    done(notes.write(note, [parcel(1)]))
    assert (notes.fails, notes.settled) == (True, [1])
    waited = []
    for _ in range(5):
        waited.append(notes.wait_seconds)
        clock.now += notes.wait_seconds / 2
        done(notes.catch_up())
        clock.now += notes.wait_seconds
        done(notes.catch_up())
    assert waited == [1, 1, 2, 4, 8]
    assert len(tried) == 6
    fails = False
    clock.now += notes.wait_seconds
    done(notes.catch_up())
    assert (notes.fails, notes.held, notes.wait_seconds) == (False, [], inf)


def test_a_disk_that_is_mended_is_found_to_be(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the destination is left alone where it fails."""
    clock = Clock(monkeypatch)
    notes = Notes(threads, 1.0, 24 * 3600.0)
    fails = True

    def note() -> None:
        if fails:
            fail()

    done(notes.write(note, [parcel(1)]))
    for _ in range(10):
        clock.now += notes.wait_seconds
        done(notes.catch_up())
    assert notes.wait_seconds == 60
    fails = False
    # Another result, which it takes.
    done(notes.write(lambda: None))
    done(notes.catch_up())
    assert not notes.fails


def test_who_is_in_a_hurry_waits_for_nothing_that_is_put_off(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch)
    notes = Notes(threads, 1.0, 8.0)
    tried: list[None] = []

    def note() -> None:
        tried.append(None)
        fail()

    done(notes.write(fail, [parcel(1)], 3600.0))
    done(notes.write(note, [parcel(2)]))
    done(notes.catch_up())
    assert (notes.held, len(tried)) == ([1, 2], 1)
    notes.hasten()
    # What has arrived there is not sent again for that.
    assert notes.held == [2]
    done(notes.catch_up())
    assert len(tried) == 2


class Stub:
    """A destination that gives its verdicts one after the other; then it has everything."""

    def __init__(self, *verdicts: Verdict) -> None:
        self.verdicts = [*verdicts]
        self.sent: list[str] = []

    async def send(self, objects: dict[str, bytes]) -> Verdict:
        self.sent += objects
        return self.verdicts.pop(0) if self.verdicts else Verdict(delivered=[*objects])


@pytest.fixture
def outbox(ledger: Ledger, segments: Segments, inbox: Inbox) -> Outbox:
    """With two results, of one object each."""
    outbox = Outbox(ledger, segments, inbox, 3600)
    for uid in ("1.5", "1.6"):
        put(inbox, segments, f"{uid}.1", uid)
        begun = inbox.begin(uid)
        made = [MadeObject("SR", "1.2", f"{uid}.9", b"content")]
        outbox.post(begun, "model", begun.instances, made)
    return outbox


def delivery_to(
    stub: Stub,
    outbox: Outbox,
    segments: Segments,
    threads: Threads,
    first_seconds: float = 0.001,
    max_seconds: float = 60.0,
) -> Delivery:
    seconds = first_seconds, max_seconds
    destination = cast("Destination", stub)
    return Delivery(outbox, segments, threads, destination, Metrics(), Audit(), *seconds)


def test_what_is_put_off_in_memory_goes_as_soon_as_the_destination_is_back(
    outbox: Outbox, segments: Segments, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Outbox, "postpone", lambda *_: fail())
    stub = Stub(Verdict(later={"1.5.9": "http_503"}, unreachable=True, after_seconds=3600.0))
    sends = delivery_to(stub, outbox, segments, threads)
    for _ in range(3):
        done(sends._step())
    assert stub.sent == ["1.5.9", "1.6.9", "1.5.9"]
    assert outbox.counts().objects == 0


def test_only_what_cannot_be_read_so_often_in_a_row_is_parked(
    outbox: Outbox, segments: Segments, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, attempts = Segments.read, [0]
    readable = delivery.MAX_UNREADABLE - 1

    def seldom(self: Segments, place: Place) -> bytes:
        attempts[0] += 1
        if attempts[0] in {readable + 1, 2 * readable + 2}:
            return read(self, place)
        raise Unreadable(5, "a segment cannot be read")

    outbox.remove(outbox.next())
    monkeypatch.setattr(Segments, "read", seldom)
    stub = Stub(Verdict(later={"1.6.9": "refused_a700"}))
    sends = delivery_to(stub, outbox, segments, threads)

    async def deliver() -> None:
        while len(stub.sent) < 2 and not outbox.counts().dead:
            outbox.make_due()
            await sends._step()

    done(deliver())
    assert stub.sent == ["1.6.9", "1.6.9"]
    assert outbox.counts().dead == 0


def test_a_ledger_that_cannot_be_read_is_asked_less_and_less_until_it_can(
    outbox: Outbox,
    segments: Segments,
    threads: Threads,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However long the destination is left alone where it fails."""
    look, fails = Outbox.next, [*[True] * 8, False, True]
    waited = []

    def seldom(self: Outbox, held: Sequence[int] = ()) -> list[Parcel]:
        if fails and fails.pop(0):
            raise SpoolFull("the spool cannot be read; try again") from OSError(errno.EIO, "")
        return look(self, held)

    async def sleep(self: Delivery, seconds: float) -> None:
        waited.append(seconds)
        self._stopping = not fails and len(stub.sent) == 2

    monkeypatch.setattr(Outbox, "next", seldom)
    monkeypatch.setattr(Delivery, "_sleep", sleep)
    stub = Stub()
    done(delivery_to(stub, outbox, segments, threads, 1.0, 3600.0).run())
    assert stub.sent == ["1.5.9", "1.6.9"]
    assert waited[:-1] == [1, 2, 4, 8, 16, 32, 60, 60, 1]
    # Once for each time that it begins.
    assert [record.message for record in caplog.records] == ["delivery waits for the spool"] * 2
    assert caplog.records[0].fields["cause"] == "OSError EIO"  # type: ignore[attr-defined]
