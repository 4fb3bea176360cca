"""The page with series of which something has no answer: it never says that there is no tumour then."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.service.test_page_busy import HELD
from tests.service.test_page_series import SHOWN
from tests.service.test_series import SERIES
from tests.support.browser import BROWSER_SECONDS, FAST, STUB, Browser, needs_browser, saved
from tests.support.service import wait_until

SLICE = bytes(128) + b"DICM"
ERROR = {"status": 422, "code": "undecodable_image", "detail": "it is damaged"}
LATE = {"status": 504, "code": "deadline_exceeded", "detail": "too late"}
INCOMPLETE = "Refer to a reader (incomplete)"


def entry(name: str, decision: str = "no_tumor", **fields: Any) -> dict[str, Any]:
    """What the service says of a slice of the series."""
    number = "".join(letter for letter in name if letter.isdecimal())
    place = {"sop_instance_uid": f"1.2.{number}", "series_instance_uid": SERIES, "frame": 1}
    known = {"label": "notumor", "decision": decision, "tumor_probability": 0.1, "dicom": place}
    return {"input": name, **known, **fields}


def answer(*entries: dict[str, Any], decision: str = "no_tumor", **fields: Any) -> dict[str, Any]:
    """An answer of the service with a summary of the series."""
    judged = [number for number, one in enumerate(entries) if "error" not in one]
    summary = {
        "series_instance_uid": SERIES,
        "slices": len(judged),
        "failed": len(entries) - len(judged),
        "tumor_probability": 0.1,
        "decision": decision,
        "most_suspicious": judged[0],
        "window": judged[:3],
        "suspicious": [],
    }
    body = {"request_id": "1", "predictions": list(entries), "series": [summary | fields]}
    return {"status": 200, "headers": {}, "body": body}


def made(folder: Path, names: Sequence[str], content: bytes = SLICE) -> list[Path]:
    """Files that are only told apart by their first bytes: the answers to them are made up."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(content)
    return [folder / name for name in names]


def answered(browser: Browser, paths: Sequence[Path], *answers: dict[str, Any]) -> dict[str, str]:
    """The only series that is shown after these answers."""
    browser.run("window.answers = arguments[0]", list(answers))
    browser.choose(paths)
    browser.wait_for_answers()
    [shown] = browser.run(SHOWN)
    return dict(shown)


@pytest.fixture
def page(browser: Browser) -> Browser:
    browser.run(FAST + STUB)
    return browser


DELETED = """
const slice = File.prototype.slice;
File.prototype.slice = function (...range) {
  if (this.name !== "3.dcm") return slice.apply(this, range);
  return { arrayBuffer: () => Promise.reject(new DOMException("gone", "NotFoundError")) };
};
"""

REFUSED = {"input": "3.dcm", "error": {**ERROR, "status": 415, "code": "unsupported_media_type"}}


@needs_browser
@pytest.mark.parametrize(
    ("content", "before", "last"),
    [
        (SLICE, DELETED, None),
        (SLICE, "", {"input": "3.dcm", "error": ERROR}),
        (b"", "", REFUSED),
        (bytes(1000), "", REFUSED),
        (b"\x08\0\x05\0CS\x0a\0ISO_IR 100", "", REFUSED),
    ],
    ids=["deleted", "damaged", "empty", "zeros", "no preamble"],
)
def test_no_series_is_without_a_tumour_while_a_file_has_no_result(
    page: Browser, chromium_folder: Path, tmp_path: Path, content: bytes, before: str, last: Any
) -> None:
    """Even where the service, which may not have seen it, says so."""
    paths = [*made(tmp_path, ["1.dcm", "2.dcm"]), *made(tmp_path, ["3.dcm"], content)]
    page.run(before)
    entries = [entry("1.dcm"), entry("2.dcm"), *([last] if last else [])]
    shown = answered(page, paths, answer(*entries))
    asked = [path.name for path in paths[: len(entries)]]
    assert page.run("return window.asked") == [asked], "what may be a slice goes with its series"
    assert shown["decision"] == INCOMPLETE
    assert "not all of the series was judged together" in shown["remarks"]
    pill = "return document.querySelector('#series-list > li').dataset.decision"
    assert page.run(pill) == "refer"
    for place in ("#summary", "#announcer"):
        assert "1 series: 1 to refer (incomplete)." in page.text(place)
    document, lines = saved(page, chromium_folder / "saved")
    [kept] = document["series"]
    assert (kept["decision"], kept["service_decision"]) == ("refer", "no_tumor")
    assert (kept["unanswered_files"], kept["requests"]) == (1, 1)
    columns = ("decision", "service_decision", "unanswered_files", "requests")
    assert [lines[0][f"series_{name}"] for name in columns] == ["refer", "no_tumor", "1", "1"]


EMPTY = ("VERSION", "LOCKFILE", "viewer.js", ".gitkeep")
"""Files of media and systems, which hold nothing."""


@needs_browser
def test_what_is_no_slice_of_a_head_leaves_a_series_alone(page: Browser, tmp_path: Path) -> None:
    paths = [
        *made(tmp_path, ["1.dcm", "2.dcm", "3.dcm"]),
        *made(tmp_path, ["4.jpg"], b"\xff\xd8\xff"),
        *made(tmp_path, ["README"], b"Where the series comes from"),
        *made(tmp_path, EMPTY, b""),
    ]
    knee = {"input": "3.dcm", "error": {**ERROR, "code": "not_head"}}
    refused = [{**REFUSED, "input": name} for name in ("4.jpg", "README", *EMPTY)]
    picture = {"status": 415, "headers": {}, "body": {"errors": refused}}
    series = answer(entry("1.dcm"), entry("2.dcm"), knee, failed=0)
    shown = answered(page, paths, series, picture)
    assert (shown["decision"], shown["gaps"]) == ("No tumour", "")


@needs_browser
def test_series_of_two_studies_are_two_though_they_share_a_uid(
    page: Browser, chromium_folder: Path, tmp_path: Path
) -> None:
    """As some anonymisers leave them."""
    entries = [entry("1.dcm"), entry("2.dcm"), *(entry(f"{n}.dcm", "tumor") for n in (3, 4))]
    for number, one in enumerate(entries):
        one["dicom"]["study_instance_uid"] = f"1.2.{number // 2}"
    body = answer(*entries)
    (summary,) = body["body"]["series"]
    body["body"]["series"] = [
        {**summary, "study_instance_uid": f"1.2.{number}", "slices": 2, "decision": decision}
        | {"most_suspicious": 2 * number, "window": [2 * number, 2 * number + 1]}
        for number, decision in enumerate(("no_tumor", "tumor"))
    ]
    page.run("window.answers = arguments[0]", [body])
    page.choose(made(tmp_path, [f"{number}.dcm" for number in (1, 2, 3, 4)]))
    page.wait_for_answers()
    assert [one["decision"] for one in page.run(SHOWN)] == ["No tumour", "Tumour"]
    _, lines = saved(page, chromium_folder / "saved")
    decisions = [line["series_decision"] for line in lines]
    assert decisions == ["no_tumor", "no_tumor", "tumor", "tumor"]


@needs_browser
def test_a_series_that_is_stopped_is_incomplete(page: Browser, tmp_path: Path) -> None:
    page.run("window.answers = arguments[0]", [answer(entry("1.dcm"), entry("2.dcm"))])
    page.choose(made(tmp_path / "a", ["1.dcm", "2.dcm"]))
    page.wait_for_answers()
    assert page.run(SHOWN)[0]["decision"] == "No tumour"
    page.run(HELD)
    page.choose(made(tmp_path / "b", ["3.dcm", "4.dcm"]))
    wait_until(lambda: page.rows()[2]["decision"] == "Sending", BROWSER_SECONDS)
    # What is not answered yet counts as well.
    wait_until(lambda: page.run(SHOWN)[0]["decision"] == INCOMPLETE, BROWSER_SECONDS)
    page.click("#stop")
    page.wait_for_answers()
    [shown] = page.run(SHOWN)
    assert shown["decision"] == INCOMPLETE
    assert "1 series: 1 to refer (incomplete)." in page.text("#summary")
    assert "2 files have no result, and may belong to this series." in shown["gaps"]


@needs_browser
def test_what_may_be_a_slice_never_takes_the_place_of_one(page: Browser, tmp_path: Path) -> None:
    """A series is not sent in parts because of what lies beside it."""
    folder = tmp_path / "disc"
    made(folder, ["0", "1.dcm", "2.dcm"])
    made(folder, ["1.bin", "9.bin"], b"no slice")
    page.run(
        """const size = Object.getOwnPropertyDescriptor(Blob.prototype, "size");
        Object.defineProperty(File.prototype, "size", {
          get() { return this.name === "1.bin" ? 100e6 : size.get.call(this); } })"""
    )
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        page.cdp("Input.dispatchDragEvent", type=kind, x=400, y=220, data=data)
    wait_until(lambda: len(page.find_all(".row")) == 5, BROWSER_SECONDS)
    page.wait_for_answers()
    assert page.run("return window.asked")[0][:3] == ["0", "1.dcm", "2.dcm"]


@needs_browser
def test_slices_that_are_sent_again_leave_one_result(page: Browser, tmp_path: Path) -> None:
    names = [f"{k}.dcm" for k in range(4)]
    late = [{"input": name, "error": LATE} for name in names[2:]]
    first = answer(entry(names[0]), entry(names[1]), *late, decision="refer")
    again = answer(entry(names[2]), entry(names[3]))
    shown = answered(page, made(tmp_path, names), first, again)
    assert page.run("return window.asked") == [names, names[2:]]
    assert shown["decision"] == "Refer to a reader"
    assert shown["remarks"].startswith("Not all of the series was judged together: a person has")
    assert "4 slices judged: " in shown["remarks"]
    assert "without a result" not in shown["remarks"]
    assert shown["gaps"] == "Answered in 2 parts, none of which has all of its slices."
    assert "1 series: 1 to refer." in page.text("#summary")


@needs_browser
@pytest.mark.parametrize(
    ("decisions", "expected"),
    [
        (("no_tumor", "no_tumor"), INCOMPLETE),
        (("no_tumor", "tumor"), "Tumour"),
        (("refer", "no_tumor"), "Refer to a reader"),
    ],
)
def test_of_the_parts_of_a_series_the_worst_counts(
    page: Browser, tmp_path: Path, decisions: tuple[str, str], expected: str
) -> None:
    names = [f"{k}.dcm" for k in range(4)]
    problem = {"status": 413, "code": "too_many_files", "detail": "more than 2"}
    refused = {"status": 413, "headers": {}, "body": problem}
    parts = [
        answer(entry(names[k]), entry(names[k + 1]), decision=decision)
        for k, decision in zip((0, 2), decisions, strict=True)
    ]
    shown = answered(page, made(tmp_path, names), refused, *parts)
    assert shown["decision"] == expected


@needs_browser
def test_a_series_that_is_added_twice_is_whole(page: Browser, tmp_path: Path) -> None:
    names = ["1.dcm", "2.dcm"]
    whole = answer(entry(names[0]), entry(names[1]))
    paths = made(tmp_path, names)
    answered(page, paths, whole)
    shown = answered(page, paths, whole)
    assert (shown["decision"], shown["gaps"]) == ("No tumour", "")
    assert "2 slices judged: " in shown["remarks"]
    assert "Added 2 times" in shown["remarks"]
    # One slice more makes it another one.
    shown = answered(page, made(tmp_path, ["3.dcm"]), answer(entry("3.dcm")))
    assert shown["decision"] == INCOMPLETE
    assert "Answered in 3 parts, none of which" in shown["gaps"]


@needs_browser
def test_slices_that_the_model_cannot_judge_are_not_called_judged(
    page: Browser, tmp_path: Path
) -> None:
    names = [f"{k}.dcm" for k in range(5)]
    strange = [entry(name, "refer", in_distribution=False) for name in names[1:]]
    body = answer(entry(names[0]), *strange, decision="refer", window=[0], suspicious=[1, 2, 3, 4])
    shown = answered(page, made(tmp_path, names), body)
    assert "1 slice judged: 1 no tumour\n4 more that the model cannot judge\n" in shown["remarks"]
    assert "The model cannot judge most slices of the series" in shown["remarks"]


def of_pack(*entries: dict[str, Any]) -> dict[str, Any]:
    """An answer to a zip file."""
    named = [{**one, "input": f"study.zip/{one['input']}"} for one in entries]
    return {"status": 200, "headers": {}, "body": {"request_id": "1", "predictions": named}}


SEEN = """return ["retry", "notice"]
    .map((name) => document.getElementById(name).checkVisibility())"""


@needs_browser
def test_slices_of_a_file_that_may_be_answered_later_can_be_tried_again(
    page: Browser, tmp_path: Path
) -> None:
    paths = made(tmp_path, ["study.zip"], b"PK\x03\x04")
    refused = {"input": "a.txt", "error": {**ERROR, "status": 415}}
    late = [{"input": f"{k}.jpg", "error": LATE} for k in (2, 3)]
    page.run("window.answers = [arguments[0]]", of_pack(entry("1.jpg"), refused, *late))
    page.choose(paths)
    page.wait_for_answers()
    assert page.run(SEEN) == [True, True]
    said = "2 slices of 1 file got no result. The service took too long. Try again later."
    assert page.text("#notice") == said
    assert said in page.text("#announcer")

    # What was answered stays where it is tried again in vain.
    before = [row["decision"] for row in page.rows()]
    assert before == ["No tumour", "No result", "No result", "No result"]
    lost = {"status": 503, "headers": {"Retry-After": "99"}, "body": {"code": "queue_full"}}
    try_again(page, lost)
    assert page.run("return window.asked.length") == 2
    assert [row["decision"] for row in page.rows()] == before
    assert page.text("#notice") == (
        "2 slices of 1 file got no result. The service is busy. Try again in 99 s."
    )

    again = of_pack(entry("1.jpg"), refused, entry("2.jpg", "tumor"), entry("3.jpg"))
    try_again(page, again)
    rows = [(row["name"], row["decision"]) for row in page.rows()]
    assert rows == [
        ("study.zip/1.jpg", "No tumour"),
        ("study.zip/a.txt", "No result"),
        ("study.zip/2.jpg", "Tumour"),
        ("study.zip/3.jpg", "No tumour"),
    ]
    assert page.run(SEEN) == [False, False]


@needs_browser
def test_files_and_slices_without_a_result_are_told_apart(page: Browser, tmp_path: Path) -> None:
    first, second = made(tmp_path, ["study.zip", "two.zip"], b"PK\x03\x04")
    late = {"input": "2.jpg", "error": LATE}
    page.run("window.answers = [arguments[0]]", of_pack(entry("1.jpg"), late))
    page.choose([first])
    page.wait_for_answers()
    # Of one without any, the first error need not be the one that may pass.
    refused = {"input": "a.txt", "error": {**ERROR, "status": 415}}
    both = {"status": 415, "headers": {}, "body": {"errors": [refused, late]}}
    page.run("window.answers = [arguments[0]]", both)
    page.choose([second])
    page.wait_for_answers()
    assert page.text("#notice").startswith("1 file and 1 slice of 1 file got no result. The serv")
    assert page.run(SEEN) == [True, True]


@needs_browser
def test_frames_that_are_tried_again_take_the_place_of_the_first(
    page: Browser, tmp_path: Path
) -> None:
    frames = [entry("1.dcm") for _ in range(3)]
    for number, frame in enumerate(frames, 1):
        frame["dicom"] = {**frame["dicom"], "frame": number}
    late = {"input": "1.dcm", "error": LATE, "dicom": frames[2]["dicom"]}
    paths = made(tmp_path, ["1.dcm"])
    shown = answered(page, paths, answer(*frames[:2], late, decision="refer"))
    assert "1 more without a result" in shown["remarks"]
    try_again(page, answer(*frames))
    [shown] = page.run(SHOWN)
    assert (shown["decision"], shown["gaps"]) == ("No tumour", "")
    assert "3 slices judged: " in shown["remarks"]
    names = [row["name"] for row in page.rows()]
    assert names == [f"1.dcm, frame {number}" for number in (1, 2, 3)]


def tried_again(folder: Path, kind: str) -> tuple[list[Path], list[dict[str, Any]]]:
    """A file with three slices, and what the service says of them."""
    if kind == "zip":
        names = [f"study.zip/{number}.dcm" for number in (1, 2, 3)]
        return made(folder, ["study.zip"], b"PK\x03\x04"), [entry(name) for name in names]
    frames = [entry("1.dcm") for _ in range(3)]
    for number, one in enumerate(frames, 1):
        one["dicom"] = {**one["dicom"], "frame": number}
    return made(folder, ["1.dcm"]), frames


def try_again(page: Browser, made_up: dict[str, Any]) -> None:
    """Has what can be tried again answered so."""
    page.run("window.answers = [arguments[0]]", made_up)
    page.click("#retry")
    page.wait_for_answers()


def without_result(one: dict[str, Any]) -> dict[str, Any]:
    return {"input": one["input"], "error": LATE, "dicom": one["dicom"]}


@needs_browser
@pytest.mark.parametrize("kind", ["zip", "frames"])
def test_a_slice_that_was_answered_is_not_lost_where_it_is_tried_again(
    page: Browser, chromium_folder: Path, tmp_path: Path, kind: str
) -> None:
    """Under load each slice may be too late in its turn."""
    paths, found = tried_again(tmp_path, kind)
    found[0]["decision"] = "tumor"
    late = [without_result(one) for one in found]

    def by(version: int, *entries: dict[str, Any], decision: str) -> dict[str, Any]:
        made_up = answer(*entries, decision=decision)
        model = {"name": "m", "version": version, "runtime": "litert", "device": "cpu"}
        made_up["body"] |= {"request_id": str(version), "model": model}
        return made_up

    first = by(1, found[0], found[1], late[2], decision="tumor")
    shown = answered(page, paths, first)
    assert "2 slices judged: 1 tumour, 1 no tumour\n1 more without a result" in shown["remarks"]

    again = by(2, late[0], found[1], found[2], decision="refer")
    try_again(page, again)
    assert [row["decision"] for row in page.rows()] == ["Tumour", "No tumour", "No tumour"]
    versions = [row["remarks"].rpartition("Model version ")[2] for row in page.rows()]
    assert versions == ["1", "2", "2"]
    assert "These results are by m 1 and m 2." in page.text("#versions")
    assert "3 slices: 1 tumour, 2 no tumour." in page.text("#summary")
    assert "1 series: 1 tumour." in page.text("#summary")
    assert page.run(SEEN) == [False, False]
    [shown] = page.run(SHOWN)
    assert shown["decision"] == "Tumour"
    assert "3 slices judged: " in shown["remarks"]
    assert shown["gaps"] == "Answered in 2 parts, none of which has all of its slices."
    document, lines = saved(page, chromium_folder / "saved")
    kept = [
        (one["decision"], one["request_id"], one["request_index"], one["model"]["version"])
        for one in document["results"]
    ]
    assert kept == [("tumor", "1", 0, 1), ("no_tumor", "2", 1, 2), ("no_tumor", "2", 2, 2)]
    assert [one["decision"] for one in document["series"]] == ["tumor", "tumor"]
    columns = ("decision", "version", "series_decision", "series_service_decision")
    assert [[line[column] for column in columns] for line in lines] == [
        ["tumor", "1", "tumor", "tumor"],
        ["no_tumor", "2", "tumor", "refer"],
        ["no_tumor", "2", "tumor", "refer"],
    ]


@needs_browser
@pytest.mark.parametrize("kind", ["zip", "frames"])
def test_a_retry_that_answers_nothing_takes_nothing(
    page: Browser, chromium_folder: Path, tmp_path: Path, kind: str
) -> None:
    """Each slice may come back with an error of its own."""
    paths, found = tried_again(tmp_path, kind)
    late = [without_result(one) for one in found]
    first = answer({**found[0], "decision": "tumor"}, *late[1:], decision="tumor")
    answered(page, paths, first)
    refused = {**late[1], "error": {**ERROR, "status": 415}}
    errors = {"status": 504, "headers": {}, "body": {"errors": [late[0], refused, late[2]]}}
    try_again(page, errors)
    rows = page.rows()
    assert [row["decision"] for row in rows] == ["Tumour", "No result", "No result"]
    # Why there is none is what was said last.
    assert ["Code 415" in row["remarks"] for row in rows] == [False, True, False]
    assert "1 slice: 1 tumour.\n2 without a result." in page.text("#summary")
    assert page.text("#notice") == (
        "1 slice of 1 file got no result. The service took too long. Try again later."
    )
    [shown] = page.run(SHOWN)
    assert "1 slice judged: 1 tumour\n2 more without a result" in shown["remarks"]
    assert (shown["decision"], shown["gaps"]) == ("Tumour", "")
    document, lines = saved(page, chromium_folder / "saved")
    assert [line["decision"] for line in lines] == ["tumor", "", ""]
    assert document["series"][0]["unanswered_files"] == (kind == "frames")

    # What is answered in the end is whole.
    try_again(page, answer(*found))
    [shown] = page.run(SHOWN)
    assert (shown["decision"], shown["gaps"]) == ("No tumour", "")
    assert "3 slices judged: " in shown["remarks"]


@needs_browser
def test_of_what_is_tried_again_the_later_result_counts(page: Browser, tmp_path: Path) -> None:
    """Of each series of a file, and of each slice."""
    found = [entry(f"study.zip/{number}.dcm") for number in (1, 2, 3, 4)]
    for one, uid in zip(found, ("1.1", "1.1", "1.2", "1.2"), strict=True):
        one["dicom"]["series_instance_uid"] = uid
    found[2]["decision"] = "tumor"
    late = [without_result(one) for one in found]
    unsure = [{**one, "decision": "refer"} for one in found]

    def of_two(entries: list[dict[str, Any]], **decided: tuple[str, int]) -> dict[str, Any]:
        made_up = answer(*entries)
        (summary,) = made_up["body"]["series"]
        made_up["body"]["series"] = [
            {**summary, "series_instance_uid": uid, "decision": decision, "failed": failed}
            for uid, (decision, failed) in zip(("1.1", "1.2"), decided.values(), strict=True)
        ]
        return made_up

    slices = [late[0], unsure[1], found[2], unsure[3]]
    first = of_two(slices, one=("refer", 1), other=("tumor", 0))
    page.run("window.answers = [arguments[0]]", first)
    page.choose(made(tmp_path, ["study.zip"], b"PK\x03\x04"))
    page.wait_for_answers()
    slices = [found[0], found[1], late[2], found[3]]
    again = of_two(slices, one=("no_tumor", 0), other=("refer", 1))
    try_again(page, again)
    decisions = [row["decision"] for row in page.rows()]
    assert decisions == ["No tumour", "No tumour", "Tumour", "No tumour"]
    one, other = page.run(SHOWN)
    assert (one["decision"], one["gaps"]) == ("No tumour", "")
    assert other["decision"] == "Tumour"
    assert "2 slices judged: 1 tumour, 1 no tumour\n" in other["remarks"]


@needs_browser
@pytest.mark.parametrize("body", ["problem", "entry"])
def test_why_a_retry_failed_is_said(page: Browser, tmp_path: Path, body: str) -> None:
    """Not only what the slices had before it."""
    late = {"input": "2.jpg", "error": LATE}
    page.run("window.answers = [arguments[0]]", of_pack(entry("1.jpg"), late))
    page.choose(made(tmp_path, ["study.zip"], b"PK\x03\x04"))
    page.wait_for_answers()
    before = [row["decision"] for row in page.rows()]
    problem = {"status": 413, "code": "body_too_large", "detail": "too large"}
    errors = [{"input": "study.zip", "error": problem}]
    content = problem if body == "problem" else {**problem, "errors": errors}
    refused = {"status": 413, "headers": {}, "body": content}
    try_again(page, refused)
    assert [row["decision"] for row in page.rows()] == before
    assert page.text("#notice") == "1 slice of 1 file got no result. The file is too large."
    assert page.run(SEEN) == [True, True]


@needs_browser
def test_an_object_that_cannot_be_read_again_keeps_its_frames(page: Browser) -> None:
    """Its one error names no frame; another one, which had such an error, takes all of its frames."""
    one, other = ([entry(f"{name}.dcm") for _ in range(2)] for name in (1, 2))
    for frames in (one, other):
        for number, frame in enumerate(frames, 1):
            frame["dicom"] = {**frame["dicom"], "frame": number}
    lost = [{"input": f"{name}.dcm", "error": LATE} for name in (1, 2)]
    earlier = {"context": "earlier", "entries": [one[0], without_result(one[1]), lost[1]]}
    later = {"context": "later", "entries": [lost[0], *other]}
    found = page.run(
        """return import("/static/page/answers.js").then(({ contextOf, merged }) => {
          const answer = merged(...arguments);
          return answer.entries.map((entry) => [entry, contextOf(answer, entry)]);
        })""",
        earlier,
        later,
    )
    assert [context for _, context in found] == ["earlier", "earlier", "later", "later"]
    assert [made_up for made_up, _ in found] == [*earlier["entries"][:2], *other]
