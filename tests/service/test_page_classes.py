"""The page with models of other classes: which of them mean a tumour, the service says."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import STUB, Browser, needs_browser, opened
from tests.support.service import (
    FakeRuntimes,
    Service,
    add_version,
    serving,
    settings_for,
)

FOUR = ["glioma", "meningioma", "pituitary"]


def says(
    browser: Browser, paths: Sequence[Path], tumors: list[str] | None, **fields: Any
) -> dict[str, str]:
    """The row of a slice that is answered with these fields."""
    entry = {"input": "a.jpg", "probabilities": {}, "tumor_probability": 0.5, **fields}
    body = {"request_id": "1", "predictions": [entry]}
    if tumors is not None:
        body["tumor_classes"] = tumors
    browser.run(STUB)
    browser.run("window.answers = [arguments[0]]", {"status": 200, "headers": {}, "body": body})
    browser.choose(paths[:1])
    browser.wait_for_answers()
    [row] = browser.rows()
    return row


@needs_browser
@pytest.mark.parametrize(
    ("tumors", "label", "decision", "remark"),
    [
        (["krank"], "gesund", "no_tumor", ""),
        (["krank"], "krank", "tumor", ""),
        (
            ["krank"],
            "gesund",
            "tumor",
            "The tumour class reaches the threshold of the decision, though another is more likely.",
        ),
        (
            ["krank"],
            "krank",
            "no_tumor",
            "The tumour class is the most likely, but stays below the threshold of the decision.",
        ),
        (
            FOUR,
            "notumor",
            "tumor",
            "The tumour classes together reach the threshold, though none is the most likely.",
        ),
        (
            FOUR,
            "glioma",
            "no_tumor",
            "The tumour classes together stay below the threshold of the decision.",
        ),
        (None, "gesund", "no_tumor", ""),
    ],
)
def test_a_decision_against_the_label_is_explained(
    browser: Browser,
    slices: Sequence[Path],
    tumors: list[str] | None,
    label: str,
    decision: str,
    remark: str,
) -> None:
    assert says(browser, slices, tumors, label=label, decision=decision)["remarks"] == remark


@needs_browser
def test_the_class_tumor_has_a_name_to_read(browser: Browser, slices: Sequence[Path]) -> None:
    probabilities = {"notumor": 0.3, "tumor": 0.7}
    row = says(
        browser, slices, ["tumor"], label="tumor", decision="tumor", probabilities=probabilities
    )
    assert row["label"] == "Most likely class: Tumour"
    assert row["classes"] == "No tumour 0.300; Tumour 0.700"


@pytest.fixture
def two_classes(store_copy: Path, runtimes: FakeRuntimes) -> Iterator[Service]:
    """A service of a model that calls the healthy by a name of its own, and takes all for that."""
    number = add_version(
        store_copy,
        classes=["gesund", "krank"],
        tumor_classes=["krank"],
        outputs={"probabilities": {"dtype": "float32", "shape": [None, 2]}},
        answer=None,
        reference=None,
    )
    with serving(settings_for(store_copy, model_version=str(number)), runtimes) as service:
        yield service


@needs_browser
def test_a_model_of_two_classes_of_its_own_is_told_as_it_is(
    two_classes: Service, shared_browser: Browser, slices: Sequence[Path]
) -> None:
    browser = opened(shared_browser, f"{two_classes.url}/")
    browser.choose(slices[:1])
    browser.wait_for_answers()
    [row] = browser.rows()
    assert (row["decision"], row["label"]) == ("No tumour", "Most likely class: gesund")
    assert row["remarks"] == ""
