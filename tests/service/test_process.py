"""``python -m service`` as a process: start, drain, exit status, imports."""

import errno
import json
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from time import monotonic, sleep

import httpx
import pytest

from scripts.ports import free_port, is_ready
from service.server import check_drain
from service.settings import Settings
from tests.support.service import (
    MODEL,
    PATIENCE_SECONDS,
    ROOT,
    FakeRuntimes,
    add_version,
    environment_with,
    newest,
    occupied,
    process,
    read_status,
    serving,
    settings_for,
    wait_until,
)

LATE = "f034d653fe9943c1cf229188d3e5507c"
"""Id of a request."""

RECONNECTING = 24
"""Clients."""


@pytest.fixture(autouse=True)
def _hangup_counts() -> Iterator[None]:
    """Though the tests themselves may run under nohup, which has it ignored by all that they start."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda n: n.name
)
def test_signal_loses_no_accepted_request(
    model_store: Path, jpeg: bytes, number: signal.Signals
) -> None:
    """Eight clients post without a pause while the service is told to stop."""
    answered: list[int] = []
    broken: list[str] = []
    unready = threading.Event()

    with process(model_store, BRAIN_DRAIN_NOTICE_MS="4000", BRAIN_LOG_LEVEL="error") as (
        child,
        port,
    ):
        url = f"http://127.0.0.1:{port}"

        def ask() -> None:
            """Posts until it is refused; a refused connection after the notice is no loss."""
            with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client:
                headers = {"Content-Type": "image/jpeg"}
                while True:
                    try:
                        response = client.post("/predict", content=jpeg, headers=headers)
                    except httpx.TransportError as error:
                        broken.append(repr(error))
                        return
                    answered.append(response.status_code)
                    if response.status_code != 200:
                        assert response.json()["code"] == "draining"
                        assert "retry-after" in response.headers
                        assert response.headers["connection"] == "close"
                        return

        clients = [threading.Thread(target=ask) for _ in range(8)]
        for client in clients:
            client.start()
        wait_until(lambda: len(answered) >= 40)
        child.send_signal(number)
        wait_until(lambda: answered.count(503))
        report = httpx.get(f"{url}/health/ready")
        if (report.status_code, report.json()["status"]) == (503, "draining"):
            unready.set()
        for client in clients:
            client.join(PATIENCE_SECONDS)
        assert child.wait(PATIENCE_SECONDS) == 0
    assert broken == []
    assert set(answered) == {200, 503}
    assert answered.count(503) == len(clients)
    assert unready.is_set()


def test_request_in_flight_is_finished(model_store: Path, jpeg: bytes) -> None:
    """The body is still under way when the signal comes: accepted, so it is answered."""
    with process(model_store, BRAIN_DRAIN_NOTICE_MS="0") as (child, port):

        def accepted() -> bool:
            # This scrape is one of the two requests in progress.
            scrape = httpx.get(f"http://127.0.0.1:{port}/metrics").text
            return "brain_http_requests_in_progress 2.0" in scrape

        def body() -> object:
            yield jpeg[:1000]
            wait_until(accepted)
            child.send_signal(signal.SIGTERM)
            sleep(1)
            yield jpeg[1000:]

        response = httpx.post(
            f"http://127.0.0.1:{port}/predict",
            content=body(),  # type: ignore[arg-type]
            headers={"Content-Type": "image/jpeg"},
            timeout=PATIENCE_SECONDS,
        )
        assert response.status_code == 200
        assert child.wait(PATIENCE_SECONDS) == 0


def test_what_the_drain_cannot_finish_is_refused(
    model_store: Path, tmp_path: Path, jpeg: bytes
) -> None:
    """Its body never comes to an end; the client is told to ask again, as of any refusal."""
    head = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: image/jpeg\r\n"
    head += b"X-Request-ID: %s\r\nContent-Length: %d\r\n\r\n" % (LATE.encode(), len(jpeg))
    log = tmp_path / "log"
    with process(model_store, log, BRAIN_DRAIN_NOTICE_MS="0", BRAIN_DRAIN_SECONDS="1") as (
        child,
        port,
    ):
        with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as connection:
            connection.sendall(head + jpeg[:1000])
            # This scrape is one of the two requests in progress.
            metrics = f"http://127.0.0.1:{port}/metrics"
            wait_until(lambda: "requests_in_progress 2.0" in httpx.get(metrics).text)
            child.send_signal(signal.SIGTERM)
            answer = HTTPResponse(connection)
            answer.begin()
            content = json.loads(answer.read())
        assert child.wait(PATIENCE_SECONDS) == 0
    assert (answer.status, content["code"], content["request_id"]) == (503, "draining", LATE)
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Request-ID"] == LATE
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    text = log.read_text("utf-8")
    assert "Traceback" not in text
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    # It had been said at the start that this could happen.
    [warning] = [line["message"] for line in lines if line["level"] == "warning"]
    assert "BRAIN_DRAIN_SECONDS is less than BRAIN_DEADLINE_MS" in warning
    [line] = [line for line in lines if line.get("request_id") == LATE]
    assert (line["message"], line["status"], line["code"]) == ("request", 503, "draining")


@pytest.mark.parametrize(
    ("drain_seconds", "deadline_ms", "warned"), [(10, 10_000, False), (10, 10_001, True)]
)
def test_a_drain_that_is_shorter_than_a_request_may_be_is_said(
    drain_seconds: int, deadline_ms: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    check_drain(Settings(drain_seconds=drain_seconds, deadline_ms=deadline_ms))
    assert bool(caplog.records) == warned


def test_by_default_a_drain_is_as_long_as_a_request_may_be(
    caplog: pytest.LogCaptureFixture,
) -> None:
    check_drain(Settings())
    assert not caplog.records


def test_an_answer_that_the_drain_cuts_off_gets_no_second_one(
    model_store: Path, runtimes: FakeRuntimes, jpeg: bytes
) -> None:
    """One client has read the beginning of its answer, the other one nothing."""
    settings = settings_for(model_store, drain_seconds=1)
    bundle = "/static/vendor/swagger-ui/swagger-ui-bundle.js"
    with serving(settings, runtimes) as service, occupied(service, runtimes, jpeg) as (waits, _):
        with socket.socket() as reader:
            reader.settimeout(PATIENCE_SECONDS)
            # Less than the answer, which so has to wait for its reader.
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            for listening in service.sockets:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            reader.connect(service.address)
            reader.sendall(f"GET {bundle} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            pieces = [reader.recv(1024)]
            service.state.drain()
            service._server.should_exit = True
            assert read_status(waits) == 503
            while piece := reader.recv(65536):
                pieces.append(piece)
        runtimes.last.gate.set()
    assert b"".join(pieces).count(b"HTTP/1.1 ") == 1
    for route, status in (("/predict", "503"), ("/static/", "200")):
        assert service.metric("brain_http_requests_total", route=route, status=status) == 1
    assert service.metric("brain_errors_total", code="draining") == 1


def test_who_is_to_outlive_its_terminal_does(model_store: Path) -> None:
    """As under nohup, which has the signal ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with process(model_store, BRAIN_DRAIN_NOTICE_MS="600000") as (child, port):
        url = f"http://127.0.0.1:{port}/health/ready"
        child.send_signal(signal.SIGHUP)
        # It would be handled before what comes after it.
        assert [httpx.get(url).status_code for _ in range(3)] == [200] * 3
        child.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(url).status_code == 503)
        assert child.poll() is None
        child.send_signal(signal.SIGTERM)
        assert child.wait(PATIENCE_SECONDS) == 0


def test_a_terminal_that_hangs_up_twice_ends_nothing_at_once(model_store: Path) -> None:
    with process(model_store, BRAIN_DRAIN_NOTICE_MS="600000") as (child, port):
        url = f"http://127.0.0.1:{port}/health/ready"
        child.send_signal(signal.SIGHUP)
        wait_until(lambda: httpx.get(url).status_code == 503)
        child.send_signal(signal.SIGHUP)
        assert [httpx.get(url).status_code for _ in range(3)] == [503] * 3
        child.send_signal(signal.SIGTERM)
        assert child.wait(PATIENCE_SECONDS) == 0


def test_second_signal_ends_it_at_once(model_store: Path) -> None:
    with process(model_store, BRAIN_DRAIN_NOTICE_MS="600000") as (child, port):
        child.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 503)
        start = monotonic()
        child.send_signal(signal.SIGTERM)
        assert child.wait(PATIENCE_SECONDS) == 0
        assert monotonic() - start < PATIENCE_SECONDS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BRAIN_PORT", "many"),
        ("BRAIN_RUNTIME", "abacus"),
        ("BRAIN_NO_SUCH_SETTING", "1"),
        ("BRAIN_QUEUE_SIZE", "0"),
    ],
)
def test_wrong_setting_refuses_to_start_and_is_named(name: str, value: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        env=environment_with(**{name: value}),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert finished.returncode == 2
    assert name in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("arguments", [["--port", "8742"], ["--no-such"], ["sesame"]], ids=str)
def test_arguments_are_refused_and_not_ignored(arguments: list[str]) -> None:
    finished = asked(*arguments)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert "settings are environment variables" in finished.stderr
    assert "sesame" not in finished.stderr


def test_help_lists_every_setting_and_starts_nothing() -> None:
    finished = asked("--help")
    assert (finished.returncode, finished.stderr) == (0, "")
    lines = {line.partition("=")[0] for line in finished.stdout.splitlines()}
    assert {f"BRAIN_{name}".upper() for name in Settings.model_fields} <= lines


def asked(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What the command says to some arguments; one that serves all the same ends by its setting."""
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        cwd=ROOT,
        env=environment_with(BRAIN_PORT="many"),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_start_imports_nothing_that_is_slow() -> None:
    code = "import sys, json, service.__main__; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment_with(),
        capture_output=True,
        check=True,
        timeout=PATIENCE_SECONDS,
    ).stdout
    loaded = {module.partition(".")[0] for module in json.loads(output)}
    assert not loaded & {"tensorflow", "keras", "pydicom", "scipy", "ai_edge_litert", "training"}


def test_clients_that_connect_anew_for_each_request_lose_none(
    model_store: Path, jpeg: bytes
) -> None:
    """Each is answered or finds the door closed; it is not shut in its face."""
    answered: list[int] = []
    broken: list[str] = []

    def ask(port: int) -> None:
        while True:
            with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)) as connection:
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    return
                try:
                    connection.request("POST", "/predict", jpeg, {"Content-Type": "image/jpeg"})
                    answered.append(read_status(connection))
                except (OSError, HTTPException) as error:
                    broken.append(repr(error))

    with process(model_store, BRAIN_LOG_LEVEL="error") as (child, port):
        clients = [threading.Thread(target=ask, args=(port,)) for _ in range(RECONNECTING)]
        for client in clients:
            client.start()
        wait_until(lambda: answered.count(200) >= RECONNECTING)
        child.send_signal(signal.SIGTERM)
        assert child.wait(PATIENCE_SECONDS) == 0
        for client in clients:
            client.join(PATIENCE_SECONDS)
    assert set(answered) == {200, 503}
    # One whose handshake ends in the moment of closing cannot be told; without care nearly all break.
    assert len(broken) <= RECONNECTING // 3, broken


def test_who_connects_just_before_it_stops_listening_finds_the_door_closed(
    model_store: Path,
) -> None:
    """The queue of connections would take them, and be closed with all of them in it."""
    port = free_port()
    variables = {
        "BRAIN_MODEL_STORE": str(model_store),
        "BRAIN_PORT": str(port),
        "BRAIN_RUNTIME": "litert",
        "BRAIN_WORKERS": "0",
        "BRAIN_DRAIN_NOTICE_MS": "0",
    }
    with (
        ExitStack() as stack,
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.held_close"],
            cwd=ROOT,
            env=environment_with(**variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as child,
    ):
        try:
            wait_until(lambda: is_ready(port))
            child.send_signal(signal.SIGTERM)
            assert child.stdout
            assert child.stdout.readline() == b"held\n"
            clients = [stack.enter_context(socket.socket()) for _ in range(RECONNECTING)]
            for client in clients:
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", port))
            child.communicate(b"\n", PATIENCE_SECONDS)
            assert child.returncode == 0
        finally:
            child.kill()
        found = []
        for client in clients:
            # Who found the queue full knocks again after a second.
            assert select.select([], [client], [], PATIENCE_SECONDS)[1]
            found.append(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    # Even a queue of no length takes one, and on a busy machine the kernel may see some at once.
    assert found.count(errno.ECONNREFUSED) >= RECONNECTING - RECONNECTING // 8, found


@pytest.mark.parametrize("active", [False, True], ids=["at the start", "beside another"])
def test_it_ends_while_a_version_hangs_that_it_loads(store_copy: Path, active: bool) -> None:
    """In native code, which no exception reaches."""
    first, second = newest(store_copy), add_version(store_copy)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    variables = {
        "BRAIN_MODEL_STORE": str(store_copy),
        "BRAIN_MODEL_VERSION": str(first if active else second),
        "BRAIN_PORT": str(port),
        "BRAIN_RUNTIME": "litert",
        "BRAIN_DRAIN_NOTICE_MS": "0",
        "BRAIN_DRAIN_SECONDS": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.hanging_load", str(second)],
        cwd=ROOT,
        env=environment_with(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        try:
            if active:
                wait_until(lambda: is_ready(port))
                threading.Thread(target=activate, args=(url, second)).start()
            assert child.stdout
            assert child.stdout.readline() == b"hangs\n"
            assert httpx.get(f"{url}/health/ready").status_code == (200 if active else 503)
            child.send_signal(signal.SIGTERM)
            assert child.wait(PATIENCE_SECONDS) == 0
        finally:
            child.kill()


def activate(url: str, version: int) -> None:
    """Asks for a version; that it is given up is no matter."""
    with suppress(httpx.TransportError):
        httpx.post(f"{url}/models/{MODEL}/{version}/activate", timeout=PATIENCE_SECONDS)
