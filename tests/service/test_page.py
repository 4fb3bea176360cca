"""The page that people use: what it shows in a real browser."""

import re
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.browser import (
    BROWSER_SECONDS,
    STUB,
    UNSAVED,
    Browser,
    needs_browser,
    opened,
    saved,
)
from tests.support.service import MODEL, wait_until


def answers_for(url: str, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """What the service says of files without the page."""
    files = [("files", (path.name, path.read_bytes())) for path in paths]
    answer = httpx.post(f"{url}predict?mask=rle", files=files, timeout=BROWSER_SECONDS).json()
    entries: list[dict[str, Any]] = answer["predictions"]
    return entries


def shown(value: float) -> str:
    if value >= 0.9995:
        return ">0.999"
    return "<0.001" if value < 0.0005 else f"{value:.3f}"


def edge(value: float) -> str:
    short = f"{value:.3f}"
    return short if float(short) == value else f"{value:.4f}"


DECISIONS = {"tumor": "Tumour", "no_tumor": "No tumour", "refer": "Refer to a reader"}
LABELS = {
    "glioma": "Glioma",
    "meningioma": "Meningioma",
    "notumor": "No tumour",
    "pituitary": "Pituitary tumour",
}


@needs_browser
def test_good_and_bad_files_together(browser: Browser, url: str, folder: Path) -> None:
    paths = sorted(folder.iterdir())
    browser.choose(paths)
    browser.wait_for_answers()
    rows = browser.rows()
    entries = answers_for(url, paths)
    assert [row["name"] for row in rows] == [path.name for path in paths]
    for row, entry in zip(rows, entries, strict=True):
        if "error" in entry:
            error = entry["error"]
            assert row["decision"] == "No result"
            assert f"{error['status']} {error['code']}" in row["remarks"]
            assert error["detail"][1:] in row["remarks"]
            assert row["score"] == row["classes"] == ""
            continue
        assert row["decision"] == DECISIONS[entry["decision"]]
        assert row["label"] == f"Most likely class: {LABELS[entry['label']]}"
        assert row["score"] == shown(entry["tumor_probability"])
        assert ("uncalibrated" in row["note"]) is ("prediction_set" not in entry)
        assert row["classes"] == "; ".join(
            f"{LABELS[name]} {shown(value)}" for name, value in entry["probabilities"].items()
        )
        assert "inference" in row["details"]
        assert ("SOP instance" in row["details"]) == ("dicom" in entry)
    labels = [row["label"] for row in rows]
    assert labels.count("The file is incomplete") == 1
    assert labels.count("This kind of file is not accepted") == 1
    assert labels.count("The file is empty") == 1
    previews = [row["name"] for row in rows if row["preview"] == "true"]
    assert set(previews) >= {path.name for path in paths if path.name.startswith("Te-")}
    tumors = sum(entry.get("decision") == "tumor" for entry in entries)
    summary = browser.text("#summary")
    assert re.match(f"8 files in .*\n5 slices: {tumors} tumour, .*\n3 without a result.$", summary)
    assert browser.text("#announcer") == summary.replace("\n", " ")


OLDER = """
delete Map.groupBy;
delete Object.groupBy;
delete AbortSignal.any;
delete Promise.withResolvers;
delete Set.prototype.union;
"""
"""What the oldest browsers of docs/installation.md do not have."""


@needs_browser
def test_a_browser_of_2023_is_enough(shared_browser: Browser, url: str, folder: Path) -> None:
    command = "Page.addScriptToEvaluateOnNewDocument"
    script = shared_browser.cdp(command, source=OLDER)["identifier"]
    try:
        browser = opened(shared_browser, url)
        assert browser.run("return Map.groupBy === undefined")
        browser.choose(sorted(folder.iterdir()))
        browser.wait_for_answers()
        assert len(browser.rows()) == 8
        browser.click(".row:not([hidden]) .heat:not([hidden])")
        image = "return document.getElementById('viewer-image').naturalWidth > 0"
        wait_until(lambda: browser.run(image), BROWSER_SECONDS)
    finally:
        shared_browser.cdp("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


@needs_browser
def test_health_and_banner(browser: Browser, url: str) -> None:
    assert "Not a medical device. Research use only." in browser.text(".banner")
    # Among the landmarks, by which some people go through a page.
    assert browser.run("return document.querySelector('body > header .banner') !== null")
    assert browser.text("#model-name") == MODEL
    assert browser.text("#model-version").isdigit()
    assert (browser.text("#model-runtime"), browser.text("#model-device")) == ("LiteRT", "cpu")
    point = httpx.get(f"{url}health").json()["operating_point"]
    low, high = edge(point["refer_low"]), edge(point["refer_high"])
    assert browser.text("#operation-ranges").split("\n") == [
        *(f"{high} or more", "Tumour"),
        *(f"{low} to {high}", "Refer to a reader"),
        *(f"below {low}", "No tumour"),
    ]
    found = f"{100 * point['sensitivity']:.1f}\u00a0% of the slices with a tumour reach it"
    assert found in browser.text("#operation-note")
    links = "return [...document.querySelectorAll('nav a')].map((link) => link.pathname)"
    assert browser.run(links) == ["/docs", "/models", "/metrics"]
    # In the page's own place they would take the results and the key away.
    apart = "return document.querySelectorAll('nav a[target=_blank][rel=noopener]').length"
    assert browser.run(apart) == 3


POINTS: list[tuple[dict[str, float], list[list[str]]]] = [
    ({"tumor_threshold": 0.5}, [["0.500 or more", "Tumour"], ["below 0.500", "No tumour"]]),
    (
        {"tumor_threshold": 0.5, "refer_low": 0.2, "refer_high": 0.2},
        [["0.500 or more", "Tumour"], ["below 0.500", "No tumour"]],
    ),
    (
        {"tumor_threshold": 0.5, "refer_low": 0.2, "refer_high": 0.4},
        [
            ["0.500 or more", "Tumour"],
            ["0.400 to 0.500", "No tumour"],
            ["0.200 to 0.400", "Refer to a reader"],
            ["below 0.200", "No tumour"],
        ],
    ),
    (
        {"tumor_threshold": 0.5, "refer_low": 0, "refer_high": 0.6},
        [["0.600 or more", "Tumour"], ["below 0.600", "Refer to a reader"]],
    ),
    # 0.55606 is shown as 0.556, and is below.
    (
        {"tumor_threshold": 0.556107, "refer_low": 0.556107, "refer_high": 0.672505},
        [
            ["0.6725 or more", "Tumour"],
            ["0.5561 to 0.6725", "Refer to a reader"],
            ["below 0.5561", "No tumour"],
        ],
    ),
]


@needs_browser
@pytest.mark.parametrize(
    ("point", "lines"), POINTS, ids=["no band", "empty band", "apart", "from zero", "between"]
)
def test_operating_point_in_words(
    browser: Browser, point: dict[str, float], lines: list[list[str]]
) -> None:
    script = """return import("/static/page/words.js").then((words) =>
        [words.operation(arguments[0]), words.sensitivity(arguments[0])])"""
    assert browser.run(script, point) == [lines, ""]


@needs_browser
def test_dropped_folder(browser: Browser, folder: Path) -> None:
    (folder / "deeper").mkdir()
    shutil.copy(next(folder.glob("Te-*")), folder / "deeper" / "10.jpg")
    shutil.copy(next(folder.glob("Te-*")), folder / "deeper" / "9.jpg")
    (folder / ".DS_Store").write_bytes(b"noise")
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.cdp("Input.dispatchDragEvent", type=kind, x=400, y=220, data=data)
    wait_until(lambda: len(browser.find_all(".row")) == 10, BROWSER_SECONDS)
    browser.wait_for_answers()
    names = [row["name"] for row in browser.rows()]
    assert [name for name in names if "deeper" in name] == [
        "study/deeper/9.jpg",
        "study/deeper/10.jpg",
    ]


@needs_browser
def test_a_folder_without_files_says_so(
    browser: Browser, slices: Sequence[Path], tmp_path: Path
) -> None:
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    (tmp_path / "empty" / ".DS_Store").write_bytes(b"noise")
    shown = "return document.getElementById('no-files').checkVisibility()"
    assert not browser.run(shown)
    data = {"items": [], "files": [str(tmp_path / "empty")], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.cdp("Input.dispatchDragEvent", type=kind, x=400, y=220, data=data)
    wait_until(lambda: browser.run(shown), BROWSER_SECONDS)
    assert browser.text("#no-files") == "There is no file in it that could be sent."
    browser.choose(slices[:1])
    assert not browser.run(shown)
    browser.wait_for_answers()


EMPTY_CHOICE = """const input = document.getElementById("files");
input.files = new DataTransfer().files;
input.dispatchEvent(new Event("change"));
return document.getElementById("no-files").checkVisibility()"""

PASTED = """const clipboardData = new DataTransfer();
if (arguments[0]) clipboardData.items.add(new File(["no image"], "pasted.txt"));
else clipboardData.items.add("text", "text/plain");
dispatchEvent(new ClipboardEvent("paste", { clipboardData }));
return document.getElementById("no-files").checkVisibility()"""


@needs_browser
def test_what_is_said_of_an_empty_choice_goes_with_the_next(browser: Browser) -> None:
    assert not browser.run(PASTED, False)
    assert browser.run(EMPTY_CHOICE)
    assert not browser.run(PASTED, True)
    browser.wait_for_answers()
    assert browser.run(EMPTY_CHOICE)
    # It got no result, so nothing is lost, and nothing asked.
    browser.click("#clear")
    assert not browser.run("return document.getElementById('no-files').checkVisibility()")


PICTURE = """
const canvas = document.createElement("canvas");
const transfer = new DataTransfer();
return new Promise((done) => canvas.toBlob((picture) => {
  transfer.items.add(new File([picture], "image.png", { type: "image/png" }));
  dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer }));
  done();
}));
"""


@needs_browser
def test_pictures_that_are_pasted_are_told_apart_and_seen(
    browser: Browser, slices: Sequence[Path]
) -> None:
    browser.choose(slices[:1])
    browser.wait_for_answers()
    browser.click(".thumb button")
    is_open = "return document.getElementById('viewer').open"
    assert browser.run(is_open)
    browser.run(PICTURE)
    assert not browser.run(is_open)
    browser.run(PICTURE)
    browser.wait_for_answers()
    assert [row["name"] for row in browser.rows()[1:]] == ["pasted 1.png", "pasted 2.png"]


@needs_browser
def test_later_fields_are_shown(browser: Browser, slices: Sequence[Path]) -> None:
    entry = {
        "input": "a.jpg",
        "label": "notumor",
        "probability": 0.5,
        "probabilities": {"glioma": 0.3, "notumor": 0.5, "something_new": 0.2},
        "tumor_probability": 0.5,
        "decision": "refer",
        "prediction_set": ["glioma", "notumor"],
        "in_distribution": True,
        "region": {"box": [167, 110, 238, 158], "score": 0.91},
    }
    body = {"request_id": "1", "predictions": [entry]}
    browser.run(STUB)
    browser.run("window.answers = [arguments[0]]", {"status": 200, "headers": {}, "body": body})
    browser.choose(slices[:1])
    browser.wait_for_answers()
    [row] = browser.rows()
    assert row["decision"] == "Refer to a reader"
    assert "not sure enough to decide: a person has to" in row["remarks"]
    assert "Prediction set: Glioma, No tumour" in row["remarks"]
    assert "167, 110, 238, 158, score 0.91" in row["details"]
    assert "something_new 0.200" in row["classes"]
    assert "1 to refer" in browser.text("#summary")


@needs_browser
def test_fields_that_are_absent_are_not_shown(browser: Browser, slices: Sequence[Path]) -> None:
    entry = {
        "input": "a.jpg",
        "label": "glioma",
        "probability": 0.9,
        "probabilities": {"glioma": 0.9, "notumor": 0.1},
        "tumor_probability": 0.9,
        "decision": "tumor",
    }
    body = {"request_id": "1", "predictions": [entry]}
    browser.run(STUB)
    browser.run("window.answers = [arguments[0]]", {"status": 200, "headers": {}, "body": body})
    browser.choose(slices[:1])
    browser.wait_for_answers()
    [row] = browser.rows()
    assert row["decision"] == "Tumour"
    assert "uncalibrated" in row["note"]
    assert not browser.run("return document.querySelector('.heat').checkVisibility()")
    text = " ".join(row.values())
    assert re.findall("Prediction set|distribution|Region|SOP|Refer", text) == []


@needs_browser
def test_what_is_not_saved_is_cleared_only_after_a_question(
    browser: Browser, slices: Sequence[Path]
) -> None:
    browser.choose(slices[:2])
    browser.wait_for_answers()
    is_asked = "return document.getElementById('question').open"
    browser.click("#clear")
    assert browser.run(is_asked)
    browser.click("#question button")
    assert not browser.run(is_asked)
    assert len(browser.rows()) == 2
    assert browser.run(UNSAVED)
    browser.click("#save-json")
    assert not browser.run(UNSAVED)
    browser.click("#clear")
    assert browser.rows() == []
    # What is added later is not saved.
    browser.choose(slices[:1])
    browser.wait_for_answers()
    browser.clear()
    assert browser.rows() == []


@needs_browser
def test_saved_results(browser: Browser, url: str, folder: Path, chromium_folder: Path) -> None:
    paths = sorted(folder.iterdir())
    browser.choose(paths)
    browser.wait_for_answers()
    document, lines = saved(browser, chromium_folder / "saved")
    entries = answers_for(url, paths)
    assert all(path.stem.endswith("Z") for path in (chromium_folder / "saved").iterdir())
    assert "not a medical device" in document["note"]
    fields = {"file", "model", "request_id", "request_index", "timing_ms"}
    own = [{k: v for k, v in it.items() if k not in fields} for it in document["results"]]
    assert own == entries
    assert [line["file"] for line in lines] == [
        f"'{path.name}" if path.name.startswith("=") else path.name for path in paths
    ]
    for line, entry in zip(lines, entries, strict=True):
        assert line["note"] == document["note"]
        assert datetime.fromisoformat(line["saved"]).tzinfo is UTC
        assert line["decision"] == entry.get("decision", "")
        assert line["error_code"] == entry.get("error", {}).get("code", "")
        number = line.get("tumor_probability_uncalibrated", line.get("tumor_probability"))
        assert (float(number) if number else None) == entry.get("tumor_probability")
