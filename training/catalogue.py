"""Recipes in files: those that ship, in ``training/recipes/``, and a user's own, by its path."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from training.effect import faults
from training.errors import RecipeError, brief
from training.recipe import Recipe

SUFFIX: Final = ".toml"
"""Of a recipe's file; a name that ends so is a path to one's own."""


def recipe_names() -> list[str]:
    """Names of the recipes that ship."""
    folder = resources.files("training") / "recipes"
    return sorted(
        entry.name.removesuffix(SUFFIX) for entry in folder.iterdir() if entry.name.endswith(SUFFIX)
    )


def load_recipe(name: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """Reads a recipe.

    Args:
        name: one of :func:`recipe_names`, or a path that ends in :data:`SUFFIX`.
        overrides: ``epochs`` or ``resolution`` (of every phase), ``seed``, ``weights`` or
            ``precision``, for short runs, repeats and other machines.

    Raises:
        RecipeError: there is no such recipe, or it is not valid, or has one of
            :func:`training.effect.faults`.
    """
    text = _text(name)
    try:
        content = tomllib.loads(text)
        for key, value in (overrides or {}).items():
            _override(content, key, value)
        recipe = Recipe.model_validate(content)
    except (AttributeError, KeyError, TypeError) as error:
        # Before a model could say it: an override of what is not there, or is something else.
        raise RecipeError(f"recipe {name} has no phases to override: {error!r}") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {name}: {error}") from error
    except ValidationError as error:
        raise RecipeError(f"recipe {name}: {brief(error)}") from error
    file = Path(name).stem if name.endswith(SUFFIX) else name
    if found := [*faults(recipe, file)]:
        raise RecipeError(f"recipe {file}: {'; '.join(found)}")
    return recipe


def _text(name: str) -> str:
    """What a recipe's file holds; raises as :func:`load_recipe`."""
    if name.endswith(SUFFIX):
        try:
            return Path(name).read_text(encoding="utf-8")
        except OSError as error:
            raise RecipeError(f"no recipe at {name}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise RecipeError(f"recipe {name}: {error}") from error
    if name not in recipe_names():
        raise RecipeError(
            f"no recipe {name!r}; there are {', '.join(recipe_names())}, "
            f"and a path to one of your own ends in {SUFFIX}"
        )
    return (resources.files("training") / "recipes" / f"{name}{SUFFIX}").read_text(encoding="utf-8")


def _override(content: dict[str, Any], key: str, value: Any) -> None:
    """Changes a recipe's content, as TOML has it, by one override."""
    if key not in {"epochs", "resolution"}:
        content[key] = value
        return
    content["phases"] = [phase | {key: value} for phase in content["phases"]]
    if key == "epochs":
        for phase in content["phases"]:
            # Of a shorter phase, no more than all of it warms up.
            phase["warmup_epochs"] = min(phase["warmup_epochs"], float(value))
    elif "input_resolution" in content or content.get("head", {}).get("pooling") == "flatten":
        # What serves has the size of the phases, where the recipe says so.
        content["input_resolution"] = value
