"""What the page loads, and that nothing leaves it or stays behind."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from service.routes.pages import WEB
from tests.support.browser import BROWSER_SECONDS, Browser, needs_browser
from tests.support.service import Service, wait_until


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


@needs_browser
def test_nothing_leaves_runs_or_stays(browser: Browser, url: str, folder: Path) -> None:
    browser.choose(sorted(folder.iterdir()))
    browser.wait_for_answers()
    assert browser.run("return window.harm ?? null") is None
    loaded = browser.run("return performance.getEntriesByType('resource').map((it) => it.name)")
    assert f"{url}predict?mask=rle" in loaded
    assert [name for name in loaded if not name.startswith((url, f"blob:{url}"))] == []
    stored = "return [document.cookie, localStorage.length, sessionStorage.length]"
    assert browser.run(stored) == ["", 0, 0]
    # The one complaint is of the answer to a batch in which every file was bad, if there was one.
    assert [text for text in browser.complaints() if "/predict" not in text] == []


@needs_browser
def test_api_documentation_works_under_its_policy(browser: Browser, url: str) -> None:
    browser.call("POST", "/url", url=f"{url}docs")
    wait_until(lambda: browser.find_all(".opblock"), BROWSER_SECONDS)
    browser.click(".opblock-post .opblock-summary-control")
    wait_until(lambda: browser.find_all(".try-out__btn"), BROWSER_SECONDS)
    browser.click(".try-out__btn")
    wait_until(lambda: browser.find_all(".json-schema-form-item-add"), BROWSER_SECONDS)
    browser.click(".json-schema-form-item-add")
    wait_until(lambda: browser.find_all(".json-schema-array input[type=file]"), BROWSER_SECONDS)
    assert browser.complaints() == []
