import json
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import training
from training.catalogue import load_recipe, recipe_names
from training.departure import departs, differences, overridden
from training.effect import unused_names
from training.errors import RecipeError
from training.recipe import Head, Plateau, Recipe

RECIPES = Path(training.__file__).parent / "recipes"
STORE = Path(training.__file__).parents[1] / "model_store"


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_ships_is_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    head = (RECIPES / f"{name}.toml").read_text().splitlines()[:8]
    assert any("python -m training " in line for line in head)


def test_the_recipes_that_send_folds_somewhere_are_those_that_are_listed() -> None:
    text = (STORE.parent / "docs" / "training-data.md").read_text()
    listed = text.partition("Of the recipes here ")[2].partition(" have fold 4 to validate")[0]
    folds = {name: load_recipe(name).folds for name in recipe_names()}
    assert set(re.findall("`(.*?)`", listed)) == {name for name, sent in folds.items() if sent}
    assert {(f.validation, f.test) for f in folds.values() if f} == {((4,), (5,))}


def test_an_unknown_recipe_is_refused_by_name() -> None:
    with pytest.raises(RecipeError, match="efficientnet_lite0"):
        load_recipe("resnet9000")


def test_a_recipe_of_ones_own_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "my hospital" / "ours.toml"
    path.parent.mkdir()
    text = (RECIPES / "baseline_cnn.toml").read_text()
    path.write_text(text.replace('name = "baseline_cnn"', 'name = "ours"'))
    recipe = load_recipe(str(path), {"epochs": 3})
    assert recipe.name == "ours"
    assert {phase.epochs for phase in recipe.phases} == {3}
    assert overridden(recipe) == {}
    path.write_text(text)
    with pytest.raises(RecipeError, match="calls itself 'baseline_cnn'; a recipe has the name of"):
        load_recipe(str(path))
    with pytest.raises(RecipeError, match=r"no recipe at .*none\.toml: No such file"):
        load_recipe(str(tmp_path / "none.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(RecipeError, match=r"no recipe at .*: Is a directory"):
        load_recipe(str(tmp_path / "folder.toml"))
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(RecipeError, match="can't decode"):
        load_recipe(str(path))
    with pytest.raises(RecipeError, match=r"of your own ends in \.toml"):
        load_recipe("ours")


KINDS = '"glioma", "meningioma", "notumor", "pituitary"'


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ("", "leads to the class 'metastasis'"),
        ('labels = { metastasis = "metastasis" }\n', "labels has 'metastasis'"),
        ('labels = { tumor = "metastasis", glioma = "notumor" }\n', "to the class 'glioma'"),
        ('labels = { tumor = "metastasis" }\n', None),
    ],
    ids=["none", "unknown", "renamed away", "of a folder that is known"],
)
def test_a_class_that_no_folder_can_give_is_refused(
    tmp_path: Path, labels: str, problem: str | None
) -> None:
    path = tmp_path / "ours.toml"
    text = (RECIPES / "baseline_cnn.toml").read_text()
    assert KINDS in text
    text = text.replace(KINDS, f'{KINDS}, "metastasis"')
    text = text.replace('"meningioma", "pituitary"]', '"meningioma", "pituitary", "metastasis"]')
    text = text.replace('name = "baseline_cnn"', 'name = "ours"')
    path.write_text(text.replace("\ndropout", f"\n{labels}dropout", 1))
    if problem is None:
        assert "metastasis" in load_recipe(str(path)).classes
        return
    with pytest.raises(RecipeError, match=problem):
        load_recipe(str(path))


def test_how_two_recipes_differ_is_named() -> None:
    before = load_recipe("efficientnet_lite0")
    assert differences(before, before) == []
    other_seed = load_recipe("efficientnet_lite0", {"seed": 5})
    assert differences(before, other_seed) == [f"seed {before.seed}, not 5"]
    now = load_recipe("efficientnet_lite0", {"epochs": 4})
    first = before.phases[0]
    assert f"phase 1 ({first.name}).epochs {first.epochs}, not 4" in differences(before, now)
    assert all(".epochs" in line or ".warmup_epochs" in line for line in differences(before, now))
    other = differences(before, load_recipe("efficientnet_lite0_mask"))
    assert any(line.startswith("mask.channels absent, not ") for line in other)


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
    with pytest.raises(RecipeError, match=complaint) as raised:
        load_recipe("efficientnet_lite0_mask", changes)
    assert "\n" not in str(raised.value)


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


def test_a_run_whose_phases_had_other_names_is_one_of_the_recipe() -> None:
    """As that of docs/models.md was, before the phases of this recipe had names of their own."""
    shipped = load_recipe("efficientnet_lite0_late", {"precision": "mixed_bfloat16"})
    names = ["head", "tune", "polish"]
    assert [phase.name for phase in shipped.phases] == names
    phases = tuple(phase.model_copy(update={"name": shipped.name}) for phase in shipped.phases)
    recorded = shipped.model_copy(update={"phases": phases})
    assert recorded.digest != shipped.digest
    assert overridden(recorded) == {"precision": "mixed_bfloat16"}
    assert departs(recorded) is None


def test_phases_of_one_name_are_refused(tmp_path: Path) -> None:
    shipped = RECIPES / "efficientnet_lite0_late.toml"
    path = tmp_path / "efficientnet_lite0_late.toml"
    path.write_text(shipped.read_text("utf-8").replace('"polish"', '"tune"'), encoding="utf-8")
    with pytest.raises(RecipeError, match="called head, tune, tune: each needs a name of its own"):
        load_recipe(str(path))


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
        ({"tumor_classes": ["glioma", "glioma"]}, "must not repeat"),
        ({"classes": ["glioma", "meningioma", "notumor", "glioma"]}, "must not repeat"),
        ({"classes": ["glioma", "meningioma", "no\ntumor", "pituitary"]}, "printable"),
        ({"classes": ["glioma", "meningioma", "n" * 65, "pituitary"]}, "at most 64"),
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
        (
            {
                "schedule": "plateau",
                "warmup_epochs": 0,
                "plateau": {"factor": 0.5, "patience": 1, "min_learning_rate": 0.1},
            },
            "min_learning_rate is above learning_rate",
        ),
    ],
)
def test_a_schedule_is_whole(change: dict[str, object], problem: str) -> None:
    content = tomllib.loads((RECIPES / "efficientnet_lite0.toml").read_text())
    content["phases"][1] |= change
    with pytest.raises(ValueError, match=problem):
        Recipe.model_validate(content)


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        (("phases", 0), "epochs", "5"),
        (("phases", 0), "epochs", True),
        (("phases", 0), "learning_rate", float("inf")),
        (("phases", 0), "weight_decay", float("nan")),
        (("phases", 0), "trainable", [""]),
        (("augmentation",), "flip_horizontal", "yes"),
        (("augmentation",), "flip_horizontal", 1),
        (("mask",), "mask_weight", float("inf")),
        ((), "head", {"dense": [0]}),
        ((), "seed", 1.0),
        ((), "classes", "glioma"),
    ],
    ids=str,
)
def test_values_of_another_type_or_without_end_are_refused(
    place: tuple[str | int, ...], key: str, value: object
) -> None:
    content = tomllib.loads((RECIPES / "efficientnet_lite0_mask.toml").read_text())
    target = content
    for step in place:
        target = target[step]  # type: ignore[index]  # into TOML's own tables and lists
    target[key] = value
    with pytest.raises(ValueError, match=key):
        Recipe.model_validate(content)


def test_whole_numbers_are_numbers() -> None:
    content = tomllib.loads((RECIPES / "efficientnet_lite0.toml").read_text())
    content["phases"][0]["learning_rate"] = 1
    assert Recipe.model_validate(content).phases[0].learning_rate == 1.0


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], Recipe]:
    """Reads the mask recipe, changed in one place, from a file of its own."""
    folder = tmp_path / "training" / "recipes"
    shutil.copytree(RECIPES, folder)
    monkeypatch.setattr("training.catalogue.resources.files", lambda _: tmp_path / "training")

    def load(old: str, new: str, name: str = "hospital") -> Recipe:
        text = (RECIPES / "efficientnet_lite0_mask.toml").read_text()
        text = text.replace('name = "efficientnet_lite0_mask"', f'name = "{name}"')
        assert old in text
        (folder / f"{name}.toml").write_text(text.replace(old, new))
        return load_recipe(name)

    return load


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('name = "hospital"', 'name = "efficientnet_lite0_mask"', "calls itself"),
        ("warmup_epochs = 1.0", "warmup_epochs = 24.5", "24 epochs and 24.5 of warm-up"),
        ("epoch_images = 4480\n", "", "copy_weight needs epoch_images; mask.mask_weight"),
        ("dropout =", 'labels = { gliom = "glioma" }\ndropout =', "labels has 'gliom'"),
    ],
    ids=["name", "warm-up", "weights", "labels"],
)
def test_what_has_no_effect_is_refused(
    own: Callable[[str, str, str], Recipe], old: str, new: str, problem: str
) -> None:
    assert own("", "", "hospital").name == "hospital"
    with pytest.raises(RecipeError, match=problem):
        own(old, new, "hospital")


def test_a_shorter_phase_warms_up_for_no_longer_than_it_lasts(
    own: Callable[[str, str, str], Recipe],
) -> None:
    recipe = own("warmup_epochs = 1.0", "warmup_epochs = 3.0", "hospital")
    short = load_recipe("hospital", {"epochs": 2})
    assert [phase.warmup_epochs for phase in recipe.phases] == [0.0, 3.0]
    assert [phase.warmup_epochs for phase in short.phases] == [0.0, 2.0]
    assert overridden(short) == {"epochs": 2}
    assert departs(short) is None


def test_names_of_data_sets_that_are_not_there_are_found() -> None:
    recipe = load_recipe("vgg16_binary_joined")
    there = {"navoneel", "figshare_cheng", "normal_volumes"}
    assert unused_names(recipe, there) == {"train_only": ["nickparvar"]}
    assert unused_names(recipe, {*there, "nickparvar"}) == {}
    assert unused_names(recipe, {"navonel"})["source_weights"] == ["navoneel"]


def test_another_size_reaches_the_model_that_serves() -> None:
    assert load_recipe("resnet50_4class", {"resolution": 64}).served_resolution == 64
    assert load_recipe("baseline_cnn", {"resolution": 64}).served_resolution == 64
    assert load_recipe("vgg16_binary", {"resolution": 64}).served_resolution == 224


@pytest.mark.parametrize("name", ["notumor", "healthy"])
def test_no_tumour_keeps_its_name(own: Callable[[str, str, str], Recipe], name: str) -> None:
    """By which duplicates, masks and figures know such a slice, also after labels are renamed."""
    kinds = 'glioma = "tumor", meningioma = "tumor", pituitary = "tumor"'
    labels = f'labels = {{ {kinds}, notumor = "{name}" }}'
    four = f'{KINDS}]\ntumor_classes = ["glioma", "meningioma", "pituitary"]'
    two = f'"{name}", "tumor"]\ntumor_classes = ["tumor"]\n{labels}'
    if name == "notumor":
        assert own(four, two, "hospital").classes == ("notumor", "tumor")
        return
    with pytest.raises(RecipeError, match="labels renames 'notumor'"):
        own(four, two, "hospital")


def test_a_mask_head_has_its_own_threshold_and_copies_need_one(
    own: Callable[[str, str, str], Recipe], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="tumor_threshold has no effect with a mask head"):
        own("\ndropout", "\ntumor_threshold = 0.9\ndropout", "hospital")
    plain = (RECIPES / "efficientnet_lite0_plain.toml").read_text()
    plain = plain.replace('name = "efficientnet_lite0_plain"', 'name = "ours"')
    (tmp_path / "ours.toml").write_text(f"tumor_threshold = 0.9\n{plain}")
    assert load_recipe(str(tmp_path / "ours.toml")).tumor_threshold == 0.9
    (tmp_path / "ours.toml").write_text(f"copy_weight = 0.3\n{plain}")
    with pytest.raises(RecipeError, match="copy_weight needs a mask head"):
        load_recipe(str(tmp_path / "ours.toml"))


FOUR = f'{KINDS}]\ntumor_classes = ["glioma", "meningioma", "pituitary"]'


@pytest.mark.parametrize(
    ("classes", "problem"),
    [
        (f'{KINDS}]\ntumor_classes = ["glioma", "meningioma"]', "notumor, pituitary"),
        (f'{KINDS}]\ntumor_classes = ["notumor"]', "glioma, meningioma, pituitary"),
        ('"glioma", "meningioma"]\ntumor_classes = ["glioma"]', "leaves meningioma"),
        (
            (
                '"meningioma", "notumor", "pituitary"]\ntumor_classes = ["meningioma", "pituitary"]'
                '\nlabels = { glioma = "notumor" }'
            ),
            "labels makes 'glioma' 'notumor'",
        ),
    ],
    ids=["a tumour that counts as none", "the other way round", "none without", "by a label"],
)
def test_the_one_class_that_is_no_tumour_is_notumor(
    own: Callable[[str, str, str], Recipe], classes: str, problem: str
) -> None:
    """By which duplicates, masks and figures tell a slice without a tumour from one with."""
    with pytest.raises(RecipeError, match=problem):
        own(FOUR, classes, "hospital")
    # A run keeps its own copy of the recipe, and is read all the same.
    shipped = load_recipe("efficientnet_lite0_mask")
    kept = shipped.model_copy(update={"tumor_classes": ("glioma", "meningioma")})
    assert Recipe.model_validate_json(kept.model_dump_json()) == kept
