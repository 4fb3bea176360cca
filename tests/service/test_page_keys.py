"""The page where the service has API keys, and zip files on it."""

import zipfile
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from service.keys import Role, make_key
from tests.service.test_page_accessibility import COLORS, CONTRAST
from tests.support.browser import BROWSER_SECONDS, Browser, needs_browser
from tests.support.keys import write_keys
from tests.support.service import process, wait_until

SECRET, STORED = make_key("page", [Role.PREDICT])
OTHER_SECRET, OTHER_STORED = make_key("keeper", [Role.ADMIN])

SHOWN = "return document.getElementById('key').checkVisibility()"

# WCAG 2.2, 1.4.11: where a field is must be seen at 3:1.
EDGE = (
    COLORS
    + """
const field = document.getElementById("key");
const line = light(getComputedStyle(field).borderTopColor);
return [getComputedStyle(field).backgroundColor, behind(field.parentElement)]
  .map(light).map((b) => (Math.max(line, b) + 0.05) / (Math.min(line, b) + 0.05));
"""
)


@pytest.fixture(scope="module")
def url(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that wants a key."""
    file = write_keys(tmp_path_factory.mktemp("keys") / "keys.txt", STORED, OTHER_STORED)
    with process(model_store, BRAIN_LOG_LEVEL="error", BRAIN_API_KEYS_FILE=str(file)) as (_, port):
        yield f"http://127.0.0.1:{port}/"


def enter(browser: Browser, key: str) -> None:
    """Types into what has the focus, and presses Enter."""
    browser.press(*key, "\ue007")


def packed(folder: Path, paths: Sequence[Path]) -> Path:
    """A zip file of some slices."""
    pack = folder / "study.zip"
    with zipfile.ZipFile(pack, "w") as archive:
        for path in paths:
            archive.write(path, path.name)
    return pack


@needs_browser
def test_a_key_is_asked_for_used_and_kept_nowhere(
    browser: Browser, slices: Sequence[Path], tmp_path: Path
) -> None:
    pack = packed(tmp_path, slices[:2])
    assert not browser.run(SHOWN)
    browser.choose([slices[0], pack])
    browser.wait_for_answers()
    assert "The service asks for a key" in browser.text("#notice")
    assert [row["decision"] for row in browser.rows()] == ["No result"] * 2
    assert browser.run("return document.activeElement.id") == "key"
    # Who does not see the notice hears it, and again at the field.
    assert "2 files got no result. The service asks for a key." in browser.text("#announcer")
    described = "return document.getElementById('key').getAttribute('aria-describedby')"
    assert browser.run(described).split()[0] == "notice"

    # As it comes out of a letter: no header could carry it.
    invisible = "document.getElementById('key').value = `${arguments[0]}\\u200b`"
    browser.run(invisible, SECRET)
    enter(browser, "")
    assert browser.run(SHOWN)
    assert "an invisible sign in it. Copy it again." in browser.text("#notice")
    assert browser.run("return document.activeElement.id") == "key"
    browser.run("document.getElementById('key').value = ''")

    enter(browser, f"{SECRET}0")
    wait_until(lambda: browser.run("return document.activeElement.id") == "key", BROWSER_SECONDS)
    browser.wait_for_answers()
    assert [row["decision"] for row in browser.rows()] == ["No result"] * 2
    assert browser.text("#notice") == "2 files got no result. The key is not valid."

    enter(browser, SECRET)
    wait_until(lambda: len(browser.rows()) == 3, BROWSER_SECONDS)
    browser.wait_for_answers()
    rows = browser.rows()
    assert [row["name"] for row in rows] == [
        slices[0].name,
        *(f"study.zip/{path.name}" for path in slices[:2]),
    ]
    assert all(row["score"] for row in rows)
    assert rows[0]["score"] == rows[1]["score"]
    assert not browser.run(SHOWN)
    assert browser.run("return document.activeElement.id") == "results-title"
    kept = "return document.documentElement.outerHTML + location.href + document.cookie"
    assert SECRET not in browser.run(kept)
    assert browser.run("return localStorage.length + sessionStorage.length") == 0


@needs_browser
def test_a_key_of_another_role_is_told_so(browser: Browser, slices: Sequence[Path]) -> None:
    browser.choose(slices[:1])
    browser.wait_for_answers()
    enter(browser, OTHER_SECRET)
    wait_until(lambda: "The key is not for this" in browser.text("#notice"), BROWSER_SECONDS)
    assert browser.run(SHOWN)
    assert [row["decision"] for row in browser.rows()] == ["No result"]


@needs_browser
def test_slices_of_a_zip_file_have_their_own_names(
    browser: Browser, slices: Sequence[Path], tmp_path: Path
) -> None:
    pack = packed(tmp_path, slices[:2])
    names = [f"study.zip/{path.name}" for path in slices[:2]]
    browser.choose([slices[0]])
    browser.wait_for_answers()
    enter(browser, SECRET)
    browser.wait_for_answers()
    browser.run(
        """const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], "study.zip"));
        dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, cancelable: true }))""",
        b64encode(pack.read_bytes()).decode(),
    )
    wait_until(lambda: len(browser.rows()) == 3, BROWSER_SECONDS)
    browser.wait_for_answers()
    assert [row["name"] for row in browser.rows()] == [slices[0].name, *names]
    # Which slice of a zip file a heat map is wanted of, /explain could not be told.
    heat = """return [...document.querySelectorAll(".row .heat")]
        .map((it) => it.checkVisibility())"""
    assert browser.run(heat) == [True, False, False]
    saved = browser.run(
        """const file = { name: "study.zip", size: 9 };
        const entries = arguments[0].map((input) => ({ input, label: "glioma" }));
        const items = [{ path: "visit/study.zip", file, entries, context: {} }];
        return import("/static/page/exports.js")
          .then(({ toCsv, toJson }) => [toCsv(items), toJson(items)])""",
        names,
    )
    for text in saved:
        assert all(f"visit/{name}" in text for name in names)


@needs_browser
def test_a_heat_map_asks_for_the_key_too(browser: Browser, slices: Sequence[Path]) -> None:
    browser.choose(slices[:1])
    browser.wait_for_answers()
    enter(browser, SECRET)
    browser.wait_for_answers()
    wait_until(lambda: browser.run("return document.querySelector('.heat').checkVisibility()"))
    # As if the key had been withdrawn in the meantime.
    browser.run(
        """const real = window.fetch;
        window.fetch = (url, options) => real(url, String(url).startsWith("explain")
          ? { ...options, headers: {} } : options)"""
    )
    browser.click(".row .heat")
    wait_until(lambda: browser.run(SHOWN), BROWSER_SECONDS)
    assert "The key is not valid" in browser.text("#notice")
    assert browser.run("return document.activeElement.id") == "key"
    assert not browser.run("return document.getElementById('viewer').open")


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_key_field_is_seen_and_named(
    browser: Browser, slices: Sequence[Path], scheme: str
) -> None:
    browser.choose(slices[:1])
    browser.wait_for_answers()
    assert browser.run(SHOWN)
    for selector in ("#key", "#key-form button"):
        assert browser.call("GET", f"/element/{browser.find(selector)}/computedlabel")
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.cdp("Emulation.setEmulatedMedia", features=[feature])
    try:
        browser.run("document.activeElement.blur()")
        text, edges = browser.run(CONTRAST), browser.run(EDGE)
    finally:
        browser.cdp("Emulation.setEmulatedMedia", features=[])
    assert [(words, ratio) for words, ratio in text if ratio < 4.5] == []
    assert min(edges) >= 3
