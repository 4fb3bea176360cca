"""What is run as ``python -m scripts.NAME`` says how it is called, and does nothing else then."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CALLED = '\nif __name__ == "__main__":\n'

OF_OTHERS = {"bench/ceiling.py"}
"""What the comparison calls by itself, in environments of peers."""

COMMANDS = sorted(
    path
    for folder in ("scripts", "bench")
    for path in (ROOT / folder).glob("[a-z]*.py")
    if CALLED in path.read_text(encoding="utf-8") and str(path.relative_to(ROOT)) not in OF_OTHERS
)
TABLES = [path for path in COMMANDS if path.stem.endswith("_table")]


def called(path: Path, *arguments: str) -> int | str | None:
    """Runs a script in this process; its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(path), *arguments])
        patch.setenv("PATH", "")  # One that starts its work all the same does not get far.
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(path), run_name="__main__")
    return end.value.code


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_every_script_says_how_it_is_called(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(path, "--help") == 0
    usage = capsys.readouterr().out
    assert usage.startswith(f"usage: python -m {path.parent.name}.{path.stem} ")


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_a_table_takes_no_misspelt_option(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(path, "--wirte") == 2
    assert capsys.readouterr().out == ""
