import tomllib
from pathlib import Path

import pytest

import training
from training.errors import RecipeError
from training.recipe import Recipe, load_recipe, recipe_names

RECIPES = Path(training.__file__).parent / "recipes"


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_ships_is_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    head = (RECIPES / f"{name}.toml").read_text().splitlines()[:4]
    assert any("python -m training fit" in line for line in head)


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
