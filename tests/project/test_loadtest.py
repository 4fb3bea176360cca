"""The load test passes against a service that answers right, and fails where answers are mixed up."""

import hashlib
import itertools
import json
import os
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
        self.count = itertools.count()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key = self.server.key
        if key is not None and self.headers["Authorization"] != f"Bearer {key}":
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()
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
    result = load(service, LOAD_API_KEY="a-key")
    assert result.returncode == 0, result.stderr
    assert next(service.count) > ASKED_BEFORE_THE_LOAD


def load(service: Service, **variables: str) -> subprocess.CompletedProcess[str]:
    host = f"http://127.0.0.1:{service.server_address[1]}"
    options = f"--headless --users 2 --spawn-rate 2 --run-time 6s --host {host}"
    return subprocess.run(
        [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", *options.split()],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
