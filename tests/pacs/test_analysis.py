"""When a series is analysed: beside other work, with room and a model, and again after a failure."""

import itertools
import threading
from hashlib import sha256
from pathlib import Path
from time import sleep, time
from typing import Any

import pytest
from pydicom.uid import JPEGLosslessSV1

from contract.answer import Decision
from contract.errors import (
    DecoderCrashed,
    DecoderFailed,
    DecoderOutOfMemory,
    DecoderTimedOut,
    DecoderUnavailable,
)
from contract.sandbox import DECODERS, Sandbox
from service.dicom.workshop import Workshop
from service.errors import SpoolFull
from service.pacs.analysis import MAX_ATTEMPTS, RESULT_BYTES, Analysis
from service.pacs.outbox import Outbox
from service.pacs.prediction import STEP, STEP_BYTES, steps
from service.pacs.schemas import Deliveries
from service.pacs.segments import Place, Segments
from service.pacs.series import Instance as Content
from tests.contract.samples import RANGE, grey_slice, mr_object
from tests.support.pacs import (
    Instance,
    Pacs,
    pacs_settings,
    report,
    reported,
    send,
    series,
    serve,
    settled,
    sops,
)
from tests.support.service import (
    MODEL,
    PATIENCE_SECONDS,
    FakeRuntimes,
    add_version,
    newest,
    serving,
    wait_until,
)
from tests.support.threads import at_once


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
        wait_until(
            lambda: service.metric("brain_series_total", outcome="postponed") == MAX_ATTEMPTS
        )
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


def compressed(folder: Path) -> list[Instance]:
    """A series of one slice that a process of its own decompresses."""
    path = folder / "compressed.dcm"
    attributes = {**RANGE, "PatientID": "1", "PatientName": "A^B", "InstanceNumber": 1}
    path.write_bytes(mr_object(grey_slice(48, 40), JPEGLosslessSV1, attributes=attributes))
    return series(1, path=path)


@pytest.mark.parametrize(
    ("error", "failures", "outcome"),
    [
        (DecoderCrashed, MAX_ATTEMPTS - 1, "reported"),
        (DecoderTimedOut, MAX_ATTEMPTS, "unsuitable"),
        (DecoderOutOfMemory, 1, "reported"),
    ],
)
def test_a_decoder_that_fails_is_tried_again_before_the_image_is_to_blame(
    model_store: Path,
    tmp_path: Path,
    destination: Pacs,
    monkeypatch: pytest.MonkeyPatch,
    error: type[DecoderFailed],
    failures: int,
    outcome: str,
) -> None:
    """The machine may have stood still, or have ended it."""
    monkeypatch.setattr("service.pacs.analysis.FIRST_RETRY_SECONDS", 0.05)
    decode, calls = DECODERS.call, itertools.count()

    def call(*arguments: Any, **options: Any) -> bytes:
        if next(calls) < failures:
            raise error
        return decode(*arguments, **options)

    monkeypatch.setattr(DECODERS, "call", call)
    with serve(model_store, tmp_path, destination) as service:
        sent = compressed(tmp_path)
        send(service, sent)
        wait_until(lambda: service.metric("brain_series_total", outcome=outcome) == 1)
        wait_until(lambda: settled(service))
        blamed = outcome == "unsuitable"
        postponed = service.metric("brain_series_total", outcome="postponed")
        assert postponed == (MAX_ATTEMPTS - 1 if blamed else failures)
        assert service.metric("brain_errors_total", code=error.code) == blamed
        assert report(service)["series_dead"] == 0
    made = destination.of_kind("SR")
    assert [reported(one) for one in made] == ([] if blamed else [sops(sent)])


@pytest.mark.parametrize(("place", "name"), [(DECODERS, "call"), (Workshop, "make")])
def test_without_a_process_for_a_decoder_or_for_objects_a_series_waits(
    model_store: Path,
    tmp_path: Path,
    destination: Pacs,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: object,
    name: str,
) -> None:
    """It makes no attempt meanwhile."""
    caplog.set_level("INFO", "service.pacs")
    monkeypatch.setattr("service.pacs.analysis.FIRST_RETRY_SECONDS", 0.01)
    usual, calls = getattr(place, name), itertools.count()
    has_room, looks = Segments.has_room, itertools.count()

    def call(*arguments: Any, **options: Any) -> Any:
        if next(calls) < 2 * MAX_ATTEMPTS:
            raise DecoderUnavailable("no process")
        return usual(*arguments, **options)

    def look(segments: Segments, size: int) -> bool:
        # In between it waits for the spool as well.
        return next(looks) != MAX_ATTEMPTS and has_room(segments, size)

    monkeypatch.setattr(Segments, "has_room", look)

    monkeypatch.setattr(place, name, call)
    with serve(model_store, tmp_path, destination) as service:
        send(service, compressed(tmp_path))
        wait_until(lambda: settled(service))
        assert service.metric("brain_series_total", outcome="postponed") == 0
    assert len(destination.of_kind("SR")) == 1
    said = [entry.message for entry in caplog.records if "series waits" in entry.message]
    waits = [
        (f"a series waits for {what}", f"no series waits for {what} any more")
        for what in ("a process", "the spool", "a process")
    ]
    assert said == [waits[0][0], waits[1][0], waits[0][1], waits[2][0], waits[1][1], waits[2][1]]


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
        answers = at_once(*[lambda: service.predict(jpeg)] * 2)
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
        assert service.state.gateway is not None
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


def test_a_step_has_its_bytes_but_for_a_file_that_is_larger_by_itself() -> None:

    sizes = [STEP_BYTES + 1, 1, STEP_BYTES - 1, 1, 1, 1]
    images = [(Content(str(n), b""), Place("s", 0, size)) for n, size in enumerate(sizes)]
    found = [[image.sop for image, _ in step] for step in steps(images, 2)]
    assert found == [["0"], ["1", "2"], ["3", "4"], ["5"]]
