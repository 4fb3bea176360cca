"""Servers are told apart, and ended with all that they started, whatever ends the measurement."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from bench.environments import ROOT

HEAD = """
import json, os, signal, sys
from pathlib import Path
from time import monotonic, sleep
from bench import processes
from bench.processes import Tree, take_charge

take_charge()
processes.STOP_SECONDS = 1.0
here = Path(sys.argv[1])

def start(script):
    return Tree(["sh", "-c", script], dict(os.environ), here, here / "log")

def tell(what):
    print(json.dumps(what), flush=True)

def until(condition):
    end = monotonic() + 20
    while not condition() and monotonic() < end:
        sleep(0.02)
    assert condition()
"""

TWO = """
both = [start("sleep 60 & exec sleep 60"), start("sleep 61 & exec sleep 61")]
until(lambda: [len(tree._processes()) for tree in both] == [2, 2])
began = monotonic()
both[0].stop()
took = monotonic() - began
tell([len(both[0]._processes()), len(both[1]._processes()), both[1].alive(), took])
both[1].stop()
"""
"""The child of each is an orphan when its parent has ended, and gets no SIGTERM."""

MOVED = """
tree = start("setsid sleep 60 & exec sleep 60")
until(lambda: len(tree._processes()) == 2 and len(tree._sessions) == 2)
tree.stop()
tell(tree._processes())
"""

LEFT = """
(here / "child").touch()
tree = start(sys.argv[2])
until(lambda: (here / "child").read_text() and not processes.descendants(tree.process_id))
orphan = Path("/proc", (here / "child").read_text().strip())
assert orphan.exists()
tree.stop()
tell(orphan.exists())
"""
"""Nobody has looked at the tree before its end."""

BROKEN_OFF = """
tree = start("trap '' TERM; sleep 60; sleep 60")
until(lambda: len(tree._processes()) == 2)
tell(tree._processes())
processes.STOP_SECONDS = 60
processes.sleep = lambda _seconds: signal.raise_signal(signal.SIGTERM)
tree.stop()
"""

WAITING = """
tree = start("sleep 60 & exec sleep 60")
try:
    until(lambda: len(tree._processes()) == 2)
    tell(tree._processes())
    sleep(60)
finally:
    tree.stop()
"""


CHILD = "setsid sleep 60 & echo $! >child"


@pytest.fixture
def python(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A measurement that reads its script from its standard input; a parameter is an argument."""
    with subprocess.Popen(
        [sys.executable, "-", tmp_path, getattr(request, "param", "")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        yield process
        process.kill()


def test_a_server_ends_without_the_other(python: subprocess.Popen[str]) -> None:
    output, _ = python.communicate(HEAD + TWO, timeout=60)
    left, other, alive, seconds = json.loads(output)
    assert (left, other, alive) == (0, 2, True)
    assert seconds < 10


def test_an_orphan_in_a_session_of_its_own_ends_too(python: subprocess.Popen[str]) -> None:
    output, _ = python.communicate(HEAD + MOVED, timeout=60)
    assert json.loads(output) == []


@pytest.mark.parametrize(
    "python",
    [f"{CHILD}; sleep 0.3; exit 1", f"sh -c '{CHILD}'; exec sleep 60"],
    ids=["of a server that crashed", "of a process in between"],
    indirect=True,
)
def test_an_orphan_that_nobody_saw_below_its_parent_ends_too(
    python: subprocess.Popen[str],
) -> None:
    output, _ = python.communicate(HEAD + LEFT, timeout=60)
    assert json.loads(output) is False


def test_sigterm_in_the_middle_of_a_stop_ends_what_ignores_it(
    python: subprocess.Popen[str],
) -> None:
    output, _ = python.communicate(HEAD + BROKEN_OFF, timeout=30)
    assert python.returncode == 128 + signal.SIGTERM
    servers = json.loads(output)
    assert len(servers) == 2
    assert not [pid for pid in servers if Path(f"/proc/{pid}").exists()]


def test_sigterm_ends_the_server_first(python: subprocess.Popen[str]) -> None:
    assert python.stdin is not None
    assert python.stdout is not None
    python.stdin.write(HEAD + WAITING)
    python.stdin.close()
    servers = json.loads(python.stdout.readline())
    assert len(servers) == 2
    began = monotonic()
    for _ in range(2):
        python.send_signal(signal.SIGTERM)
    assert python.wait(timeout=30) == 128 + signal.SIGTERM
    assert monotonic() - began < 20
    assert not [pid for pid in servers if Path(f"/proc/{pid}").exists()]
