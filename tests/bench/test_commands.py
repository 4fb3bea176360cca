"""A tool that cannot do what it is told says so at once, with status 2 and one line."""

import importlib
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import Mock

import pytest

from bench import __main__ as bench
from bench import pacs

WRONG = {
    "no rounds": ("__main__", "--rounds", "-1"),
    "nobody": ("__main__", "--only", "service,servce"),
    "no report": ("__main__", "--quick", "--output", "/dev/null/x.md"),
    "no configuration": ("gpu", "--only", "TensorFlow GPU"),
    "no more than the warm-up": ("gpu", "--seconds", "1"),
    "no overload": ("overload", "--rounds", "0"),
    "no clients": ("soak", "--clients", "0"),
    "no instances": ("pacs", "--instances", "none"),
    "no version": ("stages", "nowhere/7"),
    "no number": ("stages", "model_store"),
    "no commit": ("turns", "nosuch"),
    "no version to compare": ("turns", "HEAD", "--version", "99"),
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG)
def test_a_wrong_option_is_refused(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"bench.{arguments[0]}")
    monkeypatch.setattr("sys.argv", list(arguments))
    monkeypatch.setattr(module, "take_charge", Mock(side_effect=AssertionError), raising=False)
    with pytest.raises(SystemExit) as left:
        module.main()
    assert left.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert ": error: " in last
    assert arguments[-1].rpartition(",")[2].removesuffix("/x.md") in last


def test_the_folder_of_the_report_is_there_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "new" / "report.md"
    monkeypatch.setattr("sys.argv", ["bench", "--output", str(output)])
    assert bench._arguments().output == output
    assert output.parent.is_dir()


def test_a_part_of_a_run_does_not_replace_the_whole_one_s_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "FOLDER", tmp_path / ".bench")
    monkeypatch.setattr("sys.argv", ["bench", "--only", "ceiling,mosec"])
    output = bench._arguments().output
    assert output == tmp_path / ".bench" / "RESULTS.md"
    assert output.is_file()


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("fastapi-litert", {"fastapi-litert"}),
        ("fastapi", {"fastapi-tensorflow", "fastapi-litert", "fastapi-litert-halved"}),
        ("service", {"service"}),
    ],
)
def test_a_name_means_itself_and_a_prefix_all_that_have_it(name: str, keys: set[str]) -> None:
    assert {key for key in bench.KEYS if bench._wanted(key, [name])} == keys


def test_there_are_no_more_series_than_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("take_charge", "missing", "encoded", "busy_share", "Orthanc", "service", "run"):
        monkeypatch.setattr(pacs, name, Mock(return_value=nullcontext()))
    pacs.missing.return_value = ""  # type: ignore[attr-defined]
    pacs.encoded.return_value = []  # type: ignore[attr-defined]
    pacs.busy_share.return_value = 0.0  # type: ignore[attr-defined]
    monkeypatch.setattr("sys.argv", ["pacs", "--instances", "10"])
    pacs.main()
    assert pacs.run.call_args.args[-2:] == (10, 10)  # type: ignore[attr-defined]
