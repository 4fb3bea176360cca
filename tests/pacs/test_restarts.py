"""A service that is killed or stopped: it loses nothing, and the next one goes on."""

import asyncio
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from service.__main__ import PASSING_FAULT
from service.app import create_app
from service.audit import AuditFile
from service.engine import Engine
from service.errors import RuntimeLost, SpoolFull
from service.pacs.analysis import MAX_ATTEMPTS, Analysis
from service.pacs.identity import Identity
from service.pacs.inbox import Inbox
from service.pacs.ledger import Ledger
from service.pacs.outbox import Outbox
from service.pacs.segments import Segments
from service.pacs.series import Received, Waiting
from service.pacs.threads import Threads
from service.settings import PassingFault
from service.state import State
from tests.support.pacs import (
    Pacs,
    one_set_aside,
    pacs_settings,
    report,
    reported,
    send,
    series,
    serve,
    settled,
    sops,
    stow,
)
from tests.support.service import (
    PATIENCE_SECONDS,
    ROOT,
    FakeRuntimes,
    environment_with,
    process,
    serving,
    wait_until,
)


@pytest.mark.slow(20)
def test_what_was_accepted_survives_a_kill(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    """Killed with series that wait, and again with results that wait: each arrives, and once."""
    variables = {
        "BRAIN_DICOMWEB_URL": destination.url,
        "BRAIN_SPOOL": str(tmp_path / "spool"),
        "BRAIN_DICOMWEB_RETRY_MS": "50",
        "BRAIN_DICOMWEB_RETRY_MAX_MS": "200",
        "BRAIN_LOG_LEVEL": "error",
    }
    sent = [series(2) for _ in range(3)]
    with (
        process(model_store, **variables, BRAIN_SERIES_QUIET_MS="600000") as (child, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        for one in sent:
            assert stow(client, [item.data for item in one]).status_code == 200
        child.send_signal(signal.SIGKILL)
        child.wait()

    def now() -> Any:
        return httpx.get(f"http://127.0.0.1:{port}/health").json()["pacs"]

    destination.status = 503
    with process(model_store, **variables, BRAIN_SERIES_QUIET_MS="50") as (child, port):
        wait_until(lambda: now()["objects_waiting"] >= 6 and not now()["series_waiting"])
        child.send_signal(signal.SIGKILL)
        child.wait()
    destination.status = 200
    with process(model_store, **variables, BRAIN_SERIES_QUIET_MS="50") as (child, port):
        wait_until(lambda: len(destination.of_kind("SR")) == 3)
        wait_until(lambda: not now()["objects_waiting"])
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
    found = {frozenset(reported(item)) for item in destination.of_kind("SR")}
    assert found == {frozenset(sops(one)) for one in sent}
    assert len(destination.stored) == len(destination.objects)


def test_a_series_that_ends_the_process_is_given_up(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    """As a decoder that crashes would: each time it was begun, the process ended."""
    (one,) = series(1)
    changes = {"series_quiet_ms": 600_000}
    with serve(model_store, tmp_path, destination, **changes) as service:
        send(service, [one])
    ledger = Ledger(tmp_path / "spool")
    inbox = Inbox(ledger, Segments(tmp_path / "spool" / "segments", 10**9), 0, 0)
    for _ in range(MAX_ATTEMPTS):
        inbox.begin(one.series)
    ledger.close()
    with serve(model_store, tmp_path, destination) as service:
        aside = one_set_aside(service)
        assert aside["reason"] == "ended_the_process"
        assert aside["request_id"]
        send(service, series(1))
        wait_until(lambda: settled(service))
    assert len(destination.of_kind("SR")) == 1


def test_a_start_on_a_full_disk_is_worth_another_one(tmp_path: Path) -> None:
    """systemd does not start it again where a setting is wrong."""
    Ledger(tmp_path).close()
    variables = {"BRAIN_DICOMWEB_URL": "http://127.0.0.1:9", "BRAIN_SPOOL": str(tmp_path)}
    started = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        env=environment_with(**variables),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert started.returncode == PASSING_FAULT
    assert started.stderr.startswith("brain-mri service: BRAIN_SPOOL: its disk is full")
    assert "Traceback" not in started.stderr


def test_a_stop_is_no_attempt(model_store: Path, tmp_path: Path, destination: Pacs) -> None:
    """Stopped in the midst of a series, again and again."""
    runtimes = FakeRuntimes()
    settings = pacs_settings(model_store, tmp_path, destination.url)
    (one,) = series(1)
    for number in range(MAX_ATTEMPTS + 1):
        with serving(settings, runtimes) as service:
            runtimes.last.gate.clear()
            if number == 0:
                send(service, [one])
            wait_until(runtimes.last.entered.is_set)
        runtimes.last.gate.set()
    with serving(settings, runtimes) as service:
        wait_until(lambda: settled(service))
    assert len(destination.of_kind("SR")) == 1


def analysis_of(inbox: Inbox) -> Analysis:
    """In a service that has a model and does nothing else."""

    async def warm_up() -> None:
        pass

    engine = SimpleNamespace(held=nullcontext)
    state = SimpleNamespace(
        settings=SimpleNamespace(series_quiet_ms=1),
        registry=SimpleNamespace(active=engine, engine=lambda: engine),
        results=SimpleNamespace(warm_up=warm_up),
    )
    return Analysis(
        cast("State", state),
        inbox,
        cast("Outbox", None),
        cast("Segments", None),
        Threads(1),
        lambda: None,
    )


def test_a_model_that_is_lost_while_a_series_is_chosen_is_no_fault_of_the_inbox(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def engine() -> Engine:
        raise RuntimeLost("the runtime hangs")

    def complete() -> str:
        monkeypatch.setattr(registry, "active", None)
        return "1.5"

    analysis = analysis_of(cast("Inbox", SimpleNamespace(complete=complete)))
    registry = analysis._state.registry
    monkeypatch.setattr(registry, "engine", engine)
    assert not asyncio.run(analysis._step())


@pytest.mark.parametrize("fault", [None, SpoolFull("the disk is full")], ids=["room", "disk-full"])
def test_a_stop_while_a_series_is_begun_is_no_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception | None
) -> None:
    begun, stopped = threading.Event(), threading.Event()

    def begin(uid: str) -> Waiting:
        begun.set()
        assert stopped.wait(PATIENCE_SECONDS)
        if fault is not None:
            raise fault
        return Inbox.begin(inbox, uid)

    async def stop() -> None:
        task = asyncio.create_task(analysis_of(inbox).run())
        assert await asyncio.to_thread(begun.wait, PATIENCE_SECONDS)
        task.cancel()
        await asyncio.wait([task], timeout=0.05)
        stopped.set()
        await asyncio.wait([task], timeout=PATIENCE_SECONDS)
        assert task.cancelled()

    ledger, segments = Ledger(tmp_path), Segments(tmp_path / "segments", 10**6)
    inbox = Inbox(ledger, segments, quiet_seconds=0, keep_seconds=900)
    segment = segments.create()
    segment.write(b"slice")
    received = Received(Identity("1.2", "1.5.1", "1.5", "1.9"), b"digest", 0, 5)
    inbox.accept(segment, [received], None, "visit-1")
    with monkeypatch.context() as patch:
        patch.setattr(inbox, "begin", begin)
        # It returns once the threads have ended.
        asyncio.run(stop())
    assert inbox.begin("1.5").attempts == 0
    ledger.close()


def test_a_part_that_cannot_be_ended_holds_up_no_other(
    model_store: Path,
    tmp_path: Path,
    destination: Pacs,
    jpeg: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_outbox: Outbox) -> None:
        raise sqlite3.OperationalError("the disk is gone")

    runtimes = FakeRuntimes()
    log = tmp_path / "audit.log"
    settings = pacs_settings(model_store, tmp_path, destination.url, audit_log=log)
    with serving(settings, runtimes) as service:
        assert service.predict(jpeg).status_code == 200
        audit = service.state.audit
        monkeypatch.setattr(Outbox, "wait_seconds", fail)
    assert "a part of the service could not be ended" in caplog.text
    assert runtimes.last.closed
    assert isinstance(audit, AuditFile)
    assert not audit._thread.is_alive()
    # The spool is free for the next one.
    Ledger(settings.spool).close()


def test_one_process_at_a_time_uses_a_spool(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    settings = pacs_settings(model_store, tmp_path, destination.url)
    with serving(settings, FakeRuntimes()), pytest.raises(PassingFault, match="another process"):
        create_app(settings)


def test_files_of_requests_that_a_crash_cut_off_go_at_the_start(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    Ledger(tmp_path / "spool").close()
    folder = tmp_path / "spool" / "segments"
    folder.mkdir()
    (folder / "0123.segment").write_bytes(bytes(1000))
    with serve(model_store, tmp_path, destination) as service:
        assert report(service)["spool_bytes"] == 0
        assert not [*folder.iterdir()]
