"""What cards and comparisons say is true: by the shipped version's report, and variants of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from training.card import model_card
from training.recipe import Recipe, load_recipe, overridden
from training.run import RunConfig
from training.splits import Protocol

VERSION = Path(__file__).parents[2] / "model_store" / "brain-tumor" / "4"


def _metrics(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((VERSION / "report" / "metrics.json").read_text())
    return found | {"by_patient": ["figshare_cheng", "normal_volumes"]} | changes


def _config(recipe: str | Recipe = "efficientnet_lite0_mask", **changes: Any) -> RunConfig:
    provenance = json.loads((VERSION / "manifest.json").read_text())["provenance"]
    content = {
        "recipe": load_recipe(recipe) if isinstance(recipe, str) else recipe,
        "protocol": Protocol.GROUPED,
        "data": provenance["data"],
        "roots": (),
        "splits": {},
    }
    return RunConfig.model_validate(content | changes)


def _without(recipe: dict[str, Any], **answers: Any) -> str:
    metrics = _metrics()
    metrics["answers"] |= answers
    changed = load_recipe("efficientnet_lite0_mask").model_copy(update=recipe)
    return model_card(metrics, _config(recipe=changed))


def test_the_grouped_test_is_what_the_recipe_makes_it() -> None:
    card = model_card(_metrics(tested_of_testing=106), _config())
    assert (
        "but none from normal_volumes. Of a set that names patient-wise folds, fold 5 is tested"
        in card
    )
    assert ": 106 of its images are among those. No image that shares a group" in card
    assert "every data set" not in card
    bare = load_recipe("efficientnet_lite0_mask").model_copy(
        update={"folds": None, "train_only": ()}
    )
    other = model_card(_metrics(by_patient=[]), _config(recipe=bare))
    assert "calls them Training or Testing. 32 of" in other
    assert "fold" not in other.partition("| trained on")[0]
    assert "nothing is tested" in model_card(_metrics(), _config(recipe=bare))


def test_images_without_a_class_are_told_from_those_with_one() -> None:
    metrics = _metrics()
    card = model_card(metrics, _config())
    assert "test 1197 images, of which 1165 have a class; no group" in card
    assert "32 of the 1197 test images show a tumour of an unstated kind" in card
    assert "nothing in this section, but for tumour or not below." in card
    del metrics["answers"]
    plain = model_card(metrics, _config("efficientnet_lite0_plain"))
    assert "count for nothing in this section." in plain
    metrics["split"]["test"] = 1165
    assert "unstated" not in model_card(metrics, _config("efficientnet_lite0_plain"))


def test_of_one_class_there_is_no_accuracy() -> None:
    rows = [
        line for line in model_card(_metrics(), _config()).splitlines() if "| navoneel |" in line
    ]
    assert rows[0].startswith("| grouped | navoneel | float | 18 |  |  |  | 0.8889 [")


@pytest.mark.parametrize(
    ("tested", "says"), [(253, "all 253 images"), (200, "the 200 of 253 images")]
)
def test_a_run_that_left_a_data_set_out_says_so(tested: int, says: str) -> None:
    metrics = _metrics()
    metrics["split"]["test"] = tested
    card = model_card(metrics, _config(held_out=("navoneel",)))
    assert f"trained without navoneel and tested on nothing else: {says}" in card
    for false in ("fold 5", "drawn in whole", "was removed", "tested on other", "training export"):
        assert false not in card


def test_what_was_not_measured_is_not_said() -> None:
    whole = _without({})
    for sentence in ("as far as the tables above say", "synthetic ones made from them", "Colin27"):
        assert sentence in whole
    noise = {"noise": _metrics()["answers"]["foreign"]["noise"]}
    assert "Colin27" not in _without({}, foreign=noise)
    assert "as far as the tables above say" in _without({}, foreign=noise)
    metrics = _metrics()
    del metrics["answers"]["foreign"]
    assert "may refer, which was not measured" in model_card(metrics, _config())
    mask = load_recipe("efficientnet_lite0_mask").mask
    assert mask is not None
    none = mask.model_copy(update={"removed": 0, "pasted": 0, "stripped": 0})
    assert "fitted on validation slices.\n" in _without({"mask": none})


def test_a_recipe_of_the_same_name_is_not_taken_for_the_one_that_ships() -> None:
    assert "another one than" not in model_card(_metrics(), _config())
    changed = load_recipe("efficientnet_lite0_mask").model_copy(update={"dropout": 0.4})
    assert "another one than the efficientnet_lite0_mask" in model_card(
        _metrics(), _config(recipe=changed)
    )


def test_a_card_names_a_weights_file_without_its_folder() -> None:
    recipe = load_recipe("efficientnet_lite0_mask", {"weights": "/home/somebody/best.pth"})
    card = model_card(_metrics(), _config(recipe=recipe))
    assert "`best.pth`" in card
    assert "--weights best.pth" in card
    assert "somebody" not in card
    assert overridden(recipe) == {"weights": "best.pth"}


def _shown(**more: Any) -> dict[str, Any]:
    limits = {"accuracy": [0.8, 0.95]}
    return {"accuracy": 0.9, "float_accuracy": 0.9, "trained": 9, "interval": limits, **more}


@pytest.mark.tensorflow
@pytest.mark.usefixtures("training")
def test_a_run_that_left_a_data_set_out_is_compared_with_no_other() -> None:
    from training.compare import _document
    from training.entries import Entry

    left_out = {"small (without other)": _shown(held_out=["other"])}
    entry = Entry(
        weights=["none"], evaluated=dict.fromkeys(("clean", "published", "grouped"), left_out)
    )
    text = _document({"baseline_cnn": entry})
    testing, _, rest = text.partition("## A data set left out")
    assert "without other" not in testing
    assert rest.partition("![")[0].count("| small (without other) |") == 3
    assert "No recipe was run on both protocols." in text
    assert "`baseline_cnn`: no figures for clean, published" in text
    assert "Held-out groups" not in text


@pytest.mark.tensorflow
@pytest.mark.usefixtures("training")
def test_the_comparison_says_what_grouped_recipes_test() -> None:
    from training.compare import _document
    from training.entries import Entry

    names = ("efficientnet_lite0_mask", "efficientnet_lite0_plain", "vgg16_binary", "gone")
    runs = {"grouped": {"small": _shown()}}
    text = _document({name: Entry(weights=["none"], evaluated=runs) for name in names})
    assert (
        " `efficientnet_lite0_mask`, `efficientnet_lite0_plain`: fold 5 is tested; normal_volumes is "
        "for training alone.\n" in text
    )
    one = {"grouped": {"small": {"trained": 9, "interval": {}}}}
    assert "| baseline_cnn | grouped | small | 9 | - | - |" in _document(
        {"baseline_cnn": Entry(weights=["none"], evaluated=one)}
    )


@pytest.mark.tensorflow
@pytest.mark.usefixtures("training")
def test_the_record_tells_runs_of_other_recipes_and_without_a_data_set(tmp_path: Path) -> None:
    from training.entries import Entries, add

    recipe = load_recipe("efficientnet_lite0_mask").model_copy(update={"dropout": 0.4})
    run, crossval = tmp_path / "run", tmp_path / "crossval"
    entries: Entries = {}
    for folder in (run / "report", run / "artifacts", crossval):
        folder.mkdir(parents=True)
    config = _config(recipe=recipe, held_out=("navoneel",))
    (run / "run.json").write_text(config.model_dump_json())
    (run / "artifacts" / "latency.json").write_text("{}")
    metrics = _metrics(held_out=["navoneel"])
    whole = metrics["protocols"]["grouped"]["testing"]
    (run / "report" / "metrics.json").write_text(json.dumps(metrics))
    add(entries, run)
    names = " + ".join(source.name for source in config.data)
    label = f"{names} (another recipe {recipe.digest[:8]}, without navoneel)"
    found = entries[recipe.name].evaluated["grouped"]
    assert [*found] == [label]
    assert found[label]["held_out"] == ["navoneel"]
    assert found[label]["accuracy"] == whole["int8"]["accuracy"]
    whole["int8"]["classes"] = {"notumor": whole["int8"]["classes"]["notumor"]}
    (run / "report" / "metrics.json").write_text(json.dumps(metrics))
    add(entries, run)
    assert not {"accuracy", "macro_f1", "float_accuracy"} & found[label].keys()
    tested = {
        "recipe": recipe.name,
        "another_recipe": "01234567",
        "overridden": {},
        "data": [{"name": "small"}],
        "weights": "none",
        "parts": [{"accuracy": 0.9}],
        "mean_accuracy": 0.9,
        "accuracy_deviation": 0.0,
        "together": whole["float"],
    }
    (crossval / "crossval.json").write_text(json.dumps(tested))
    add(entries, crossval)
    assert [*entries[recipe.name].crossvals] == ["small (another recipe 01234567)"]
