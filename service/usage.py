"""What ``python -m service --help`` says: each setting, its default and its meaning."""

import argparse
import textwrap
from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple

from pydantic.fields import FieldInfo

from service.cores import available_cores
from service.settings import PREFIX, Settings

_DESCRIPTION: Final = (
    "Serves the model. Settings are environment variables; there are no arguments."
)

ALL_CORES: Final = "all cores"
"""The default of settings that depend on the machine."""


class Described(NamedTuple):
    """A setting as a reader needs it.

    Attributes:
        variable: in the environment.
        default: empty where there is none.
        meaning: with the values that it takes, where they are few.
    """

    variable: str
    default: str
    meaning: str


def described() -> Iterator[Described]:
    """All settings, in their order."""
    for name, field in Settings.model_fields.items():
        yield Described(f"{PREFIX}{name}".upper(), _default(field), _meaning(field))


def refuse_arguments(arguments: list[str]) -> None:
    """Does nothing for none of them.

    Raises:
        SystemExit: with status 0 for ``--help``, which prints the settings; with 2 for all else.
    """
    if not arguments:
        # Each start would make the text for nobody.
        return
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description=_DESCRIPTION,
        epilog="\n".join(map(_paragraph, described())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _, others = parser.parse_known_args(arguments)
    if others:
        # Not what they are: one may be a secret.
        parser.error(
            "there are no arguments; settings are environment variables, which --help lists"
        )


def _paragraph(setting: Described) -> str:
    head = f"{setting.variable}={setting.default}" if setting.default else setting.variable
    return f"{head}\n{textwrap.indent(textwrap.fill(setting.meaning, 92), '    ')}"


def _default(field: FieldInfo) -> str:
    if field.default_factory is available_cores:
        return ALL_CORES
    default = field.default.value if isinstance(field.default, Enum) else field.default
    return "" if default in (None, frozenset()) else str(default)


def _meaning(field: FieldInfo) -> str:
    meaning = field.description or ""
    if isinstance(field.annotation, type) and issubclass(field.annotation, Enum):
        return f"{', '.join(f'`{member.value}`' for member in field.annotation)}. {meaning}"
    return meaning
