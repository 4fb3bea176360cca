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
import json, os, sys
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

WAITING = """
tree = start("sleep 60 & exec sleep 60")
try:
    until(lambda: len(tree._processes()) == 2)
    tell(tree._processes())
    sleep(60)
finally:
    tree.stop()
"""


@pytest.fixture
def python(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A measurement that reads its script from its standard input."""
    with subprocess.Popen(
        [sys.executable, "-", tmp_path],
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
