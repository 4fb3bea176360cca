"""The spool's disk stalls: what a PACS sends waits, and nobody and nothing else."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from scripts.ports import free_port, is_ready
from service.errors import SpoolFull
from service.pacs.gateway import STALL_SECONDS
from service.pacs.inbox import Inbox
from service.pacs.outbox import Outbox, Parcel
from service.pacs.threads import Threads
from service.routes.dicomweb import PIECE_BYTES, _receive
from tests.support.pacs import (
    Pacs,
    report,
    series,
    serve,
    settled,
    stow,
)
from tests.support.service import (
    PATIENCE_SECONDS,
    ROOT,
    environment_with,
    wait_until,
)

MANY = 24
"""Requests of a PACS; more than all threads that wait for the disk."""


def test_a_disk_that_stalls_holds_up_what_a_pacs_sends_and_nobody_else(
    model_store: Path,
    tmp_path: Path,
    destination: Pacs,
    jpeg: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stalled, go_on = threading.Event(), threading.Event()
    fsync = os.fsync

    def stall(descriptor: int) -> None:
        stalled.set()
        assert go_on.wait(2 * PATIENCE_SECONDS)
        fsync(descriptor)

    statuses: list[int] = []
    with serve(model_store, tmp_path, destination) as service:
        stow(service.client, [series(1)[0].data])
        wait_until(lambda: settled(service))
        monkeypatch.setattr(os, "fsync", stall)

        def send() -> None:
            with httpx.Client(base_url=service.url, timeout=2 * PATIENCE_SECONDS) as client:
                statuses.append(stow(client, [series(1)[0].data]).status_code)

        senders = [threading.Thread(target=send) for _ in range(MANY)]
        for sender in senders:
            sender.start()
        assert stalled.wait(PATIENCE_SECONDS)
        assert service.state.gateway is not None
        try:
            with service.state.gateway._ledger.transaction():
                start = monotonic()
                for _ in range(10):
                    health = service.client.get("/health/ready", timeout=5)
                    assert health.status_code == 200
                    assert health.json()["pacs"]["spool"] == "unreachable"
                assert service.client.get("/metrics", timeout=5).status_code == 200
                assert service.predict(jpeg, params={"mask": "rle"}, timeout=5).status_code == 200
                assert monotonic() - start < 5
        finally:
            go_on.set()
        for sender in senders:
            sender.join(PATIENCE_SECONDS)
        assert statuses == [200] * MANY
        wait_until(lambda: report(service)["spool"] == "ok")
        wait_until(lambda: settled(service))
    assert len(destination.of_kind("SR")) == MANY + 1


def test_a_destination_that_is_back_is_reported_though_the_disk_stalls(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    stalled, go_on = threading.Event(), threading.Event()
    remove = Outbox.remove

    def stall(outbox: Outbox, parcels: Iterable[Parcel]) -> None:
        stalled.set()
        assert go_on.wait(PATIENCE_SECONDS)
        remove(outbox, parcels)

    monkeypatch.setattr(Outbox, "remove", stall)
    destination.status = 503
    with serve(model_store, tmp_path, destination) as service:
        stow(service.client, [series(1)[0].data])
        wait_until(lambda: report(service)["destination"] == "unreachable")
        destination.status = 200
        try:
            assert stalled.wait(PATIENCE_SECONDS)
            assert report(service)["destination"] == "ok"
        finally:
            go_on.set()
        wait_until(lambda: settled(service))


def test_what_was_given_up_is_not_waited_for_as_long_as_a_disk_stalls(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.pacs.gateway.STALL_SECONDS", 0.5)
    with serve(model_store, tmp_path, destination) as service:
        assert service.state.gateway is not None
        with service.state.gateway._ledger.transaction():
            for method, path in (("GET", "/deliveries"), ("POST", "/deliveries/retry")):
                answer = service.client.request(method, path, timeout=10)
                assert (answer.status_code, answer.json()["code"]) == (503, "spool_unreachable")
                assert "Retry-After" in answer.headers
        assert service.client.post("/deliveries/retry").status_code == 200
        # An alert counts these: series that were turned away.
        assert service.metric("brain_errors_total", code="spool_full") == 0


def test_it_ends_while_the_disk_stalls(model_store: Path, tmp_path: Path) -> None:
    port, stall = free_port(), tmp_path / "stall"
    variables = {
        "BRAIN_MODEL_STORE": str(model_store),
        "BRAIN_PORT": str(port),
        "BRAIN_RUNTIME": "litert",
        "BRAIN_WORKERS": "0",
        "BRAIN_DICOMWEB_URL": "http://127.0.0.1:9",
        "BRAIN_SPOOL": str(tmp_path / "spool"),
        "BRAIN_SERIES_QUIET_MS": "100",
        "BRAIN_DRAIN_NOTICE_MS": "0",
        "BRAIN_DRAIN_SECONDS": "1",
    }

    def send() -> None:
        with (
            suppress(httpx.TransportError),
            httpx.Client(base_url=url, timeout=2 * PATIENCE_SECONDS) as client,
        ):
            stow(client, [series(1)[0].data])

    def spool() -> object:
        return httpx.get(f"{url}/health/ready", timeout=PATIENCE_SECONDS).json()["pacs"]["spool"]

    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.stalling_disk", str(stall)],
        cwd=ROOT,
        env=environment_with(**variables),
        stderr=subprocess.DEVNULL,
    ) as child:
        try:
            wait_until(lambda: is_ready(port))
            send()
            stall.touch()
            # Beginning the analysis is the first commit that stalls.
            wait_until(lambda: spool() == "unreachable")
            sender = threading.Thread(target=send)
            sender.start()
            sleep(0.5)
            child.send_signal(signal.SIGTERM)
            assert child.wait(PATIENCE_SECONDS) == 0
            sender.join(PATIENCE_SECONDS)
        finally:
            child.kill()


def test_a_spool_that_takes_long_to_count_is_no_stalling_disk(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    counts = Inbox.counts

    def slow(inbox: Inbox) -> Any:
        assert go_on.wait(PATIENCE_SECONDS)
        return counts(inbox)

    destination.status = 503
    with serve(model_store, tmp_path, destination) as service:
        gateway = service.state.gateway
        assert gateway is not None
        stow(service.client, [series(1)[0].data])
        wait_until(lambda: destination.requests)
        # The one before took so long; this one may take twice as long.
        gateway._counts = gateway._counts._replace(seconds=STALL_SECONDS)
        monkeypatch.setattr(Inbox, "counts", slow)
        try:
            states = [service.client.get("/health").json()["pacs"] for _ in range(3)]
        finally:
            go_on.set()
        assert {(state["spool"], state["objects_waiting"]) for state in states} == {("ok", 0)}
        wait_until(lambda: report(service)["objects_waiting"])


def test_a_count_that_fails_late_says_so_once(
    model_store: Path,
    tmp_path: Path,
    destination: Pacs,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_: Inbox) -> None:
        sleep(0.7)
        raise SpoolFull("the spool cannot be read")

    with serve(model_store, tmp_path, destination) as service:
        monkeypatch.setattr(Inbox, "counts", fail)
        for _ in range(3):
            assert service.client.get("/health").json()["pacs"]["spool"] == "unreachable"
            sleep(0.4)
    assert caplog.text.count("the spool does not say what there is") == 1
    assert "never retrieved" not in caplog.text


def test_a_request_that_is_cut_off_does_not_wait_for_a_disk_that_stalls() -> None:
    """As by a second SIGTERM; whoever waited would keep the process."""
    stalled, go_on, abandoned = threading.Event(), threading.Event(), threading.Event()

    def stall(_: bytes) -> None:
        stalled.set()
        go_on.wait(PATIENCE_SECONDS)

    def abandon() -> None:
        go_on.wait(PATIENCE_SECONDS)
        abandoned.set()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": bytes(PIECE_BYTES), "more_body": True}

    async def cut_off() -> None:
        receiver = SimpleNamespace(feed=stall, abandon=abandon)
        gateway: Any = SimpleNamespace(threads=Threads(2), receiver=lambda *_: receiver)
        state: Any = SimpleNamespace(settings=SimpleNamespace(body_timeout_ms=60_000))
        claim: Any = SimpleNamespace(add=lambda _: None, free=lambda _: None)
        context: Any = SimpleNamespace(key=None, request_id="visit-1")
        request = Request({"type": "http", "headers": []}, receive)
        task = asyncio.ensure_future(_receive(request, gateway, state, context, claim))
        await asyncio.to_thread(stalled.wait, PATIENCE_SECONDS)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=5)
        go_on.set()
        assert done
        assert await asyncio.to_thread(abandoned.wait, PATIENCE_SECONDS)
        gateway.threads.close()

    asyncio.run(cut_off())
