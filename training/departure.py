"""How a recipe differs from another one: from the one of its name that ships, or of an earlier run."""

from collections.abc import Iterator, Mapping
from typing import Any

from training.catalogue import load_recipe, recipe_names
from training.errors import RecipeError
from training.recipe import Recipe


def overridden(recipe: Recipe, said: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """By which overrides a recipe differs from the one of its name that ships.

    They are those of :func:`training.catalogue.load_recipe`, and empty if it does not differ; see
    :func:`departs` for what no override gives. Where none ships, its file is the user's, and ``said``
    are the overrides that it was loaded with. Of a weights file, the name alone: where it lies is
    nobody else's business.
    """
    found = _overridden(recipe) if recipe.name in recipe_names() else dict(said or {})
    return found | ({"weights": recipe.weights_name} if "weights" in found else {})


def departs(recipe: Recipe) -> str | None:
    """The short digest of a recipe that shares no more than its name with the one that ships.

    None if overrides or the names of phases alone tell them apart, or none of that name ships.
    """
    if recipe.name not in recipe_names():
        return None
    try:
        shipped = load_recipe(recipe.name, _overridden(recipe))
        same = _with_unnamed_phases(shipped).digest == _with_unnamed_phases(recipe).digest
    except RecipeError:
        # The overrides do not go with what the shipped recipe has become.
        same = False
    return None if same else recipe.digest[:8]


def _with_unnamed_phases(recipe: Recipe) -> Recipe:
    """The same training: a phase's name only stands in logs and histories."""
    phases = tuple(phase.model_copy(update={"name": ""}) for phase in recipe.phases)
    return recipe.model_copy(update={"phases": phases})


def _overridden(recipe: Recipe) -> dict[str, Any]:
    """Of a recipe whose name ships, what :func:`training.catalogue.load_recipe` takes."""
    shipped = load_recipe(recipe.name)
    found = {
        name: getattr(recipe, name)
        for name in ("seed", "weights", "precision")
        if getattr(recipe, name) != getattr(shipped, name)
    }
    for name in ("epochs", "resolution"):
        ours, theirs = ([getattr(phase, name) for phase in r.phases] for r in (recipe, shipped))
        # An override is of every phase.
        if ours != theirs and len(set(ours)) == 1:
            found[name] = ours[0]
    return found


def differences(before: Recipe, now: Recipe) -> list[str]:
    """By which keys two recipes differ, and what each has there."""
    ours, theirs = (dict(_flat("", recipe.model_dump())) for recipe in (before, now))
    return [
        f"{key} {ours.get(key, 'absent')}, not {theirs.get(key, 'absent')}"
        for key in {**ours, **theirs}
        if ours.get(key) != theirs.get(key)
    ]


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Keys that lead to a value, joined by dots; phases by their names."""
    if isinstance(value, dict):
        for name, below in value.items():
            yield from _flat(f"{key}.{name}" if key else name, below)
    elif key == "phases":
        for place, phase in enumerate(value, start=1):
            yield from _flat(f"phase {place} ({phase['name']})", phase)
    else:
        yield key, value
