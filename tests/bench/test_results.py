"""Figures, ratios, bars and tables: from samples to the report."""

import math
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from bench import rounds
from bench.bars import Bar, bars
from bench.contenders import Variant
from bench.forms import Form
from bench.load import Measurement
from bench.processes import Memory
from bench.report import Setting, render, table
from bench.results import CLIENTS, Ceiling, Results, Row, Sample
from bench.rounds import Contender, LoopError, Options, climb, right_labels, take
from bench.server import Driven
from bench.summary import Figure, percentile, ratio
from tests.support.faults import start_time
from tests.support.service import wait_until


def sample(rate: int, latency_us: int) -> Sample:
    seen = Measurement((latency_us,) * rate, 1_000_000, 0, 0, "", rate)
    driven = {clients: Driven(seen, 1.5) for clients in CLIENTS}
    return Sample(driven, 0.9, Memory(300_000_000, 200_000_000))


def row(name: str, variant: Variant | None, rate: int, latency_us: int) -> Row:
    found = Row(name, name, "1.0", variant, Form.RAW, "defaults", 300_000_000)
    found.samples = [sample(rate + extra, latency_us) for extra in (0, 10, -10)]
    return found


@pytest.fixture
def results() -> Results:
    absent = Row(
        "gone", "Gone", "", Variant.LITERT, Form.RAW, "none", failure="cannot be installed"
    )
    rows = [
        row("service", None, 400, 2000),
        row("slow", Variant.TENSORFLOW, 100, 16000),
        row("slower", Variant.TENSORFLOW, 50, 30000),
        row("quick", Variant.LITERT, 320, 5000),
        row("quicker", Variant.LITERT_HALVED, 380, 4000),
        absent,
    ]
    loops = [
        Ceiling(variant, mode, rates=[rate])
        for variant, mode, rate in (
            (Variant.LITERT_HALVED, "a", 500),
            (Variant.LITERT_HALVED, "b", 480),
            (Variant.LITERT, "a", 440),
        )
    ]
    return Results(rows, loops)


def by_name(found: list[Bar]) -> dict[str, Bar]:
    return {bar.what: bar for bar in found}


def test_percentile_is_a_value_that_occurred() -> None:
    values = list(range(1, 101))
    assert [percentile(values, p) for p in (0, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([7], 99) == 7
    assert math.isnan(percentile([], 50))


def test_a_figure_is_the_median_with_its_spread() -> None:
    figure = Figure.of([3.0, 1.0, 2.0])
    assert (figure.median, figure.low, figure.high) == (2.0, 1.0, 3.0)
    assert figure.text(1) == "2.0 (1.0-3.0)"
    assert Figure.of([2.0]).text() == "2"


def test_ratio_to_nothing_is_no_number() -> None:
    assert ratio(3, 2) == 1.5
    assert math.isnan(ratio(3, 0))


def test_bars_compare_with_the_best_peer_of_each_kind(results: Results) -> None:
    found = by_name(bars(results.rows[0], results))
    over = found["throughput at 8 clients, over the best tensorflow peer"]
    assert over.value == pytest.approx(4.0)
    assert over.holds
    assert over.against.startswith("slow,")
    less = found["throughput at 32 clients, over the best litert peer"]
    assert less.value == pytest.approx(1.25)
    assert less.verdict == "**missed**"
    decoding = found["throughput at 32 clients, over the best litert-halved peer"]
    assert decoding.value == pytest.approx(400 / 380)
    assert decoding.verdict == ""
    assert found["throughput at 32 clients, of the bare loop"].value == pytest.approx(0.8)


def test_latency_bars_are_against_peers_as_deployed(results: Results) -> None:
    found = by_name(bars(results.rows[0], results))
    deployed = found["p99 at 32 client(s), of the best tensorflow peer's"]
    assert deployed.value == pytest.approx(0.125)
    assert deployed.verdict == "holds"
    assert found["p99 at 32 client(s), of the best litert peer's"].verdict == ""


def test_a_bar_without_a_value_does_not_hold() -> None:
    assert not Bar("x", math.nan, 1.0, True, "", "-").holds
    assert not Bar("x", math.nan, 1.0, False, "", "-").holds


def test_the_report_drops_nobody(results: Results) -> None:
    setting = Setting(
        "2026-01-02 03:04", [("Processor", "one")], "c", "l", "i", 3, 4, 0.5, [0.01], "m"
    )
    text = render(results, setting)
    assert "Gone, LiteRT (raw body) | - | - | - | cannot be installed" in text
    assert "400 (390-410)" in text
    assert "at most 1.0% of its cores" in text
    assert "ceiling" in text


def test_the_report_lists_a_bare_loop_that_failed(results: Results) -> None:
    results.ceilings.append(Ceiling(Variant.TENSORFLOW, "batches", "not done after 240 s"))
    results.ceilings[0].failure = "Killed"
    text = render(results, Setting("2026-01-02 03:04", [], "c", "l", "i", 1, 4, 0.5, [], "m"))
    assert "| tensorflow, batches | - | 0 | not done after 240 s |" in text
    assert "| litert-halved, a | 500-500 | 500 | Killed |" in text


def test_a_wrong_answer_of_any_load_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, told = sample(400, 2000), list[str]()
    taken.driven[32] = Driven(Measurement((), 1, 2, 0, "503 queue_full", 0), math.nan)
    monkeypatch.setattr(rounds, "_sample", lambda *_arguments: [taken])
    one = Contender("a", "/", "", "", [], [], lambda _port: {}, [row("a", None, 1, 1)])
    take(one, Mock(), told.append)
    assert "WRONG: 503 queue_full" in told[0]


def test_a_bare_loop_that_fails_says_why_in_a_line(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    options = Options(1, 1, 0.5, 1, nowhere, Path(sys.executable), [nowhere])
    for ceiling in (Ceiling(Variant.LITERT, mode) for mode in ("processes", "threads")):
        climb(ceiling, options.service_python, options, lambda _text: None)
        assert ceiling.failure
        assert len(ceiling.failure.splitlines()) == 1
        assert "bench.ceiling" not in ceiling.failure


def test_a_bare_loop_that_takes_too_long_leaves_no_process_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python, child = tmp_path / "python", tmp_path / "child"
    python.write_text(f"#!/bin/sh\nsleep 60 &\necho $! >{child}\nwait\n")
    python.chmod(0o755)
    monkeypatch.setattr(rounds, "CEILING_SECONDS", 1)
    with pytest.raises(LoopError, match="not done after 1 s"):
        right_labels(python, Variant.LITERT, tmp_path, [])
    wait_until(lambda: start_time(int(child.read_text())) is None)


def test_the_report_needs_neither_service_nor_peers(results: Results) -> None:
    setting = Setting("2026-01-02 03:04", [], "c", "l", "i", 1, 4, 0.5, [], "m")
    assert "not part of the run" in render(Results(results.rows[1:2], []), setting)
    assert "This service" in render(Results(results.rows[:1], []), setting)


def test_a_table_has_one_width() -> None:
    lines = table(("a", "b"), [("1", "2"), ("3", "4")]).splitlines()
    assert lines == ["| a | b |", "| --- | ---: |", "| 1 | 2 |", "| 3 | 4 |"]
