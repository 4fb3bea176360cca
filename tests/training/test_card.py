"""What a card says is true: by the shipped version's report, and variants of it."""

import shlex
from typing import Any

import pytest

from tests.training.reports import version_config, version_metrics
from training.__main__ import _parser
from training.card import model_card
from training.catalogue import load_recipe
from training.departure import overridden


def _without(recipe: dict[str, Any], **answers: Any) -> str:
    metrics = version_metrics()
    metrics["answers"] |= answers
    changed = load_recipe("efficientnet_lite0_mask").model_copy(update=recipe)
    return model_card(metrics, version_config(recipe=changed))


def test_the_grouped_test_is_what_the_recipe_makes_it() -> None:
    card = model_card(version_metrics(tested_of_testing=106), version_config())
    assert (
        "but none from normal_volumes. Of a set that names patient-wise folds, fold 5 is tested"
        in card
    )
    assert ": 106 of its images are among those. No image that shares a group" in card
    assert "every data set" not in card
    bare = load_recipe("efficientnet_lite0_mask").model_copy(
        update={"folds": None, "train_only": ()}
    )
    other = model_card(version_metrics(by_patient=[]), version_config(recipe=bare))
    assert "calls them Training or Testing. 32 of" in other
    assert "fold" not in other.partition("| trained on")[0]
    assert "nothing is tested" in model_card(version_metrics(), version_config(recipe=bare))


def test_images_without_a_class_are_told_from_those_with_one() -> None:
    metrics = version_metrics()
    card = model_card(metrics, version_config())
    assert "test 1197 images, of which 1165 have a class; no group" in card
    assert "32 of the 1197 test images show a tumour of an unstated kind" in card
    assert "nothing in this section, but for tumour or not below." in card
    del metrics["answers"]
    plain = model_card(metrics, version_config("efficientnet_lite0_plain"))
    assert "count for nothing in this section." in plain
    metrics["split"]["test"] = 1165
    assert "unstated" not in model_card(metrics, version_config("efficientnet_lite0_plain"))


def test_the_table_names_the_threshold_of_its_tumour_figures() -> None:
    metrics = version_metrics()
    card = model_card(metrics, version_config())
    assert "the threshold that serves has figures of its own below" in card
    del metrics["answers"]
    own = load_recipe("efficientnet_lite0_plain").model_copy(update={"tumor_threshold": 0.9})
    # Reports of before it was noted are at one half, though another one serves.
    for noted, shown in ({}, "0.5"), ({"threshold": 0.9}, "0.9"):
        for kinds in metrics["protocols"]["grouped"].values():
            for figures in kinds.values():
                figures["tumor"] |= noted
        card = model_card(metrics, version_config(own))
        assert "the threshold that serves is 0.9." in card
        rows = [line.split(" | ") for line in card.splitlines() if line.startswith("| grouped |")]
        assert rows
        assert {row[6] for row in rows} == {shown}


def test_of_one_class_there_is_no_accuracy() -> None:
    rows = [
        line
        for line in model_card(version_metrics(), version_config()).splitlines()
        if "| navoneel |" in line
    ]
    assert rows[0].startswith("| grouped | navoneel | float | 18 |  |  | 0.5 |  | 0.8889 [")


@pytest.mark.parametrize(
    ("tested", "says"), [(253, "all 253 images"), (200, "the 200 of 253 images")]
)
def test_a_run_that_left_a_data_set_out_says_so(tested: int, says: str) -> None:
    metrics = version_metrics()
    metrics["split"]["test"] = tested
    card = model_card(metrics, version_config(held_out=("navoneel",)))
    assert f"trained without navoneel and tested on nothing else: {says}" in card
    for false in ("fold 5", "drawn in whole", "was removed", "tested on other", "training export"):
        assert false not in card


def test_what_was_not_measured_is_not_said() -> None:
    whole = _without({})
    for sentence in ("as far as the tables above say", "synthetic ones made from them", "Colin27"):
        assert sentence in whole
    noise = {"noise": version_metrics()["answers"]["foreign"]["noise"]}
    assert "Colin27" not in _without({}, foreign=noise)
    assert "as far as the tables above say" in _without({}, foreign=noise)
    metrics = version_metrics()
    del metrics["answers"]["foreign"]
    assert "may refer, which was not measured" in model_card(metrics, version_config())
    mask = load_recipe("efficientnet_lite0_mask").mask
    assert mask is not None
    none = mask.model_copy(update={"removed": 0, "pasted": 0, "stripped": 0})
    assert "fitted on validation slices.\n" in _without({"mask": none})


def test_a_recipe_of_the_same_name_is_not_taken_for_the_one_that_ships() -> None:
    assert "another one than" not in model_card(version_metrics(), version_config())
    changed = load_recipe("efficientnet_lite0_mask").model_copy(update={"dropout": 0.4})
    assert "another one than the efficientnet_lite0_mask" in model_card(
        version_metrics(), version_config(recipe=changed)
    )


def test_a_card_names_a_weights_file_without_its_folder() -> None:
    recipe = load_recipe("efficientnet_lite0_mask", {"weights": "/home/somebody/best.pth"})
    card = model_card(version_metrics(), version_config(recipe=recipe))
    assert "`best.pth`" in card
    assert "--weights best.pth" in card
    assert "somebody" not in card
    assert overridden(recipe) == {"weights": "best.pth"}


def test_the_command_of_a_card_can_be_typed() -> None:
    recipe = load_recipe("efficientnet_lite0_mask", {"weights": "our best.pth"})
    source = {"name": "ward 7; 'neu'", "images": 1, "digest": "0" * 64}
    config = version_config(recipe=recipe, data=[source], held_out=[source["name"]])
    command = next(
        line for line in model_card(version_metrics(), config).splitlines() if " fit " in line
    )
    options = _parser().parse_args(shlex.split(command)[3:])
    assert [str(path) for path in options.data] == [source["name"]] == options.hold_out
    assert options.weights == "our best.pth"
    own = load_recipe("efficientnet_lite0_mask").model_copy(update={"name": "ours"})
    assert "--recipe ours.toml --data" in model_card(version_metrics(), version_config(recipe=own))
    roots = ["/data/plain", "/data/folded"]
    assert "--data plain --data folded --protocol" in model_card(
        version_metrics(), version_config(roots=roots)
    )


def test_the_card_says_what_its_intervals_leave_out() -> None:
    bare = model_card(version_metrics(), version_config())
    assert "percentiles over near-duplicate groups; shares" in bare
    assert "**so the intervals do not cover how patients differ" in bare
    persons = {"navoneel": False, "normal_volumes": True}
    some = model_card(version_metrics(persons_named=persons), version_config())
    assert "groups, and over the persons of normal_volumes; shares" in some
    assert "limits for the effective number of groups, fewer" in some
    assert "Of the other sets the slices of one patient lie in several groups" in some
    every = model_card(version_metrics(persons_named={"normal_volumes": True}), version_config())
    assert "bootstrap percentiles, drawn by person; shares" in every
    assert "for the effective number of persons. `int8`" in every
    assert "do not cover" not in every


def test_the_card_does_not_call_what_may_be_right_an_accuracy() -> None:
    card = model_card(version_metrics(), version_config())
    assert "The bare softmax has 0.9376 float, 0.9365 int8 of the validation labels right" in card
    assert "no accuracy to compare with those above" in card


def test_the_card_shows_regions_beside_those_where_there_is_no_tumour() -> None:
    card = model_card(version_metrics(), version_config())
    assert "| box AP50 | AP50 with slices without tumour | centre of box or pixels inside" in card
    assert " | 0.6387 | 0.6362 | 82.23% |" in card
    assert "patients that neither training nor validation saw" not in card
    # As reports of before had it, and as those of today do.
    assert "11.1% of 18 in navoneel" in card
    metrics = version_metrics()
    metrics["answers"]["false_regions"] = {
        "all": {"images": 420, "share": 0.06, "interval": [0.015, 0.127]}
    }
    assert "all the same: 6.0% [1.5, 12.7] of 420 in all." in model_card(metrics, version_config())


def test_figures_without_an_interval_are_shown_without_one() -> None:
    metrics = version_metrics()
    figures = metrics["protocols"]["grouped"]["navoneel"]["int8"]
    figures["interval"] = {}
    metrics["answers"]["regions"]["int8"]["interval"] = {}
    metrics["answers"]["tumor"]["navoneel"]["interval"] = {}
    card = model_card(metrics, version_config())
    assert "| grouped | navoneel | int8 | 18 |  |  | 0.5 |  | 0.8889 |  |" in card
    assert "| int8 | 664 | 0.6736 | 0.8022 |" in card
    assert "| navoneel | 50 | 32 | 1.0000 | 0.8889 | 0.9861 |" in card


def test_reports_of_before_say_nothing_of_upright_slices_and_have_intervals_of_no_width() -> None:
    metrics = version_metrics()
    answers = metrics["answers"]
    del answers["decisions_upright"]
    answers["tumor"]["navoneel"] |= {"interval": {"sensitivity": [1.0, 1.0]}}
    answers["false_regions"] = {"all": {"images": 9, "share": 0.0, "interval": [0.0, 0.0]}}
    figures = metrics["protocols"]["grouped"]["navoneel"]["int8"]
    figures["interval"] = {"tumor.specificity": [0.8889, 0.8889]}
    card = model_card(metrics, version_config())
    assert "upright" not in card
    assert "| right where it decides tumour or no tumour | " in card
    assert "| navoneel | 50 | 32 | 1.0000 | " in card
    assert "0.0% of 9 in all" in card
    assert "| grouped | navoneel | int8 | 18 |  |  | 0.5 |  | 0.8889 |  |" in card


def test_studies_of_persons_whom_nothing_names_are_said_to_be_no_persons() -> None:
    metrics = version_metrics(persons_named={"navoneel": False, "normal_volumes": True})
    assert "studies" not in model_card(metrics, version_config())
    card = model_card(metrics | {"by_study": ["navoneel"]}, version_config())
    assert "of normal_volumes, and over the DICOM studies of navoneel; shares" in card
    assert (
        "No patients are named in navoneel, nickparvar. Near-duplicate groups, and studies in"
        in card
    )
    assert "too narrow for new ones" in card


def test_the_command_of_a_card_has_what_the_command_line_said_of_ones_own_recipe() -> None:
    said = {"epochs": 2, "seed": 7, "weights": "/home/somebody/best.pth"}
    own = load_recipe("efficientnet_lite0_mask", said).model_copy(update={"name": "ours"})
    card = model_card(version_metrics(), version_config(recipe=own, overrides=said))
    assert "--recipe ours.toml --data" in card
    assert "--epochs 2 --seed 7 --weights best.pth --protocol" in card
    # Runs of before it was noted say nothing.
    assert " --seed" not in model_card(version_metrics(), version_config(recipe=own))


def test_folds_are_spoken_of_where_a_data_set_has_some() -> None:
    named = version_metrics(by_patient=["navoneel", "figshare_cheng"], by_fold=[])
    assert "names patient-wise folds" not in model_card(named, version_config())
    folded = version_metrics(by_patient=["figshare_cheng"], by_fold=["figshare_cheng"])
    assert "names patient-wise folds, fold 5 is" in model_card(folded, version_config())
