"""What the shipped model makes of whole volumes can be asked from any folder."""

from pathlib import Path

import pytest

from scripts import normal_volumes
from tests.support.service import ROOT


def test_a_volume_has_its_line_wherever_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["", str(ROOT / "tests/data/slices/notumor")])
    assert normal_volumes.main() == 0
    assert capsys.readouterr().out.startswith("notumor: 2 slices, 0 called a tumour, ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone"], "No such file or directory: 'gone'"),
        (["."], ". has no .jpg files"),
        ([str(ROOT / "tests/data/slices/notumor"), "--version", "999"], "999"),
        (["broken"], "broken"),
    ],
    ids=["missing", "empty", "version", "broken"],
)
def test_what_cannot_be_asked_has_a_message(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "1.jpg").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["", *arguments])
    assert normal_volumes.main() == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert said in captured.err
