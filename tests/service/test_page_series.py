"""The page with zip files and series: what the slices in them are, and what they come to."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.contract.samples import RANGE, grey_slice, mr_object
from tests.service.test_archives import zipped
from tests.support.browser import BROWSER_SECONDS, Browser, needs_browser
from tests.support.service import wait_until


def saved(browser: Browser, folder: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """What "Save JSON" and "Save CSV" give."""
    for path in folder.glob("*"):
        path.unlink()
    browser.click("#save-json")
    browser.click("#save-csv")
    wait_until(lambda: len([*folder.glob("*.json"), *folder.glob("*.csv")]) == 2, BROWSER_SECONDS)
    [text] = [path.read_text("utf-8") for path in folder.glob("*.json")]
    [table] = [path.read_text("utf-8-sig") for path in folder.glob("*.csv")]
    return json.loads(text), list(csv.DictReader(io.StringIO(table)))


@needs_browser
def test_every_file_of_a_zip_that_failed_says_why(
    browser: Browser, chromium_folder: Path, slices: Sequence[Path], tmp_path: Path
) -> None:
    knee = mr_object(grey_slice(), attributes=RANGE | {"BodyPartExamined": "KNEE"})
    (tmp_path / "bad.zip").write_bytes(zipped({"one.txt": b"no image", "knee.dcm": knee}))
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04junk")
    browser.choose([tmp_path / "bad.zip", tmp_path / "broken.zip", slices[0]])
    browser.wait_for_answers()
    rows = browser.rows()
    assert [row["name"] for row in rows] == [
        "bad.zip/one.txt",
        "bad.zip/knee.dcm",
        "broken.zip",
        slices[0].name,
    ]
    failed = rows[:3]
    assert {row["decision"] for row in failed} == {"No result"}
    codes = ["415 unsupported_media_type", "422 not_head", "422 damaged_zip"]
    for row, code in zip(failed, codes, strict=True):
        assert code in row["remarks"]
    assert "3 files: 1 " in browser.text("#summary")
    assert "2 without a result" in browser.text("#summary")
    document, lines = saved(browser, chromium_folder / "saved")
    for found in (
        [result.get("error", {}).get("code", "") for result in document["results"]],
        [line["error_code"] for line in lines],
    ):
        assert found == ["unsupported_media_type", "not_head", "damaged_zip", ""]
