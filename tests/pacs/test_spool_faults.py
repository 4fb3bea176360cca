"""The spool's disk fails for a while: nothing is lost or set aside, and nobody else waits."""

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from service.errors import ModelLoading, SpoolFull
from service.pacs.analysis import MAX_ATTEMPTS, Analysis
from service.pacs.inbox import Inbox
from service.pacs.ledger import Ledger
from service.pacs.segments import SUFFIX, Place, Segments, Unreadable
from service.pacs.series import Waiting
from tests.support.pacs import (
    Pacs,
    one_set_aside,
    pacs_settings,
    report,
    series,
    serve,
    settled,
    stow,
)
from tests.support.service import (
    FakeRuntimes,
    Service,
    serving,
    wait_until,
)
from tests.support.spool import failing


class FaultyDisk:
    """What SQLite and the segments are on, where some of what is asked of it fails for some time.

    Attributes:
        left: failures to come.
    """

    def __init__(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        assert service.state.gateway is not None
        self.left = 0
        self._ledger = service.state.gateway._ledger
        self._patch = monkeypatch

    def fail(self, error: Exception) -> None:
        """Unless it has failed often enough."""
        if self.left:
            self.left -= 1
            raise error

    def statements(self, *beginnings: str, code: int = sqlite3.SQLITE_IOERR) -> None:
        """Those of the ledger fail that begin so."""
        connection, fail = self._ledger._connection, self.fail
        error = sqlite3.DatabaseError("it fails")
        error.sqlite_errorcode = code

        class Faulty:
            def __getattr__(self, name: str) -> Any:
                return getattr(connection, name)

            def execute(self, statement: str, *values: Any) -> Any:
                if statement.startswith(beginnings):
                    fail(error)
                return connection.execute(statement, *values)

        self._ledger._connection = Faulty()  # type: ignore[assignment]

    def reads(self, number: int) -> None:
        """What is opened fails, such as where this process has too many files open."""
        path_open = Path.open

        def faulty(path: Path, *arguments: Any, **options: Any) -> Any:
            if path.suffix == SUFFIX:
                self.fail(OSError(number, os.strerror(number)))
            return path_open(path, *arguments, **options)

        self._patch.setattr(Path, "open", faulty)

    def room(self) -> None:
        """Nobody can say how much is free."""
        disk_usage = shutil.disk_usage

        def faulty(path: Path) -> Any:
            self.fail(OSError(errno.EIO, os.strerror(errno.EIO)))
            return disk_usage(path)

        self._patch.setattr(shutil, "disk_usage", faulty)


def spool(service: Service) -> object:
    """What /health says of it now."""
    return service.client.get("/health").json()["pacs"]["spool"]


@pytest.mark.parametrize(
    "begin",
    [
        lambda disk: disk.statements("SELECT sops"),
        # What SQLite makes of EIO where it reads.
        lambda disk: disk.statements("SELECT sops", code=sqlite3.SQLITE_CORRUPT),
        lambda disk: disk.statements("SELECT sops", "UPDATE series SET attempts = ? "),
        lambda disk: disk.statements("SELECT sops", "UPDATE series SET due"),
        lambda disk: disk.statements("UPDATE series SET attempts = attempts + 1"),
        FaultyDisk.room,
        lambda disk: disk.reads(errno.EMFILE),
        lambda disk: disk.reads(errno.EIO),
    ],
    ids=[
        *("look-up", "look-up-EIO", "giving-back", "postponing", "beginning", "room"),
        *("reading", "reading-EIO"),
    ],
)
def test_a_disk_that_fails_for_a_while_sets_no_series_aside(
    model_store: Path,
    tmp_path: Path,
    destination: Pacs,
    monkeypatch: pytest.MonkeyPatch,
    begin: Callable[[FaultyDisk], None],
) -> None:
    monkeypatch.setattr("service.pacs.analysis.FIRST_RETRY_SECONDS", 0.01)
    with serve(model_store, tmp_path, destination) as service:
        disk = FaultyDisk(service, monkeypatch)
        begin(disk)
        disk.left = 2 * (MAX_ATTEMPTS + 1)
        stow(service.client, [item.data for item in series(2)])
        wait_until(lambda: settled(service))
        assert disk.left == 0
        assert report(service)["series_dead"] == 0
        assert service.metric("brain_series_total", outcome="postponed") == 0
    assert len(destination.of_kind("SR")) == 1


def test_a_folder_that_is_gone_for_a_while_loses_no_series_and_no_result(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a file system that is not mounted, and then another one in its place."""
    monkeypatch.setattr("service.pacs.analysis.FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr("service.pacs.waits.JITTER", 0)
    folder, away = tmp_path / "spool" / "segments", tmp_path / "away"
    destination.status = 503
    with serve(model_store, tmp_path, destination, series_quiet_ms=1000) as service:
        stow(service.client, [item.data for item in series(1)])
        wait_until(lambda: destination.requests)
        stow(service.client, [item.data for item in series(1)])
        folder.rename(away)
        destination.status = 200
        sleep(1.5)
        folder.mkdir()
        assert spool(service) == "unreachable"
        assert stow(service.client, [series(1)[0].data]).status_code == 503
        sleep(1)
        # Nothing lies there.
        folder.rmdir()
        away.rename(folder)
        wait_until(lambda: settled(service))
        now = report(service)
        assert (now["series_dead"], now["objects_dead"]) == (0, 0)
    assert len(destination.of_kind("SR")) == 2


def test_a_disk_that_is_mounted_over_the_spool_is_reported_and_loses_nothing(
    model_store: Path, tmp_path: Path, destination: Pacs, caplog: pytest.LogCaptureFixture
) -> None:
    folder, below = tmp_path / "spool", tmp_path / "below"
    with serve(model_store, tmp_path, destination) as service:
        folder.rename(below)
        # It was in use there the day before.
        Ledger(folder).close()
        (folder / "segments").mkdir()
        assert stow(service.client, [series(1)[0].data]).status_code == 503
        assert spool(service) == "unreachable"
        assert not [*(folder / "segments").iterdir()]
    assert "another disk lies over the spool" in caplog.text
    assert "could not be ended" not in caplog.text


def test_a_series_whose_file_alone_is_gone_is_set_aside(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.pacs.analysis.FIRST_RETRY_SECONDS", 0.01)
    with serve(model_store, tmp_path, destination, series_quiet_ms=1000) as service:
        stow(service.client, [item.data for item in series(1)])
        for path in (tmp_path / "spool" / "segments").iterdir():
            path.unlink()
        aside = one_set_aside(service)
    assert aside["reason"] == "internal_error"


def test_a_series_that_a_broken_ledger_fails_does_not_seem_to_have_ended_the_process(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.pacs.analysis.FIRST_RETRY_SECONDS", 0.01)
    with serve(model_store, tmp_path, destination) as service:
        disk = FaultyDisk(service, monkeypatch)
        disk.statements("SELECT sops", code=sqlite3.SQLITE_ERROR)
        disk.left = 10**6
        stow(service.client, [series(1)[0].data])
        aside = one_set_aside(service)
    assert aside["reason"] == "internal_error"


def test_an_inbox_that_fails_is_asked_less_and_less(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[None] = []

    def fail(_: Inbox) -> None:
        asked.append(None)
        raise SpoolFull("the spool cannot be read")

    monkeypatch.setattr(Inbox, "complete", fail)
    with serve(model_store, tmp_path, destination):
        wait_until(lambda: asked)
        sleep(1.5)
    assert 3 <= len(asked) < 12


@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOTADB], ids=["disk", "contents"]
)
def test_health_and_metrics_are_answered_while_the_spool_cannot_be_read(
    model_store: Path,
    tmp_path: Path,
    destination: Pacs,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
) -> None:
    destination.status = 503
    with serve(model_store, tmp_path, destination) as service:
        stow(service.client, [series(1)[0].data])
        wait_until(lambda: destination.requests)
        wait_until(lambda: report(service)["oldest_seconds"] > 0)
        before = report(service)
        disk = FaultyDisk(service, monkeypatch)
        disk.statements("SELECT count(*)", code=code)
        disk.left = 10**6
        for path in ("/health", "/health/ready"):
            health = service.client.get(path)
            assert (health.status_code, health.json()["status"]) == (200, "ready")
            now = health.json()["pacs"]
            assert now["spool"] == "unreachable"
            assert now["oldest_seconds"] >= before["oldest_seconds"] > 0
            for name in ("objects_waiting", "objects_dead", "series_waiting", "spool_bytes"):
                assert now[name] == before[name]
        scrape = service.client.get("/metrics")
        assert scrape.status_code == 200
        assert f"brain_outbox_objects {before['objects_waiting']}.0" in scrape.text
        assert "brain_spool_unreachable 1.0" in scrape.text
        disk.left = 0
        assert report(service)["spool"] == "ok"
        assert service.metric("brain_spool_unreachable") == 0
        destination.status = 200
        wait_until(lambda: settled(service))
    assert caplog.text.count("the spool does not say what there is") == 1


def test_a_ledger_with_a_damaged_page_keeps_nobody_from_predicting(
    model_store: Path, tmp_path: Path, destination: Pacs, jpeg: bytes
) -> None:
    settings = pacs_settings(model_store, tmp_path, destination.url)
    ledger = Ledger(settings.spool)
    with ledger.reading() as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'series'"
        ).fetchone()
    ledger.close()
    with (settings.spool / "spool.sqlite").open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    with serving(settings, FakeRuntimes()) as service:
        assert service.predict(jpeg).status_code == 200
        assert service.client.get("/health").json()["pacs"]["spool"] == "unreachable"
        assert service.client.get("/metrics").status_code == 200
        assert stow(service.client, [series(1)[0].data]).status_code == 503


@contextmanager
def bad_sectors(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Names of files that cannot be read, while all others can."""
    bad: set[str] = set()
    path_open = Path.open

    def faulty(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name in bad:
            failing(errno.EIO)()
        return path_open(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", faulty)
        yield bad


def test_a_series_on_a_bad_sector_is_set_aside(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.pacs.analysis.FIRST_RETRY_SECONDS", 0.01)
    settings = pacs_settings(model_store, tmp_path, destination.url, series_quiet_ms=1000)
    with bad_sectors(monkeypatch) as bad, serving(settings, FakeRuntimes()) as service:
        folder = settings.spool / "segments"
        first, second = series(2)
        stow(service.client, [first.data])
        bad.update(path.name for path in folder.iterdir())
        stow(service.client, [second.data])
        stow(service.client, [series(1)[0].data])
        wait_until(lambda: report(service)["series_dead"] == 1)
        wait_until(lambda: settled(service))
        (aside,) = service.client.get("/deliveries").json()["set_aside"]
        assert (aside["reason"], aside["instances"]) == ("unreadable", 2)
        wait_until(
            lambda: service.metric("brain_series_total", outcome="postponed") == MAX_ATTEMPTS
        )
        assert len(destination.of_kind("SR")) == 1
        bad.clear()
        service.client.post("/deliveries/retry")
        wait_until(lambda: len(destination.of_kind("SR")) == 2)


def test_a_result_on_a_bad_sector_is_parked_and_holds_up_no_other(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination.status = 503
    settings = pacs_settings(model_store, tmp_path, destination.url, series_keep_seconds=0)
    with bad_sectors(monkeypatch) as bad, serving(settings, FakeRuntimes()) as service:
        stow(service.client, [series(1)[0].data])
        wait_until(lambda: destination.requests)
        bad.update(path.name for path in (settings.spool / "segments").iterdir())
        stow(service.client, [series(1)[0].data])
        destination.status = 200
        wait_until(lambda: destination.of_kind("SR") and settled(service))
        refused = service.client.get("/deliveries").json()["refused"]
        assert {item["reason"] for item in refused} == {"unreadable"}
        assert len(refused) == report(service)["objects_dead"] == 2
        assert service.metric("brain_outbox_failed_total", kind="SR") == 1
        bad.clear()
        service.client.post("/deliveries/retry")
        wait_until(lambda: settled(service))
    assert len(destination.of_kind("SR")) == len(destination.of_kind("OT")) == 2


def test_of_a_result_on_a_bad_sector_the_objects_beside_it_are_delivered(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Segments.read

    def faulty(segments: Segments, place: Place) -> bytes:
        if place.offset:
            raise Unreadable(errno.EIO, os.strerror(errno.EIO))
        return read(segments, place)

    with serve(model_store, tmp_path, destination) as service:
        monkeypatch.setattr(Segments, "read", faulty)
        stow(service.client, [series(1)[0].data])
        wait_until(lambda: destination.requests and settled(service))
        assert report(service)["objects_dead"] == 1
    assert len(destination.stored) == 1


def test_a_series_that_waited_for_the_spool_is_set_aside_for_what_failed_it(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.pacs.analysis.FIRST_RETRY_SECONDS", 0.01)
    park, failures = Inbox.park, [None]

    def park_later(inbox: Inbox, waiting: Waiting, reason: str) -> None:
        if failures:
            failures.pop()
            raise SpoolFull("the spool cannot be written to; try again")
        park(inbox, waiting, reason)

    async def fail(*_: object) -> None:
        raise ModelLoading("it loads")

    monkeypatch.setattr(Inbox, "park", park_later)
    monkeypatch.setattr(Analysis, "_analyse", fail)
    with serve(model_store, tmp_path, destination) as service:
        stow(service.client, [series(1)[0].data])
        aside = one_set_aside(service)
    assert not failures
    assert aside["reason"] == ModelLoading.code


def test_of_many_series_without_room_the_first_one_says_so(
    model_store: Path,
    tmp_path: Path,
    destination: Pacs,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("service.pacs.analysis.FIRST_RETRY_SECONDS", 0.01)
    with serve(model_store, tmp_path, destination) as service:
        disk = FaultyDisk(service, monkeypatch)
        disk.reads(errno.EMFILE)
        disk.left = 20
        stow(service.client, [item.data for _ in range(4) for item in series(1)])
        wait_until(lambda: settled(service))
    warnings = [
        entry for entry in caplog.records if entry.message == "a series waits for the spool"
    ]
    assert [entry.__dict__["fields"]["cause"] for entry in warnings] == ["OSError EMFILE"]


def test_of_many_results_that_cannot_be_read_the_first_one_says_so(
    model_store: Path,
    tmp_path: Path,
    destination: Pacs,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    destination.status = 503
    with serve(model_store, tmp_path, destination) as service:
        stow(service.client, [item.data for _ in range(4) for item in series(1)])
        wait_until(lambda: settled(service) or report(service)["series_waiting"] == 0)
        destination.status = 200
        disk = FaultyDisk(service, monkeypatch)
        disk.reads(errno.EMFILE)
        disk.left = 8
        service.client.post("/deliveries/retry")
        wait_until(lambda: disk.left == 0)
        service.client.post("/deliveries/retry")
        wait_until(lambda: settled(service))
    assert caplog.text.count("a result cannot be read from the spool") == 1
    assert len(destination.of_kind("SR")) == 4


def sent(destination: Pacs) -> set[str]:
    """SOP instance UIDs of what was sent, whatever became of it."""
    return {sop for _, sops in destination.requests for sop in sops}


@pytest.mark.parametrize("refused", [False, True], ids=["delivered", "refused"])
def test_on_a_disk_that_takes_nothing_each_result_is_settled_once(
    model_store: Path,
    tmp_path: Path,
    destination: Pacs,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    refused: bool,
) -> None:
    destination.status = 503
    log = tmp_path / "audit.log"
    with serve(model_store, tmp_path, destination, audit_log=log) as service:
        stow(service.client, [item.data for _ in range(3) for item in series(1)])
        wait_until(lambda: report(service)["series_waiting"] == 0)
        objects = report(service)["objects_waiting"]
        wait_until(lambda: len(sent(destination)) == objects)
        if refused:
            destination.reasons = dict.fromkeys(sent(destination), 0x0122)
        disk = FaultyDisk(service, monkeypatch)
        disk.statements("BEGIN IMMEDIATE", code=sqlite3.SQLITE_FULL)
        disk.left = 10**6
        destination.requests.clear()
        destination.status = 200
        wait_until(lambda: len(sent(destination)) == objects)
        # Longer than any wait before the next attempt.
        sleep(1)
        assert sum(len(sops) for _, sops in destination.requests) == objects
        health = service.client.get("/health").json()["pacs"]
        assert (health["destination"], health["spool"]) == ("ok", "unreachable")
        assert (health["objects_waiting"], health["oldest_seconds"]) == (0, 0)
        assert "brain_spool_unreachable 1.0" in service.client.get("/metrics").text
        disk.left = 0
        wait_until(lambda: report(service)["spool"] == "ok")
        assert report(service)["objects_dead"] == objects * refused
    found = log.read_text()
    assert found.count('"result":"delivered"') == objects * (not refused)
    assert found.count('"result":"refused_0122"') == objects * refused
    assert caplog.text.count("delivery outcomes cannot be written to the spool") == 1


def test_a_disk_that_takes_nothing_is_reported_while_no_result_is_on_its_way(
    model_store: Path,
    tmp_path: Path,
    destination: Pacs,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serve(model_store, tmp_path, destination, series_quiet_ms=1000) as service:
        stow(service.client, [item.data for item in series(1)])
        disk = FaultyDisk(service, monkeypatch)
        disk.statements("BEGIN IMMEDIATE", code=sqlite3.SQLITE_FULL)
        disk.left = 10**6
        wait_until(lambda: spool(service) == "unreachable")
        health = service.client.get("/health").json()["pacs"]
        assert (health["series_waiting"], health["destination"]) == (1, "ok")
        assert "brain_spool_unreachable 1.0" in service.client.get("/metrics").text
        # The next attempt says nothing new.
        left = disk.left
        wait_until(lambda: disk.left < left)
        disk.left = 0
        assert report(service)["spool"] == "ok"
        wait_until(lambda: settled(service) and destination.of_kind("SR"))
    assert caplog.text.count("the inbox waits for the spool") == 1
    assert "the inbox failed" not in caplog.text


def test_a_disk_that_takes_no_series_is_reported(
    model_store: Path,
    tmp_path: Path,
    destination: Pacs,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "service.pacs")
    with serve(model_store, tmp_path, destination) as service:
        assert report(service)["spool"] == "ok"
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing(errno.ENOSPC))
            assert stow(service.client, [series(1)[0].data]).status_code == 503
            assert spool(service) == spool(service) == "unreachable"
        assert report(service)["spool"] == "ok"
    messages = [record.message for record in caplog.records if "the spool" in record.message]
    assert messages == ["the spool takes nothing", "the spool takes again what is written"]
    (record,) = (record for record in caplog.records if record.message == messages[0])
    assert record.fields == {"cause": "OSError ENOSPC"}  # type: ignore[attr-defined]


def test_on_a_disk_that_takes_nothing_results_are_tried_again(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the destination is away, then it refuses requests of several objects, then it is well."""
    destination.status = 503
    with serve(model_store, tmp_path, destination) as service:
        stow(service.client, [item.data for _ in range(3) for item in series(1)])
        wait_until(lambda: report(service)["series_waiting"] == 0)
        objects = report(service)["objects_waiting"]
        disk = FaultyDisk(service, monkeypatch)
        disk.statements("BEGIN IMMEDIATE", code=sqlite3.SQLITE_READONLY)
        disk.left = 10**6
        for status in (503, 400):
            destination.status = status
            destination.requests.clear()
            wait_until(lambda: len(sent(destination)) == objects)
        destination.status = 200
        wait_until(lambda: len(destination.objects) == objects)
        disk.left = 0
        wait_until(lambda: settled(service))
        assert report(service)["objects_dead"] == 0
    assert len(destination.stored) == objects
