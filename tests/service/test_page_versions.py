"""The page where a result can be taken for another one: of other versions, frames and slices."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.service.test_page_incomplete import ERROR, SLICE, answer, entry, made
from tests.service.test_page_series import ORDERED, VISIBLE
from tests.support.browser import BROWSER_SECONDS, STUB, Browser, needs_browser, saved
from tests.support.service import MODEL, wait_until


def by_version(number: int, *entries: dict[str, Any]) -> dict[str, Any]:
    model = {"name": MODEL, "version": number, "runtime": "litert", "device": "cpu"}
    body = {"request_id": str(number), "model": model, "predictions": list(entries)}
    return {"status": 200, "headers": {}, "body": body}


def slice_of(name: str, decision: str, probability: float, **fields: Any) -> dict[str, Any]:
    known = {"input": name, "label": "glioma", "probabilities": {"glioma": probability}}
    return {**known, "decision": decision, "tumor_probability": probability, **fields}


def add(browser: Browser, paths: Sequence[Path], *answers: dict[str, Any]) -> None:
    browser.run("window.answers = arguments[0]", list(answers))
    browser.choose(paths)
    browser.wait_for_answers()


@pytest.fixture
def page(browser: Browser) -> Browser:
    browser.run(STUB)
    return browser


@pytest.fixture
def paper(page: Browser) -> Iterator[Browser]:
    page.cdp("Emulation.setEmulatedMedia", media="print")
    yield page
    page.cdp("Emulation.setEmulatedMedia", media="")


@needs_browser
def test_paper_says_what_is_not_on_it(paper: Browser, slices: Sequence[Path]) -> None:
    found = [
        slice_of("a.jpg", "tumor", 0.9, region=None),
        slice_of("b.jpg", "no_tumor", 0.1, region=None),
    ]
    add(paper, slices[:2], by_version(4, *found))
    date = r"Printed \d+ \w+ \d{4} at \d\d:\d\d:\d\d \S+\."
    assert re.fullmatch(rf"Results by {MODEL} 4\. {date}", paper.text("#printed"))
    assert paper.run("return document.querySelector('.heat:not([hidden])')") is not None
    heat = "return [...document.querySelectorAll('.heat')].map((it) => it.checkVisibility())"
    assert paper.run(heat) == [False, False]
    paper.run("document.querySelector('[value=no_tumor]').click()")
    only = "Only “No tumour” is shown: 1 of 2 slices."
    assert re.fullmatch(rf"Results by {MODEL} 4\. {date} {only}", paper.text("#printed"))
    paper.cdp("Emulation.setEmulatedMedia", media="")
    assert not paper.run("return document.getElementById('printed').checkVisibility()")


@needs_browser
def test_paper_has_the_report_while_a_slice_is_enlarged(
    paper: Browser, slices: Sequence[Path]
) -> None:
    add(paper, slices[:1], by_version(4, slice_of("a.jpg", "tumor", 0.9)))
    paper.run("document.querySelector('.thumb button').click()")
    assert paper.run("return document.getElementById('viewer').open")
    seen = """return ["#viewer", ".banner", ".row"]
        .map((name) => document.querySelector(name).checkVisibility())"""
    assert paper.run(seen) == [False, True, True]
    paper.press("\ue00c")


@needs_browser
def test_results_of_several_versions_are_told_apart(page: Browser, slices: Sequence[Path]) -> None:
    serving = int(page.text("#model-version"))
    notice = "return document.getElementById('versions').checkVisibility()"
    add(page, slices[:1], by_version(serving, slice_of("a.jpg", "tumor", 0.9)))
    assert not page.run(notice)
    assert "Model version" not in page.rows()[0]["remarks"]

    add(page, slices[1:2], by_version(77, slice_of("b.jpg", "no_tumor", 0.1)))
    assert page.text("#versions") == f"These results are by {MODEL} {serving} and {MODEL} 77."
    assert page.text("#versions") in page.text("#announcer")
    for row, number in zip(page.rows(), (serving, 77), strict=True):
        assert row["remarks"].endswith(f"Model version {number}")
    page.cdp("Emulation.setEmulatedMedia", media="print")
    printed = page.text("#printed")
    page.cdp("Emulation.setEmulatedMedia", media="")
    assert printed.startswith(f"Results by {MODEL} {serving} and {MODEL} 77. Printed ")

    # Another version than the one that is named as serving is said even where it is the only one.
    page.clear()
    add(page, slices[:1], by_version(77, slice_of("a.jpg", "tumor", 0.9)))
    past = f"These results are by {MODEL} 77. The service now runs {MODEL} {serving}."
    assert page.text("#versions") == past


@needs_browser
def test_a_version_that_is_activated_later_is_noticed(
    page: Browser, slices: Sequence[Path]
) -> None:
    serving = int(page.text("#model-version"))
    add(page, slices[:1], by_version(serving, slice_of("a.jpg", "tumor", 0.9)))
    page.run(
        """const real = window.fetch;
        const model = { name: arguments[0], version: 78, runtime: "litert", device: "cpu" };
        window.fetch = async (url, options) => url === "health"
          ? new Response(JSON.stringify({ status: "ready", model })) : real(url, options);
        document.dispatchEvent(new Event("visibilitychange"))""",
        MODEL,
    )
    wait_until(lambda: "now runs" in page.text("#announcer"), BROWSER_SECONDS)
    assert f"The service now runs {MODEL} 78." in page.text("#versions")
    assert f"Model version {serving}" in page.rows()[0]["remarks"]


@needs_browser
def test_only_what_is_calibrated_is_saved_as_such(
    page: Browser, chromium_folder: Path, tmp_path: Path
) -> None:
    paths = made(tmp_path, ["1.dcm", "2.dcm"])
    add(page, paths[:1], answer(entry("1.dcm"), tumor_probability=0.1))
    known = entry("2.dcm", tumor_probability=0.2, prediction_set=["notumor"])
    add(page, paths[1:], answer(known, tumor_probability=0.2))
    _, lines = saved(page, chromium_folder / "saved")
    for prefix in ("", "series_"):
        columns = [f"{prefix}tumor_probability{ending}" for ending in ("", "_uncalibrated")]
        found = [[line[column] for column in columns] for line in lines]
        assert found == [["", "0.1"], ["0.2", ""]]


@needs_browser
def test_a_series_is_saved_as_calibrated_beside_a_slice_that_failed_too(
    page: Browser, chromium_folder: Path, tmp_path: Path
) -> None:
    known = entry("1.dcm", prediction_set=["notumor"])
    failed = {"input": "2.dcm", "error": ERROR, "dicom": entry("2.dcm")["dicom"]}
    add(page, made(tmp_path, ["1.dcm", "2.dcm"]), answer(known, failed, tumor_probability=0.2))
    _, lines = saved(page, chromium_folder / "saved")
    assert [line["series_tumor_probability"] for line in lines] == ["0.2", "0.2"]
    assert "series_tumor_probability_uncalibrated" not in lines[0]


SCORE_NAMES = """return [...document.querySelectorAll("#series-list .score-name")]
    .map((it) => it.innerText.trim().split(/\\s+/).join(" "))"""

SETS_HINT = "return document.getElementById('sets-hint').checkVisibility()"


@needs_browser
def test_a_series_that_is_not_calibrated_says_so(page: Browser, tmp_path: Path) -> None:
    names = ["1.dcm", "2.dcm"]
    paths = made(tmp_path, names)
    add(page, paths, answer(*map(entry, names)))
    assert page.run(SCORE_NAMES) == ["tumour probability of the series (uncalibrated output)"]
    assert not page.run(SETS_HINT)
    page.clear()
    add(page, paths, answer(*(entry(name, prediction_set=["notumor"]) for name in names)))
    assert page.run(SCORE_NAMES) == ["tumour probability of the series"]
    assert page.run(SETS_HINT)


@needs_browser
def test_a_frame_is_named_wherever_it_is_shown(page: Browser, tmp_path: Path) -> None:
    frames = [entry("1.dcm", region=None) for _ in range(2)]
    for number, frame in enumerate(frames, 1):
        frame["dicom"] = {**frame["dicom"], "frame": number}
    add(page, made(tmp_path, ["1.dcm"], SLICE), answer(*frames))
    assert [row["name"] for row in page.rows()] == ["1.dcm, frame 1", "1.dcm, frame 2"]
    labels = "return [...document.querySelectorAll('.heat')].map((it) => it.ariaLabel)"
    assert page.run(labels) == [
        f"Slice with heat map of 1.dcm, frame {number}" for number in (1, 2)
    ]
    page.click(".row:nth-child(2) .heat")
    assert page.text("#viewer-name") == "1.dcm, frame 2"
    page.press("\ue00c")


@needs_browser
def test_what_cannot_be_judged_is_looked_at_but_has_no_bars(
    page: Browser, chromium_folder: Path, slices: Sequence[Path]
) -> None:
    found = [
        slice_of("a.jpg", "no_tumor", 0.3),
        slice_of("b.jpg", "refer", 0.5),
        slice_of("c.jpg", "refer", 0.01, in_distribution=False),
        slice_of("d.jpg", "tumor", 0.9),
    ]
    add(page, slices[:4], by_version(4, *found))
    strange = page.rows()[2]
    assert (strange["score"], strange["classes"]) == ("", "")
    assert "Outputs, not to be relied onGlioma 0.010" in strange["details"]
    page.run(ORDERED, "score")
    assert page.run(VISIBLE) == [slices[k].name for k in (3, 2, 1, 0)]
    _, lines = saved(page, chromium_folder / "saved")
    columns = ["file", "decision", "in_distribution", "tumor_probability_uncalibrated"]
    assert list(lines[0])[:4] == columns
    kept = [(line["in_distribution"], line["tumor_probability_uncalibrated"]) for line in lines]
    assert kept[2] == ("false", "0.01")


@needs_browser
def test_the_slices_of_a_file_are_counted_once(page: Browser) -> None:
    """Not once for each of them: a zip file may have a thousand."""
    reads = page.run(
        """return import("/static/page/files.js").then(({ titleOf }) => {
          let reads = 0;
          const entries = Array.from({ length: 300 }, (_, number) => ({
            get input() { reads += 1; return "a.dcm"; },
            dicom: { frame: number + 1 },
          }));
          const item = { path: "a.dcm", file: { name: "a.dcm" }, entries };
          return [titleOf(item, entries[6]), entries.map((it) => titleOf(item, it)) && reads];
        })"""
    )
    assert reads[0] == "a.dcm, frame 7"
    assert reads[1] < 300 * 5


@needs_browser
def test_no_text_is_a_formula_whatever_separates(page: Browser) -> None:
    """Spreadsheets separate by semicolons where a comma is the decimal sign, and some by tabs."""
    table = page.run(
        """return import("/static/page/exports.js").then(({ toCsv }) => toCsv(
          arguments[0].map((name) => ({
            file: { name, size: 1 }, path: name,
            entries: [{ input: name, tumor_probability: -0.5,
              region: { box: [1, -2, 3, -4.5], score: [-1e-7, -1.5e30] } }],
          })),
        ))""",
        [
            "x;=1+1;y.jpg",
            "x\t@a,-2+3,+b.jpg",
            "\t=1",
            "-1+1",
            "a;b.jpg",
            "a-b=c.jpg",
            "-1e",
            "-1e5+1",
        ],
    )
    assert table.startswith("\ufefffile,")
    lines = list(csv.DictReader(io.StringIO(table.removeprefix("\ufeff"))))
    assert [line["file"] for line in lines] == [
        *("x;'=1+1;y.jpg", "x\t'@a,'-2+3,'+b.jpg", "'\t'=1", "'-1+1", "a;b.jpg", "a-b=c.jpg"),
        *("'-1e", "'-1e5+1"),
    ]
    # Quoted where the separator is another one as well.
    for text in ("x;'=1+1;y.jpg", "a;b.jpg"):
        assert f'\n"{text}",' in table
    assert {line["tumor_probability_uncalibrated"] for line in lines} == {"-0.5"}
    assert {line["region"] for line in lines} == {'{"box":[1,-2,3,-4.5],"score":[-1e-7,-1.5e+30]}'}
