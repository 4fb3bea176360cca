"""Prints the keys of recipes as the tables of docs/recipes.md, or writes them into it."""

import inspect
import re
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from scripts.generated import replaced, run
from training.recipe import Augmentation, Folds, Head, Mask, Phase, Plateau, Recipe

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "recipes.md"

PARTS: Final[dict[str, type[BaseModel]]] = {
    "The recipe": Recipe,
    "`[[phases]]`": Phase,
    "`[phases.plateau]`": Plateau,
    "`[augmentation]`": Augmentation,
    "`[head]`": Head,
    "`[mask]`": Mask,
    "`[folds]`": Folds,
}

_LIMITS: Final = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "multiple of"}


def with_table(text: str) -> str:
    """The page's text with the tables of the keys in their place."""
    return replaced(text, "keys", table())


def table() -> str:
    """A heading and a table for each part of a recipe."""
    return "\n\n".join(f"### {title}\n\n{_part(model)}" for title, model in PARTS.items())


def _part(model: type[BaseModel]) -> str:
    meanings = _meanings(model)
    rows = [
        f"| `{name}` | {_kind(field)} | {_default(field)} | {meanings.get(name, '')} |"
        for name, field in model.model_fields.items()
    ]
    return "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows])


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """What the docstring's attributes say of each key; one entry may be of several."""
    _, _, listed = (inspect.getdoc(model) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    for names, text in re.findall(r"^    ([\w, ]+): (.*(?:\n {8}.*)*)", listed, re.MULTILINE):
        meaning = " ".join(text.split())
        found |= dict.fromkeys(names.split(", "), meaning.replace("``", "`"))
    return found


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return "as below"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return "" if default in (None, (), {}) else f"`{default}`"


def _kind(field: FieldInfo) -> str:
    limits = [
        f"{sign} {getattr(limit, name)}"
        for limit in field.metadata
        for name, sign in _LIMITS.items()
        if getattr(limit, name, None) is not None
    ]
    return ", ".join([_type(field.annotation), *limits])


def _type(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{word}`" for word in inner)
    if origin is Annotated:
        return _type(inner[0])
    if origin in (Union, UnionType):
        return _type(*(one for one in inner if one is not NoneType))
    if origin is tuple:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"table of {_type(inner[1])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "table"
    return {int: "whole number", float: "number", str: "text", bool: "`true`, `false`"}[kind]


if __name__ == "__main__":
    sys.exit(run(PAGE, with_table, table))
