"""Takes the handling of each fault away and shows that its test fails without it.

A copy of the project is changed, one place at a time, and the test that belongs to it is run there.
All of them run in the unchanged copy first: one that does not pass there tells nothing.

Exits with 1 where a test does not pass unchanged, passes all the same, or hangs though nothing says
that it may, and where a place is not found any more; with 2 where no test can be tried at all.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Final

from bench.processes import descendants, started_since, take_charge
from scripts.handlings import MUTANTS, Mutant

ROOT: Final = Path(__file__).resolve().parents[1]
COPIED: Final = ("contract", "service", "training", "bench", "scripts", "loadtests", "tests")
LINKED: Final = ("model_store", "pyproject.toml", "README.md")

TIMEOUT_SECONDS: Final = 120
"""A test hangs that takes so much longer than all that are run took unchanged."""
SECONDS_A_TEST: Final = 20
"""Unchanged, they may take so much more for each: a machine may be busy."""

FAILS, HANGS, PASSES = "fails", "HANGS", "PASSES ALL THE SAME"


def copy(folder: Path) -> None:
    """The project, as far as its tests need it."""
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)


def run(
    tests: Collection[str], folder: Path, seconds: float, option: str
) -> tuple[int | None, str]:
    """Runs tests in the copy; pytest's exit code, or None where they hang, and what it printed."""
    command = [sys.executable, "-m", "pytest", option, "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    code, before = None, descendants(os.getpid())
    # A file, not a pipe: what a test has left running would keep a pipe open.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(seconds)
        finally:
            # What the test has started, as well, whatever session it is in.
            for pid in started_since(before):
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)
            process.wait()
        output.seek(0)
        return code, output.read()


def passed(test: str, output: str) -> bool:
    """Whether a test passed, with all its parameters, by what ``pytest -v`` printed."""
    ends = re.findall(rf"^{re.escape(test)}(?:\[.*\])? ([A-Z]*)", output, re.MULTILINE)
    return {*ends} == {"PASSED"}


def without(mutant: Mutant, folder: Path, seconds: float) -> str:
    """What the test does without the handling, within a time.

    Raises:
        LookupError: the code is not there once, or the test did not run.
    """
    file = folder / mutant.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise LookupError(
            f"{mutant.name}: {mutant.file} has its code {text.count(mutant.old)} times"
        )
    file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        code, output = run([mutant.test], folder, seconds, "-qx")
    finally:
        file.write_text(text, encoding="utf-8")
    if code not in (0, 1, None):
        raise LookupError(f"{mutant.name}: {mutant.test} did not run\n{output}")
    return {0: PASSES, 1: FAILS, None: HANGS}[code]


def main(arguments: list[str]) -> int:
    """Tries them; returns the process' exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.mutants", description=__doc__.splitlines()[0]
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="only those with one in the name")
    words: list[str] = parser.parse_args(arguments).words
    take_charge()
    for word in words:
        if not any(word in mutant.name for mutant in MUTANTS):
            print(f"no mutant has {word!r} in its name", file=sys.stderr)
            return 2
    chosen = [mutant for mutant in MUTANTS if not words or any(w in mutant.name for w in words)]
    caught = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy(folder)
        start = monotonic()
        tests = dict.fromkeys(mutant.test for mutant in chosen)
        limit = TIMEOUT_SECONDS + SECONDS_A_TEST * len(tests)
        code, unchanged = run(tests, folder, limit, "-v")
        if code != 0:
            print(unchanged, flush=True)
        if code not in (0, 1, None):
            print("the tests do not run", file=sys.stderr)
            return 2
        took = monotonic() - start
        print(f"{len(tests)} tests without a change: {took:.0f} s", flush=True)
        for mutant in chosen:
            start = monotonic()
            if not passed(mutant.test, unchanged):
                print(f"{mutant.name}: {mutant.test} DOES NOT PASS UNCHANGED", flush=True)
                continue
            try:
                said = without(mutant, folder, TIMEOUT_SECONDS + took)
            except LookupError as error:
                print(error, flush=True)
                continue
            caught += said == FAILS or (said == HANGS and mutant.hangs)
            print(f"{mutant.name}: {mutant.test} {said} ({monotonic() - start:.0f} s)", flush=True)
    print(f"{caught} of {len(chosen)} tests fail without the handling")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
