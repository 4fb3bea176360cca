"""Prints the settings as the README's table, or writes them into it.

usage: python -m scripts.settings_table [--write]
"""

import re
import sys
from enum import Enum
from pathlib import Path
from typing import Final

from pydantic.fields import FieldInfo

from service.settings import PREFIX, Settings

README: Final = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->"
"""The table lies between these two lines; it is made from the settings class and not edited by hand."""


def main() -> int:
    """Prints or writes the table."""
    if sys.argv[1:] == ["--write"]:
        text = README.read_text(encoding="utf-8")
        README.write_text(with_table(text), encoding="utf-8")
    else:
        print(table())
    return 0


def with_table(text: str) -> str:
    """The README's text with the table of these settings in its place."""
    return re.sub(
        f"({re.escape(BEGIN)}).*?({re.escape(END)})",
        lambda match: f"{match.group(1)}{table()}\n{match.group(2)}",
        text,
        count=1,
        flags=re.DOTALL,
    )


def table() -> str:
    """One row for each setting."""
    rows = [
        f"| `{PREFIX}{name.upper()}` | {_default(field)} | {_meaning(field)} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows])


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "see there"
    default = field.default.value if isinstance(field.default, Enum) else field.default
    return "" if default is None else f"`{default}`"


def _meaning(field: FieldInfo) -> str:
    meaning = field.description or ""
    if isinstance(field.annotation, type) and issubclass(field.annotation, Enum):
        meaning = f"{', '.join(f'`{member.value}`' for member in field.annotation)}. {meaning}"
    return meaning.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
