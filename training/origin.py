"""What a run, a version or a cross-validation was made of, by which it is told from others."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from training.catalogue import load_recipe, recipe_names
from training.departure import departs, overridden
from training.files import read_json, whole
from training.run import Run

MANIFEST_FILE: Final = "manifest.json"


class Origin(NamedTuple):
    """What a run was made of.

    Attributes:
        data: the data sets, and how the run was another one than the recipe has on them.
        weights: what it started from.
        run: a short digest of the recipe's digest, the data's and, of a cross-validation, its parts:
            the same for a run and its version, and for the protocols that a recipe was run on.
        sources: names of the data sets.
    """

    data: str
    weights: str
    run: str
    sources: list[str]


def origin_of(path: Path, held_out: Sequence[str]) -> Origin:
    """Of a run, or of a version in a store, that left out data sets.

    Raises:
        RunError: there is neither, or it is damaged.
    """
    if (path / MANIFEST_FILE).is_file():
        manifest = read_json(path / MANIFEST_FILE)
        with whole(path / MANIFEST_FILE):
            return _of_version(manifest["provenance"], held_out)
    config = Run.open(path).config
    recipe, data = config.recipe, [source.model_dump() for source in config.data]
    shown = _shown(data, overridden(recipe, config.overrides), departs(recipe), held_out)
    return Origin(shown, recipe.weights_name, _digest(recipe.digest, data), _names(data))


def _of_version(provenance: dict[str, Any], held_out: Sequence[str]) -> Origin:
    recipe, digest, data = (provenance[key] for key in ("recipe", "recipe_digest", "data"))
    # A version does not keep its recipe, only what tells it from another.
    own = recipe not in recipe_names() or load_recipe(recipe).digest == digest
    shown = _shown(data, {}, None if own else digest[:8], held_out)
    return Origin(shown, provenance["weights"], _digest(digest, data), _names(data))


def origin_of_crossval(found: Mapping[str, Any]) -> Origin:
    """Of what a cross-validation's file holds; a KeyError where that is not whole."""
    data = found["data"]
    shown = _shown(data, found.get("overridden", {}), found.get("another_recipe"), ())
    # More splits are another cross-validation.
    digest = _digest(found.get("recipe_digest"), data, len(found["parts"]))
    return Origin(shown, found["weights"], digest, _names(data))


def _names(data: Sequence[Mapping[str, Any]]) -> list[str]:
    return [source["name"] for source in data]


def _shown(
    data: Sequence[Mapping[str, Any]],
    overrides: Mapping[str, Any],
    another: str | None,
    held_out: Sequence[str],
) -> str:
    changes = {**overrides, **({"another recipe": another} if another else {})}
    notes = [f"{name} {value}" for name, value in sorted(changes.items())]
    notes += [f"without {name}" for name in held_out]
    return " + ".join(_names(data)) + (f" ({', '.join(notes)})" if notes else "")


def _digest(recipe: str | None, data: Sequence[Mapping[str, Any]], parts: int | None = None) -> str:
    content = [recipe, *(source.get("digest") for source in data), parts]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]
