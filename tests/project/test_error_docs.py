"""docs/errors.md lists every code that an answer can have, as the code has it."""

import re
from pathlib import Path

import pytest

from contract import errors as contract_errors
from contract.errors import ContractError
from scripts.error_table import PAGE, with_table
from service import errors as service_errors
from service.catalogue import CODES, UNANSWERED, catalogue
from service.errors import Failure, ServiceError

ROOT = Path(__file__).resolve().parents[2]
TEXT = PAGE.read_text(encoding="utf-8")
SOURCES = [
    path.read_text("utf-8")
    for part in ("contract", "service")
    for path in (ROOT / part).rglob("*.py")
]


def kinds() -> list[type[Failure]]:
    found = {**vars(contract_errors), **vars(service_errors)}.values()
    return [
        kind
        for kind in found
        if isinstance(kind, type) and issubclass(kind, ContractError | ServiceError)
    ]


def test_the_table_is_made_from_the_code() -> None:
    assert with_table(TEXT) == TEXT, "run: python -m scripts.error_table --write"
    assert "`queue_full` | 503 |" in TEXT


def test_codes_are_unique() -> None:
    assert len(set(CODES)) == len(CODES)


def test_every_kind_that_is_raised_is_listed() -> None:
    for kind in kinds():
        if re.search(
            rf"\b(raise|=) {kind.__name__}\b(?!\.)", "\n".join(SOURCES)
        ) and "code" in vars(kind):
            assert kind.code in CODES or kind in UNANSWERED, kind.__name__


def test_headers_are_as_listed() -> None:
    listed = {entry.code: entry for entry in catalogue()}
    for kind in kinds():
        if (
            not issubclass(kind, ServiceError)
            or kind.code not in listed
            or "code" not in vars(kind)
        ):
            continue
        failure = kind("text", 1.0) if kind is service_errors.RateExceeded else kind("text")
        assert ("Retry-After" in failure.headers) == (kind.status in listed[kind.code].waits)


def test_the_table_of_statuses_has_all_of_them() -> None:
    rows = re.findall(r"^\| ([0-9 /]+) \|", TEXT, re.MULTILINE)
    named = {int(status) for row in rows for status in row.split(" / ")}
    assert named >= {status for entry in catalogue() for status in entry.statuses}


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)[^)]*\)", TEXT))))
def test_links_lead_somewhere(path: str) -> None:
    assert (PAGE.parent / path).exists()
