"""Recipes: everything that a training run is, as data (``training/recipes/*.toml``)."""

import hashlib
import tomllib
from importlib import resources
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.errors import RecipeError


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Augmentation(_Strict):
    """Ranges of the random changes; each is drawn uniformly and symmetrically about none.

    Attributes:
        rotation_degrees: up to this many, either way.
        shift: share of the side, either way, along both axes.
        zoom: share, in or out.
        flip_horizontal: with probability one half.
        brightness: share of the grey range that is added or taken.
        contrast: share by which distances from the mean grey level grow or shrink.
    """

    rotation_degrees: float = Field(ge=0, le=180)
    shift: float = Field(ge=0, lt=1)
    zoom: float = Field(ge=0, lt=1)
    flip_horizontal: bool
    brightness: float = Field(ge=0, lt=1)
    contrast: float = Field(ge=0, lt=1)


class Phase(_Strict):
    """One stage of training; each starts a fresh optimiser.

    Attributes:
        trainable: name prefixes of the backbone's layers that learn; the classifier always does.
        resolution: side in pixels to which slices are scaled while they are augmented.
        learning_rate: peak of a linear warm-up followed by a cosine decay to zero.
        warmup_epochs: length of that warm-up; parts of an epoch count.
    """

    name: str
    trainable: tuple[str, ...]
    resolution: int = Field(ge=32, le=1024)
    epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warmup_epochs: float = Field(ge=0)
    weight_decay: float = Field(ge=0)


class Recipe(_Strict):
    """A whole training run; unknown keys are refused.

    Attributes:
        weights: what the backbone starts from.
        validation_share: of the training images of each class, in whole near-duplicate groups.
        early_stopping_patience: epochs without a lower validation loss that end a phase.
        average_momentum: of the exponential average of the weights that is validated and kept.
    """

    name: str
    backbone: str
    weights: str
    classes: tuple[str, ...] = Field(min_length=2)
    tumor_classes: tuple[str, ...] = Field(min_length=1)
    dropout: float = Field(ge=0, lt=1)
    label_smoothing: float = Field(ge=0, lt=1)
    batch_size: int = Field(ge=1)
    validation_share: float = Field(gt=0, lt=1)
    early_stopping_patience: int = Field(ge=1)
    average_momentum: float = Field(ge=0, lt=1)
    seed: int
    augmentation: Augmentation
    phases: tuple[Phase, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _classes_agree(self) -> Self:
        if not set(self.tumor_classes) < set(self.classes):
            raise ValueError("tumor_classes must be some, but not all, of the classes")
        return self

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON form, in hex."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def recipe_names() -> list[str]:
    """Names of the recipes that ship."""
    folder = resources.files("training") / "recipes"
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    )


def load_recipe(name: str, overrides: dict[str, int] | None = None) -> Recipe:
    """Reads a recipe.

    Args:
        name: one of :func:`recipe_names`.
        overrides: ``epochs`` (of every phase), ``resolution`` (likewise) or ``seed``, for short
            runs and repeats.

    Raises:
        RecipeError: there is no such recipe, or it is not valid.
    """
    if name not in recipe_names():
        raise RecipeError(f"no recipe {name!r}; there are {', '.join(recipe_names())}")
    text = (resources.files("training") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    try:
        content = tomllib.loads(text)
        for key, value in (overrides or {}).items():
            if key in {"epochs", "resolution"}:
                content["phases"] = [phase | {key: value} for phase in content["phases"]]
            else:
                content[key] = value
        return Recipe.model_validate(content)
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise RecipeError(f"recipe {name}: {error}") from error
