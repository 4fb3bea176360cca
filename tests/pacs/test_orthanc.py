"""A real Orthanc and a real service beside each other, as ``deploy/orthanc`` sets them up."""

import io
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage

from scripts.mr_study import write_study
from scripts.orthanc import CONFIGURATION, SCRIPT, USER, Orthanc, missing
from scripts.ports import free_port, is_ready
from service.dicom.making import MANUFACTURER
from service.keys import Role, make_key
from tests.support.dicom import encoded
from tests.support.keys import write_keys
from tests.support.pacs import SOP, SOP_CLASS, STORED, Instance, reported, series
from tests.support.programs import REQUIRED
from tests.support.service import ROOT, environment_with, process, wait_until
from tests.support.tls import self_signed, tls_front

pytestmark = [
    pytest.mark.pacs,
    pytest.mark.slow(40),
    pytest.mark.skipif(
        missing() is not None and not REQUIRED,
        reason=missing() or "",
    ),
]

PATIENCE_SECONDS = 120.0
"""Orthanc and the service take turns in waiting for things to become quiet."""

SLICES = 3

TRIES = 4
"""More than make a refused series be given up here, which is after the third."""


class Beside:
    """The service in a process of its own, which can be ended and started again, and Orthanc."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder = folder
        self.port = free_port()
        presented, key = make_key("orthanc", [Role.PREDICT])
        keys = write_keys(folder / "keys", key)
        self.orthanc = Orthanc(folder, f"http://127.0.0.1:{self.port}", presented)
        self._environment = environment_with(
            **self.orthanc.service_settings,
            BRAIN_MODEL_STORE=str(store),
            BRAIN_PORT=str(self.port),
            BRAIN_RUNTIME="litert",
            BRAIN_API_KEYS_FILE=str(keys),
            BRAIN_SPOOL=str(folder / "spool"),
            BRAIN_AUDIT_LOG=str(folder / "audit.log"),
            BRAIN_SERIES_QUIET_MS="500",
            BRAIN_DICOMWEB_RETRY_MS="200",
            BRAIN_DICOMWEB_RETRY_MAX_MS="2000",
            BRAIN_DRAIN_NOTICE_MS="0",
            # Each start of the service would start them, and none has to do with Orthanc.
            BRAIN_WORKERS="0",
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **variables: str) -> None:
        with (self.folder / "service.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "service"],
                cwd=ROOT,
                env={**self._environment, **variables},
                stderr=log,
            )
        wait_until(lambda: is_ready(self.port), PATIENCE_SECONDS)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE_SECONDS)
            self._process = None

    def state(self) -> dict[str, Any]:
        content = httpx.get(f"http://127.0.0.1:{self.port}/health").json()["pacs"]
        return dict(content)

    def refused(self, code: str) -> int:
        """Requests that the running service has refused so."""
        metrics = httpx.get(f"http://127.0.0.1:{self.port}/metrics").text
        found = re.findall(rf'^brain_errors_total{{code="{code}"}} (\S+)', metrics, re.MULTILINE)
        return int(float(found[0])) if found else 0

    def send(self, instances: list[Instance]) -> None:
        files = []
        for instance in instances:
            path = self.folder / f"{instance.sop}.dcm"
            path.write_bytes(instance.data)
            files.append(path)
        self.orthanc.send(files)

    def objects(self, study: str) -> list[Dataset]:
        """What Orthanc holds of a study."""
        return [
            dcmread(io.BytesIO(self.orthanc.file(instance)))
            for one in self.orthanc.series()
            if one.study == study
            for instance in one.instances
        ]

    def results(self, study: str) -> list[Dataset]:
        return [item for item in self.objects(study) if item.Manufacturer == MANUFACTURER]

    def await_results(self, study: str) -> None:
        def there() -> bool:
            return {item.Modality for item in self.results(study)} >= {"SR", "OT"}

        wait_until(there, PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory, model_store: Path) -> Iterator[Beside]:
    running = Beside(tmp_path_factory.mktemp("orthanc"), model_store)
    with running.orthanc:
        running.start()
        yield running
        running.stop()


def forwarded(beside: Beside) -> int:
    """Instances that the service has taken so far."""
    lines = (beside.folder / "audit.log").read_text("utf-8").splitlines()
    return sum('"action":"store"' in line for line in lines)


def test_orthanc_does_not_start_with_an_empty_password(tmp_path: Path) -> None:
    environment = environment_with(
        ORTHANC_STORAGE=str(tmp_path),
        ORTHANC_HTTP_PORT=str(free_port()),
        ORTHANC_DICOM_PORT=str(free_port()),
        ORTHANC_LUA=str(SCRIPT),
    )
    environment.pop("ORTHANC_PASSWORD", None)
    started = subprocess.run(
        ["Orthanc", str(CONFIGURATION)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert started.returncode not in {0, None}
    assert "set ORTHANC_PASSWORD" in started.stderr
    assert "HTTP server listening" not in started.stderr


def test_the_documented_command_starts_orthanc(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "pacs.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^.* Orthanc deploy/orthanc/orthanc\.json$", text, re.MULTILINE)
    (password,) = re.findall(r"ORTHANC_PASSWORD=(\S+)", command)
    port = free_port()
    environment = environment_with(
        ORTHANC_STORAGE=str(tmp_path),
        ORTHANC_HTTP_PORT=str(port),
        ORTHANC_DICOM_PORT=str(free_port()),
    )
    environment.pop("ORTHANC_LUA", None)

    def answers() -> bool:
        assert started.poll() is None, log.read_text("utf-8", "replace")
        try:
            return httpx.get(f"http://127.0.0.1:{port}/system", auth=(USER, password)).is_success
        except httpx.TransportError:
            return False

    log = tmp_path / "log"
    with log.open("wb") as file:
        # The shell becomes Orthanc, so that stopping it stops Orthanc.
        started = subprocess.Popen(
            ["sh", "-c", f"exec env {command}"], cwd=ROOT, env=environment, stderr=file
        )
    try:
        wait_until(answers, PATIENCE_SECONDS)
    finally:
        started.terminate()
        started.wait(PATIENCE_SECONDS)


def test_a_series_comes_back_with_its_results(beside: Beside) -> None:
    sent = series(SLICES, attributes={"PatientID": "E2E-1", "PatientName": "End^To^End"})
    beside.send(sent)
    beside.await_results(sent[0].study)
    results = beside.results(sent[0].study)
    source = dcmread(io.BytesIO(sent[0].data))
    for item in results:
        assert item.StudyInstanceUID == sent[0].study
        assert item.SeriesInstanceUID != sent[0].series
        assert (item.PatientID, item.PatientName) == (source.PatientID, source.PatientName)
    (report,) = [item for item in results if item.Modality == "SR"]
    assert {item.sop for item in sent} <= reported(report)
    (capture,) = [item for item in results if item.Modality == "OT"]
    (image,) = capture.SourceImageSequence
    assert image.ReferencedSOPInstanceUID in {item.sop for item in sent}


def test_a_region_comes_back_as_a_segmentation_of_its_source(beside: Beside) -> None:
    slices = sorted((ROOT / "tests" / "data" / "slices" / "glioma").glob("*.jpg"))
    files = write_study(beside.folder, {"Axial": slices})
    source = dcmread(files[0])
    beside.orthanc.send(files)
    beside.await_results(source.StudyInstanceUID)
    results = beside.results(source.StudyInstanceUID)
    (segmentation,) = [item for item in results if item.Modality == "SEG"]
    (referenced,) = segmentation.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == source.SeriesInstanceUID
    assert segmentation.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert segmentation.pixel_array.any()


def test_nothing_goes_round_in_circles_and_nothing_comes_twice(beside: Beside) -> None:
    sent = series(SLICES)
    beside.send(sent)
    beside.await_results(sent[0].study)
    wait_until(lambda: not listed(beside.folder))
    before = {item.SOPInstanceUID for item in beside.objects(sent[0].study)}
    stored = forwarded(beside)
    (found,) = [
        one
        for one in beside.orthanc.series()
        if one.study == sent[0].study and one.tags["Modality"] == "MR"
    ]
    for _ in range(2):
        beside.send(sent)
        answer = beside.orthanc.client.post(
            "/dicom-web/servers/brain-mri/stow",
            json={"Resources": [found.orthanc_id], "Synchronous": True},
        )
        assert answer.is_success
    wait_until(lambda: forwarded(beside) == stored + 2 * SLICES, PATIENCE_SECONDS)
    wait_until(lambda: not beside.state()["series_waiting"], PATIENCE_SECONDS)
    # By now the results are stable too, and would have been forwarded.
    other = series(1)
    beside.send(other)
    beside.await_results(other[0].study)
    assert {item.SOPInstanceUID for item in beside.objects(sent[0].study)} == before
    assert forwarded(beside) == stored + 2 * SLICES + 1
    wait_until(lambda: not listed(beside.folder))


def listed(folder: Path) -> list[str]:
    """Series that Orthanc has to forward."""
    path = folder / "brain-mri-pending"
    return path.read_text("utf-8").split() if path.exists() else []


def as_capture(instance: Instance) -> Instance:
    """The image as an object that the service does not take."""
    dataset = dcmread(io.BytesIO(instance.data))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    return replace(instance, data=encoded(dataset))


def test_what_the_service_never_takes_does_not_keep_a_series_on_the_list(beside: Beside) -> None:
    first, second = series(2)
    (alone,) = series(1)
    stored = forwarded(beside)
    beside.send([first, as_capture(second), as_capture(alone)])
    beside.await_results(first.study)
    wait_until(lambda: not listed(beside.folder), PATIENCE_SECONDS)
    assert forwarded(beside) == stored + 1


def test_a_series_that_the_service_refuses_is_given_up(beside: Beside) -> None:
    beside.stop()
    beside.start(BRAIN_STOW_MAX_INSTANCES="1")
    beside.send(series(2))
    wait_until(lambda: listed(beside.folder), PATIENCE_SECONDS)
    wait_until(lambda: not listed(beside.folder), PATIENCE_SECONDS)
    assert "which is not forwarded any more" in beside.orthanc.log.read_text("utf-8", "replace")
    beside.stop()
    beside.start()


def test_a_series_waits_for_the_right_key(beside: Beside) -> None:
    """An unknown key says nothing about a series, however often and though there is room."""
    _, other = make_key("other", [Role.PREDICT])
    keys = write_keys(beside.folder / "other-keys", other)
    beside.stop()
    beside.start(BRAIN_API_KEYS_FILE=str(keys))
    sent = series(SLICES)
    beside.send(sent)
    # Of each try, two: the transfer, and the question what was wrong with it.
    wait_until(lambda: beside.refused("unauthenticated") >= 2 * TRIES, PATIENCE_SECONDS)
    assert listed(beside.folder)
    beside.stop()
    beside.start()
    beside.await_results(sent[0].study)
    wait_until(lambda: not listed(beside.folder), PATIENCE_SECONDS)


def test_a_series_goes_by_tls_and_waits_for_a_certificate_that_is_trusted(
    tmp_path: Path, model_store: Path
) -> None:
    """By default those of the system are trusted, which do not know a site's own authority."""
    certificate, key = self_signed(tmp_path)
    (image,) = series(1)
    environment = {
        # Where results would go; only what comes to the service counts here.
        "BRAIN_DICOMWEB_URL": f"http://127.0.0.1:{free_port()}",
        "BRAIN_SPOOL": str(tmp_path / "spool"),
        "BRAIN_WORKERS": "0",
    }
    with (
        process(model_store, **environment) as (_, port),
        tls_front(port, certificate, key) as front,
    ):
        url = f"https://127.0.0.1:{front.port}"
        with Orthanc(tmp_path, url) as orthanc:
            orthanc.upload([image.data])
            wait_until(lambda: front.refused >= 2 * TRIES, PATIENCE_SECONDS)
            assert listed(tmp_path)
        assert front.opened == 0
        with Orthanc(tmp_path, url, authorities=certificate):
            wait_until(lambda: not listed(tmp_path), PATIENCE_SECONDS)
        health = httpx.get(f"http://127.0.0.1:{port}/health").json()["pacs"]
        assert health["spool_waiting_bytes"] > 0


class Stub(BaseHTTPRequestHandler):
    """What every service here does, of which no test looks at a log."""

    protocol_version = "HTTP/1.1"

    def read(self) -> None:
        """A body that comes in chunks."""
        while (size := int(self.rfile.readline(), 16)) > 0:
            self.rfile.read(size + 2)
        self.rfile.readline()

    def answer(self, status: int, content: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Tests look at what came."""


@contextmanager
def running(stub: type[Stub]) -> Iterator[str]:
    """The address of a service that is none."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), stub)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class Unwilling(Stub):
    """A service that is there and takes no series, for the one reason after the other."""

    statuses: ClassVar[list[int]] = []
    answered: ClassVar[list[int]] = []

    def do_POST(self) -> None:
        if "Content-Length" in self.headers:
            # The question: it comes from curl, and in one piece.
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(400, b'{"code": "no_input"}')
            return
        self.read()
        number = min(len(self.answered), len(self.statuses) - 1)
        self.answered.append(self.statuses[number])
        self.answer(self.answered[-1])

    def do_GET(self) -> None:
        said = {
            "spool": "ok",
            "spool_waiting_bytes": 0,
            "spool_max_bytes": 4,
            "requests_refused": self.answered.count(413),
            "requests_turned_away": self.answered.count(503),
        }
        self.answer(200, json.dumps({"pacs": said}, separators=(",", ":")).encode())


def test_a_series_is_given_up_for_nothing_but_refusals_in_a_row(tmp_path: Path) -> None:
    """Neither while the disk of a spool is full that seems to be empty, nor for what a proxy says."""
    (image,) = series(1)
    # After the last 503 the question comes for the first time of which a transfer is the next one.
    Unwilling.statuses = [503, 503, 503, 502, 502, 413, 503, 413, 413]
    with (
        running(Unwilling) as url,
        Orthanc(tmp_path, url, retry_max_seconds=1) as orthanc,
    ):
        orthanc.upload([image.data])
        wait_until(lambda: listed(tmp_path))
        wait_until(lambda: not listed(tmp_path), PATIENCE_SECONDS)
        assert "which is not forwarded any more" in orthanc.log.read_text("utf-8", "replace")
    assert Unwilling.answered == Unwilling.statuses


class Held(Stub):
    """A service that takes the first request, but late, and has no room for others."""

    content: ClassVar[bytes] = b""
    requests: ClassVar[list[str]] = []
    gate = threading.Event()

    def do_POST(self) -> None:
        self.read()
        self.requests.append(self.path)
        if len(self.requests) == 1:
            self.gate.wait()
            self.answer(200, self.content)
        else:
            self.answer(503)


def test_a_series_is_on_the_list_from_its_first_image_until_all_is_taken(tmp_path: Path) -> None:
    first, second = series(2)
    reference = {
        SOP_CLASS: {"vr": "UI", "Value": [MRImageStorage]},
        SOP: {"vr": "UI", "Value": [first.sop]},
    }
    Held.content = json.dumps({STORED: {"vr": "SQ", "Value": [reference]}}).encode()
    with (
        running(Held) as url,
        Orthanc(tmp_path, url, stable_seconds=2, retry_seconds=600) as orthanc,
    ):
        try:
            orthanc.upload([first.data])
            wait_until(lambda: listed(tmp_path))
            assert not Held.requests
            wait_until(lambda: len(Held.requests) == 1)
            orthanc.upload([second.data])
            wait_until(lambda: len(Held.requests) == 2, PATIENCE_SECONDS)
            Held.gate.set()
            done = ("Success", "Failure")
            wait_until(lambda: all(state in done for state in orthanc.jobs()))
            assert set(orthanc.jobs()) == set(done)
            assert listed(tmp_path)
        finally:
            Held.gate.set()


def test_orthanc_waits_for_a_service_that_is_away(beside: Beside) -> None:
    beside.stop()
    sent = [series(SLICES), series(SLICES)]
    for one in sent:
        beside.send(one)
    log = beside.orthanc.log

    def failures() -> int:
        return log.read_text("utf-8", "replace").count("Couldn't connect to server")

    wait_until(lambda: failures() >= 3, PATIENCE_SECONDS)
    # What it has to do is on its disk, not only in its memory.
    beside.orthanc.stop()
    beside.orthanc.start()
    beside.start()
    for one in sent:
        beside.await_results(one[0].study)
    pending = beside.folder / "brain-mri-pending"
    wait_until(lambda: pending.read_text("utf-8") == "", PATIENCE_SECONDS)


def test_the_service_waits_for_an_orthanc_that_is_away(beside: Beside) -> None:
    """And is killed meanwhile: what it holds for Orthanc is on its disk."""
    beside.stop()
    beside.start(BRAIN_SERIES_QUIET_MS="10000")
    sent = series(SLICES)
    beside.send(sent)
    wait_until(lambda: beside.state()["instances_waiting"] == SLICES, PATIENCE_SECONDS)
    beside.orthanc.stop()
    wait_until(lambda: beside.state()["destination"] == "unreachable", PATIENCE_SECONDS)
    assert beside.state()["objects_waiting"] >= 2
    beside.stop(signal.SIGKILL)
    beside.start()
    assert beside.state()["objects_waiting"] >= 2
    beside.orthanc.start()
    beside.await_results(sent[0].study)
    wait_until(lambda: not beside.state()["objects_waiting"], PATIENCE_SECONDS)
    kinds = [item.Modality for item in beside.results(sent[0].study)]
    assert (kinds.count("SR"), kinds.count("OT")) == (1, 1)
