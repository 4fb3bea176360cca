"""From instances to results: chunks become series, each has one result, and a crash loses nothing."""

import asyncio
import io
import itertools
import json
import signal
import sqlite3
import threading
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from time import sleep, time
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from contract.answer import Decision
from contract.sandbox import Sandbox
from service.app import create_app
from service.audit import AuditFile
from service.engine import Engine
from service.errors import RuntimeLost, SpoolFull
from service.pacs.analysis import MAX_ATTEMPTS, RESULT_BYTES, Analysis
from service.pacs.identity import Identity
from service.pacs.inbox import Inbox
from service.pacs.ledger import Ledger
from service.pacs.outbox import Outbox
from service.pacs.prediction import STEP, STEP_BYTES, steps
from service.pacs.schemas import Deliveries
from service.pacs.segments import Place, Segments
from service.pacs.series import Instance as Content
from service.pacs.series import Received, Waiting
from service.pacs.threads import Threads
from service.settings import SettingsError
from service.state import State
from tests.support.pacs import (
    Instance,
    Pacs,
    one_set_aside,
    pacs_settings,
    report,
    series,
    settled,
    stow,
    written,
)
from tests.support.results import enhanced
from tests.support.service import (
    MODEL,
    PATIENCE_SECONDS,
    FakeRuntimes,
    Service,
    add_version,
    at_once,
    newest,
    process,
    serving,
    wait_until,
)


def serve(store: Path, folder: Path, destination: Pacs, **changes: Any) -> Any:
    return serving(pacs_settings(store, folder, destination.url, **changes), FakeRuntimes())


def send(service: Service, instances: list[Instance]) -> None:
    assert stow(service.client, [item.data for item in instances]).status_code == 200


def reported(item: Dataset) -> set[str]:
    """Images that a structured report lists in its evidence."""
    (study,) = item.CurrentRequestedProcedureEvidenceSequence
    return {
        image.ReferencedSOPInstanceUID
        for one in study.ReferencedSeriesSequence
        for image in one.ReferencedSOPSequence
        if image.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.4"
    }


def sops(instances: list[Instance]) -> set[str]:
    return {item.sop for item in instances}


def test_chunks_of_a_series_give_one_result(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    sent = series(STEP + 4)
    with serve(model_store, tmp_path, destination, series_quiet_ms=1500) as service:
        for at in range(0, len(sent), 4):
            send(service, sent[at : at + 4])
        wait_until(lambda: settled(service))
        assert service.metric("brain_series_total", outcome="reported") == 1
    (found,) = destination.of_kind("SR")
    assert found.StudyInstanceUID == sent[0].study
    assert reported(found) == sops(sent)


def test_series_that_arrive_mixed_are_told_apart(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    first = series(3)
    second, third = series(2, study=first[0].study), series(1)
    mixed = [first[0], second[0], third[0], first[1], second[1], first[2]]
    with serve(model_store, tmp_path, destination) as service:
        send(service, mixed)
        wait_until(lambda: settled(service))
    found = {frozenset(reported(item)) for item in destination.of_kind("SR")}
    assert found == {frozenset(sops(one)) for one in (first, second, third)}


def test_the_same_series_again_gives_nothing_new(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    sent = series(3)
    with serve(model_store, tmp_path, destination) as service:
        for again in (sent, sent, sent[:1], sent[::-1]):
            send(service, again)
            wait_until(lambda: settled(service))
        assert service.metric("brain_series_total", outcome="known") == 3
    # Nor after a restart, with the kept instances gone.
    with serve(model_store, tmp_path, destination, series_keep_seconds=0) as service:
        send(service, sent[:2])
        wait_until(lambda: settled(service))
        assert service.metric("brain_series_total", outcome="known") == 1
    assert len(destination.of_kind("SR")) == 1
    assert len(destination.stored) == len(destination.objects)


def test_late_slices_give_a_result_of_the_whole_series(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    sent = series(3)
    with serve(model_store, tmp_path, destination) as service:
        send(service, sent[:2])
        wait_until(lambda: settled(service))
        send(service, sent[2:])
        wait_until(lambda: settled(service))
    found = [reported(item) for item in destination.of_kind("SR")]
    assert found == [sops(sent[:2]), sops(sent)]


def test_slices_that_are_later_than_the_keeping_give_a_result_of_their_own(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.pacs.analysis.EXPIRE_SECONDS", 0.05)
    sent = series(3)
    with serve(model_store, tmp_path, destination, series_keep_seconds=0) as service:
        send(service, sent[:2])
        wait_until(lambda: settled(service) and report(service)["spool_bytes"] == 0)
        send(service, sent[2:])
        wait_until(lambda: settled(service))
    found = [reported(item) for item in destination.of_kind("SR")]
    assert found == [sops(sent[:2]), sops(sent[2:])]


def test_another_model_gives_another_result(
    store_copy: Path, tmp_path: Path, destination: Pacs
) -> None:
    sent = series(2)
    for _ in range(2):
        with serve(store_copy, tmp_path, destination) as service:
            send(service, sent)
            wait_until(lambda: settled(service))
        add_version(store_copy)
    assert len(destination.of_kind("SR")) == 2


def test_a_slice_that_cannot_be_read_does_not_cost_the_others_their_result(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    sent = series(3)
    cut = sent[1].data[: len(sent[1].data) // 2]
    with serve(model_store, tmp_path, destination) as service:
        assert stow(service.client, [sent[0].data, cut, sent[2].data]).status_code == 200
        wait_until(lambda: settled(service))
        assert service.metric("brain_errors_total", code="truncated_image") == 1
        (found,) = destination.of_kind("SR")
        assert {sent[0].sop, sent[2].sop} <= reported(found)
        assert sent[1].sop not in reported(found)
        # It may come again, and better.
        send(service, sent[1:2])
        wait_until(lambda: settled(service))
    assert len(destination.of_kind("SR")) == 2
    assert reported(destination.of_kind("SR")[1]) == sops(sent)


def test_a_series_without_a_suitable_slice_has_no_result(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    sent = series(2)
    with serve(model_store, tmp_path, destination) as service:
        stow(service.client, [item.data[: len(item.data) // 2] for item in sent])
        wait_until(lambda: settled(service))
        send(service, series(2, attributes={"BodyPartExamined": "KNEE"}))
        wait_until(lambda: settled(service))
        assert service.metric("brain_series_total", outcome="unsuitable") == 2
        assert service.metric("brain_errors_total", code="truncated_image") == 2
        assert service.metric("brain_errors_total", code="not_head") == 2
        # A better copy of it is another matter.
        send(service, sent)
        wait_until(lambda: settled(service))
    assert len(destination.of_kind("SR")) == 1


def test_a_series_of_several_patients_is_set_aside(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    first, second = series(2)
    dataset = dcmread(io.BytesIO(second.data))
    dataset.PatientID = "another"
    with serve(model_store, tmp_path, destination) as service:
        assert stow(service.client, [first.data, written(dataset)]).status_code == 200
        aside = one_set_aside(service)
        assert aside["reason"] == "unidentified_source"
    assert not destination.requests


def changed(instance: Instance) -> bytes:
    """Another image under its UID, and at its place."""
    dataset = dcmread(io.BytesIO(instance.data))
    dataset.PixelData = dataset.PixelData[::-1]
    return written(dataset)


@pytest.mark.parametrize("apart", [False, True], ids=["one request", "two requests"])
def test_different_images_of_one_uid_are_set_aside(
    model_store: Path, tmp_path: Path, destination: Pacs, apart: bool
) -> None:
    """The last one must not stand for all."""
    first, second = series(2)
    files = [first.data, second.data, changed(second)]
    with serve(model_store, tmp_path, destination, series_quiet_ms=1500) as service:
        for sent in [files[:2], files[2:]] if apart else [files]:
            assert stow(service.client, sent).status_code == 200
        aside = one_set_aside(service)
        assert (aside["reason"], aside["instances"]) == ("unidentified_source", 3)
    assert not destination.requests


def test_a_changed_image_gives_a_result_of_its_own(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    """As a corrected one comes, after the result of the old one."""
    sent = series(2)
    corrected = [sent[0].data, changed(sent[1])]
    with serve(model_store, tmp_path, destination) as service:
        send(service, sent)
        wait_until(lambda: settled(service))
        for files in (corrected[1:], corrected):
            assert stow(service.client, files).status_code == 200
            wait_until(lambda: settled(service))
        assert service.metric("brain_series_total", outcome="reported") == 2
        assert service.metric("brain_series_total", outcome="known") == 1
    old, new = destination.of_kind("SR")
    assert reported(old) == reported(new) == sops(sent)
    assert len(destination.stored) == len(destination.objects), "none in the place of another"


def corrected(instance: Instance) -> bytes:
    """The same image with another name and from another archive."""
    dataset = dcmread(io.BytesIO(instance.data))
    dataset.PatientName = "Corrected^Name"
    dataset.file_meta.SourceApplicationEntityTitle = "GATEWAY2"
    return written(dataset)


def test_a_name_that_is_corrected_before_the_analysis_is_that_of_the_result(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    sent = series(2)
    with serve(model_store, tmp_path, destination, series_quiet_ms=1500) as service:
        send(service, sent)
        assert stow(service.client, [corrected(item) for item in sent]).status_code == 200
        wait_until(lambda: settled(service))
        assert report(service)["series_dead"] == 0
    (found,) = destination.of_kind("SR")
    assert found.PatientName == "Corrected^Name"
    assert reported(found) == sops(sent)


def test_a_series_that_comes_through_another_archive_gives_nothing_new(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    sent = series(2)
    others = []
    for item in sent:
        dataset = dcmread(io.BytesIO(item.data))
        dataset.file_meta.ImplementationVersionName = "OTHER_1"
        others.append(written(dataset))
    with serve(model_store, tmp_path, destination) as service:
        send(service, sent)
        wait_until(lambda: settled(service))
        assert stow(service.client, others).status_code == 200
        # Counted once its folder is gone, after which it is settled.
        wait_until(lambda: service.metric("brain_series_total", outcome="known") == 1)
    assert len(destination.of_kind("SR")) == 1


def test_a_series_that_was_set_aside_is_mended_by_sending_it_again(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    sent = series(2)
    with serve(model_store, tmp_path, destination) as service:
        files = [*(item.data for item in sent), changed(sent[1])]
        assert stow(service.client, files).status_code == 200
        wait_until(lambda: report(service)["series_dead"] == 1)
        send(service, sent)
        wait_until(lambda: settled(service))
        assert report(service)["series_dead"] == 0
    (found,) = destination.of_kind("SR")
    assert reported(found) == sops(sent)


def test_the_process_that_makes_objects_starts_before_they_are_wanted(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One of its own.
    monkeypatch.setattr("service.dicom.workshop.Sandbox", Sandbox)
    with serve(model_store, tmp_path, destination) as service:
        workshop = service.state.results._workshop
        wait_until(lambda: workshop.processes)
        (pid,) = workshop.processes
        send(service, series(1))
        wait_until(lambda: destination.of_kind("SR"))
        assert workshop.processes == [pid]


def test_a_runtime_that_fails_is_tried_again(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.pacs.analysis.FIRST_RETRY_SECONDS", 0.05)
    # A new runtime in its place would do, and the third try succeed or not as it came.
    monkeypatch.setattr("service.batching.MAX_FAILURES", 100)
    runtimes = FakeRuntimes()
    settings = pacs_settings(model_store, tmp_path, destination.url)
    sent = series(2)
    with serving(settings, runtimes) as service:
        runtimes.last.error = ValueError("the runtime broke")
        send(service, sent)
        wait_until(lambda: report(service)["series_dead"] == 1)
        assert service.metric("brain_series_total", outcome="postponed") == MAX_ATTEMPTS
        shown = Deliveries.model_validate_json(service.client.get("/deliveries").content)
        (aside,) = shown.set_aside
        assert aside.series == sha256(sent[0].series.encode()).hexdigest()
        assert aside.reason == "inference_failed"
        assert aside.instances == len(sent)
        assert time() - PATIENCE_SECONDS < aside.since <= time()
        runtimes.last.error = None
        assert service.client.post("/deliveries/retry").json() == {"series": 1, "objects": 0}
        wait_until(lambda: len(destination.of_kind("SR")) == 1)
        assert service.client.get("/deliveries").json()["set_aside"] == []


def test_a_version_that_is_replaced_finishes_the_series_it_has_begun(
    store_copy: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    between, go_on = threading.Event(), threading.Event()
    read, reads = Segments.read, itertools.count()

    def read_slowly(segments: Segments, place: Place) -> bytes:
        if next(reads) == STEP:
            between.set()
            assert go_on.wait(PATIENCE_SECONDS)
        return read(segments, place)

    monkeypatch.setattr(Segments, "read", read_slowly)
    version, runtimes, sent = add_version(store_copy), FakeRuntimes(), series(STEP + 4)
    settings = pacs_settings(store_copy, tmp_path, destination.url, model_version=str(version - 1))
    with serving(settings, runtimes) as service:
        begun = service.state.registry.engine()
        send(service, sent)
        assert between.wait(PATIENCE_SECONDS)
        assert service.client.post(f"/models/{MODEL}/{version}/activate").status_code == 200
        assert begun._holds == 1
        go_on.set()
        wait_until(lambda: settled(service))
        wait_until(lambda: runtimes.opened[0].closed)
        assert service.metric("brain_series_total", outcome="postponed") == 0
        assert service.state.pipeline.depth == 0
    (found,) = destination.of_kind("SR")
    assert reported(found) == sops(sent)


def test_interactive_requests_are_answered_while_a_series_is_analysed(
    model_store: Path, tmp_path: Path, destination: Pacs, jpeg: bytes
) -> None:
    """The series is longer than the queue; nobody gets a 503 for it."""
    sent = series(40)
    changes = {"queue_size": 4, "max_batch_size": 2}
    with serve(model_store, tmp_path, destination, **changes) as service:
        send(service, sent)
        wait_until(lambda: not settled(service))
        while not settled(service):
            assert service.predict(jpeg).status_code == 200
        answers = at_once([lambda: service.predict(jpeg)] * 2)
        assert [answer.status_code for answer in answers] == [200, 200]
    (found,) = destination.of_kind("SR")
    assert reported(found) == sops(sent)


def test_a_series_is_analysed_however_steadily_people_ask(
    model_store: Path,
    tmp_path: Path,
    destination: Pacs,
    jpeg: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.pacs.prediction.MAX_BUSY_SECONDS", 1.0)
    runtimes, stop = FakeRuntimes(), threading.Event()
    changes = {"queue_size": 8, "max_batch_size": 2}
    settings = pacs_settings(model_store, tmp_path, destination.url, **changes)

    def ask() -> None:
        while not stop.is_set():
            service.predict(jpeg)

    with serving(settings, runtimes) as service:
        predict = runtimes.last.predict

        def predict_slowly(batch: Any) -> Any:
            stop.wait(0.1)
            return predict(batch)

        monkeypatch.setattr(runtimes.last, "predict", predict_slowly)
        people = [threading.Thread(target=ask) for _ in range(6)]
        try:
            for one in people:
                one.start()
            wait_until(lambda: service.state.pipeline.depth > 2)
            send(service, series(2))
            service.client.get("/metrics")
            before = service.metric("brain_inbox_oldest_age_seconds")
            sleep(0.3)
            service.client.get("/metrics")
            assert service.metric("brain_inbox_oldest_age_seconds") > before
            wait_until(lambda: settled(service), 30)
        finally:
            stop.set()
            for one in people:
                one.join()
        service.client.get("/metrics")
        assert service.metric("brain_inbox_oldest_age_seconds") == 0
    assert len(destination.of_kind("SR")) == 1


def test_the_frames_of_each_object_count_by_themselves(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    """All of them together are more than a request may have."""
    study, uid, sent = generate_uid(), generate_uid(), []
    for _ in range(3):
        dataset = dcmread(io.BytesIO(enhanced(legacy=False)))
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, uid
        dataset.SOPInstanceUID = generate_uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        sent.append(Instance(written(dataset), dataset.SOPInstanceUID, uid, study))
    frames = int(dataset.NumberOfFrames)
    log, limit = tmp_path / "audit.log", 2 * frames
    with serve(model_store, tmp_path, destination, max_frames=limit, audit_log=log) as service:
        send(service, sent)
        wait_until(lambda: settled(service))
        assert service.metric("brain_errors_total", code="too_many_frames") == 0
    (found,) = destination.of_kind("SR")
    # Of outputs that are made up, none is like the training data.
    assert found.get("CompletionFlagDescription") in {
        None,
        f"{3 * frames} of {3 * frames} slices cannot be judged",
    }
    assert log.read_text("utf-8").count('"action":"analyse"') == 3 * frames


def test_a_series_may_have_more_images_than_a_request_has_slices(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    sent = series(3)
    with serve(model_store, tmp_path, destination, max_frames=2) as service:
        send(service, sent)
        wait_until(lambda: settled(service))
    (found,) = destination.of_kind("SR")
    # Of outputs that are made up, none is like the training data.
    assert found.get("CompletionFlagDescription") in {None, "3 of 3 slices cannot be judged"}


def test_a_series_waits_for_room_before_it_is_analysed(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where there was none after all, it is analysed again, and counts once."""
    monkeypatch.setattr("service.pacs.analysis.FIRST_RETRY_SECONDS", 0.05)
    analyse, post, posts = Analysis._analyse, Outbox.post, itertools.count()
    begun: list[object] = []

    async def begin(self: Analysis, *arguments: Any) -> None:
        begun.append(arguments)
        await analyse(self, *arguments)

    def post_third(self: Outbox, *arguments: Any) -> None:
        if next(posts) < 2:
            raise SpoolFull
        post(self, *arguments)

    monkeypatch.setattr(Analysis, "_analyse", begin)
    monkeypatch.setattr(Outbox, "post", post_third)
    log = tmp_path / "audit.log"
    limits = {
        "spool_max_bytes": RESULT_BYTES,
        "stow_max_body_bytes": RESULT_BYTES // 2,
        "stow_max_instance_bytes": RESULT_BYTES // 2,
    }
    with serve(model_store, tmp_path, destination, audit_log=log, **limits) as service:
        wait_until(lambda: service.state.results._workshop.processes)
        send(service, series(1))
        sleep(1)
        assert not begun
        service.state.gateway._segments.max_bytes = 10**9
        wait_until(lambda: settled(service))
        assert len(begun) == 3
        assert sum(service.metric("brain_decisions_total", decision=one) for one in Decision) == 1
    assert log.read_text("utf-8").count('"action":"analyse"') == 1
    assert len(destination.of_kind("SR")) == 1


def test_without_a_model_series_wait_for_one(
    store_copy: Path, tmp_path: Path, destination: Pacs
) -> None:
    wanted = newest(store_copy)
    changes = {"model_version": str(wanted + 1)}
    settings = pacs_settings(store_copy, tmp_path, destination.url, **changes)
    with serving(settings, FakeRuntimes(), ready=False) as service:
        send(service, series(1))
        wait_until(lambda: report(service)["series_waiting"] == 1)
        assert service.client.post(f"/models/{MODEL}/{wanted}/activate").status_code == 200
        wait_until(lambda: settled(service))
    assert len(destination.of_kind("SR")) == 1


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
    with serving(settings, FakeRuntimes()), pytest.raises(SettingsError, match="another process"):
        create_app(settings)


def test_files_of_requests_that_a_crash_cut_off_go_at_the_start(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    folder = tmp_path / "spool" / "segments"
    folder.mkdir(parents=True)
    (folder / "0123.segment").write_bytes(bytes(1000))
    with serve(model_store, tmp_path, destination) as service:
        assert report(service)["spool_bytes"] == 0
        assert not [*folder.iterdir()]


def test_slices_of_a_series_that_is_set_aside_are_in_the_audit_log(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:

    log = tmp_path / "audit.log"
    first, second = series(2)
    other = dcmread(io.BytesIO(second.data))
    other.PatientID = "another"
    with serve(model_store, tmp_path, destination, audit_log=log) as service:
        assert stow(service.client, [first.data, written(other)]).status_code == 200
        wait_until(lambda: report(service)["series_dead"] == 1)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["action"] for line in lines if line["action"] == "analyse"] == ["analyse"] * 2


def test_a_step_has_its_bytes_but_for_a_file_that_is_larger_by_itself() -> None:

    sizes = [STEP_BYTES + 1, 1, STEP_BYTES - 1, 1, 1, 1]
    images = [(Content(str(n), b""), Place("s", 0, size)) for n, size in enumerate(sizes)]
    found = [[image.sop for image, _ in step] for step in steps(images, 2)]
    assert found == [["0"], ["1", "2"], ["3", "4"], ["5"]]
