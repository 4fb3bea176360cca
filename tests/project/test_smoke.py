"""The smoke tests notice what a service does wrong; small servers stand in for it."""

import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bench.processes import descendants
from scripts import smoke_stack
from scripts.ports import free_port
from tests.support.faults import start_time
from tests.support.service import ROOT, wait_until

SERVICE = """
import signal, subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
# Else it would be as it was where the tests were started, such as ignored in the background of a shell.
signal.signal(signal.SIGINT, signal.default_int_handler)
worker = subprocess.Popen(["sleep", "60"], start_new_session=True)
try:
    HTTPServer(("127.0.0.1", int(sys.argv[1])), Ready).serve_forever()
except KeyboardInterrupt:
    if sys.argv[2] == "ends":
        worker.kill()
        worker.wait()
"""

SMOKE = """
import sys
from scripts import smoke
smoke.PORT = int(sys.argv[-2])
smoke.check_readme_curl = smoke.check_memory = lambda *_: None
sys.exit(smoke.main())
"""


@pytest.mark.parametrize(("worker", "code"), [("ends", 0), ("stays", 1)])
def test_a_worker_that_outlives_the_service_is_noticed(worker: str, code: int) -> None:
    command = [sys.executable, "-c", SERVICE, str(free_port()), worker]
    result = subprocess.run(
        [sys.executable, "-c", SMOKE, "--", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == code, result.stderr
    assert ("Ctrl-C left 1 of its processes behind" in result.stderr) == bool(code)


class Starting(BaseHTTPRequestHandler):
    """What Prometheus answers while it reads its data."""

    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()
        self.wfile.write(b"Service Unavailable")

    def log_message(self, *_: object) -> None:
        """Says nothing."""


CALLER = 'sleep 60 >/dev/null 2>&1 & echo $!; exec "$@"'
"""Becomes the smoke test, which then has a child that it did not start."""


def test_what_the_caller_had_started_is_left_alone() -> None:
    command = [sys.executable, "-c", SERVICE, str(free_port()), "ends"]
    result = subprocess.run(
        ["sh", "-c", CALLER, "sh", sys.executable, "-c", SMOKE, "--", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    other = int(result.stdout.splitlines()[0])
    assert (result.returncode, start_time(other) is None) == (0, False), result.stderr
    os.kill(other, signal.SIGKILL)


def test_sigterm_leaves_nothing_behind() -> None:
    command = ["sh", "-c", "setsid sleep 60 & exec sleep 60", str(free_port()), "never ready"]
    with subprocess.Popen([sys.executable, "-c", SMOKE, "--", *command], cwd=ROOT) as process:
        wait_until(lambda: len(descendants(process.pid)) == 2)
        started = descendants(process.pid)
        process.terminate()
        assert process.wait(timeout=30) == 128 + signal.SIGTERM
    wait_until(lambda: not any(map(start_time, started)))


def test_a_prometheus_that_starts_has_no_value_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Starting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(smoke_stack, "PROMETHEUS", server.server_address)
        try:
            assert smoke_stack.value("up") is None
        finally:
            server.shutdown()
