"""Logs: one JSON object a line, with request ids, and never a word that could name a patient."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any

import httpx
import pydicom
import pytest

from scripts.ports import free_port, is_ready
from service import logs
from service.logs import BufferedHandler, JsonFormatter
from tests.support.service import (
    PATIENCE_SECONDS,
    ROOT,
    Service,
    environment_with,
    process,
    wait_until,
)
from tests.support.spool import largest_file

FILE_NAME = "Mustermann_Erika_19640812.dcm"
PIPE_BYTES = 70_000
"""More than a pipe holds."""
LINE_BYTES = 100
"""Less than a line has."""

PATIENT = "Mustermann^Erika"
PATIENT_ID = "PID-8675309"
PATH = "/patients/Mustermann"
VISIT = "f034d653fe9943c1cf229188d3e5507c"


def with_patient(dicom: bytes) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(dicom))
    dataset.PatientName = PATIENT
    dataset.PatientID = PATIENT_ID
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def test_log_of_a_process_is_json_without_patient_data(
    model_store: Path, tmp_path: Path, jpeg: bytes, dicom: bytes
) -> None:
    named = with_patient(dicom)
    with process(model_store, tmp_path / "log", BRAIN_LOG_LEVEL="debug") as (child, port):
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS) as client:
            # Pillow warns of its EXIF data.
            damaged = jpeg[:2] + b"\xff\xe1\0\x12Exif\0\0MM\0*\0\0\0\x08\0\x09" + jpeg[2:]
            for content in (named, named[: len(named) // 2], damaged, b"junk " + PATIENT.encode()):
                files = [("files", (FILE_NAME, content))]
                client.post("/predict", files=files, headers={"X-Request-ID": VISIT})
            client.post("/predict", files=[(PATIENT, (FILE_NAME, jpeg))])
            client.post("/predict", content=PATIENT.encode(), headers={"Content-Type": "text/html"})
            client.get(PATH, params={"name": PATIENT})
            client.get("/health", headers={"X-Request-ID": PATIENT})
        child.send_signal(signal.SIGTERM)
        child.wait(timeout=PATIENCE_SECONDS)
    text = (tmp_path / "log").read_text("utf-8")
    for secret in ("Mustermann", "Erika", PATIENT_ID, "19640812"):
        assert secret not in text
    # LiteRT's own native code greets once per interpreter, and cannot be told not to.
    lines = [json.loads(line) for line in text.splitlines() if not line.startswith("INFO: ")]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    requests = [line for line in lines if line["message"] == "request"]
    visits = [line for line in requests if line["request_id"] == VISIT]
    assert [line["status"] for line in visits] == [200, 422, 200, 415]
    assert [line.get("code") for line in visits][1::2] == [
        "truncated_image",
        "unsupported_media_type",
    ]
    assert all(line["route"] == "/predict" and line["images"] == 1 for line in visits)
    assert all(line["total_ms"] >= line["inference_ms"] >= 0 for line in visits)
    assert "unmatched" in {line["route"] for line in requests}


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (VISIT, True),
        (VISIT.upper(), True),
        ("f034d653-fe99-43c1-cf22-9188d3e5507c", True),
        ("00-f034d653fe9943c1cf229188d3e5507c-00f067aa0ba902b7-01", True),
        ("visit-1", False),
        ("SMITH.JOHN-19450101", False),
        ("19450101", False),
        ("1234567890123456", False),
        ("DEADBEEF", False),
        (VISIT[:-1], False),
        (VISIT + "0", False),
        (VISIT[:-1] + "g", False),
        ("f034d653fe99-43c1-cf22-9188d3e5507c", False),
        ("two words", False),
        ("Müller".encode().decode("latin-1"), False),
        ("a\tb", False),
        ("", False),
    ],
)
def test_request_id_is_repeated_only_if_it_names_nobody(
    service: Any, sent: str, kept: bool
) -> None:
    headers = [(b"X-Request-ID", sent.encode("latin-1"))]
    answered = service.client.get("/health", headers=headers).headers["x-request-id"]
    assert (answered == sent) is kept
    assert kept or len(answered) == 32


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}, TRACE),
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "X-Request-ID": VISIT}, VISIT),
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "X-Request-ID": PATIENT}, TRACE),
        ({"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"}, None),
        ({"traceparent": f"00-{TRACE}-{'0' * 16}-01"}, None),
        ({"traceparent": f"ff-{TRACE}-00f067aa0ba902b7-01"}, None),
        ({"traceparent": f"00-{TRACE.upper()}-00f067aa0ba902b7-01"}, None),
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01-{PATIENT}"}, None),
        ({"traceparent": f"01-{TRACE}-00f067aa0ba902b7-01-{PATIENT}"}, TRACE),
        ({"traceparent": f"cc-{TRACE}-00f067aa0ba902b7-01"}, TRACE),
        ({"traceparent": f"cc-{TRACE}-00f067aa0ba902b7-01{PATIENT}"}, None),
        ({"traceparent": PATIENT}, None),
    ],
    ids=[
        *("alone", "other", "unusable", "zeros", "no parent", "version", "case", "more"),
        *("later version", "later version, no more", "later version, no field", "name"),
    ],
)
def test_without_a_request_id_it_is_that_of_the_trace(
    service: Any, sent: dict[str, str], expected: str | None
) -> None:
    answered = service.client.get("/health/live", headers=sent).headers["x-request-id"]
    if expected is None:
        assert len(answered) == 32
        assert int(answered, 16)
        assert answered != TRACE
    else:
        assert answered == expected


def test_request_ids_differ(service: Any) -> None:
    ids = {service.client.get("/health/live").headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


@pytest.mark.parametrize(
    ("route", "accept"),
    [
        ("/predict", "application/json"),
        ("/predict", 'multipart/related; type="application/dicom"'),
        ("/explain", "image/png"),
        ("/explain", "application/json"),
    ],
)
def test_the_logged_total_is_that_of_the_whole_answer(
    two_heads: Service, dicom: bytes, caplog: pytest.LogCaptureFixture, route: str, accept: str
) -> None:
    caplog.set_level("INFO", "service.request")

    def measured(sample: str) -> float:
        return two_heads.metric(f"brain_http_request_duration_seconds_{sample}", route=route)

    seconds, count = measured("sum"), measured("count")
    headers = {"Accept": accept}
    response = two_heads.client.post(route, files={"files": dicom}, headers=headers)
    assert response.status_code == 200
    # They are written after the last byte of the answer.
    wait_until(lambda: measured("count") > count and caplog.records)
    (record,) = caplog.records
    fields = record.fields  # type: ignore[attr-defined]
    assert fields["total_ms"] == pytest.approx(1000 * (measured("sum") - seconds), abs=0.006)
    assert fields["total_ms"] >= fields["inference_ms"] > 0
    if response.headers["content-type"] == "application/json":
        timing = response.json()["timing_ms"]
        assert fields["total_ms"] >= timing["total"] >= timing["inference"]


def test_exception_is_one_line_with_its_traceback() -> None:
    record: logging.LogRecord
    try:
        raise ValueError("what happened")
    except ValueError:
        record = logging.LogRecord("n", logging.ERROR, "", 0, "it %s", ("broke",), sys.exc_info())
    record.fields = {"images": 3}
    line = JsonFormatter().format(record)
    assert "\n" not in line
    content = json.loads(line)
    assert (content["message"], content["images"]) == ("it broke", 3)
    assert "ValueError: what happened" in content["traceback"]


@pytest.mark.parametrize("patient", [False, True], ids=["soon", "at-once"])
def test_lines_are_written_soon_and_warnings_at_once(
    patient: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert logs.WRITE_SECONDS <= 0.1
    if patient:
        # So long that only a warning ends it.
        monkeypatch.setattr(logs, "WRITE_SECONDS", 2 * PATIENCE_SECONDS)
    handler = BufferedHandler()
    handler.setFormatter(JsonFormatter())
    written: list[str] = []

    def read() -> list[str]:
        written.extend(json.loads(line)["message"] for line in capfd.readouterr().err.splitlines())
        return written

    last = logging.WARNING if patient else logging.INFO
    for number, level in enumerate((logging.INFO, logging.INFO, last)):
        handler.handle(logging.LogRecord("n", level, "", 0, str(number), (), None))
    wait_until(lambda: read() == ["0", "1", "2"])
    handler.handle(logging.LogRecord("n", last, "", 0, "3", (), None))
    wait_until(lambda: read() == ["0", "1", "2", "3"])


def test_every_line_is_written_once(capfd: pytest.CaptureFixture[str]) -> None:
    handler = BufferedHandler()

    def write(writer: int) -> None:
        for number in range(500):
            level = logging.WARNING if number % 50 == 0 else logging.INFO
            handler.handle(logging.LogRecord("n", level, "", 0, f"{writer}-{number}", (), None))

    threads = [Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.flush()
    lines = capfd.readouterr().err.splitlines()
    assert sorted(lines) == sorted(f"{w}-{n}" for w in range(4) for n in range(500))


@pytest.mark.parametrize("waits", [True, False], ids=["waits", "waits-not"])
def test_a_log_that_nobody_reads_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    # Each process ends that much later beside a log that is not read.
    assert logs.FLUSH_SECONDS <= 1
    monkeypatch.setattr(logs, "FLUSH_SECONDS", 0.2)
    reader, writer = os.pipe()
    # Another program that has the same pipe may have told it so.
    os.set_blocking(writer, waits)
    monkeypatch.setattr("service.logs.STDERR", writer)
    handler = BufferedHandler(max_lines=100)
    handler.setFormatter(JsonFormatter())
    filling = "x" * PIPE_BYTES

    def log(text: str) -> None:
        handler.handle(logging.LogRecord("n", logging.ERROR, "", 0, text, (), None))

    log(filling)
    wait_until(lambda: handler._writing and not handler._lines)
    # The pipe is full and the writing thread waits; this one must not.
    for number in range(150):
        log(str(number))
    start = monotonic()
    handler.flush()
    assert 0.2 <= monotonic() - start < PATIENCE_SECONDS / 3
    # What is read now is written to its end.
    monkeypatch.setattr(logs, "FLUSH_SECONDS", PATIENCE_SECONDS)
    os.set_blocking(reader, False)
    received = bytearray()

    def read() -> int:
        with suppress(BlockingIOError):
            received.extend(os.read(reader, PIPE_BYTES))
        return received.count(b"\n")

    wait_until(lambda: read() == 102)
    handler.flush()
    os.close(reader)
    os.close(writer)
    lines = list(map(json.loads, received.splitlines()))
    assert [line["message"] for line in lines[:-1]] == [filling, *map(str, range(100))]
    assert lines[-1]["lines"] == 50


def test_what_a_full_disk_took_of_the_log_is_said_and_no_line_glued_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "FLUSH_SECONDS", PATIENCE_SECONDS)
    handler = BufferedHandler()
    handler.setFormatter(JsonFormatter())

    def log(*texts: str) -> None:
        for text in texts:
            handler.handle(logging.LogRecord("n", logging.INFO, "", 0, text, (), None))
        handler.flush()

    with (tmp_path / "log").open("wb") as file:
        monkeypatch.setattr("service.logs.STDERR", file.fileno())
        log("0")
        # It takes half of a line, and then nothing, twice.
        with largest_file(file.seek(0, os.SEEK_END) * 3 // 2):
            log("1", "2", "3")
            log("4")
        log("5", "6")
        log("7")
    first, torn, notice, *last = (tmp_path / "log").read_text("utf-8").splitlines()
    assert json.loads(first)["message"] == "0"
    with pytest.raises(json.JSONDecodeError):
        json.loads(torn)
    assert json.loads(notice)["lines"] == 4
    assert [json.loads(line)["message"] for line in last] == ["5", "6", "7"]


def test_a_service_whose_log_is_not_read_answers_and_ends(model_store: Path) -> None:
    port = free_port()
    variables = {"BRAIN_MODEL_STORE": str(model_store), "BRAIN_RUNTIME": "litert"}
    environment = environment_with(BRAIN_PORT=str(port), BRAIN_LOG_LEVEL="debug", **variables)
    command = [sys.executable, "-m", "service"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE) as child:
        try:
            wait_until(lambda: is_ready(port))
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:
                for _ in range(2 * PIPE_BYTES // LINE_BYTES):
                    assert client.get("/nowhere").status_code == 404
            child.send_signal(signal.SIGTERM)
            assert child.wait(PATIENCE_SECONDS) == 0
        finally:
            child.kill()
