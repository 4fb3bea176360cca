"""The page that people use: what it loads, and what it shows in a real browser."""

import csv
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.routes.pages import WEB
from tests.support.service import (
    MODEL,
    PATIENCE_SECONDS,
    ROOT,
    Service,
    free_port,
    process,
    wait_until,
)

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")

needs_browser = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER),
    reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
)

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # Containers run tests as root; the browser sees no page but ours.
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1280,1000",
)

BROWSER_SECONDS = 4 * PATIENCE_SECONDS
"""How long a test waits for the browser; starting one on a busy machine takes a while."""

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""Key of an element's id (W3C WebDriver, section 12.1)."""

FAST = "const wait = window.setTimeout; window.setTimeout = (f, ms) => wait(f, ms / 50);"
"""Makes the page's waiting short."""

STUB = """
const real = window.fetch;
window.answers = [];
window.asked = [];
window.fetch = async (url, options) => {
  if (String(url) !== "predict" && !window.gone) return real(url, options);
  if (window.gone) throw new TypeError("gone");
  window.asked.push(options.body.getAll("files").map((file) => file.name));
  if (!window.answers.length) return real(url, options);
  const { status, headers, body } = window.answers.shift();
  return new Response(JSON.stringify(body), { status, headers });
};
"""
"""Answers /predict from ``answers`` as long as there are any, then lets the service answer."""


class Browser:
    """Chromium, driven over WebDriver's own HTTP calls, so no client library is needed."""

    def __init__(self, client: httpx.Client, session: str) -> None:
        self._client = client
        self._session = f"/session/{session}"

    def call(self, method: str, path: str, **body: Any) -> Any:
        """A WebDriver command; its value."""
        content = body if method == "POST" else None
        answer = self._client.request(method, self._session + path, json=content).json()["value"]
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def quit(self) -> None:
        """Ends the browser, with all of its processes."""
        assert self.call("DELETE", "") is None

    def cdp(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.call("POST", "/goog/cdp/execute", cmd=command, params=parameters)

    def run(self, script: str, *arguments: Any) -> Any:
        """Runs JavaScript in the page; what it returns."""
        return self.call("POST", "/execute/sync", script=script, args=list(arguments))

    def find(self, selector: str) -> str:
        """The id of the first element."""
        element = self.call("POST", "/element", using="css selector", value=selector)
        return str(element[ELEMENT])

    def find_all(self, selector: str) -> list[str]:
        """The ids of all elements."""
        elements = self.call("POST", "/elements", using="css selector", value=selector)
        return [element[ELEMENT] for element in elements]

    def click(self, selector: str) -> None:
        """Clicks as a user does: what is covered or hidden refuses."""
        self.call("POST", f"/element/{self.find(selector)}/click")

    def press(self, *keys: str) -> None:
        """Presses keys one after the other; their characters are WebDriver's."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        source = {"type": "key", "id": "keyboard", "actions": actions}
        self.call("POST", "/actions", actions=[source])

    def choose(self, paths: Sequence[Path]) -> None:
        """Chooses files, and waits until each has its row."""
        before = len(self.find_all(".row"))
        text = "\n".join(map(str, paths))
        self.call("POST", f"/element/{self.find('#files')}/value", text=text)
        wait_until(lambda: len(self.find_all(".row")) >= before + len(paths), BROWSER_SECONDS)

    def wait_for_answers(self) -> None:
        """Until nothing is waiting or being sent."""
        script = """return document.getElementById("list").getAttribute("aria-busy") === "false"
            && !document.querySelector('[data-state="waiting"], [data-state="sending"]')"""
        wait_until(lambda: self.run(script), BROWSER_SECONDS)

    def rows(self) -> list[dict[str, str]]:
        """The visible text of each row's parts."""
        rows: list[dict[str, str]] = self.run(
            """return [...document.querySelectorAll(".row")].map((row) => {
              const text = (name) => row.querySelector(name)?.innerText ?? "";
              return {
                name: text(".name"), decision: text(".decision"), label: text(".label"),
                score: text(".score-value"), note: text(".score-name"), remarks: text(".remarks"),
                classes: [...row.querySelectorAll(".classes > div")]
                  .map((line) => line.innerText.split("\\n").join(" ")).join("; "),
                details: row.querySelector(".more").textContent,
                preview: String(Boolean(row.querySelector(".thumb img")?.naturalWidth)),
              };
            })"""
        )
        return rows

    def text(self, selector: str) -> str:
        """The visible text of an element."""
        return str(self.run("return document.querySelector(arguments[0]).innerText", selector))

    def complaints(self) -> list[str]:
        """What the console has said since the last call, refused loads among it."""
        entries = self.call("POST", "/se/log", type="browser")
        return [entry["message"] for entry in entries]


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser with a profile of its own; downloads go into the folder."""
    assert CHROMIUM is not None
    assert CHROMEDRIVER is not None
    port = free_port()
    environment = {**os.environ, "HOME": str(folder)}
    command = [CHROMEDRIVER, f"--port={port}", "--silent"]
    with (
        subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as driver,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=BROWSER_SECONDS) as client,
    ):
        try:
            wait_until(lambda: listens(client), BROWSER_SECONDS)
            options = {
                "binary": CHROMIUM,
                "args": [*ARGUMENTS, f"--user-data-dir={folder / 'profile'}"],
            }
            wanted = {
                "browserName": "chrome",
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL"},
            }
            body = {"capabilities": {"alwaysMatch": wanted}}
            session = client.post("/session", json=body).json()["value"]
            assert "sessionId" in session, session
            browser = Browser(client, session["sessionId"])
            browser.cdp(
                "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder / "saved")
            )
            try:
                yield browser
            finally:
                browser.quit()
        finally:
            driver.terminate()


def listens(client: httpx.Client) -> bool:
    try:
        return client.get("/status").status_code == 200
    except httpx.TransportError:
        return False


class Markup(HTMLParser):
    """What a page loads, and what a strict content security policy would refuse."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._open = tag
        for name, value in attributes:
            if name == "style" or name.startswith("on"):
                self.inline.append(f"{tag} {name}")
            if tag in {"script", "link", "img"} and name in {"src", "href"} and value:
                self.loads.append(value)

    def handle_endtag(self, _tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in {"script", "style"} and data.strip():
            self.inline.append(self._open)


def own_files() -> list[Path]:
    """The page's files, without those of the API documentation."""
    files = [path for path in WEB.rglob("*") if path.is_file() and "vendor" not in path.parts]
    return sorted(path for path in files if not path.name.startswith("docs"))


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_say_what_browsers_may_do(service: Service, path: str) -> None:
    page = service.client.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "unsafe" not in policy
    assert Markup(page.text).inline == []


def test_everything_that_the_page_loads_is_here(service: Service) -> None:
    loads = Markup(service.client.get("/").text).loads
    modules = [path for path in own_files() if path.suffix == ".js"]
    for module in modules:
        for name in re.findall(r'^import .* from "(.*)";$', module.read_text(), re.MULTILINE):
            target = (module.parent / name).relative_to(WEB).as_posix()
            loads.append(f"static/{target}")
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    assert {Path(path).name for path in loads} == {
        path.name for path in own_files() if path.suffix != ".html"
    }
    for path in loads:
        response = service.client.get(f"/{path}")
        kind = response.headers["content-type"].partition(";")[0]
        assert (path, response.status_code, kind) == (path, 200, types[Path(path).suffix])


@pytest.mark.parametrize("path", own_files(), ids=lambda path: str(path.name))
def test_files_refer_to_nothing_outside_and_store_nothing(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
    refused = r"https?:|[\"'(]//|@import|url\(|innerHTML|insertAdjacent|document\.write|eval\("
    stores = r"localStorage|sessionStorage|indexedDB|document\.cookie|caches\.|serviceWorker"
    assert re.findall(f"{refused}|{stores}", text) == []


@pytest.fixture(scope="module")
def url(model_store: Path) -> Iterator[str]:
    """A service in a process of its own."""
    with process(model_store, BRAIN_LOG_LEVEL="error") as (_, port):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def chromium_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chromium")


@pytest.fixture(scope="module")
def shared_browser(chromium_folder: Path) -> Iterator[Browser]:
    with chromium(chromium_folder) as browser:
        yield browser


@pytest.fixture
def browser(shared_browser: Browser, url: str) -> Browser:
    """A browser that has just opened the page and seen the service ready."""
    return opened(shared_browser, url)


def opened(browser: Browser, url: str) -> Browser:
    browser.call("POST", "/url", url=url)
    wait_until(lambda: browser.text("#state") == "Ready", BROWSER_SECONDS)
    browser.complaints()
    return browser


@pytest.fixture
def folder(tmp_path: Path, slices: Sequence[Path]) -> Path:
    """Four slices, a DICOM object, and three files that are none, under names that do harm."""
    folder = tmp_path / "study"
    folder.mkdir()
    for path in slices[::2]:
        shutil.copy(path, folder)
    shutil.copy(ROOT / "tests/data/dicom/axial_t1_defaced_0220.dcm", folder / "=1+1")
    (folder / "cut.jpg").write_bytes(slices[0].read_bytes()[:9000])
    (folder / "empty.png").write_bytes(b"")
    (folder / "<img src=x onerror='window.harm=1'>.jpg").write_text(
        "<script>window.harm=1</script>"
    )
    return folder


def answers_for(url: str, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """What the service says of files without the page."""
    files = [("files", (path.name, path.read_bytes())) for path in paths]
    answer = httpx.post(f"{url}predict", files=files, timeout=BROWSER_SECONDS).json()
    entries: list[dict[str, Any]] = answer["predictions"]
    return entries


def shown(value: float) -> str:
    if value >= 0.9995:
        return ">0.999"
    return "<0.001" if value < 0.0005 else f"{value:.3f}"


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
        assert row["decision"] == {"tumor": "Tumour", "no_tumor": "No tumour"}[entry["decision"]]
        assert row["label"] == f"Most likely class: {LABELS[entry['label']]}"
        assert row["score"] == shown(entry["tumor_probability"])
        assert "uncalibrated" in row["note"]
        assert row["classes"] == "; ".join(
            f"{LABELS[name]} {shown(value)}" for name, value in entry["probabilities"].items()
        )
        assert "inference" in row["details"]
        assert ("SOP instance" in row["details"]) == ("dicom" in entry)
    labels = [row["label"] for row in rows]
    assert labels.count("The file is incomplete") == 1
    assert labels.count("Not a JPEG, PNG or DICOM file") == 2
    previews = [row["name"] for row in rows if row["preview"] == "true"]
    assert set(previews) >= {path.name for path in paths if path.name.startswith("Te-")}
    tumors = sum(entry.get("decision") == "tumor" for entry in entries)
    assert re.match(f"8 files: {tumors} tumour, .*3 without a result", browser.text("#summary"))
    assert browser.text("#announcer") == browser.text("#summary")


@needs_browser
def test_nothing_leaves_runs_or_stays(browser: Browser, url: str, folder: Path) -> None:
    browser.choose(sorted(folder.iterdir()))
    browser.wait_for_answers()
    assert browser.run("return window.harm ?? null") is None
    loaded = browser.run("return performance.getEntriesByType('resource').map((it) => it.name)")
    assert f"{url}predict" in loaded
    assert [name for name in loaded if not name.startswith((url, f"blob:{url}"))] == []
    stored = "return [document.cookie, localStorage.length, sessionStorage.length]"
    assert browser.run(stored) == ["", 0, 0]
    # The one complaint is of the answer to a batch in which every file was bad, if there was one.
    assert [text for text in browser.complaints() if "/predict" not in text] == []


@needs_browser
def test_health_and_banner(browser: Browser) -> None:
    assert "Not a medical device. Research use only." in browser.text(".banner")
    assert browser.text("#model-name") == MODEL
    assert browser.text("#model-version").isdigit()
    assert (browser.text("#model-runtime"), browser.text("#model-device")) == ("LiteRT", "cpu")
    links = "return [...document.querySelectorAll('nav a')].map((link) => link.pathname)"
    assert browser.run(links) == ["/docs", "/models", "/metrics"]


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
def test_more_than_a_request_may_hold(
    shared_browser: Browser, model_store: Path, tmp_path: Path, jpeg: bytes
) -> None:
    """A folder goes through in smaller batches, and a file over the limit fails alone."""
    for number in range(11):
        (tmp_path / f"{number:02}.jpg").write_bytes(jpeg)
    (tmp_path / "05.jpg").write_bytes(jpeg + bytes(300_000))
    limits = {"BRAIN_MAX_FILES": "3", "BRAIN_MAX_BODY_BYTES": "200000"}
    with process(model_store, BRAIN_LOG_LEVEL="error", **limits) as (_, port):
        browser = opened(shared_browser, f"http://127.0.0.1:{port}/")
        browser.run(FAST)
        browser.choose(sorted(tmp_path.glob("*.jpg")))
        browser.wait_for_answers()
        rows = browser.rows()
    assert [row["name"] for row in rows if row["decision"] == "No result"] == ["05.jpg"]
    assert re.search("413 body_too_large|interrupted", rows[5]["remarks"])
    assert len(rows) == 11


def busy(status: int, code: str) -> dict[str, Any]:
    body = {"status": status, "code": code, "detail": "come back later", "request_id": "1"}
    return {"status": status, "headers": {"Retry-After": "2"}, "body": body}


@needs_browser
def test_busy_service_is_asked_again(browser: Browser, slices: Sequence[Path]) -> None:
    browser.run(FAST + STUB)
    browser.run("window.answers = arguments[0]", [busy(503, "queue_full"), busy(429, "rate")])
    browser.choose(slices[:2])
    browser.wait_for_answers()
    assert {row["decision"] for row in browser.rows()} <= {"Tumour", "No tumour"}
    assert browser.run("return window.asked.length") == 3


@needs_browser
@pytest.mark.parametrize(
    ("stub", "mark"),
    [
        ("window.answers = Array(5).fill(arguments[0])", "503 queue_full"),
        ("window.gone = true", "network"),
    ],
    ids=["busy", "gone"],
)
def test_unavailable_service_is_said_and_can_be_tried_again(
    browser: Browser, slices: Sequence[Path], stub: str, mark: str
) -> None:
    browser.run(FAST + STUB)
    browser.run(stub, busy(503, "queue_full"))
    browser.choose([*slices, *slices])
    browser.wait_for_answers()
    assert {row["decision"] for row in browser.rows()} == {"No result"}
    assert all(mark in row["remarks"] for row in browser.rows())
    assert "16 files got no result" in browser.text("#notice")
    browser.run("window.gone = false")
    browser.click("#retry")
    browser.wait_for_answers()
    assert {row["decision"] for row in browser.rows()} <= {"Tumour", "No tumour"}
    assert not browser.run("return document.getElementById('notice').checkVisibility()")


@needs_browser
@pytest.mark.parametrize(
    ("status", "code", "text"),
    [
        (503, "runtime_unusable", "Try again in 30 s."),
        (401, "unauthenticated", "The service asks for a key."),
    ],
)
def test_what_does_not_pass_soon_is_left_to_the_user(
    browser: Browser, slices: Sequence[Path], status: int, code: str, text: str
) -> None:
    browser.run(STUB)
    answer = {**busy(status, code), "headers": {"Retry-After": "30"}}
    browser.run("window.answers = [arguments[0]]", answer)
    browser.choose([*slices, *slices])
    browser.wait_for_answers()
    assert browser.text("#notice").endswith(text)
    assert browser.run("return window.asked.length") == 1
    assert {row["decision"] for row in browser.rows()} == {"No result"}


@needs_browser
def test_one_file_that_fails_the_request_does_not_fail_the_others(
    browser: Browser, slices: Sequence[Path]
) -> None:
    browser.run(FAST + STUB)
    failure = busy(500, "internal_error")
    # Eight, then the first four, two and one.
    browser.run("window.answers = Array(4).fill(arguments[0])", failure)
    browser.choose(slices)
    browser.wait_for_answers()
    failed = [row for row in browser.rows() if row["decision"] == "No result"]
    assert [row["name"] for row in failed] == [slices[0].name]
    assert "500 internal_error" in failed[0]["remarks"]


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
        "in_distribution": False,
        "region": {"box": [167, 110, 238, 158], "score": 0.91},
    }
    body = {"request_id": "1", "predictions": [entry]}
    browser.run(STUB)
    browser.run("window.answers = [arguments[0]]", {"status": 200, "headers": {}, "body": body})
    browser.choose(slices[:1])
    browser.wait_for_answers()
    [row] = browser.rows()
    assert row["decision"] == "Refer to a reader"
    assert "do not rely on this result" in row["remarks"]
    assert "Prediction set: Glioma, No tumour" in row["remarks"]
    assert "167, 110, 238, 158, score 0.91" in row["details"]
    assert "something_new 0.200" in row["classes"]
    assert "1 other" in browser.text("#summary")


@needs_browser
def test_fields_that_are_absent_are_not_shown(browser: Browser, slices: Sequence[Path]) -> None:
    browser.choose(slices[:1])
    browser.wait_for_answers()
    [row] = browser.rows()
    text = " ".join(row.values())
    assert re.findall("Prediction set|distribution|Region|SOP|Refer", text) == []


@needs_browser
def test_saved_results(browser: Browser, url: str, folder: Path, chromium_folder: Path) -> None:
    paths = sorted(folder.iterdir())
    browser.choose(paths)
    browser.wait_for_answers()
    saved = chromium_folder / "saved"
    browser.click("#save-json")
    browser.click("#save-csv")
    wait_until(lambda: len([*saved.glob("*.json"), *saved.glob("*.csv")]) == 2, BROWSER_SECONDS)
    entries = answers_for(url, paths)
    [text] = [path.read_text("utf-8") for path in saved.glob("*.json")]
    document = json.loads(text)
    assert "not a medical device" in document["note"]
    fields = {"file", "model", "request_id", "timing_ms"}
    own = [{k: v for k, v in it.items() if k not in fields} for it in document["results"]]
    assert own == entries
    [text] = [path.read_text("utf-8-sig") for path in saved.glob("*.csv")]
    lines = list(csv.DictReader(text.splitlines()))
    assert [line["file"] for line in lines] == [
        f"'{path.name}" if path.name.startswith("=") else path.name for path in paths
    ]
    for line, entry in zip(lines, entries, strict=True):
        assert line["decision"] == entry.get("decision", "")
        assert line["error_code"] == entry.get("error", {}).get("code", "")
        number = line["tumor_probability_uncalibrated"]
        assert (float(number) if number else None) == entry.get("tumor_probability")


@needs_browser
def test_keyboard_alone(browser: Browser, folder: Path) -> None:
    browser.choose(sorted(folder.iterdir()))
    browser.wait_for_answers()
    browser.run("document.activeElement.blur(); scrollTo(0, 0)")
    order = []
    for _ in range(14):
        browser.press("\ue004")
        order.append(browser.run("const it = document.activeElement; return it.id || it.name"))
    expected = ["choose-files", "choose-folder", "filter", "sort", "save-csv", "save-json", "clear"]
    assert [name for name in order if name in expected] == expected
    browser.run("document.querySelector('[name=filter]').focus()")
    browser.press("\ue014", "\ue014", "\ue014")
    visible = "return [...document.querySelectorAll('.row')].filter((row) => !row.hidden).length"
    assert browser.run(visible) == 3
    browser.press("\ue012", "\ue012", "\ue012")
    browser.run("document.querySelector('.thumb button').focus()")
    browser.press("\ue007")
    assert browser.run("return document.getElementById('viewer').open")
    browser.press("\ue00c")
    assert not browser.run("return document.getElementById('viewer').open")


@needs_browser
def test_every_control_has_a_name(browser: Browser, slices: Sequence[Path]) -> None:
    browser.choose(slices[:2])
    browser.wait_for_answers()
    controls = browser.find_all("a, button, input, select, progress, summary, [role=status]")
    assert len(controls) > 15
    for control in controls:
        if browser.call("GET", f"/element/{control}/displayed"):
            role = browser.call("GET", f"/element/{control}/computedrole")
            name = browser.call("GET", f"/element/{control}/computedlabel")
            assert name or role == "status", browser.call("GET", f"/element/{control}/property/id")


CONTRAST = """
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const rgba = (color) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const light = (color) => {
  const [r, g, b] = rgba(color).map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (node) => {
  for (let it = node; it; it = it.parentElement) {
    const color = getComputedStyle(it).backgroundColor;
    if (rgba(color)[3] === 255) return color;
  }
  return "Canvas";
};
return [...document.querySelectorAll("body *")]
  .filter((node) => node.checkVisibility() && !node.matches(":disabled, .quiet, .skip, option"))
  .filter((node) => [...node.childNodes].some((it) => it.nodeType === 3 && it.data.trim()))
  .map((node) => {
    const [a, b] = [light(getComputedStyle(node).color), light(behind(node))];
    return [node.textContent.trim(), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  });
"""


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(browser: Browser, folder: Path, scheme: str) -> None:
    """Text has at least 4.5:1 (WCAG 2.2, 1.4.3)."""
    browser.choose(sorted(folder.iterdir()))
    browser.wait_for_answers()
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.cdp("Emulation.setEmulatedMedia", features=[feature])
    try:
        found = browser.run(CONTRAST)
    finally:
        browser.cdp("Emulation.setEmulatedMedia", features=[])
    assert len(found) > 60
    assert [(text, ratio) for text, ratio in found if ratio < 4.5] == []


@needs_browser
@pytest.mark.parametrize("width", [360, 800, 1280])
def test_fits_its_width(browser: Browser, folder: Path, slices: Sequence[Path], width: int) -> None:
    long = folder / f"{'a_name_without_an_end_' * 8}.jpg"
    shutil.copy(slices[0], long)
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.cdp("Emulation.setDeviceMetricsOverride", **size)
    try:
        browser.choose(sorted(folder.iterdir()))
        browser.wait_for_answers()
        browser.click(".more:not([hidden]) summary")
        assert browser.run("return document.scrollingElement.scrollWidth") <= width
        wide = """return [...document.querySelectorAll("body *")]
            .filter((it) => it.checkVisibility() && !it.closest(".thumb"))
            .filter((it) => it.getBoundingClientRect().right > innerWidth)
            .map((it) => it.className)"""
        assert browser.run(wide) == []
    finally:
        browser.cdp("Emulation.clearDeviceMetricsOverride")


@needs_browser
def test_api_documentation_works_under_its_policy(browser: Browser, url: str) -> None:
    browser.call("POST", "/url", url=f"{url}docs")
    wait_until(lambda: browser.find_all(".opblock"), BROWSER_SECONDS)
    browser.click(".opblock-post .opblock-summary-control")
    wait_until(lambda: browser.find_all(".try-out__btn"), BROWSER_SECONDS)
    assert browser.complaints() == []
