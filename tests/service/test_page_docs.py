"""The API documentation in a real browser: narrow screens, and colours that can be read."""

from tests.service.test_page_accessibility import CONTRAST
from tests.support.browser import BROWSER_SECONDS, Browser, needs_browser
from tests.support.service import wait_until

OPENED = """for (const it of document.querySelectorAll(arguments[0])) it.click()"""


@needs_browser
def test_documentation_is_read_on_a_narrow_screen_and_in_the_dark(
    browser: Browser, url: str
) -> None:
    """All operations opened, at 320 pixels (WCAG 2.2, 1.4.10) and with 4.5:1 (1.4.3)."""
    size = {"width": 320, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.cdp("Emulation.setDeviceMetricsOverride", **size)
    try:
        browser.call("POST", "/url", url=f"{url}docs")
        wait_until(lambda: browser.find_all(".opblock-summary-control"), BROWSER_SECONDS)
        operations = len(browser.find_all(".opblock"))
        # The one server is where the page is from.
        chosen = """return ["select", ".servers", ".authorize"].map((name) =>
            document.querySelector(`.scheme-container ${name}`)?.checkVisibility())"""
        assert browser.run(chosen) == [False, False, True]
        for button in (".opblock-summary-control", ".try-out__btn"):
            browser.run(OPENED, button)
            wait_until(
                lambda: len(browser.find_all(".opblock .try-out__btn")) == operations,
                BROWSER_SECONDS,
            )
        wait_until(lambda: browser.find_all(".opblock .execute"), BROWSER_SECONDS)
        assert browser.run("return document.scrollingElement.scrollWidth") == 320
        for scheme, declared in (("light", "light dark"), ("dark", "dark")):
            feature = {"name": "prefers-color-scheme", "value": scheme}
            browser.cdp("Emulation.setEmulatedMedia", features=[feature])
            background = browser.run(
                "return getComputedStyle(document.documentElement).colorScheme"
            )
            assert background == declared
            browser.run("for (const it of document.getAnimations()) it.finish()")
            found = browser.run(CONTRAST)
            assert len(found) > 500
            assert [(text, ratio) for text, ratio in found if ratio < 4.5] == [], scheme
    finally:
        browser.cdp("Emulation.setEmulatedMedia", features=[])
        browser.cdp("Emulation.clearDeviceMetricsOverride")
