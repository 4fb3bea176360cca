"""The page for everyone: keyboard, names, contrast and narrow screens."""

import io
import shutil
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from tests.contract.samples import RANGE, grey_slice, mr_frames
from tests.support.browser import BROWSER_SECONDS, Browser, needs_browser
from tests.support.service import wait_until


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


FOCUSED = "return document.activeElement.id"


@needs_browser
def test_focus_goes_on_where_its_button_goes(browser: Browser, slices: Sequence[Path]) -> None:
    """From Stop to Try again, back, and to the heading of the results when all is done."""
    # Answers no request before it is told to.
    browser.run(
        """const real = window.fetch;
        window.held = new Promise((go) => { window.go = go; });
        window.fetch = (url, options) => String(url).startsWith("predict")
          ? Promise.race([
              window.held.then(() => real(url, options)),
              new Promise((_, fail) => options.signal.addEventListener("abort", fail)),
            ])
          : real(url, options)"""
    )
    browser.choose(slices[:2])
    wait_until(lambda: browser.run("return !document.getElementById('stop').hidden"))
    browser.run("document.getElementById('stop').focus()")
    browser.press("\ue007")
    browser.wait_for_answers()
    assert browser.run(FOCUSED) == "retry"
    browser.press("\ue007")
    wait_until(lambda: browser.run(FOCUSED) == "stop", BROWSER_SECONDS)
    browser.run("window.go()")
    browser.wait_for_answers()
    assert [row["decision"] for row in browser.rows() if row["decision"] == "No result"] == []
    assert browser.run(FOCUSED) == "results-title"


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


COLORS = """
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
"""
"""Functions of scripts: how light a color is, and the color behind a node."""

CONTRAST = (
    COLORS
    + """
return [...document.querySelectorAll("body *")]
  .filter((node) => node.checkVisibility() && !node.matches(":disabled, .quiet, .skip, option"))
  .filter((node) => [...node.childNodes].some((it) => it.nodeType === 3 && it.data.trim()))
  .map((node) => {
    const [a, b] = [light(getComputedStyle(node).color), light(behind(node))];
    return [node.textContent.trim(), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  });
"""
)


def add_series(folder: Path) -> None:
    """An object of two frames, of a series with a long identifier."""
    uid = {"SeriesInstanceUID": f"1.2.826.0.1.{'3' * 50}"}
    (folder / "frames").write_bytes(mr_frames([grey_slice()] * 2, attributes=RANGE | uid))


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(browser: Browser, folder: Path, scheme: str) -> None:
    """Text has at least 4.5:1 (WCAG 2.2, 1.4.3)."""
    add_series(folder)
    browser.choose(sorted(folder.iterdir()))
    browser.wait_for_answers()
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.cdp("Emulation.setEmulatedMedia", features=[feature])
    try:
        found = browser.run(CONTRAST)
    finally:
        browser.cdp("Emulation.setEmulatedMedia", features=[])
    assert len(found) > 60
    assert "Series" in [text for text, _ in found]
    assert [(text, ratio) for text, ratio in found if ratio < 4.5] == []


@contextmanager
def enlarged(browser: Browser, path: Path, width: int, height: int) -> Iterator[None]:
    """A slice in the enlarged view, with a long note below, in a window of that size."""
    with Image.open(path) as image:
        columns = image.width
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.cdp("Emulation.setDeviceMetricsOverride", **size)
    try:
        browser.choose([path])
        browser.wait_for_answers()
        browser.click(".thumb button")
        shown = "return document.getElementById('viewer-image').naturalWidth"
        wait_until(lambda: browser.run(shown) == columns, BROWSER_SECONDS)
        browser.run(
            "document.getElementById('viewer-note').textContent = 'What it is. '.repeat(12)"
        )
        yield
        browser.press("\ue00c")
    finally:
        browser.cdp("Emulation.clearDeviceMetricsOverride")


@needs_browser
@pytest.mark.parametrize(("width", "height"), [(640, 450), (360, 740), (1280, 900)])
@pytest.mark.parametrize("shape", [(300, 2400), (2400, 300), (512, 512)])
def test_what_is_below_an_enlarged_slice_is_seen(
    browser: Browser, tmp_path: Path, width: int, height: int, shape: tuple[int, int]
) -> None:
    """At 200 % as well, where a window has half of its pixels."""
    Image.new("L", shape, 99).save(tmp_path / "slice.png")
    with enlarged(browser, tmp_path / "slice.png", width, height):
        note, image, dialog = browser.run(
            """return ["viewer-note", "viewer-image", "viewer"].map((name) => {
              const it = document.getElementById(name);
              const { top, bottom, right } = it.getBoundingClientRect();
              return { top, bottom, right, hidden: it.scrollHeight - it.clientHeight };
            })"""
        )
        assert note["bottom"] <= dialog["bottom"] <= height
        assert image["bottom"] <= note["top"]
        assert image["bottom"] - image["top"] >= 30
        assert image["right"] <= dialog["right"] <= width
        assert dialog["hidden"] <= 0


@needs_browser
@pytest.mark.parametrize("height", [225, 256])
@pytest.mark.parametrize("shape", [(300, 2400), (512, 512)])
def test_an_enlarged_slice_is_large_at_400_percent(
    browser: Browser, tmp_path: Path, height: int, shape: tuple[int, int]
) -> None:
    path = tmp_path / f"{'a long name ' * 8}.png"
    Image.new("L", shape, 99).save(path)
    with enlarged(browser, path, 320, height):
        note, image, dialog, wide = browser.run(
            """document.getElementById("viewer").scrollTo(0, 1e6);
            const box = (name) => document.getElementById(name).getBoundingClientRect().toJSON();
            const { scrollWidth, clientWidth } = document.getElementById("viewer");
            return [...["viewer-note", "viewer-image", "viewer"].map(box), scrollWidth - clientWidth]"""
        )
        assert image["height"] >= 0.59 * height
        # All of it can be reached.
        assert image["bottom"] <= note["top"]
        assert note["bottom"] <= dialog["bottom"] <= height
        assert wide <= 0


@needs_browser
def test_progress_and_bars_are_seen_in_forced_colors(browser: Browser) -> None:
    feature = {"name": "forced-colors", "value": "active"}
    browser.cdp("Emulation.setEmulatedMedia", features=[feature])
    try:
        browser.run(
            """document.getElementById("results").hidden = false;
            Object.assign(document.getElementById("progress"), { hidden: false, value: 0.5 })"""
        )
        picture = browser.call("GET", f"/element/{browser.find('#progress')}/screenshot")
        colours = browser.run(
            """document.body.insertAdjacentHTML("beforeend", `<p id="text" style="color: CanvasText">
              <b class="first"><i class="track"><span>`);
            const colour = (name, of, part) => getComputedStyle(document.querySelector(name), part)[of];
            return [colour("#text", "color"), colour(".first .track span", "backgroundColor"),
              colour("#state", "backgroundColor", "::before")]"""
        )
    finally:
        browser.cdp("Emulation.setEmulatedMedia", features=[])
    with Image.open(io.BytesIO(b64decode(picture))) as image:
        middle = image.height // 2
        line = image.convert("L").crop((0, middle, image.width, middle + 1)).tobytes()
    assert abs(line[len(line) // 4] - line[3 * len(line) // 4]) > 60
    text, *filled = colours
    assert filled == [text, text]


COLLIDING = """const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
const all = (names) => [...document.querySelectorAll(names)].filter((it) => it.checkVisibility());
const size = (name) => parseFloat(getComputedStyle(all(name)[0]).fontSize);
return {
  rem,
  decision: size(".decision"),
  name: size(".name"),
  cut: all("dt, dd, .kind, .score-name, .decision")
    .filter((it) => it.scrollWidth > Math.max(it.clientWidth, it.offsetWidth))
    .map((it) => it.textContent),
  wide: all("body *").filter((it) => !it.closest(".quiet, .thumb, .filter legend"))
    .filter((it) => it.getBoundingClientRect().right > innerWidth + 0.5)
    .map((it) => it.outerHTML.slice(0, 80)),
  scrolls: document.scrollingElement.scrollWidth > innerWidth,
}"""


@needs_browser
@pytest.mark.parametrize("pixels", [16, 24, 32])
def test_larger_text_has_room(browser: Browser, folder: Path, pixels: int) -> None:
    """Text as large as a person has set it in the browser: all of it grows, and nothing is cut."""
    add_series(folder)
    browser.cdp("Page.setFontSizes", fontSizes={"standard": pixels})
    try:
        browser.choose(sorted(folder.iterdir()))
        browser.wait_for_answers()
        browser.run(
            """for (const it of document.querySelectorAll("details")) it.open = true;
            for (const it of ["key-form", "notice", "stop", "retry"]) {
              document.getElementById(it).hidden = false;
            }
            document.getElementById("notice").textContent = arguments[0]""",
            "The service took too long (504 deadline_exceeded). Trying again in 2 s, attempt 1 of 1.",
        )
        for width in (320, 360, 480, 640, 800, 1280, 1920):
            size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
            browser.cdp("Emulation.setDeviceMetricsOverride", **size)
            found = browser.run(COLLIDING)
            assert found["rem"] == pixels
            assert found["decision"] >= found["name"], width
            assert (width, found["cut"], found["wide"]) == (width, [], [])
            assert not found["scrolls"], width
    finally:
        browser.cdp("Page.setFontSizes", fontSizes={"standard": 16})
        browser.cdp("Emulation.clearDeviceMetricsOverride")


@needs_browser
@pytest.mark.parametrize("width", [320, 360, 800, 1280])
def test_fits_its_width(browser: Browser, folder: Path, slices: Sequence[Path], width: int) -> None:
    long = folder / f"{'a_name_without_an_end_' * 8}.jpg"
    shutil.copy(slices[0], long)
    add_series(folder)
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
def test_tools_are_in_one_line(browser: Browser, folder: Path) -> None:
    """In a window of 1280 pixels, with hundreds of slices."""
    browser.choose(sorted(folder.iterdir()))
    browser.wait_for_answers()
    centres = browser.run(
        """for (const it of document.querySelectorAll("[data-count]")) it.textContent = "888";
        document.querySelector("[data-optional]").hidden = false;
        return [...document.querySelectorAll(".tools > *")].map((it) => {
          const { top, bottom } = it.getBoundingClientRect();
          return Math.round((top + bottom) / 2);
        })"""
    )
    assert len(centres) == 3
    assert max(centres) - min(centres) <= 2
