"""The page in a real browser."""

import csv
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from scripts.ports import free_port
from tests.support.programs import needs
from tests.support.service import PATIENCE_SECONDS, wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")

needs_browser = needs("chromium|google-chrome", "chromedriver")
"""Of Debian's packages chromium and chromium-driver."""

OTHER_NAME = "mri.example"
"""What the browser takes for another name of this machine."""

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
    f"--host-resolver-rules=MAP {OTHER_NAME} 127.0.0.1",
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
  if (!String(url).startsWith("predict") && !window.gone) return real(url, options);
  if (window.gone) throw new TypeError("gone");
  window.asked.push(options.body.getAll("files").map((file) => file.name));
  if (!window.answers.length) return real(url, options);
  const { status, headers, body } = window.answers.shift();
  return new Response(JSON.stringify(body), { status, headers });
};
"""
"""Answers /predict from ``answers`` as long as there are any, then lets the service answer."""


UNSAVED = """const leaving = new Event("beforeunload", { cancelable: true });
    dispatchEvent(leaving);
    return leaving.defaultPrevented"""
"""Whether the browser would ask before the page is left."""


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

    def clear(self) -> None:
        """Clears the results, with a yes to the question."""
        self.click("#clear")
        self.click("#clear-all")

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
                # A test's own, which no authority has signed.
                "acceptInsecureCerts": True,
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


def opened(browser: Browser, url: str) -> Browser:
    browser.call("POST", "/url", url=url)
    wait_until(lambda: browser.text("#state") == "Ready", BROWSER_SECONDS)
    browser.complaints()
    return browser


def saved(browser: Browser, folder: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """What "Save JSON" and "Save CSV" give, in the folder where the browser saves."""
    for path in folder.glob("*"):
        path.unlink()
    browser.click("#save-json")
    browser.click("#save-csv")

    def written() -> int:
        # Chromium makes an empty file first, and puts the whole one in its place.
        files = [*folder.glob("*.json"), *folder.glob("*.csv")]
        return sum(path.stat().st_size > 0 for path in files)

    wait_until(lambda: written() == 2, BROWSER_SECONDS)
    [text] = [path.read_text("utf-8") for path in folder.glob("*.json")]
    [table] = [path.read_text("utf-8-sig") for path in folder.glob("*.csv")]
    return json.loads(text), list(csv.DictReader(io.StringIO(table)))


def listens(client: httpx.Client) -> bool:
    try:
        return client.get("/status").status_code == 200
    except httpx.TransportError:
        return False
