"""An Orthanc that does not answer is stopped, and its log said. A program stands in for it."""

import os
from pathlib import Path

import pytest

from scripts import orthanc


@pytest.fixture
def stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program that is started for Orthanc; says its process' number."""
    program = tmp_path / "Orthanc"
    program.write_text('#!/bin/sh\necho "plugin missing, $$" >&2\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return program


def test_one_that_does_not_answer_is_stopped(
    stands_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orthanc, "START_SECONDS", 1.0)
    with stands_in.open("a") as program:
        program.write("exec sleep 30\n")
    with (
        pytest.raises(RuntimeError, match="plugin missing") as raised,
        orthanc.Orthanc(stands_in.parent, "http://127.0.0.1:9"),
    ):
        pass
    started = str(raised.value).split()[-1]
    assert not Path("/proc", started).exists()


def test_one_that_ends_has_the_end_of_its_log_said(stands_in: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="did not start:\nplugin missing"),
        orthanc.Orthanc(stands_in.parent, "http://127.0.0.1:9"),
    ):
        pass
