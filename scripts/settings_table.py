"""Prints the settings as the README's table, or writes them into it.

usage: python -m scripts.settings_table [--write]
"""

import sys
from enum import Enum
from pathlib import Path
from typing import Final

from pydantic.fields import FieldInfo

from scripts.generated import replaced, run
from service.settings import PREFIX, Settings

README: Final = Path(__file__).resolve().parents[1] / "README.md"


def with_table(text: str) -> str:
    """The README's text with the table of these settings in its place."""
    return replaced(text, "settings", table())


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
    return "" if default in (None, frozenset()) else f"`{default}`"


def _meaning(field: FieldInfo) -> str:
    meaning = field.description or ""
    if isinstance(field.annotation, type) and issubclass(field.annotation, Enum):
        meaning = f"{', '.join(f'`{member.value}`' for member in field.annotation)}. {meaning}"
    return meaning.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(run(README, with_table, table))
