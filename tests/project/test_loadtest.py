"""The load test passes against a service that answers right, and fails where answers are mixed up."""

import hashlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["glioma", "meningioma", "notumor", "pituitary"]
ASKED_BEFORE_THE_LOAD = 10
"""Slices and DICOM objects in tests/data, each asked for once."""


def predict(image: bytes) -> dict[str, Any]:
    if image.endswith(b"no image"):
        return {"error": {"status": 422, "code": "undecodable_image", "detail": ""}}
    label = CLASSES[hashlib.sha256(image).digest()[0] % len(CLASSES)]
    return {"label": label, "probabilities": {name: float(name == label) for name in CLASSES}}


class Service(ThreadingHTTPServer):
    """Answers ``/predict`` by a hash of each image; a mixed-up one, under load, always the same."""

    daemon_threads = True

    def __init__(self, mixed_up: bool) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.mixed_up = mixed_up
        self.key: str | None = None
        self.open_for = 0
        self.count = itertools.count()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key = self.server.key
        if self.path != "/predict":
            self.refuse(404)
            return
        if self.server.open_for > 0:
            self.server.open_for -= 1
        elif key is not None and self.headers["Authorization"] != f"Bearer {key}":
            self.refuse(401)
            return
        images = [body]
        kind = self.headers["Content-Type"]
        if kind.startswith("multipart/form-data"):
            parts = body.split(b"--" + kind.split("boundary=")[1].encode())[1:-1]
            images = [part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n") for part in parts]
        if next(self.server.count) >= ASKED_BEFORE_THE_LOAD and self.server.mixed_up:
            images = [b"another client's slice"] * len(images)
        answer = json.dumps({"predictions": [predict(image) for image in images]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    with Service(request.param) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("service", "exit_code"),
    [(False, 0), (True, 1)],
    ids=["right", "mixed-up"],
    indirect=["service"],
)
def test_load_test_tells_right_answers_from_wrong_ones(service: Service, exit_code: int) -> None:
    result = load(service)
    assert result.returncode == exit_code, result.stderr
    assert next(service.count) > ASKED_BEFORE_THE_LOAD
    assert ("wrong answer" in result.stderr) == bool(exit_code)


@pytest.mark.parametrize("service", [False], ids=["right"], indirect=True)
def test_load_test_sends_the_api_key_before_and_under_load(service: Service) -> None:
    service.key = "a-key"
    # With the slash that a browser shows.
    result = load_at(f"{address(service)}/", 6, LOAD_API_KEY="a-key")
    assert result.returncode == 0, result.stderr
    assert next(service.count) > ASKED_BEFORE_THE_LOAD


@pytest.mark.parametrize("service", [False], ids=["right"], indirect=True)
@pytest.mark.parametrize("answers", [0, 3], ids=["none", "some"])
def test_load_test_ends_where_a_file_has_no_answer_before_it(
    service: Service, answers: int
) -> None:
    service.key = "a-key"
    service.open_for = answers
    result = load(service, run_seconds=40)
    assert result.returncode == 1
    (said,) = [line for line in result.stderr.splitlines() if "no answer from" in line]
    assert "401 " in said
    assert "Traceback" not in result.stderr
    assert next(service.count) == answers


def test_load_test_ends_at_once_where_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]
    result = load_at(f"http://127.0.0.1:{port}", 40)
    assert result.returncode == 1
    assert f"no answer from http://127.0.0.1:{port}: ConnectionError\n" in result.stderr
    assert "Traceback" not in result.stderr


def load(
    service: Service, run_seconds: int = 6, **variables: str
) -> subprocess.CompletedProcess[str]:
    return load_at(address(service), run_seconds, **variables)


def address(service: Service) -> str:
    return f"http://127.0.0.1:{service.server_address[1]}"


def load_at(host: str, run_seconds: int, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs it; fails where it takes much longer than a load of six seconds."""
    options = f"--headless --users 2 --spawn-rate 2 --run-time {run_seconds}s --host {host}"
    return subprocess.run(
        [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", *options.split()],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
