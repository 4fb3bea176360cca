"""Two commits by turns: every answer has to have its own image's label."""

from pathlib import Path
from unittest.mock import Mock

import pytest

from bench import turns
from bench.environments import ROOT
from bench.load import Measurement, Plan
from bench.server import Driven
from bench.slices import SHIPPED, choose


def test_answers_are_held_against_their_labels(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = []

    def server(_command: object, _variables: object, tree: Path, *_rest: object) -> Mock:
        def drive(_path: str, plan: Plan, *_rest: object) -> Driven:
            plans.append(plan.path.read_text("utf-8").splitlines())
            wrong = 3 if tree == ROOT else 0
            return Driven(Measurement((1000,) * 8, 1_000_000, wrong, 1, "200 x", 8), 1.0)

        one = Mock(drive=drive, await_answer=Mock(return_value=1.0), __exit__=Mock())
        one.__enter__ = Mock(return_value=one)
        return one

    def labels(_python: Path, _variant: object, _version: Path, files: list[Path]) -> list[str]:
        return [file.parent.name for file in files]

    monkeypatch.setattr(turns, "take_charge", Mock())
    monkeypatch.setattr(turns, "choose", lambda _folders, n: choose([SHIPPED], n))
    monkeypatch.setattr(turns, "right_labels", labels)
    monkeypatch.setattr(turns, "archived", Mock(return_value=b""))
    monkeypatch.setattr(turns, "unpacked", Mock(return_value=Path("then")))
    monkeypatch.setattr(turns, "Server", server)
    monkeypatch.setattr("sys.argv", ["turns", "then", "--rounds", "2"])
    assert turns.main() == 0
    assert "| 8 client(s) | 8 | 8 | 1.00 | 2 and 8 |" in capsys.readouterr().out
    patterns = {line.partition("\t")[2] for plan in plans for line in plan}
    assert patterns == {
        f'"label": ?"{name}"' for name in ("glioma", "meningioma", "notumor", "pituitary")
    }
