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
        curve: share of the grey range by which the knots of a smooth grey-level curve are moved, which
            stands for another sequence or another scanner's processing.
        shading: share by which brightness changes across the slice, as an uneven coil has it.
        blur: share of fine structure that is taken away, or added.
        noise: standard deviation of added noise, up to this share of the grey range.
    """

    rotation_degrees: float = Field(ge=0, le=180)
    shift: float = Field(ge=0, lt=1)
    zoom: float = Field(ge=0, lt=1)
    flip_horizontal: bool
    brightness: float = Field(ge=0, lt=1)
    contrast: float = Field(ge=0, lt=1)
    curve: float = Field(0.0, ge=0, lt=1)
    shading: float = Field(0.0, ge=0, lt=1)
    blur: float = Field(0.0, ge=0, le=1)
    noise: float = Field(0.0, ge=0, lt=1)


class Folds(_Strict):
    """Which patient-wise folds of a data set do not train."""

    validation: tuple[int, ...] = Field(min_length=1)
    test: tuple[int, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        if set(self.validation) & set(self.test):
            raise ValueError("a fold cannot be in validation and in test")
        return self


class Mask(_Strict):
    """The second head: where the tumour is, at half the resolution of the input.

    Attributes:
        weight: of the mask's loss against the class loss.
        cell_weight: of the mean cross-entropy of the cells against the Dice loss.
        channels: width of the decoder at 1/8 of the input's resolution and below; half of it above.
        removed: synthetic slices whose tumour was cut out, as a share of the slices with a mask.
        pasted: synthetic slices into which a tumour was pasted, as a share of those without tumour.
        removed_area: largest tumour that is cut out, as a share of the slice: a large one leaves
            swelling and shifted tissue behind, and with them a slice that is not free of tumour.
        synthetic_weight, mask_weight: how likely a synthetic slice, and a real one with a mask, is
            drawn into an epoch, against other real slices.
    """

    weight: float = Field(gt=0)
    cell_weight: float = Field(gt=0)
    channels: int = Field(ge=8, multiple_of=8)
    removed: float = Field(ge=0, le=1)
    pasted: float = Field(ge=0, le=1)
    removed_area: float = Field(1.0, gt=0, le=1)
    synthetic_weight: float = Field(1.0, gt=0)
    mask_weight: float = Field(1.0, gt=0)


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
        epoch_images: training images drawn for each epoch; all of them, once, if None.
        copy_weight: how likely a tumour slice without a mask is drawn into such an epoch where its
            near-duplicate group holds slices with one.
        folds: for data sets that name patient-wise folds.
        test_share: of each class, in whole groups, in the protocol ``grouped``.
        train_only: data sets that are too few persons to be divided.
        mask: the second head, if there is one.
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
    epoch_images: int | None = Field(None, ge=1)
    copy_weight: float = Field(1.0, gt=0, le=1)
    folds: Folds | None = None
    test_share: float = Field(0.2, gt=0, lt=1)
    train_only: tuple[str, ...] = ()
    mask: Mask | None = None
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
