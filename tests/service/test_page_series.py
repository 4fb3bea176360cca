"""The page with zip files and series: what the slices in them are, and what they come to."""

import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.errors import ContractError, DecodeError
from service.catalogue import CODES
from service.errors import ServiceError, TooManyFiles, UnusableZip, ZipTooLarge
from service.routes.pages import WEB
from tests.contract.samples import RANGE, grey_slice, mr_frames, mr_object
from tests.service.test_archives import zipped
from tests.service.test_series import SERIES, mr_slice
from tests.support.browser import BROWSER_SECONDS, STUB, UNSAVED, Browser, needs_browser, saved
from tests.support.service import wait_until


@needs_browser
def test_every_file_of_a_zip_that_failed_says_why(
    browser: Browser, chromium_folder: Path, slices: Sequence[Path], tmp_path: Path
) -> None:
    knee = mr_object(grey_slice(), attributes=RANGE | {"BodyPartExamined": "KNEE"})
    (tmp_path / "bad.zip").write_bytes(zipped({"one.txt": b"no image", "knee.dcm": knee}))
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04junk")
    browser.choose([tmp_path / "bad.zip", tmp_path / "broken.zip", slices[0]])
    browser.wait_for_answers()
    rows = browser.rows()
    assert [row["name"] for row in rows] == [
        "bad.zip/one.txt",
        "bad.zip/knee.dcm",
        "broken.zip",
        slices[0].name,
    ]
    failed = rows[:3]
    assert {row["decision"] for row in failed} == {"No result"}
    codes = ["415 unsupported_media_type", "422 not_head", "422 damaged_zip"]
    for row, code in zip(failed, codes, strict=True):
        assert code in row["remarks"]
    assert re.match(
        r"3 files in .*\n1 slice: 1 .*\n3 without a result\.$", browser.text("#summary")
    )
    document, lines = saved(browser, chromium_folder / "saved")
    for found in (
        [result.get("error", {}).get("code", "") for result in document["results"]],
        [line["error_code"] for line in lines],
    ):
        assert found == ["unsupported_media_type", "not_head", "damaged_zip", ""]


DECISIONS = {"tumor": "Tumour", "no_tumor": "No tumour", "refer": "Refer to a reader"}

TALLIES = {"tumor": "tumour", "no_tumor": "no tumour", "refer": "to refer"}

SHOWN = """
return [...document.querySelectorAll("#series-list > li")].map((node) => {
  const text = (name) => node.querySelector(name).innerText;
  return {
    name: text(".name"), decision: text(".decision"), score: text(".score-value"),
    remarks: text(".remarks"), gaps: text(".gaps"),
  };
});
"""


def codes(kind: type[ContractError | ServiceError]) -> Iterator[str]:
    """Those of the errors below one, without those that only group others."""
    below = kind.__subclasses__()
    yield from (code for one in below for code in codes(one)) if below else [kind.code]


def test_page_has_words_for_all_that_can_be_wrong_with_a_file() -> None:
    text = (WEB / "page" / "words.js").read_text(encoding="utf-8")
    table = text.partition("const ERRORS = {")[2].partition("};")[0]
    answered, own = (
        set(re.findall(r"^  (\w+):", part, re.MULTILINE))
        for part in table.split("// The page's own.")
    )
    wanted = {*codes(DecodeError), *codes(UnusableZip), ZipTooLarge.code, TooManyFiles.code}
    assert (wanted & {*CODES}) - answered == set()
    assert answered - {*CODES} == set(), "no answer has these"
    assert own & {*CODES} == set()


@needs_browser
def test_series_of_a_zip(
    browser: Browser, url: str, chromium_folder: Path, slices: Sequence[Path], tmp_path: Path
) -> None:
    pack = tmp_path / "study.zip"
    objects = {f"{k}.dcm": mr_slice(path, 3.0 * k) for k, path in enumerate(slices)}
    pack.write_bytes(zipped(objects | {"notes.txt": b"no image"}))
    answer = httpx.post(
        f"{url}predict", files={"files": (pack.name, pack.read_bytes())}, timeout=BROWSER_SECONDS
    ).json()
    browser.choose([pack])
    browser.wait_for_answers()
    [summary] = answer["series"]
    [shown] = browser.run(SHOWN)
    assert (shown["name"], shown["decision"]) == ("study.zip", DECISIONS[summary["decision"]])
    assert shown["score"] in {"", f"{summary['tumor_probability']:.3f}"}
    # One of them lies upside down.
    assert re.search(r"7 slices judged: \d .*\n1 more that the model cannot", shown["remarks"])
    assert SERIES in shown["remarks"]
    assert shown["gaps"] == ""
    assert all("frame" not in row["name"] for row in browser.rows())
    assert f"1 series: 1 {TALLIES[summary['decision']]}." in browser.text("#announcer")
    document, lines = saved(browser, chromium_folder / "saved")
    [kept] = document["series"]
    assert {key: kept[key] for key in summary} == summary
    assert {result["request_id"] for result in document["results"]} == {kept["request_id"]}
    assert [result["request_index"] for result in document["results"]] == [*range(9)]
    decisions = [line["series_decision"] for line in lines]
    assert decisions == [summary["decision"]] * 8 + [""]


VISIBLE = """return [...document.querySelectorAll(".row")].filter((row) => !row.hidden)
    .map((row) => row.querySelector(".name").textContent)"""

COUNTS = "return [...document.querySelectorAll('[data-count]')].map((it) => it.textContent)"

ORDERED = """const it = document.getElementById("sort");
    it.value = arguments[0];
    it.dispatchEvent(new Event("change", { bubbles: true }))"""


@needs_browser
def test_choice_and_order_are_of_the_slices_of_a_zip(
    browser: Browser, slices: Sequence[Path], tmp_path: Path
) -> None:
    def answers(*entries: dict[str, Any]) -> dict[str, Any]:
        return {"status": 200, "headers": {}, "body": {"predictions": list(entries)}}

    def entry(name: str, decision: str, probability: float) -> dict[str, Any]:
        return {"input": name, "decision": decision, "tumor_probability": probability}

    pack, picture = tmp_path / "study.zip", slices[0]
    pack.write_bytes(zipped({"1.jpg": b"stands for others"}))
    error = {"status": 415, "code": "unsupported_media_type", "detail": "no image"}
    study = answers(
        entry("study.zip/10.jpg", "no_tumor", 0.1),
        entry("study.zip/9.jpg", "tumor", 0.9),
        {"input": "study.zip/notes.txt", "error": error},
        entry("study.zip/11.jpg", "refer", 0.5),
    )
    alone = answers(entry(picture.name, "no_tumor", 0.3))
    assert not browser.run(UNSAVED)
    browser.run(STUB)
    browser.run("window.answers = arguments[0]", [study, alone])
    browser.choose([pack, picture])
    browser.wait_for_answers()
    assert browser.run(UNSAVED)
    text = browser.text("#summary")
    lines = ["4 slices: 1 tumour, 2 no tumour, 1 to refer.", "1 without a result."]
    assert text.startswith("2 files in ")
    assert text.split("\n")[1:] == lines
    assert browser.run(COUNTS) == ["5", "1", "2", "1", "1"]
    browser.run(ORDERED, "score")
    inside = [f"study.zip/{name}" for name in ("9.jpg", "11.jpg", "10.jpg", "notes.txt")]
    assert browser.run(VISIBLE) == [*inside[:2], picture.name, *inside[2:]]
    browser.run(ORDERED, "name")
    assert browser.run(VISIBLE) == [*(inside[k] for k in (0, 2, 1, 3)), picture.name]
    for choice, names in (("tumor", inside[:1]), ("failed", inside[3:]), ("refer", inside[1:2])):
        browser.run("document.querySelector(`[value=${arguments[0]}]`).click()", choice)
        assert browser.run(VISIBLE) == names

    # What is chosen goes with the results, and so does what a browser restores and is not there.
    browser.clear()
    assert not browser.run(UNSAVED)
    assert browser.run("return document.querySelector('[name=filter]').checked")
    browser.run("document.querySelector('[value=refer]').checked = true")
    browser.run("window.answers = [arguments[0]]", alone)
    browser.choose([picture])
    browser.wait_for_answers()
    assert browser.run(VISIBLE) == [picture.name]
    assert browser.run("return document.querySelector('[name=filter]').checked")


@needs_browser
def test_slices_chosen_together_make_one_series(
    browser: Browser, slices: Sequence[Path], tmp_path: Path
) -> None:
    """More of them than of pictures, pictures among them, and an object of several frames."""
    paths = []
    for k in range(20):
        paths.append(tmp_path / f"{k:02}.dcm")
        paths[-1].write_bytes(mr_slice(slices[k % 8], 3.0 * k))
    frames = mr_frames([grey_slice()] * 3, attributes=RANGE | {"SeriesInstanceUID": "1.2.3"})
    (tmp_path / "frames.dcm").write_bytes(frames)
    browser.run(STUB)
    browser.choose([paths[0], slices[0], *paths[1:9], tmp_path / "frames.dcm", *paths[9:]])
    browser.wait_for_answers()
    assert [len(names) for names in browser.run("return window.asked")] == [21, 1]
    remarks = [(shown["name"], shown["remarks"], shown["gaps"]) for shown in browser.run(SHOWN)]
    assert [name for name, _, _ in remarks] == ["00.dcm to 19.dcm", "frames.dcm"]
    assert "18 slices judged: " in remarks[0][1]
    assert "2 more that the model cannot judge" in remarks[0][1]
    assert "3 slices judged" in remarks[1][1]
    assert [gaps for _, _, gaps in remarks] == ["", ""]
    names = [row["name"] for row in browser.rows()]
    assert names[:2] == ["00.dcm", slices[0].name]
    assert names[10:13] == [f"frames.dcm, frame {number}" for number in (1, 2, 3)]


@needs_browser
def test_series_in_parts_is_said_to_be_one(
    browser: Browser, slices: Sequence[Path], tmp_path: Path
) -> None:
    paths = []
    for k in range(6):
        paths.append(tmp_path / f"{k}.dcm")
        paths[-1].write_bytes(mr_slice(slices[k], 3.0 * k))
    browser.run(STUB)
    problem = {"status": 413, "code": "too_many_files", "detail": "more than 5"}
    refused = {"status": 413, "headers": {}, "body": problem}
    broken = {"status": 500, "headers": {}, "body": {"status": 500, "code": "internal_error"}}
    browser.run("window.answers = [arguments[0]]", refused)
    browser.choose(paths)
    browser.wait_for_answers()
    assert [len(names) for names in browser.run("return window.asked")] == [6, 3, 3]
    [shown] = browser.run(SHOWN)
    assert "5 slices judged: " in shown["remarks"]
    assert "1 more that the model cannot judge" in shown["remarks"]
    assert "Answered in 2 parts, none of which has all of its slices." in shown["gaps"]

    browser.clear()
    assert browser.run(SHOWN) == []
    browser.run("window.asked = []; window.answers = Array(3).fill(arguments[0])", broken)
    browser.choose(paths)
    browser.wait_for_answers()
    # What was too many for a request is not tried again; the first file fails alone.
    assert [len(names) for names in browser.run("return window.asked")] == [3, 2, 1, 1, 1, 3]
    [shown] = browser.run(SHOWN)
    assert "Answered in 3 parts" in shown["gaps"]
    assert "1 file has no result, and may belong to this series." in shown["gaps"]


@needs_browser
@pytest.mark.parametrize("code", ["too_many_frames", "unpacked_too_large"])
def test_what_is_beyond_a_request_is_sent_in_the_next(
    browser: Browser, slices: Sequence[Path], tmp_path: Path, code: str
) -> None:
    paths = [tmp_path / "a.dcm", tmp_path / "b.dcm"]
    entries: list[dict[str, Any]] = []
    for k, path in enumerate(paths):
        path.write_bytes(mr_slice(slices[k], 3.0 * k))
        error = {"status": 413, "code": code, "detail": "more than 1"}
        entries.append({"input": path.name, "error": error})
    entries[0] = {"input": "a.dcm", "label": "glioma", "decision": "tumor"}
    browser.run(STUB)
    answer = {"status": 200, "headers": {}, "body": {"request_id": "1", "predictions": entries}}
    browser.run("window.answers = [arguments[0]]", answer)
    browser.choose(paths)
    browser.wait_for_answers()
    assert browser.run("return window.asked") == [["a.dcm", "b.dcm"], ["b.dcm"]]
    assert all(row["decision"] != "No result" for row in browser.rows())


@needs_browser
def test_objects_of_one_name_keep_their_own_frames(browser: Browser, tmp_path: Path) -> None:
    paths = []
    for number in (3, 2):
        paths.append(tmp_path / str(number) / "x.dcm")
        paths[-1].parent.mkdir()
        instance = {"SOPInstanceUID": f"1.2.{number}"}
        frames = [grey_slice()] * number
        paths[-1].write_bytes(mr_frames(frames, attributes=RANGE | instance))
    browser.run(STUB)
    browser.choose(paths)
    browser.wait_for_answers()
    assert [len(names) for names in browser.run("return window.asked")] == [2, 1, 1]
    details = [row["details"] for row in browser.rows()]
    assert ["SOP instance1.2.3" in text for text in details] == [True] * 3 + [False] * 2


@needs_browser
def test_series_that_the_model_cannot_judge_has_no_score(
    browser: Browser, slices: Sequence[Path], tmp_path: Path
) -> None:
    place = {"sop_instance_uid": "1.2.3.4", "series_instance_uid": SERIES, "frame": 1}
    strange = {"label": "glioma", "decision": "refer", "in_distribution": False}
    entries = [strange | {"input": f"{k}.dcm", "dicom": place} for k in range(2)]
    summary = {
        "series_instance_uid": SERIES,
        "slices": 2,
        "failed": 0,
        "tumor_probability": 0.987,
        "decision": "refer",
        "most_suspicious": 1,
        "window": [0, 1],
        "suspicious": [0, 1],
    }
    paths = [tmp_path / f"{k}.dcm" for k in range(2)]
    for k, path in enumerate(paths):
        path.write_bytes(mr_slice(slices[k], 3.0 * k))
    body = {"request_id": "1", "predictions": entries, "series": [summary]}
    browser.run(STUB)
    browser.run("window.answers = [arguments[0]]", {"status": 200, "headers": {}, "body": body})
    browser.choose(paths)
    browser.wait_for_answers()
    [shown] = browser.run(SHOWN)
    assert (shown["decision"], shown["score"]) == ("Refer to a reader", "")
    assert "cannot judge a slice that decides on the series" in shown["remarks"]
    assert "Most suspicious" not in shown["remarks"]


@needs_browser
def test_a_name_that_a_form_writes_otherwise_is_known_again(
    browser: Browser, slices: Sequence[Path], tmp_path: Path
) -> None:
    """Browsers escape quotation marks and ends of lines there."""
    pack = tmp_path / 'a "b"\n\rc.zip'
    pack.write_bytes(zipped({f"{k}.jpg": slices[k].read_bytes() for k in range(2)}))
    objects = [tmp_path / f'{k} "x".dcm' for k in range(2)]
    for k, path in enumerate(objects):
        frames = [grey_slice()] * (k + 2)
        path.write_bytes(mr_frames(frames, attributes=RANGE | {"SOPInstanceUID": f"1.2.{k}"}))
    browser.run(STUB)
    browser.run(
        """window.chosen = new DataTransfer();
        const add = (name, text) => chosen.items.add(
          new File([Uint8Array.from(atob(text), (it) => it.charCodeAt(0))], name));
        arguments[0].forEach(([name, text]) => add(name, text));
        document.getElementById("files").files = chosen.files;
        document.getElementById("files").dispatchEvent(new Event("change"))""",
        [[path.name, b64encode(path.read_bytes()).decode()] for path in (pack, *objects)],
    )
    wait_until(lambda: len(browser.find_all(".row")) == 7, BROWSER_SECONDS)
    browser.wait_for_answers()
    names = browser.run(VISIBLE)
    assert names[:2] == [f"{pack.name}/{k}.jpg" for k in range(2)]
    assert names[2:] == [
        f"{path.name}, frame {number + 1}"
        for k, path in enumerate(objects)
        for number in range(k + 2)
    ]
    # Whose the entries are is known at once.
    assert [len(asked) for asked in browser.run("return window.asked")] == [1, 2]


@needs_browser
def test_series_are_named_by_where_their_slices_lie(browser: Browser, tmp_path: Path) -> None:
    """By their folder, or by the first and the last of them where it has several."""

    def of(uid: str, k: int) -> bytes:
        identity = {"SeriesInstanceUID": uid, "SOPInstanceUID": f"{uid}.{k}"}
        return mr_object(grey_slice(), attributes=RANGE | identity)

    flat = {f"{letter}{k}.dcm": of(f"1.{n}", k) for n, letter in enumerate("ab") for k in (2, 10)}
    deep = {f"T1/{part}/{k}": of("1.9", k) for k, part in enumerate("xy")}
    pack = tmp_path / "study.zip"
    pack.write_bytes(zipped(flat | deep))
    browser.choose([pack])
    browser.wait_for_answers()
    assert {shown["name"] for shown in browser.run(SHOWN)} == {
        "study.zip/a2.dcm to a10.dcm",
        "study.zip/b2.dcm to b10.dcm",
        "study.zip/T1",
    }
