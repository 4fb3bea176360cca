"""What cards and comparisons say is true: by the shipped version's report, and variants of it."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from training.__main__ import _parser
from training.card import model_card
from training.catalogue import load_recipe
from training.departure import overridden
from training.errors import RunError
from training.recipe import Recipe
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


def test_the_command_of_a_card_can_be_typed() -> None:
    recipe = load_recipe("efficientnet_lite0_mask", {"weights": "our best.pth"})
    source = {"name": "ward 7; 'neu'", "images": 1, "digest": "0" * 64}
    config = _config(recipe=recipe, data=[source], held_out=[source["name"]])
    command = next(line for line in model_card(_metrics(), config).splitlines() if " fit " in line)
    options = _parser().parse_args(shlex.split(command)[3:])
    assert [str(path) for path in options.data] == [source["name"]] == options.hold_out
    assert options.weights == "our best.pth"
    own = load_recipe("efficientnet_lite0_mask").model_copy(update={"name": "ours"})
    assert "--recipe ours.toml --data" in model_card(_metrics(), _config(recipe=own))


def _shown(**more: Any) -> dict[str, Any]:
    limits = {"accuracy": [0.8, 0.95]}
    return {"accuracy": 0.9, "float_accuracy": 0.9, "trained": 9, "interval": limits, **more}


@pytest.mark.tensorflow
@pytest.mark.usefixtures("training")
def test_a_run_that_left_a_data_set_out_is_compared_with_no_other() -> None:
    from training.compare import PROJECT_PAGE, _document
    from training.entries import Entry

    left_out = {"small (without other)": _shown(held_out=["other"])}
    entry = Entry(
        weights=["none"], evaluated=dict.fromkeys(("clean", "published", "grouped"), left_out)
    )
    text = _document({"baseline_cnn": entry}, PROJECT_PAGE)
    testing, _, rest = text.partition("## A data set left out")
    assert "without other" not in testing
    assert rest.partition("![")[0].count("| small (without other) |") == 3
    assert "No recipe was run on both protocols." in text
    assert "`baseline_cnn`: no figures for clean, published" in text
    assert "Held-out groups" not in text


@pytest.mark.tensorflow
@pytest.mark.usefixtures("training")
def test_the_comparison_says_what_grouped_recipes_test() -> None:
    from training.compare import PROJECT_PAGE, _document
    from training.entries import Entry

    names = ("efficientnet_lite0_mask", "efficientnet_lite0_plain", "vgg16_binary", "gone")
    runs = {"grouped": {"small + normal_volumes": _shown(sources=["small", "normal_volumes"])}}
    entries = {name: Entry(weights=["none"], evaluated=runs) for name in names}
    text = _document(entries, PROJECT_PAGE)
    assert (
        " `efficientnet_lite0_mask`, `efficientnet_lite0_plain`: fold 5 is tested; normal_volumes is "
        "for training alone.\n" in text
    )
    one = {"grouped": {"small": {"trained": 9, "interval": {}}}}
    assert "| baseline_cnn | grouped | small | 9 | - | - |" in _document(
        {"baseline_cnn": Entry(weights=["none"], evaluated=one)}, PROJECT_PAGE
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
    # What is known of the run that trained with all of them stays.
    entries[recipe.name].sizes = {"int8_ms": 2.5}
    whole["int8"]["classes"] = {"notumor": whole["int8"]["classes"]["notumor"]}
    (run / "report" / "metrics.json").write_text(json.dumps(metrics))
    add(entries, run)
    assert not {"accuracy", "macro_f1", "float_accuracy"} & found[label].keys()
    assert entries[recipe.name].sizes == {"int8_ms": 2.5}
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


def test_the_card_says_what_its_intervals_leave_out() -> None:
    bare = model_card(_metrics(), _config())
    assert "percentiles over near-duplicate groups; shares" in bare
    assert "**so the intervals do not cover how patients differ" in bare
    persons = {"navoneel": False, "normal_volumes": True}
    some = model_card(_metrics(persons_named=persons), _config())
    assert "groups, and over the persons of normal_volumes; shares" in some
    assert "limits for the effective number of groups, fewer" in some
    assert "Of the other sets the slices of one patient lie in several groups" in some
    every = model_card(_metrics(persons_named={"normal_volumes": True}), _config())
    assert "bootstrap percentiles, drawn by person; shares" in every
    assert "for the effective number of persons. `int8`" in every
    assert "do not cover" not in every


def test_the_card_does_not_call_what_may_be_right_an_accuracy() -> None:
    card = model_card(_metrics(), _config())
    assert "The bare softmax has 0.9376 float, 0.9365 int8 of the validation labels right" in card
    assert "no accuracy to compare with those above" in card


def test_the_card_shows_regions_beside_those_where_there_is_no_tumour() -> None:
    card = model_card(_metrics(), _config())
    assert "| box AP50 | AP50 with slices without tumour | centre of box or pixels inside" in card
    assert " | 0.6387 | 0.6362 | 82.23% |" in card
    assert "patients that neither training nor validation saw" not in card
    # As reports of before had it, and as those of today do.
    assert "11.1% of 18 in navoneel" in card
    metrics = _metrics()
    metrics["answers"]["false_regions"] = {
        "all": {"images": 420, "share": 0.06, "interval": [0.015, 0.127]}
    }
    assert "all the same: 6.0% [1.5, 12.7] of 420 in all." in model_card(metrics, _config())


def test_figures_without_an_interval_are_shown_without_one() -> None:
    metrics = _metrics()
    figures = metrics["protocols"]["grouped"]["navoneel"]["int8"]
    figures["interval"] = {}
    metrics["answers"]["regions"]["int8"]["interval"] = {}
    metrics["answers"]["tumor"]["navoneel"]["interval"] = {}
    card = model_card(metrics, _config())
    assert "| grouped | navoneel | int8 | 18 |  |  |  | 0.8889 |  |" in card
    assert "| int8 | 664 | 0.6736 | 0.8022 |" in card
    assert "| navoneel | 50 | 32 | 1.0000 | 0.8889 | 0.9861 |" in card


def test_reports_of_before_say_nothing_of_upright_slices_and_have_intervals_of_no_width() -> None:
    metrics = _metrics()
    answers = metrics["answers"]
    del answers["decisions_upright"]
    answers["tumor"]["navoneel"] |= {"interval": {"sensitivity": [1.0, 1.0]}}
    answers["false_regions"] = {"all": {"images": 9, "share": 0.0, "interval": [0.0, 0.0]}}
    figures = metrics["protocols"]["grouped"]["navoneel"]["int8"]
    figures["interval"] = {"tumor.specificity": [0.8889, 0.8889]}
    card = model_card(metrics, _config())
    assert "upright" not in card
    assert "| right where it decides tumour or no tumour | " in card
    assert "| navoneel | 50 | 32 | 1.0000 | " in card
    assert "0.0% of 9 in all" in card
    assert "| grouped | navoneel | int8 | 18 |  |  |  | 0.8889 |  |" in card


def _report(labels: list[str], held_out: list[str], answers: bool) -> dict[str, Any]:
    """Of guesses on slices of these labels, as the evaluation of a recipe of four classes writes it."""
    import numpy as np

    from training.scores import scores, tumor_scores

    recipe = load_recipe("efficientnet_lite0_mask")
    rng = np.random.default_rng(7)
    probabilities = rng.dirichlet([1, 1, 3, 1], len(labels))
    truth = np.array([(*recipe.classes, "tumor").index(label) for label in labels])
    named, groups = truth < 4, np.arange(len(labels))
    classes, tumors = recipe.classes, recipe.tumor_classes
    kind = scores(probabilities[named], truth[named], groups[named], classes, tumors)
    tumor = np.array(labels) != "notumor"
    score = probabilities[:, np.isin(classes, tumors)].sum(1)
    found = {
        "recipe": recipe.name,
        "protocol": "grouped",
        "held_out": held_out,
        "split": {"train": 99, "validation": 9, "test": len(labels)},
        "validation": {},
        "protocols": {"grouped": {"testing": {"int8": kind, "float": kind}}},
    }
    if answers:
        found["answers"] = {"tumor": {"all": tumor_scores(score, tumor, groups)}}
    return found


TUMORS = ["glioma", "meningioma", "pituitary"]


@pytest.mark.tensorflow
@pytest.mark.usefixtures("training")
@pytest.mark.parametrize(
    ("labels", "answers", "counts", "shown"),
    [
        (TUMORS * 10, False, "30, 30", "11100"),
        (["notumor"] * 30, True, "30, 0", "00010"),
        (["tumor"] * 20 + ["notumor"] * 10, True, "30, 20", "00111"),
        ([*TUMORS, "notumor"] * 10, True, "40, 30", "11111"),
    ],
    ids=["figshare_cheng", "normal_volumes", "navoneel", "nickparvar"],
)
def test_of_a_set_that_was_left_out_the_record_has_what_the_set_can_show(
    labels: list[str], answers: bool, counts: str, shown: str
) -> None:
    from training.entries import _evaluated
    from training.rows import left_out_row

    report = _report(labels, ["small"], answers)
    json.dumps(report, allow_nan=False)
    found = _evaluated(report, report["protocols"]["grouped"]["testing"], own=True)
    cells = left_out_row("r", "small", found).strip("| ").split(" | ")
    assert cells[:4] == ["r", "small", "99", counts]
    assert "".join(str(int(cell != "-")) for cell in cells[4:9]) == shown
    assert found["held_out"] == ["small"]
    assert ("tumor.f1" in found) == (labels != ["notumor"] * 30)
    if answers and found["tumors"] not in (0, len(labels)):
        # Of all slices, those of an unstated kind too; of slices with a class navoneel has no tumour.
        auc = report["answers"]["tumor"]["all"]["auc"]
        assert cells[8].startswith(f"{100 * auc:.2f} [")


@pytest.mark.tensorflow
@pytest.mark.usefixtures("training")
def test_reports_of_before_have_no_f1_of_nothing_and_no_interval_of_no_width() -> None:
    from training.entries import _evaluated

    report = _report(["notumor"] * 30, ["small"], answers=True)
    tumor = report["answers"]["tumor"]["all"]
    tumor |= {"f1": 0.0, "specificity": 1.0}
    tumor["interval"] = {"f1": [0.0, 0.0], "specificity": [1.0, 1.0]}
    found = _evaluated(report, report["protocols"]["grouped"]["testing"], own=True)
    assert found["tumor.specificity"] == 1
    assert "tumor.f1" not in found
    assert found["interval"] == {}


@pytest.mark.tensorflow
@pytest.mark.usefixtures("training")
def test_an_int8_file_that_strays_is_marked() -> None:
    from training.compare import PROJECT_PAGE, _bars, _document
    from training.entries import Entry, _evaluated

    report = _report(TUMORS * 10 + ["notumor"] * 10, [], answers=False)
    kinds = report["protocols"]["grouped"]["testing"]
    agree = {"label_disagreement": 0.0, "accuracy_float": 0.9, "accuracy_int8": 0.9}
    for validation, strays in (
        (agree, False),
        (agree | {"label_disagreement": 0.02}, True),
        (agree | {"accuracy_int8": 0.89}, True),
    ):
        found = _evaluated(report | {"validation": validation}, kinds, own=True)
        assert found["strays"] == strays
        runs = {"grouped": {"small": found | {"float_accuracy": 0.75}}}
        entries = {"baseline_cnn": Entry(weights=["none"], evaluated=runs)}
        assert ("75.00 (int8 strays)" in _document(entries, PROJECT_PAGE)) == strays
    assert "strays" not in _evaluated(report, kinds, own=True)
    # Of records of before it was noted, those that are plainly apart.
    for apart, expected in ((0.004, None), (0.26, 0.9)):
        old = _shown(accuracy=0.9 - apart)
        (bar,) = _bars({"baseline_cnn": Entry(evaluated={"clean": {"small": old}})})
        assert bar.strayed_from == expected


@pytest.mark.tensorflow
@pytest.mark.usefixtures("training")
def test_what_is_cross_validated_is_not_called_held_out() -> None:
    from training.compare import _bars
    from training.entries import Entry

    entry = Entry(crossvals={"small": _shown(interval={})})
    (bar,) = _bars({"baseline_cnn": entry})
    assert (bar.kind, bar.limits) == ("cross-validated, small", None)


def test_studies_of_persons_whom_nothing_names_are_said_to_be_no_persons() -> None:
    metrics = _metrics(persons_named={"navoneel": False, "normal_volumes": True})
    assert "studies" not in model_card(metrics, _config())
    card = model_card(metrics | {"by_study": ["navoneel"]}, _config())
    assert "of normal_volumes, and over the DICOM studies of navoneel; shares" in card
    assert (
        "No patients are named in navoneel, nickparvar. Near-duplicate groups, and studies in"
        in card
    )
    assert "too narrow for new ones" in card


def test_the_command_of_a_card_has_what_the_command_line_said_of_ones_own_recipe() -> None:
    said = {"epochs": 2, "seed": 7, "weights": "/home/somebody/best.pth"}
    own = load_recipe("efficientnet_lite0_mask", said).model_copy(update={"name": "ours"})
    card = model_card(_metrics(), _config(recipe=own, overrides=said))
    assert "--recipe ours.toml --data" in card
    assert "--epochs 2 --seed 7 --weights best.pth --protocol" in card
    # Runs of before it was noted say nothing.
    assert " --seed" not in model_card(_metrics(), _config(recipe=own))


@pytest.mark.tensorflow
@pytest.mark.usefixtures("training")
def test_runs_that_are_not_the_same_do_not_take_each_others_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.compare import PROJECT_PAGE, _document
    from training.entries import Entries, add, read_record, write_record

    entries: Entries = {}
    source = {"name": "hospital", "images": 1, "digest": "0" * 64}

    def added(accuracy: float, dropout: float = 0.5, **changes: Any) -> list[str]:
        """The rows of one's own recipe, once a run of it is added and the record read again."""
        overrides = changes.get("overrides", {})
        recipe = load_recipe("baseline_cnn", overrides).model_copy(
            update={"name": "ours", "dropout": dropout}
        )
        run = tmp_path / "run"
        for folder in (run / "report", run / "artifacts"):
            folder.mkdir(parents=True, exist_ok=True)
        config = _config(recipe=recipe, **{"data": [source], **changes})
        (run / "run.json").write_text(config.model_dump_json())
        (run / "artifacts" / "latency.json").write_text("{}")
        report = _report([*TUMORS, "notumor"] * 2, [], answers=False)
        report["recipe"] = "ours"
        report["protocols"]["grouped"]["testing"]["int8"]["accuracy"] = accuracy
        (run / "report" / "metrics.json").write_text(json.dumps(report))
        add(entries, run)
        write_record(entries, tmp_path / "record.json")
        entries.update(read_record(tmp_path / "record.json"))
        found = entries["ours"].evaluated["grouped"]
        return [f"{data} {row['accuracy']}" for data, row in sorted(found.items())]

    first = {"seed": 1, "epochs": 1}
    assert added(0.1, overrides=first) == ["hospital (epochs 1, seed 1) 0.1"]
    assert len(added(0.2, overrides={"seed": 2, "epochs": 2})) == 2
    # It was evaluated again.
    assert "replaced" not in capsys.readouterr().out
    assert added(0.3, overrides=first)[0] == "hospital (epochs 1, seed 1) 0.3"
    replaced = "hospital (epochs 1, seed 1): other figures were on record, and are replaced\n"
    assert capsys.readouterr().out == f"ours, grouped, {replaced}"
    # Of the same name: a recipe that was edited, and a data set that has grown.
    edited = added(0.4, dropout=0.4, overrides=first)
    assert edited[0] == "hospital (epochs 1, seed 1) 0.3"
    assert edited[1].startswith("hospital (epochs 1, seed 1) (another run ")
    assert "*Another run* has the names" in _document(entries, PROJECT_PAGE)
    grown = added(0.5, data=[source | {"digest": "1" * 64}], overrides=first)
    assert len(grown) == 4
    assert added(0.4, dropout=0.4, overrides=first) == grown


@pytest.mark.tensorflow
@pytest.mark.usefixtures("training")
def test_cross_validations_that_are_not_the_same_do_not_take_each_others_place(
    tmp_path: Path,
) -> None:
    from training.entries import Entries, add

    entries: Entries = {}
    figures = _report([*TUMORS, "notumor"] * 2, [], answers=False)["protocols"]["grouped"]
    tested = {
        "recipe": "ours",
        "recipe_digest": "0" * 64,
        "data": [{"name": "small", "digest": "0" * 64}],
        "weights": "none",
        "parts": [{"accuracy": 0.9}] * 2,
        "mean_accuracy": 0.9,
        "together": figures["testing"]["float"],
    }
    changes: tuple[dict[str, Any], ...]
    changes = ({}, {"recipe_digest": "1" * 64}, {"parts": [{"accuracy": 0.9}] * 5}, {})
    for change in changes:
        (tmp_path / "crossval.json").write_text(json.dumps(tested | change))
        add(entries, tmp_path)
    assert sorted(row["parts"] for row in entries["ours"].crossvals.values()) == [2, 2, 5]


@pytest.mark.tensorflow
@pytest.mark.usefixtures("training")
@pytest.mark.parametrize("recipe", ["ours", "efficientnet_lite0_mask"])
def test_a_page_of_ones_own_says_nothing_of_data_and_recipes_that_are_not_on_it(
    recipe: str, tmp_path: Path
) -> None:
    from training.compare import _document
    from training.entries import Entry

    both = {"hospital": _shown()}
    left_out = {"hospital (without ward)": _shown(held_out=["ward"])}
    crossval = _shown(parts=2, mean_accuracy=0.9, lowest_accuracy=0.9, macro_auc=0.9)
    evaluated = {"clean": both, "published": both, "grouped": both | left_out}
    whole = Entry(weights=["none"], evaluated=evaluated, crossvals={"hospital": crossval})
    text = _document({recipe: whole}, tmp_path / "page.md")
    for name in (
        "nickparvar",
        "figshare",
        "navoneel",
        "normal_volumes",
        "1311",
        "1064",
        "](default",
    ):
        assert name not in text, name
    assert "not run" not in text
    assert "](page.png)" in text
    assert "+0.00 points" in text
    for heading in ("Clean and published", "Held-out", "A data set left out", "By patient"):
        assert f"\n## {heading}" in text
    bare = _document({"ours": Entry(weights=["none"])}, tmp_path / "page.md")
    assert bare.count("\n## ") == 1


@pytest.mark.tensorflow
@pytest.mark.usefixtures("training")
def test_the_spread_in_a_record_of_before_becomes_that_of_a_sample(tmp_path: Path) -> None:
    """It was that of the parts as if there could be no others, under another name."""
    from training.compare import compare
    from training.entries import read_record

    before = _shown(mean_accuracy=0.9, lowest_accuracy=0.85, macro_auc=0.9)
    crossvals = {
        "one": before | {"parts": 1, "accuracy_deviation": 0.0},
        "two": before | {"parts": 2, "accuracy_deviation": 0.05},
    }
    record = tmp_path / "page.json"
    record.write_text(json.dumps({"ours": {"crossvals": crossvals, "weights": ["none"]}}))
    for _ in range(2):
        page = compare([], tmp_path / "page.md").read_text()
        assert "| ours | one | 1 | 90.00 | - | 85.00 |" in page
        assert "| ours | two | 2 | 90.00 | 7.07 | 85.00 |" in page
    assert "accuracy_deviation" not in record.read_text()
    record.write_text('{"ours": {"crossvals": {"one": {"accuracy_deviation": 0}}}}')
    with pytest.raises(RunError, match="is no record of runs"):
        read_record(record)


def _made(folder: Path, config: RunConfig, **changes: Any) -> Path:
    """A run's folder as a comparison reads it, evaluated."""
    for name in ("report", "artifacts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(config.model_dump_json())
    (folder / "artifacts" / "latency.json").write_text("{}")
    report = _report([*TUMORS, "notumor"] * 2, [], answers=False) | changes
    report["recipe"] = config.recipe.name
    (folder / "report" / "metrics.json").write_text(json.dumps(report))
    return folder


HOSPITAL = {"name": "hospital", "images": 1, "digest": "0" * 64}


@pytest.mark.tensorflow
@pytest.mark.usefixtures("training")
def test_a_run_and_its_version_are_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version does not say what its recipe was loaded with."""
    from training.entries import Entries, add

    said = {"epochs": 2}
    recipe = load_recipe("baseline_cnn", said).model_copy(update={"name": "ours"})
    other = {"name": "ward", "images": 1, "digest": "1" * 64}
    data = [HOSPITAL, other]
    run = _made(tmp_path / "run", _config(recipe=recipe, data=data, overrides=said))
    left_out = _config(recipe=recipe, data=data, overrides=said, held_out=("ward",))
    without = _made(tmp_path / "without", left_out, held_out=["ward"])
    version = tmp_path / "version"
    (version / "report").mkdir(parents=True)
    (version / "report" / "metrics.json").write_text((run / "report" / "metrics.json").read_text())
    provenance = {
        "data": data,
        "recipe": "ours",
        "recipe_digest": recipe.digest,
        "weights": "none",
    }
    (version / "manifest.json").write_text(json.dumps({"provenance": provenance}))
    monkeypatch.setattr("training.entries._sizes", lambda _: {})
    entries: Entries = {}
    for path in (without, run, version, without):
        add(entries, path)
    rows = entries["ours"].evaluated["grouped"]
    assert sorted(rows) == [
        "hospital + ward (epochs 2)",
        "hospital + ward (epochs 2, without ward)",
    ]


@pytest.mark.tensorflow
@pytest.mark.usefixtures("training")
def test_what_is_replaced_on_record_are_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.entries import Entries, add

    config = _config(recipe=load_recipe("baseline_cnn"), data=[HOSPITAL], protocol="clean")
    kinds = _report([*TUMORS, "notumor"] * 2, [], answers=False)["protocols"]["grouped"]
    run = _made(
        tmp_path / "run", config, protocol="clean", protocols={"clean": kinds, "published": kinds}
    )
    entries: Entries = {}
    add(entries, run)
    for rows in entries["baseline_cnn"].evaluated.values():
        # As a record of before has it, which did not tell runs apart.
        del rows["hospital"]["run"]
    add(entries, run)
    # Of a run that was shown beside it, its own report says how many slices trained.
    add(
        entries,
        _made(tmp_path / "other", config, protocol="published", protocols={"published": kinds}),
    )
    assert capsys.readouterr().out == ""
    entries["baseline_cnn"].evaluated["clean"]["hospital"]["accuracy"] = 0.1
    add(entries, run)
    assert capsys.readouterr().out == (
        "baseline_cnn, clean, hospital: other figures were on record, and are replaced\n"
    )


@pytest.mark.tensorflow
@pytest.mark.usefixtures("training")
def test_a_mistake_of_ours_is_not_called_damage_of_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import entries

    run = _made(tmp_path / "run", _config(recipe=load_recipe("baseline_cnn"), data=[HOSPITAL]))
    mistake: dict[str, str] = {}
    monkeypatch.setattr(entries, "_name", lambda *_: mistake["made"])
    with pytest.raises(KeyError, match="made"):
        entries.add({}, run)


def test_folds_are_spoken_of_where_a_data_set_has_some() -> None:
    named = _metrics(by_patient=["navoneel", "figshare_cheng"], by_fold=[])
    assert "names patient-wise folds" not in model_card(named, _config())
    folded = _metrics(by_patient=["figshare_cheng"], by_fold=["figshare_cheng"])
    assert "names patient-wise folds, fold 5 is" in model_card(folded, _config())


@pytest.mark.tensorflow
@pytest.mark.usefixtures("training")
def test_names_of_data_sets_are_kept_and_not_read_from_what_is_shown(tmp_path: Path) -> None:
    from training.compare import _bars, _document
    from training.entries import Entries, add, read_record, write_record

    names = ("a (2023)", "b + c", "normal_volumes")
    data = [{"name": name, "images": 1, "digest": "0" * 64} for name in names]
    said = load_recipe("efficientnet_lite0_mask", {"seed": 7})
    run = _made(tmp_path / "run", _config(recipe=said, data=data), by_fold=[])
    entries: Entries = {}
    add(entries, run)
    write_record(entries, tmp_path / "record.json")
    entries = read_record(tmp_path / "record.json")
    (bar,) = _bars(entries)
    assert bar.kind == "grouped, 3 data sets (seed 7)"
    page = _document(entries, tmp_path / "page.md")
    # None of them has folds.
    assert f" `{said.name}`: normal_volumes is for training alone.\n" in page
    (row,) = entries[said.name].evaluated["grouped"].values()
    row["folded"] = ["b + c"]
    page = _document(entries, tmp_path / "page.md")
    assert f" `{said.name}`: fold 5 is tested; normal_volumes is for training alone.\n" in page
    # A record of before has the names in what is shown alone, and says nothing of folds.
    del row["folded"], row["sources"]
    entries[said.name].evaluated["grouped"] = {"one + two (seed 7)": row}
    write_record(entries, tmp_path / "record.json")
    entries = read_record(tmp_path / "record.json")
    (row,) = entries[said.name].evaluated["grouped"].values()
    assert row["sources"] == ["one", "two"]
    assert "is tested;" not in _document(entries, tmp_path / "page.md")
