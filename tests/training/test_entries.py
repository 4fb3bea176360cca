"""What is on record of runs, and what a comparison says of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.reports import (
    HOSPITAL,
    TUMORS,
    evaluated,
    report_of,
    shown,
    version_config,
    version_metrics,
)
from training.catalogue import load_recipe
from training.errors import RunError

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("training")]


def test_a_run_that_left_a_data_set_out_is_compared_with_no_other() -> None:
    from training.compare import PROJECT_PAGE, _document
    from training.record import Entry

    left_out = {"small (without other)": shown(held_out=["other"])}
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


def test_the_comparison_says_what_grouped_recipes_test() -> None:
    from training.compare import PROJECT_PAGE, _document
    from training.record import Entry

    names = ("efficientnet_lite0_mask", "efficientnet_lite0_plain", "vgg16_binary", "gone")
    runs = {"grouped": {"small + normal_volumes": shown(sources=["small", "normal_volumes"])}}
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


def test_the_record_tells_runs_of_other_recipes_and_without_a_data_set(tmp_path: Path) -> None:
    from training.entries import add
    from training.record import Entries

    recipe = load_recipe("efficientnet_lite0_mask").model_copy(update={"dropout": 0.4})
    run, crossval = tmp_path / "run", tmp_path / "crossval"
    entries: Entries = {}
    for folder in (run / "report", run / "artifacts", crossval):
        folder.mkdir(parents=True)
    config = version_config(recipe=recipe, held_out=("navoneel",))
    (run / "run.json").write_text(config.model_dump_json())
    (run / "artifacts" / "latency.json").write_text("{}")
    metrics = version_metrics(held_out=["navoneel"])
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
    from training.excerpt import of_run
    from training.rows import left_out_row

    report = report_of(labels, ["small"], answers)
    json.dumps(report, allow_nan=False)
    found = of_run(report, report["protocols"]["grouped"]["testing"], own=True)
    cells = left_out_row("r", "small", found).strip("| ").split(" | ")
    assert cells[:4] == ["r", "small", "99", counts]
    assert "".join(str(int(cell != "-")) for cell in cells[4:9]) == shown
    assert found["held_out"] == ["small"]
    assert ("tumor.f1" in found) == (labels != ["notumor"] * 30)
    if answers and found["tumors"] not in (0, len(labels)):
        # Of all slices, those of an unstated kind too; of slices with a class navoneel has no tumour.
        auc = report["answers"]["tumor"]["all"]["auc"]
        assert cells[8].startswith(f"{100 * auc:.2f} [")


def test_reports_of_before_have_no_f1_of_nothing_and_no_interval_of_no_width() -> None:
    from training.excerpt import of_run

    report = report_of(["notumor"] * 30, ["small"], answers=True)
    tumor = report["answers"]["tumor"]["all"]
    tumor |= {"f1": 0.0, "specificity": 1.0}
    tumor["interval"] = {"f1": [0.0, 0.0], "specificity": [1.0, 1.0]}
    found = of_run(report, report["protocols"]["grouped"]["testing"], own=True)
    assert found["tumor.specificity"] == 1
    assert "tumor.f1" not in found
    assert found["interval"] == {}


def test_an_int8_file_that_strays_is_marked() -> None:
    from training.compare import PROJECT_PAGE, _bars, _document
    from training.excerpt import of_run
    from training.record import Entry

    report = report_of(TUMORS * 10 + ["notumor"] * 10, [], answers=False)
    kinds = report["protocols"]["grouped"]["testing"]
    agree = {"label_disagreement": 0.0, "accuracy_float": 0.9, "accuracy_int8": 0.9}
    for validation, strays in (
        (agree, False),
        (agree | {"label_disagreement": 0.02}, True),
        (agree | {"accuracy_int8": 0.89}, True),
    ):
        found = of_run(report | {"validation": validation}, kinds, own=True)
        assert found["strays"] == strays
        runs = {"grouped": {"small": found | {"float_accuracy": 0.75}}}
        entries = {"baseline_cnn": Entry(weights=["none"], evaluated=runs)}
        assert ("75.00 (int8 strays)" in _document(entries, PROJECT_PAGE)) == strays
    assert "strays" not in of_run(report, kinds, own=True)
    # Of records of before it was noted, those that are plainly apart.
    for apart, expected in ((0.004, None), (0.26, 0.9)):
        old = shown(accuracy=0.9 - apart)
        (bar,) = _bars({"baseline_cnn": Entry(evaluated={"clean": {"small": old}})})
        assert bar.strayed_from == expected


def test_the_projects_page_is_what_its_record_makes() -> None:
    from training.compare import PROJECT_PAGE, _document
    from training.record import read_record

    page = PROJECT_PAGE.read_text(encoding="utf-8")
    made = _document(read_record(PROJECT_PAGE.with_suffix(".json")), PROJECT_PAGE)
    assert made == page, "run: python -m training compare --out docs/models.md"


def test_what_others_publish_stands_beside_the_figures_of_the_record() -> None:
    from training.compare import PROJECT_PAGE, _document
    from training.record import Entry

    strays = {"nickparvar": shown(accuracy=0.4, float_accuracy=0.7)}
    left_out = {"a (without b)": shown(held_out=["b"])}
    entries = {
        "resnet50_scratch": Entry(
            weights=["none"],
            evaluated={"clean": strays, "published": {"nickparvar": shown()}, "grouped": left_out},
        )
    }
    page = _document(entries, PROJECT_PAGE)
    assert (
        "| 90.00 (`resnet50_scratch`, published, nickparvar) "
        "| 70.00 (`resnet50_scratch`, float, clean, nickparvar) |\n" in page
    )
    assert "- `vgg16_binary`: no figures; `clean` and `published` cannot be run" in page


def test_remarks_are_of_recipes_that_ship() -> None:
    from training.catalogue import recipe_names
    from training.prose import PROJECT

    named = {name for claim in PROJECT.claims for name in (claim.recipe, *claim.ours)}
    assert {*named, *PROJECT.remarks} <= {*recipe_names()}


def test_intervals_of_older_reports_are_marked(tmp_path: Path) -> None:
    from training.compare import _document
    from training.excerpt import of_run
    from training.record import Entry

    report = report_of([*TUMORS, "notumor"] * 10, ["other"], answers=True)
    kinds = report["protocols"]["grouped"]["testing"]
    for older in (False, True):
        if older:
            # They do not name the threshold of what they say of tumours.
            del kinds["int8"]["tumor"]["threshold"]
        left_out = of_run(report, kinds, own=True)
        whole = of_run(report | {"held_out": []}, kinds, own=True)
        evaluated = {"clean": {"small": whole | {"sources": ["small"]}}, "grouped": {"b": left_out}}
        page = _document(
            {"ours": Entry(weights=["none"], evaluated=evaluated)}, tmp_path / "page.md"
        )
        # Accuracy twice, sensitivity and specificity: F1 and AUC are no shares.
        assert page.count("]°") == 4 * older
        assert ("An interval with ° is of an older report" in page) == older


def test_what_is_cross_validated_is_not_called_held_out() -> None:
    from training.compare import _bars
    from training.record import Entry

    entry = Entry(crossvals={"small": shown(interval={})})
    (bar,) = _bars({"baseline_cnn": entry})
    assert (bar.protocol, bar.data, bar.limits) == ("cross-validated", "small", None)


def test_runs_that_are_not_the_same_do_not_take_each_others_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.compare import PROJECT_PAGE, _document
    from training.entries import add
    from training.record import Entries, read_record, write_record

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
        config = version_config(recipe=recipe, **{"data": [source], **changes})
        (run / "run.json").write_text(config.model_dump_json())
        (run / "artifacts" / "latency.json").write_text("{}")
        report = report_of([*TUMORS, "notumor"] * 2, [], answers=False)
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


def test_cross_validations_that_are_not_the_same_do_not_take_each_others_place(
    tmp_path: Path,
) -> None:
    from training.entries import add
    from training.record import Entries

    entries: Entries = {}
    figures = report_of([*TUMORS, "notumor"] * 2, [], answers=False)["protocols"]["grouped"]
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


@pytest.mark.parametrize("recipe", ["ours", "efficientnet_lite0_mask"])
def test_a_page_of_ones_own_says_nothing_of_data_and_recipes_that_are_not_on_it(
    recipe: str, tmp_path: Path
) -> None:
    from training.compare import _document
    from training.record import Entry

    both = {"hospital": shown()}
    left_out = {"hospital (without ward)": shown(held_out=["ward"])}
    crossval = shown(parts=2, mean_accuracy=0.9, lowest_accuracy=0.9, macro_auc=0.9)
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


def test_the_spread_in_a_record_of_before_becomes_that_of_a_sample(tmp_path: Path) -> None:
    """It was that of the parts as if there could be no others, under another name."""
    from training.compare import compare
    from training.record import read_record

    before = shown(mean_accuracy=0.9, lowest_accuracy=0.85, macro_auc=0.9)
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


def test_a_run_and_its_version_are_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version does not say what its recipe was loaded with."""
    from training.entries import add
    from training.record import Entries

    said = {"epochs": 2}
    recipe = load_recipe("baseline_cnn", said).model_copy(update={"name": "ours"})
    other = {"name": "ward", "images": 1, "digest": "1" * 64}
    data = [HOSPITAL, other]
    run = evaluated(tmp_path / "run", version_config(recipe=recipe, data=data, overrides=said))
    left_out = version_config(recipe=recipe, data=data, overrides=said, held_out=("ward",))
    without = evaluated(tmp_path / "without", left_out, held_out=["ward"])
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


def test_what_is_replaced_on_record_are_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.entries import add
    from training.record import Entries

    config = version_config(recipe=load_recipe("baseline_cnn"), data=[HOSPITAL], protocol="clean")
    kinds = report_of([*TUMORS, "notumor"] * 2, [], answers=False)["protocols"]["grouped"]
    run = evaluated(
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
        evaluated(tmp_path / "other", config, protocol="published", protocols={"published": kinds}),
    )
    assert capsys.readouterr().out == ""
    entries["baseline_cnn"].evaluated["clean"]["hospital"]["accuracy"] = 0.1
    add(entries, run)
    assert capsys.readouterr().out == (
        "baseline_cnn, clean, hospital: other figures were on record, and are replaced\n"
    )


def test_a_mistake_of_ours_is_not_called_damage_of_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import entries

    run = evaluated(
        tmp_path / "run", version_config(recipe=load_recipe("baseline_cnn"), data=[HOSPITAL])
    )
    mistake: dict[str, str] = {}
    monkeypatch.setattr(entries, "_name", lambda *_: mistake["made"])
    with pytest.raises(KeyError, match="made"):
        entries.add({}, run)


def test_names_of_data_sets_are_kept_and_not_read_from_what_is_shown(tmp_path: Path) -> None:
    from training.compare import _bars, _document
    from training.entries import add
    from training.record import Entries, read_record, write_record

    names = ("a (2023)", "b + c", "normal_volumes")
    data = [{"name": name, "images": 1, "digest": "0" * 64} for name in names]
    said = load_recipe("efficientnet_lite0_mask", {"seed": 7})
    run = evaluated(tmp_path / "run", version_config(recipe=said, data=data), by_fold=[])
    entries: Entries = {}
    add(entries, run)
    write_record(entries, tmp_path / "record.json")
    entries = read_record(tmp_path / "record.json")
    (bar,) = _bars(entries)
    assert (bar.protocol, bar.data) == ("grouped", "3 data sets (seed 7)")
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
