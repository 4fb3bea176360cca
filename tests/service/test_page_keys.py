"""The page where the service has API keys, and zip files on it."""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from service.keys import Role, make_key
from tests.support.browser import BROWSER_SECONDS, Browser, needs_browser
from tests.support.service import process, wait_until

SECRET, STORED = make_key("page", [Role.PREDICT])


@pytest.fixture(scope="module")
def url(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that wants a key."""
    file = tmp_path_factory.mktemp("keys") / "keys.txt"
    file.write_text(f"{STORED.line()}\n", encoding="utf-8")
    with process(model_store, BRAIN_LOG_LEVEL="error", BRAIN_API_KEYS_FILE=str(file)) as (_, port):
        yield f"http://127.0.0.1:{port}/"


def enter(browser: Browser, key: str) -> None:
    """Types into what has the focus, and presses Enter."""
    browser.press(*key, "\ue007")


@needs_browser
def test_a_key_is_asked_for_used_and_kept_nowhere(
    browser: Browser, slices: Sequence[Path], tmp_path: Path
) -> None:
    pack = tmp_path / "study.zip"
    with zipfile.ZipFile(pack, "w") as archive:
        for path in slices[:2]:
            archive.write(path, path.name)
    assert not browser.run("return document.getElementById('key').checkVisibility()")
    browser.choose([slices[0], pack])
    browser.wait_for_answers()
    assert "The service asks for a key" in browser.text("#notice")
    assert [row["decision"] for row in browser.rows()] == ["No result"] * 2
    assert browser.run("return document.activeElement.id") == "key"

    enter(browser, f"{SECRET}0")
    wait_until(lambda: browser.run("return document.activeElement.id") == "key", BROWSER_SECONDS)
    browser.wait_for_answers()
    assert [row["decision"] for row in browser.rows()] == ["No result"] * 2

    enter(browser, SECRET)
    wait_until(lambda: len(browser.rows()) == 3, BROWSER_SECONDS)
    browser.wait_for_answers()
    rows = browser.rows()
    assert [row["name"] for row in rows] == [slices[0].name, pack.name, pack.name]
    assert all(row["score"] for row in rows)
    assert rows[0]["score"] == rows[1]["score"]
    assert not browser.run("return document.getElementById('key').checkVisibility()")
    kept = "return document.documentElement.outerHTML + location.href + document.cookie"
    assert SECRET not in browser.run(kept)
    assert browser.run("return localStorage.length + sessionStorage.length") == 0
