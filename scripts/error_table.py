"""Prints the error codes as the table of docs/errors.md, or writes them into it."""

import re
import sys
from pathlib import Path
from typing import Final

from scripts.generated import replaced, run
from service.catalogue import Entry, catalogue

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "errors.md"


def with_table(text: str) -> str:
    """The page's text with the table of these codes in its place."""
    return replaced(text, "codes", table())


def table() -> str:
    """One row for each code."""
    rows = [
        f"| `{entry.code}` | {_listed(entry.statuses) or 'another 4xx'} | {_meaning(entry)} "
        f"| {_waits(entry)} |"
        for entry in catalogue()
    ]
    return "\n".join(["| code | status | when | `Retry-After` |", "|---|---|---|---|", *rows])


def _meaning(entry: Entry) -> str:
    return re.sub(r"\bBRAIN_[A-Z_]+", r"`\g<0>`", entry.when)


def _waits(entry: Entry) -> str:
    if entry.waits and entry.waits == entry.statuses:
        return "yes"
    return _listed(entry.waits, "with ")


def _listed(statuses: tuple[int, ...], before: str = "") -> str:
    return before + ", ".join(map(str, statuses)) if statuses else ""


if __name__ == "__main__":
    sys.exit(run(PAGE, with_table, table))
