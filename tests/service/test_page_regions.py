"""The page with a version that says where, how sure, and when not; the tiny model in a real browser."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.contract.samples import RANGE, mr_object
from tests.service.test_page import answers_for
from tests.service.test_page_accessibility import CONTRAST
from tests.support.browser import BROWSER_SECONDS, Browser, needs_browser, opened
from tests.support.models import MAPS, NAME, TWO_HEADS, head
from tests.support.service import process, wait_until
from tests.support.slices import HEALTHY, PATCH, STRANGE, TUMOR

CHOSEN = """
const rows = [...document.querySelectorAll(".row")];
return rows.find((row) => row.querySelector(".name").textContent === arguments[0])
"""

SHOWN = """const it = document.getElementById("viewer-image");
    return !it.hidden && it.complete && it.naturalHeight"""


@pytest.fixture(scope="module")
def tiny_url(tiny_store: Path) -> Iterator[str]:
    variables = {"BRAIN_MODEL": NAME, "BRAIN_MODEL_VERSION": str(TWO_HEADS)}
    with process(tiny_store, BRAIN_LOG_LEVEL="error", **variables) as (_, port):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    spaced = RANGE | {"PixelSpacing": [0.5, 0.5]}
    files = {
        "tumor.png": TUMOR,
        "healthy.png": HEALTHY,
        "strange.png": STRANGE,
        "tumor.dcm": mr_object(head(patch=PATCH), attributes=spaced),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in files]


@pytest.fixture
def page(shared_browser: Browser, tiny_url: str, paths: list[Path]) -> Browser:
    browser = opened(shared_browser, tiny_url)
    browser.choose(paths)
    browser.wait_for_answers()
    return browser


@needs_browser
def test_answers_in_plain_words(page: Browser, tiny_url: str, paths: list[Path]) -> None:
    tumor, healthy, strange, dicom = page.rows()
    entries = answers_for(tiny_url, paths)
    area = entries[0]["region"]["area_pixels"]
    assert tumor["decision"] == dicom["decision"] == "Tumour"
    assert re.search(rf"Region: \d+ . \d+ pixels, area {area} pixels", tumor["remarks"])
    assert "Prediction set: Glioma" in tumor["remarks"]
    assert "Like the training images" in tumor["details"]
    shown = re.search("area ([0-9]+)\u00a0mm²", dicom["remarks"])
    assert shown
    assert int(shown[1]) == pytest.approx(entries[3]["region"]["area_mm2"], abs=0.51)
    assert healthy["decision"] == "No tumour"
    assert "No region found" in healthy["remarks"]
    assert strange["decision"] == "Refer to a reader"
    assert "do not rely on this result" in strange["remarks"]
    assert "cannot judge this image: a person has to" in strange["remarks"]
    assert strange["label"] == strange["score"] == ""
    assert entries[2]["region"] is not None
    assert "Region" not in strange["details"]
    heat = "return [...document.querySelectorAll('.row .heat')].map((it) => it.checkVisibility())"
    assert page.run(heat) == [True, True, False, True]
    # A browser shows no DICOM object by itself, so this one is seen there alone.
    said = "return [...document.querySelectorAll('.row .heat:not([hidden])')].map((it) => it.innerText)"
    assert page.run(said) == ["Heat map", "Heat map", "Slice with heat map"]
    assert "Glioma" not in strange["remarks"]
    assert "(calibrated)" in tumor["note"]
    assert "1 to refer" in page.text("#summary")
    assert page.complaints() == []


@needs_browser
def test_the_region_lies_over_the_slice(page: Browser, tiny_url: str, paths: list[Path]) -> None:
    [entry] = answers_for(tiny_url, paths[:1])
    boxes = page.run(
        f"""{CHOSEN.replace("return rows", "const row = rows")}
        const box = ({{ x, y, width, height }}) => [x, y, x + width, y + height];
        const bounds = (it) => it.getBoundingClientRect();
        const image = bounds(row.querySelector(".thumb img"));
        return [
          box(row.querySelector(".region-outline").getBBox()),
          box(row.querySelector(".region-box").getBBox()),
          [image.width, image.height],
          [bounds(row.querySelector(".region")).width, bounds(row.querySelector(".region")).height],
        ]""",
        "tumor.png",
    )
    assert boxes[0] == pytest.approx(entry["region"]["box"])
    assert boxes[1] == pytest.approx(entry["region"]["box"])
    assert boxes[2] == pytest.approx(boxes[3], abs=0.5)
    left, top, *_ = entry["region"]["box"]
    path = page.run("return document.querySelector('.region-outline').getAttribute('d')")
    # A disc does not reach into the corner of its box.
    assert f"M{left} {top}h1" not in path
    found = page.run(
        """return [...document.querySelectorAll(".row")]
            .map((row) => row.querySelectorAll("svg").length)"""
    )
    assert found == [1, 0, 0, 0]


@needs_browser
def test_pictures_that_a_browser_shows_otherwise(
    shared_browser: Browser, tiny_url: str, tmp_path: Path
) -> None:
    """No outline lies over them; the heat map shows where it is."""
    picture = Image.open(io.BytesIO(TUMOR)).convert("L")
    exif = Image.Exif()
    # Pixels twice as high as they are wide, as a browser takes it.
    exif.update({0x011A: 144.0, 0x011B: 72.0, 0x0128: 2})
    exif.get_ifd(0x8769).update({0xA002: picture.width // 2, 0xA003: picture.height})
    picture.save(tmp_path / "oblong  pixels.jpg", quality=95, exif=exif)
    deep = np.asarray(picture).astype(np.uint16) * 16
    Image.fromarray(deep).save(tmp_path / "values of 12 bits.png")
    page = opened(shared_browser, tiny_url)
    page.choose(sorted(tmp_path.glob("*.*")))
    page.wait_for_answers()
    oblong, black = page.rows()
    assert oblong["name"] == "oblong  pixels.jpg"
    assert oblong["decision"] == black["decision"] == "Tumour"
    said = "return [...document.querySelectorAll('.row .heat')].map((it) => it.innerText)"
    assert page.run(said) == ["Heat map", "Slice with heat map"]
    previews = (
        "return [...document.querySelectorAll('.row')].map((it) => !!it.querySelector('img'))"
    )
    assert page.run(previews) == [True, False]
    wait_until(lambda: page.run("return document.querySelector('.row svg')") is None)
    page.click(".row .thumb button")
    wait_until(lambda: "see the heat map" in page.text("#viewer-note"), BROWSER_SECONDS)
    assert page.run("return document.querySelector('#viewer-picture svg')") is None
    page.press("\ue00c")


@needs_browser
def test_enlarged_with_its_region(page: Browser) -> None:
    page.click(".row:first-child .thumb button")
    wait_until(lambda: page.run("return document.getElementById('viewer-image').naturalWidth"))
    assert "where the model sees a tumour" in page.text("#viewer-note")
    fits = """const bounds = (it) => it.getBoundingClientRect();
        const [a, b] = [bounds(document.getElementById("viewer-image")),
          bounds(document.querySelector("#viewer-picture svg"))];
        return Math.max(Math.abs(a.x - b.x), Math.abs(a.y - b.y),
          Math.abs(a.width - b.width), Math.abs(a.height - b.height))"""
    assert page.run(fits) < 1
    page.press("\ue00c")
    assert not page.run("return document.getElementById('viewer').open")
    page.click(".row:nth-child(2) .thumb button")
    assert page.run("return document.querySelector('#viewer-picture svg')") is None
    # Else a slip of the mouse adds the slice once more.
    assert not page.run("return [...document.images].some((image) => image.draggable)")
    page.press("\ue00c")


@needs_browser
def test_a_region_of_activation_maps_is_called_coarse(
    shared_browser: Browser, tiny_store: Path, paths: list[Path]
) -> None:
    variables = {"BRAIN_MODEL": NAME, "BRAIN_MODEL_VERSION": str(MAPS)}
    with process(tiny_store, BRAIN_LOG_LEVEL="error", **variables) as (_, port):
        page = opened(shared_browser, f"http://127.0.0.1:{port}/")
        page.choose(paths[:2])
        page.wait_for_answers()
        tumor, healthy = page.rows()
        assert re.search(r"Region \(coarse\): \d+ . \d+ pixels", tumor["remarks"])
        assert "No region found" in healthy["remarks"]
        page.click(".row:first-child .thumb button")
        assert "coarse, and no outline" in page.text("#viewer-note")
        page.press("\ue00c")
        # Of a healthy slice as well the highest value is as red as can be.
        for row, ending in ((1, "coarse, and no outline of it."), (2, "how likely a tumour is.")):
            page.click(f".row:nth-child({row}) .heat")
            wait_until(lambda: page.run(SHOWN) == 512, BROWSER_SECONDS)
            note = page.text("#viewer-note")
            assert "relative to this slice's own highest value" in note
            assert note.endswith(ending)
            page.press("\ue00c")


@needs_browser
@pytest.mark.parametrize("row", [1, 4], ids=["png", "dicom"])
def test_heat_map(page: Browser, row: int) -> None:
    """Of a DICOM object as well, which a browser cannot show by itself."""
    page.click(f".row:nth-child({row}) .heat")
    wait_until(lambda: page.run(SHOWN) == 512, BROWSER_SECONDS)
    assert page.run("return document.getElementById('viewer-image').alt").startswith("Heat map of")
    note = page.text("#viewer-note")
    assert note.startswith("From yellow to red, more speaks for a tumour. The line")
    assert "relative" not in note
    assert note.endswith("nothing here says which side is left.") is (row == 4)
    assert page.complaints() == []
    page.press("\ue00c")


@needs_browser
def test_a_heat_map_that_fails_says_why(page: Browser) -> None:
    page.run(
        """const real = window.fetch;
        window.fetch = async (url, options) => String(url).startsWith("explain")
          ? new Response(JSON.stringify({ code: "queue_full" }), { status: 503 })
          : real(url, options)"""
    )
    page.click(".row:nth-child(1) .heat")
    wait_until(lambda: page.text("#viewer-note") == "The service is busy.", BROWSER_SECONDS)
    assert page.run("return document.getElementById('viewer-image').hidden")
    page.press("\ue00c")


@needs_browser
def test_a_heat_map_of_another_version_says_so(page: Browser) -> None:
    page.run(
        """const real = window.fetch;
        window.fetch = async (url, options) => {
          const response = await real(url, options);
          if (!String(url).startsWith("explain")) return response;
          const headers = { "X-Heatmap-Source": "mask", "X-Model-Version": "99" };
          return new Response(await response.blob(), { headers });
        }"""
    )
    page.click(".row:nth-child(1) .heat")
    wait_until(lambda: page.run(SHOWN) == 512, BROWSER_SECONDS)
    note = page.text("#viewer-note")
    assert note.startswith(f"Heat map by version 99; the result is version {TWO_HEADS}'s. From")
    page.press("\ue00c")


@needs_browser
def test_a_heat_map_is_waited_for_while_there_is_a_service(page: Browser) -> None:
    page.run(
        """const [real, every] = [window.fetch, window.setInterval];
        window.setInterval = (f, ms) => every(f, ms / 1000);
        window.heard = 0;
        window.fetch = (url, options) => {
          if (String(url).startsWith("health/live")) {
            window.heard += 1;
            return window.gone ? Promise.reject(new TypeError("gone")) : real(url, options);
          }
          if (!String(url).startsWith("explain")) return real(url, options);
          window.asked = options.signal;
          return new Promise((_, fail) => {
            options.signal.addEventListener("abort", () => fail(options.signal.reason));
          });
        }"""
    )
    page.click(".row:nth-child(1) .heat")
    wait_until(lambda: page.run("return window.heard") > 3, BROWSER_SECONDS)
    assert page.text("#viewer-note") == "Asking for the heat map"
    page.run("window.gone = true")
    said = "The service could not be reached."
    wait_until(lambda: page.text("#viewer-note") == said, BROWSER_SECONDS)
    page.press("\ue00c")
    page.run("window.gone = false")
    page.click(".row:nth-child(1) .heat")
    assert not page.run("return window.asked.aborted")
    page.press("\ue00c")
    wait_until(lambda: page.run("return window.asked.aborted"), BROWSER_SECONDS)


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_control_has_a_name_and_text_has_contrast(page: Browser, scheme: str) -> None:
    for control in page.find_all(".row :is(button:not([hidden]), summary)"):
        label = page.call("GET", f"/element/{control}/computedlabel")
        assert re.match(r"(Enlarge|((Slice with h|H)eat map|Details) of) \w+\.(png|dcm)$", label)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.cdp("Emulation.setEmulatedMedia", features=[feature])
    try:
        found = page.run(CONTRAST)
    finally:
        page.cdp("Emulation.setEmulatedMedia", features=[])
    assert [(text, ratio) for text, ratio in found if ratio < 4.5] == []
