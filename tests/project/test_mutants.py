"""``make mutants`` takes away what is there, and asks tests that exist."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.processes import descendants
from scripts.handlings import MUTANTS, Mutant
from tests.support.faults import start_time
from tests.support.service import wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_place_and_names_a_test(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1
    assert mutant.old != mutant.new
    ast.parse(text.replace(mutant.old, mutant.new))
    path, *names = mutant.test.split("[")[0].split("::")
    defined = {
        node.name
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    assert {*names} <= defined


MADE = """
import time, pytest
from made.limits import ROOM
def test_notices(): assert ROOM == 1
def test_does_not_notice(): pass
def test_waits():
    while ROOM != 1: time.sleep(0.1)
def test_breaks():
    if ROOM != 1: pytest.exit("it broke", returncode=4)
def test_fails_anyway(): assert ROOM == 0
@pytest.mark.parametrize("place", ["here", "not here"])
def test_fails_somewhere(place): assert place == "here"
@pytest.mark.skip
def test_skipped(): pass
"""

MAKE = """
import sys
from pathlib import Path
from scripts import mutants
from scripts.handlings import Mutant
mutants.ROOT, mutants.COPIED, mutants.LINKED = Path(sys.argv[1]), ("made",), ("pyproject.toml",)
mutants.TIMEOUT_SECONDS = 10
def mutant(name):
    test = f"made/test_limits.py::test_{name.rstrip('!')}"
    return Mutant(name, "made/limits.py", "1", "2", test, hangs=name.endswith("!"))
mutants.MUTANTS = [mutant(name) for name in sys.argv[2].split()]
sys.exit(mutants.main(sys.argv[3:]))
"""


ENVIRONMENT = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""Of the project's own plugins none is wanted, and they take a second to import."""


def make(folder: Path) -> None:
    """A small project."""
    (folder / "made").mkdir()
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (folder / "made" / "limits.py").write_text("ROOM = 1\n")
    (folder / "made" / "test_limits.py").write_text(MADE)


def tried(folder: Path, tests: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs the mutants of a small project, in a process whose children it may end."""
    make(folder)
    return subprocess.run(
        [sys.executable, "-c", MAKE, str(folder), tests, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=120,
        check=False,
    )


def test_only_a_test_that_fails_for_the_change_has_noticed_it(tmp_path: Path) -> None:
    tests = "notices does_not_notice waits breaks fails_anyway fails_somewhere skipped"
    result = tried(tmp_path, tests)
    ends = {
        "notices": "fails (",
        "does_not_notice": "PASSES ALL THE SAME (",
        "waits": "HANGS (",
        "breaks": "did not run",
        **dict.fromkeys(("fails_anyway", "fails_somewhere", "skipped"), "DOES NOT PASS UNCHANGED"),
    }
    for name, end in ends.items():
        assert f"\n{name}: made/test_limits.py::test_{name} {end}" in f"\n{result.stdout}"
    assert result.stdout.endswith("\n1 of 7 tests fail without the handling\n"), result.stderr
    assert result.returncode == 1


def test_all_noticed(tmp_path: Path) -> None:
    result = tried(tmp_path, "notices does_not_notice waits!", "notices", "waits")
    assert result.stdout.endswith("\n2 of 2 tests fail without the handling\n"), result.stdout
    assert result.returncode == 0


def test_a_test_that_is_not_there_notices_nothing(tmp_path: Path) -> None:
    result = tried(tmp_path, "notices gone")
    assert "test_gone" in result.stdout
    assert (result.returncode, result.stderr) == (2, "the tests do not run\n")


def test_a_word_that_no_mutant_has(tmp_path: Path) -> None:
    result = tried(tmp_path, "notices", "notices", "notcies")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "no mutant has 'notcies' in its name\n"


def test_sigterm_ends_the_test_and_nothing_that_the_caller_had_started(tmp_path: Path) -> None:
    make(tmp_path)
    with subprocess.Popen(
        [
            *("sh", "-c", 'sleep 60 >/dev/null & exec "$@"', "sh"),
            *(sys.executable, "-c", MAKE, str(tmp_path), "waits"),
        ],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until(lambda: descendants(process.pid))
        other = descendants(process.pid)[0]
        assert process.stdout is not None
        assert process.stdout.readline().startswith("1 tests without a change")
        wait_until(lambda: len({*descendants(process.pid)} - {other}) == 1)
        (test,) = {*descendants(process.pid)} - {other}
        process.terminate()
        assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert start_time(other) is not None
    os.kill(other, signal.SIGKILL)
    wait_until(lambda: start_time(test) is None)
