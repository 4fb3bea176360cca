"""Takes the handling of each fault away and shows that its test fails without it.

usage: python -m scripts.mutants [WORD ...]      only those whose name holds one of the words

A copy of the project is changed, one place at a time, and the test that belongs to it is run there.
Exits with 1 where a test passes all the same, and where a place is not found any more.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Final

from bench.processes import adopt_orphans, descendants
from scripts.handlings import MUTANTS, Mutant

ROOT: Final = Path(__file__).resolve().parents[1]
COPIED: Final = ("contract", "service", "training", "bench", "scripts", "loadtests", "tests")
LINKED: Final = ("model_store", "pyproject.toml", "README.md")

TIMEOUT_SECONDS: Final = 120
"""A test that hangs has noticed something."""


def copy(folder: Path) -> None:
    """The project, as far as its tests need it."""
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)


def survives(mutant: Mutant, folder: Path) -> bool:
    """Whether the test passes without the handling.

    Raises:
        LookupError: the code is not there once.
    """
    file = folder / mutant.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise LookupError(
            f"{mutant.name}: {mutant.file} has its code {text.count(mutant.old)} times"
        )
    file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutant.test]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    finally:
        # What the test has started, as well, whatever session it is in.
        for pid in descendants(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        file.write_text(text, encoding="utf-8")
    if process.returncode not in (0, 1):
        raise LookupError(f"{mutant.name}: {mutant.test} did not run\n{output}")
    return process.returncode == 0


def main(words: list[str]) -> int:
    """Tries them; returns the process' exit status."""
    adopt_orphans()
    chosen = [mutant for mutant in MUTANTS if not words or any(w in mutant.name for w in words)]
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy(folder)
        for mutant in chosen:
            start = monotonic()
            try:
                passed = survives(mutant, folder)
            except LookupError as error:
                print(error, flush=True)
                wrong += 1
                continue
            wrong += passed
            said = "PASSES ALL THE SAME" if passed else "fails"
            print(f"{mutant.name}: {mutant.test} {said} ({monotonic() - start:.0f} s)", flush=True)
    print(f"{len(chosen) - wrong} of {len(chosen)} tests fail without the handling")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
