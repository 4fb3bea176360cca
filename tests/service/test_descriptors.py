"""Open files and sockets: as many as the connections need, whatever the shell allowed."""

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from service import descriptors
from service.__main__ import INVALID_SETTINGS
from tests.support.service import PATIENCE_SECONDS, ROOT, environment_with, process, run_python

FEW = 256
"""More than a test and the service need at the start."""

CHANGED = """
import logging, resource
from service.descriptors import raise_limit

logging.basicConfig(format="%(message)s", force=True)
logging.getLogger().handlers[0].setStream(__import__("sys").stdout)
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
raise_limit({connections})
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


FILLED = """
import os, sys
from service.descriptors import fill_standard_streams

os.closerange(0, 3)
fill_standard_streams()
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
found = {(os.readlink(f"/proc/self/fd/{number}"), os.get_inheritable(number)) for number in range(3)}
os.write(log, repr(found).encode())
"""


@contextmanager
def few_files() -> Iterator[None]:
    """What is started here may have few files open, as from a shell, and may raise that itself."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_what_is_opened_is_never_taken_for_a_standard_stream(tmp_path: Path) -> None:
    run_python("-c", FILLED, str(tmp_path / "log"))
    assert (tmp_path / "log").read_text("utf-8") == repr({("/dev/null", True)})


def test_without_standard_streams_it_says_by_its_exit_status_what_is_wrong() -> None:
    """As where a shell was told ``2>&-``."""
    finished = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        env=environment_with(BRAIN_PORT="many"),
        preexec_fn=lambda: os.closerange(0, 3),
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert finished.returncode == INVALID_SETTINGS


def test_connections_are_not_limited_by_the_usual_limit_of_files(model_store: Path) -> None:
    with ExitStack() as stack:
        with few_files():
            variables = {"BRAIN_WORKERS": "0", "BRAIN_LOG_LEVEL": "error"}
            _, port = stack.enter_context(process(model_store, **variables))
        for _ in range(FEW):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS))
        url = f"http://127.0.0.1:{port}/health/live"
        assert httpx.get(url, timeout=PATIENCE_SECONDS).status_code == 200


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "allowed"),
    [
        (100, 20_000, 850, descriptors.ENOUGH),
        (100, 2_000, 850, 2_000),
        (9_000, 20_000, 850, 9_000),
        (100, 20_000, 10_000, 10_000 + descriptors.OTHERS),
        (100, 20_000, 30_000, 20_000),
        (1_000, 1_000, 850, 1_000),
    ],
)
def test_as_many_files_may_be_open_as_are_needed(
    soft: int, hard: int, connections: int, allowed: int
) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < hard:
        pytest.skip("this process may not have as many files open")
    script = CHANGED.format(soft=soft, hard=hard, connections=connections)
    *warnings, last = run_python("-c", script).splitlines()
    assert last == f"{allowed} {hard}"
    needed = connections + descriptors.OTHERS
    assert [line.partition(":")[0] for line in warnings] == (
        [f"{allowed} files may be open, and BRAIN_MAX_CONNECTIONS needs {needed}"]
        if allowed < needed
        else []
    )


def test_where_it_must_not_be_raised_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a filter of system calls may have it."""

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    descriptors.raise_limit(850)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
