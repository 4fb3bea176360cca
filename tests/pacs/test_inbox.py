"""The inbox by itself: what arrives at an awkward moment."""

from time import time

import pytest

from service.dicom.results import MadeObject
from service.pacs.inbox import Inbox
from service.pacs.ledger import Ledger
from service.pacs.outbox import Outbox
from service.pacs.segments import Segments
from service.pacs.waits import SERIES_MAX_SECONDS, longest
from tests.support.spool import SERIES, put, sops_of


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


def test_a_series_that_was_put_off_comes_after_those_that_wait(
    inbox: Inbox, segments: Segments
) -> None:
    for uid in ("1.5", "1.6"):
        put(inbox, segments, f"{uid}.1", uid)
    assert inbox.complete() == "1.5"
    inbox.postpone(inbox.begin("1.5"), 0, "spool_full")
    assert inbox.complete() == "1.6"


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
