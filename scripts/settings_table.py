"""Prints the settings as the table of docs/settings.md, or writes them into it."""

import sys
from pathlib import Path
from typing import Final

from scripts.generated import replaced, run
from service.usage import ALL_CORES, described

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "settings.md"


def with_table(text: str) -> str:
    """The page's text with the table of these settings in its place."""
    return replaced(text, "settings", table())


def table() -> str:
    """One row for each setting."""
    rows = []
    for variable, default, meaning in described():
        shown = f"`{default}`" if default not in ("", ALL_CORES) else default
        in_a_cell = meaning.replace("|", "\\|")
        rows.append(f"| `{variable}` | {shown} | {in_a_cell} |")
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows])


if __name__ == "__main__":
    sys.exit(run(PAGE, with_table, table))
