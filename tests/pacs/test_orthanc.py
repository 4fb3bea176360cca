"""A real Orthanc and a real service beside each other, as ``deploy/orthanc`` sets them up."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import Dataset, dcmread

from scripts.mr_study import write_study
from scripts.orthanc import CONFIGURATION, SCRIPT, Orthanc, free_port, missing
from service.dicom.making import MANUFACTURER
from service.keys import Role, make_key
from tests.support.pacs import Instance, series
from tests.support.service import ROOT, environment_with, is_ready, wait_until

pytestmark = [
    pytest.mark.pacs,
    pytest.mark.slow,
    pytest.mark.skipif(
        missing() is not None and os.environ.get("DICOM_TOOLS") != "required",
        reason=missing() or "",
    ),
]

PATIENCE_SECONDS = 120.0
"""Orthanc and the service take turns in waiting for things to become quiet."""

SLICES = 3


class Beside:
    """The service in a process of its own, which can be ended and started again, and Orthanc."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder = folder
        self.port = free_port()
        presented, key = make_key("orthanc", [Role.PREDICT])
        keys = folder / "keys"
        keys.write_text(f"{key.line()}\n", encoding="utf-8")
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


def evidence(report: Dataset) -> set[str]:
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    return {
        image.ReferencedSOPInstanceUID
        for one in study.ReferencedSeriesSequence
        for image in one.ReferencedSOPSequence
    }


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
    assert {item.sop for item in sent} <= evidence(report)
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
