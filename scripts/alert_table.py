"""Prints the alerts as the table of docs/operations.md, or writes them into it."""

import re
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from scripts.generated import replaced, run

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "operations.md"
RULES: Final = ROOT / "deploy" / "prometheus" / "alerts.yml"


def alerts() -> list[dict[str, Any]]:
    """All alert rules, in their order."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def with_table(text: str) -> str:
    """The page's text with the table of the alerts in its place."""
    return replaced(text, "alerts", table())


def table() -> str:
    """One row for each alert; the first sentence of its description is what it means."""
    rows = []
    for rule in alerts():
        meaning, _, todo = rule["annotations"]["description"].partition(". ")
        severity = rule["labels"]["severity"]
        rows.append(f"| {rule['alert']} | {severity} | {meaning} | {_as_code(todo)} |")
    return "\n".join(["| alert | severity | it means | what to do |", "|---|---|---|---|", *rows])


def _as_code(text: str) -> str:
    linked = text.replace("docs/errors.md", "[errors.md](errors.md)")
    return re.sub(r"\bBRAIN_[A-Z_]+|\b(?:GET|POST) /\w[\w/]*", r"`\g<0>`", linked)


if __name__ == "__main__":
    sys.exit(run(PAGE, with_table, table))
