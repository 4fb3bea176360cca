import json
import tomllib
from pathlib import Path

import pytest

import training
from training.errors import RecipeError
from training.recipe import (
    Head,
    Plateau,
    Recipe,
    departs,
    load_recipe,
    overridden,
    recipe_names,
)

RECIPES = Path(training.__file__).parent / "recipes"
STORE = Path(training.__file__).parents[1] / "model_store"


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_ships_is_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    head = (RECIPES / f"{name}.toml").read_text().splitlines()[:8]
    assert any("python -m training " in line for line in head)


def test_an_unknown_recipe_is_refused_by_name() -> None:
    with pytest.raises(RecipeError, match="efficientnet_lite0"):
        load_recipe("resnet9000")


@pytest.mark.parametrize("place", ["top", "phase", "augmentation"])
def test_unknown_keys_are_refused(place: str) -> None:
    content = tomllib.loads((RECIPES / "efficientnet_lite0.toml").read_text())
    target = {
        "top": content,
        "phase": content["phases"][0],
        "augmentation": content["augmentation"],
    }[place]
    target["learning_rte"] = 1
    with pytest.raises(ValueError, match="learning_rte"):
        Recipe.model_validate(content)


def test_overrides_change_the_recipe_and_its_digest() -> None:
    recipe = load_recipe("efficientnet_lite0")
    short = load_recipe("efficientnet_lite0", {"epochs": 1, "resolution": 64, "seed": 5})
    assert {phase.epochs for phase in short.phases} == {1}
    assert {phase.resolution for phase in short.phases} == {64}
    assert short.seed == 5
    assert short.digest != recipe.digest
    with pytest.raises(RecipeError, match="epochs"):
        load_recipe("efficientnet_lite0", {"epochs": 0})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [({"resolution": 100}, "multiples of 32"), ({"seed": -1}, "seed"), ({"seed": 2**31}, "seed")],
)
def test_what_would_fail_later_is_refused(changes: dict[str, int], complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        load_recipe("efficientnet_lite0_mask", changes)


def test_a_recipe_keeps_its_digest_when_recipes_learn_new_keys() -> None:
    """The shipped version's manifest names the digest that its recipe had when it was trained."""
    manifest = json.loads((STORE / "brain-tumor" / "1" / "manifest.json").read_text())
    provenance = manifest["provenance"]
    assert load_recipe(provenance["recipe"]).digest == provenance["recipe_digest"]


@pytest.mark.parametrize(
    ("overrides", "shown"),
    [
        ({}, {}),
        ({"epochs": 2, "resolution": 64, "seed": 5}, {"epochs": 2, "resolution": 64, "seed": 5}),
        ({"weights": "/home/somebody/best.h5"}, {"weights": "best.h5"}),
    ],
    ids=["none", "some", "a file"],
)
def test_overrides_are_found_again(overrides: dict[str, object], shown: dict[str, object]) -> None:
    recipe = load_recipe("efficientnet_lite0_mask", overrides)
    assert overridden(recipe) == shown
    assert departs(recipe) is None


def test_a_recipe_that_no_override_gives_is_told_from_the_one_of_its_name() -> None:
    shipped = load_recipe("efficientnet_lite0_mask")
    first, second = shipped.phases
    phases = (first, second.model_copy(update={"epochs": 20}))
    for changes in ({"phases": phases}, {"dropout": 0.4}):
        recipe = shipped.model_copy(update=changes)
        assert overridden(recipe) == {}
        assert departs(recipe) == recipe.digest[:8]
    assert departs(shipped.model_copy(update={"name": "gone"})) is None


def test_vgg16_is_the_recipe_of_the_field() -> None:
    recipe = load_recipe("vgg16_binary")
    first, second = recipe.phases
    assert (first.learning_rate, first.epochs) == (1e-4, 20)
    assert (second.learning_rate, second.epochs, second.trainable) == (1e-5, 15, ("block5",))
    assert (recipe.batch_size, recipe.early_stopping_patience) == (16, 5)
    assert (recipe.stop_monitor, recipe.checkpoint_monitor) == ("loss", "accuracy")
    for phase in recipe.phases:
        assert phase.plateau == Plateau(factor=0.2, patience=3, min_learning_rate=1e-6)
    changes = recipe.augmentation
    assert (changes.rotation_degrees, changes.shift, changes.shear, changes.zoom) == (
        15,
        0.1,
        0.1,
        0.1,
    )
    assert changes.flip_horizontal
    assert changes.fill == "nearest"


def test_resnet50_is_the_recipe_of_the_field() -> None:
    recipe = load_recipe("resnet50_4class")
    assert recipe.head == Head(pooling="flatten", dense=(512,))
    assert recipe.batch_size == 32
    assert [(p.epochs, p.learning_rate, p.trainable_last) for p in recipe.phases] == [
        (5, 1e-4, 0),
        (15, 1e-5, 40),
    ]
    changes = recipe.augmentation
    assert (changes.rotation_degrees, changes.shift, changes.shear, changes.zoom) == (
        20,
        0.2,
        0.2,
        0.2,
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"labels": {"yes": "cyst"}}, "labels must lead to classes"),
        ({"head": {"output": "sigmoid"}}, "two classes"),
        ({"head": {"pooling": "flatten"}}, "one size"),
        ({"optimizer": "adam"}, "no weight_decay"),
        ({"tumor_classes": ["cyst"]}, "tumor_classes"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    change: dict[str, object], problem: str
) -> None:
    content = tomllib.loads((RECIPES / "efficientnet_lite0.toml").read_text())
    with pytest.raises(ValueError, match=problem):
        Recipe.model_validate(content | change)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schedule": "plateau", "warmup_epochs": 0}, "needs plateau"),
        ({"schedule": "constant"}, "warm-up"),
    ],
)
def test_a_schedule_is_whole(change: dict[str, object], problem: str) -> None:
    content = tomllib.loads((RECIPES / "efficientnet_lite0.toml").read_text())
    content["phases"][1] |= change
    with pytest.raises(ValueError, match=problem):
        Recipe.model_validate(content)


def test_another_size_reaches_the_model_that_serves() -> None:
    assert load_recipe("resnet50_4class", {"resolution": 64}).served_resolution == 64
    assert load_recipe("baseline_cnn", {"resolution": 64}).served_resolution == 64
    assert load_recipe("vgg16_binary", {"resolution": 64}).served_resolution == 224
