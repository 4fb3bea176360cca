"""The page in front of a service that is busy, gone, limited or failing."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.browser import (
    BROWSER_SECONDS,
    FAST,
    OTHER_NAME,
    STUB,
    Browser,
    needs_browser,
    opened,
)
from tests.support.relay import relay
from tests.support.service import process, wait_until


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


@needs_browser
def test_an_upload_that_takes_too_long_says_so(
    shared_browser: Browser, model_store: Path, tmp_path: Path, jpeg: bytes
) -> None:
    """And is not sent again without end by the browser, as it would be after 408."""
    (tmp_path / "large.jpg").write_bytes(jpeg + bytes(1_000_000))
    limits = {"BRAIN_BODY_TIMEOUT_MS": "1000"}
    with (
        process(model_store, BRAIN_LOG_LEVEL="error", **limits) as (_, behind),
        relay(behind, bytes_per_second=30_000) as port,
    ):
        browser = opened(shared_browser, f"http://127.0.0.1:{port}/")
        browser.run(FAST)
        browser.choose([tmp_path / "large.jpg"])
        browser.wait_for_answers()
        [row] = browser.rows()
        metrics = httpx.get(f"http://127.0.0.1:{behind}/metrics").text
    assert row["decision"] == "No result"
    assert "did not arrive in time" in row["remarks"]
    assert "Code 400 body_timeout" in row["remarks"]
    # The page tries once more.
    assert 'brain_errors_total{code="body_timeout"} 2.0' in metrics
    assert browser.run("return !document.getElementById('retry').hidden")


def busy(status: int, code: str) -> dict[str, Any]:
    body = {"status": status, "code": code, "detail": "come back later", "request_id": "1"}
    return {"status": status, "headers": {"Retry-After": "2"}, "body": body}


PROXY = """
const behind = window.fetch;
window.seen = [];
window.fetch = async (url, options) => {
  const names = options?.body?.getAll("files").map((file) => file.name) ?? [];
  const status = window.restarting || names.includes(window.breaks) ? 502
    : names.length > window.most ? 413 : 0;
  if (names.length) window.seen.push(names.length);
  const page = "<html>an error page of its own</html>";
  return status ? new Response(page, { status }) : behind(url, options);
};
"""
"""A proxy: of a service that is ``restarting``; that takes no ``breaks``, or no more than ``most``."""


@needs_browser
def test_a_proxy_is_asked_again_after_a_restart(browser: Browser, slices: Sequence[Path]) -> None:
    browser.run(FAST + STUB)
    answer = {"status": 502, "headers": {}, "body": "<html>Bad Gateway</html>"}
    browser.run("window.answers = [arguments[0]]", answer)
    browser.choose(slices)
    browser.wait_for_answers()
    assert "No result" not in {row["decision"] for row in browser.rows()}
    assert browser.run("return window.asked.length") == 2


@needs_browser
def test_a_file_that_a_proxy_cannot_pass_on_fails_alone(
    browser: Browser, slices: Sequence[Path]
) -> None:
    """As one that the service breaks off in the middle: not every 502 is a restart."""
    browser.run(FAST + PROXY)
    browser.run("window.breaks = arguments[0]", slices[2].name)
    browser.choose(slices)
    browser.wait_for_answers()
    failed = [row for row in browser.rows() if row["decision"] == "No result"]
    assert [row["name"] for row in failed] == [slices[2].name]
    assert "Code 502 interrupted" in failed[0]["remarks"]


@needs_browser
def test_a_limit_of_a_proxy_is_met_once(browser: Browser, slices: Sequence[Path]) -> None:
    browser.run(FAST + PROXY)
    browser.run("window.most = 4")
    browser.choose([*slices, *slices])
    browser.wait_for_answers()
    assert "No result" not in {row["decision"] for row in browser.rows()}
    assert browser.run("return window.seen") == [8, 4, 4, 4, 4]


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
        ("window.restarting = true", "502"),
    ],
    ids=["busy", "gone", "gone-behind-a-proxy"],
)
def test_unavailable_service_is_said_and_can_be_tried_again(
    browser: Browser, slices: Sequence[Path], stub: str, mark: str
) -> None:
    browser.run(FAST + STUB + PROXY)
    browser.run(stub, busy(503, "queue_full"))
    browser.choose([*slices, *slices])
    browser.wait_for_answers()
    assert {row["decision"] for row in browser.rows()} == {"No result"}
    assert all(mark in row["remarks"] for row in browser.rows())
    assert "16 files got no result" in browser.text("#notice")
    if "restarting" in stub:
        # As often as it is tried, and in one piece.
        assert browser.run("return window.seen") == [8] * 5
    browser.run("window.gone = window.restarting = false")
    browser.click("#retry")
    browser.wait_for_answers()
    # One of the slices lies upside down.
    found = {row["decision"] for row in browser.rows()}
    assert found == {"Tumour", "No tumour", "Refer to a reader"}
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


KEY_FORM = "return document.getElementById('key-form').checkVisibility()"


@needs_browser
def test_a_name_that_the_service_does_not_know_is_said_and_no_key_asked_for(
    shared_browser: Browser, url: str, slices: Sequence[Path]
) -> None:
    browser = opened(shared_browser, url.replace("127.0.0.1", OTHER_NAME))
    browser.run(STUB)
    browser.choose([*slices, *slices])
    browser.wait_for_answers()
    notice = browser.text("#notice")
    assert "does not know the name in the address bar" in notice
    assert notice.endswith("administrator to list it in BRAIN_ALLOWED_HOSTS.")
    assert not browser.run(KEY_FORM)
    assert browser.run("return window.asked.length") == 1
    assert all("Code 403 unknown_host" in row["remarks"] for row in browser.rows())


@needs_browser
@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("other_site", "has to pass on the name in the address bar."),
        (None, "The service may not be asked from here."),
    ],
    ids=["other-site", "proxy"],
)
def test_a_refusal_that_no_key_would_change_asks_for_none(
    browser: Browser, slices: Sequence[Path], code: str | None, text: str
) -> None:
    browser.run(STUB)
    body = {} if code is None else {"status": 403, "code": code, "detail": "it may not"}
    browser.run("window.answers = [arguments[0]]", {"status": 403, "headers": {}, "body": body})
    browser.choose([*slices, *slices])
    browser.wait_for_answers()
    assert browser.text("#notice").endswith(text)
    assert not browser.run(KEY_FORM)
    # Nor would smaller batches.
    assert browser.run("return window.asked.length") == 1
    assert {row["decision"] for row in browser.rows()} == {"No result"}


HELD = """
const held = new Promise((go) => { window.go = go; });
const asked = window.fetch;
window.fetch = (url, options) => String(url).startsWith("predict")
  ? Promise.race([
      held.then(() => asked(url, options)),
      new Promise((_, fail) => options.signal.addEventListener("abort", fail)),
    ])
  : asked(url, options);
window.later = window.setTimeout;
for (const name of ["setTimeout", "setInterval"]) {
  const real = window[name];
  window[name] = (f, ms) => real(f, ms / 1000);
}
"""
"""Answers /predict only after ``go()``; makes the page ask early what became of it."""

SOME_TIME = "return new Promise((done) => { window.later(done, 400); })"


@needs_browser
def test_a_slow_answer_is_waited_for_while_there_is_a_service(
    browser: Browser, slices: Sequence[Path]
) -> None:
    browser.run(STUB + HELD)
    browser.choose(slices[:2])
    browser.run(SOME_TIME)
    assert {row["decision"] for row in browser.rows()} == {"Sending"}
    browser.run("window.go()")
    browser.wait_for_answers()
    assert browser.run("return window.asked.length") == 1
    assert "No result" not in {row["decision"] for row in browser.rows()}

    browser.run(HELD)
    browser.choose(slices[:1])
    browser.run("window.gone = true")
    browser.wait_for_answers()
    assert "Code network" in browser.rows()[2]["remarks"]
    assert "could not be reached" in browser.text("#notice")


@needs_browser
def test_what_is_cleared_before_its_answer_is_not_summed_up(
    browser: Browser, slices: Sequence[Path]
) -> None:
    browser.run(STUB + HELD)
    browser.choose(slices[:1])
    wait_until(lambda: browser.rows()[0]["decision"] == "Sending", BROWSER_SECONDS)
    browser.clear()
    browser.run(SOME_TIME)
    assert browser.text("#announcer") == "Cleared."


SILENT = """
const heard = window.fetch;
window.silent = true;
window.fetch = (url, options) => {
  if (!window.silent) return heard(url, options);
  if (String(url).startsWith("predict")) return Promise.reject(new TypeError("gone"));
  if (!String(url).startsWith("health/live")) return heard(url, options);
  window.checked = true;
  return new Promise((_, fail) => options.signal.addEventListener("abort", fail));
};
"""
"""A connection that broke, and nothing that says whether there still is a service."""


@needs_browser
@pytest.mark.parametrize("clears", [False, True], ids=["stop", "clear"])
def test_what_is_added_after_a_stop_is_sent(
    browser: Browser, slices: Sequence[Path], clears: bool
) -> None:
    browser.run(SILENT)
    browser.choose([*slices, slices[0]])
    wait_until(lambda: browser.run("return window.checked === true"), BROWSER_SECONDS)
    if clears:
        browser.clear()
    else:
        browser.click("#stop")
    assert len(browser.rows()) == (0 if clears else 9)
    browser.run("window.silent = false")
    browser.choose(slices[:1])
    browser.wait_for_answers()
    *stopped, added = browser.rows()
    assert {row["label"] for row in stopped} <= {"Stopped before it was answered"}
    assert added["decision"] == "Tumour"


@needs_browser
def test_what_is_added_while_the_stopped_request_ends_is_sent(
    browser: Browser, slices: Sequence[Path]
) -> None:
    """A browser may take its time to break a request off; a second stop is for what was added."""
    browser.run(STUB)
    browser.run(
        """const asked = window.fetch;
        const ended = new Promise((end) => { window.end = end; });
        window.fetch = async (url, options) => {
          if (!String(url).startsWith("predict") || window.asked.length) return asked(url, options);
          window.asked.push([]);
          await ended;
          throw new DOMException("aborted", "AbortError");
        }"""
    )
    browser.choose(slices[:1])
    wait_until(lambda: browser.rows()[0]["decision"] == "Sending", BROWSER_SECONDS)
    for path in slices[1:3]:
        browser.click("#stop")
        browser.choose([path])
    wait_until(lambda: browser.rows()[2]["decision"] == "Waiting", BROWSER_SECONDS)
    assert browser.rows()[1]["label"] == "Stopped before it was answered"
    browser.run("window.end()")
    browser.wait_for_answers()
    first, second, third = browser.rows()
    assert first["label"] == second["label"] == "Stopped before it was answered"
    assert third["score"]
    assert browser.run("return window.asked[1]") == [slices[2].name]


@needs_browser
def test_a_silent_service_is_not_called_ready(browser: Browser) -> None:
    browser.run(
        """const timeout = AbortSignal.timeout;
        AbortSignal.timeout = (ms) => timeout.call(AbortSignal, ms / 50);
        window.real = window.fetch;
        window.fetch = (url, { signal }) => new Promise((_, fail) => {
          signal?.addEventListener("abort", fail);
        });
        document.dispatchEvent(new Event("visibilitychange"))"""
    )
    wait_until(lambda: browser.text("#state") == "Not reachable", BROWSER_SECONDS)
    assert browser.text("#reason") == "No answer from the service"
    # The model stays, as the results are its.
    assert browser.text("#model-version").isdigit()
    browser.run("window.fetch = window.real")
    wait_until(lambda: browser.text("#state") == "Ready", BROWSER_SECONDS)


@needs_browser
def test_an_old_question_that_comes_to_nothing_changes_no_newer_answer(browser: Browser) -> None:
    browser.run(
        """window.real = window.fetch;
        window.fetch = () => new Promise((_, fail) => { window.fail = fail; });
        document.dispatchEvent(new Event("visibilitychange"));
        window.fetch = window.real;
        document.getElementById("state").textContent = "";
        document.dispatchEvent(new Event("visibilitychange"))"""
    )
    wait_until(lambda: browser.text("#state") == "Ready", BROWSER_SECONDS)
    browser.run("window.fail(new TypeError('gone'))")
    later = "return new Promise((done) => { setTimeout(done, 100); })"
    browser.run(later)
    assert browser.text("#state") == "Ready"


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
