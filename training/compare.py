"""Writes a page: the recipes that were run, side by side, and what the leak is worth."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from training import plots
from training.catalogue import load_recipe, recipe_names
from training.entries import add
from training.errors import RunError
from training.files import write_aside
from training.plots import Bar
from training.prose import ANY, PROJECT, Prose
from training.record import Entries, Entry, read_record, write_record
from training.rows import (
    CROSSVAL_HEAD,
    LEFT_OUT_HEAD,
    OLDER,
    SIZE_HEAD,
    STEP_HEAD,
    TESTING_HEAD,
    crossval_row,
    left_out_row,
    size_row,
    step_row,
    strays,
    testing_row,
)
from training.step import measure_step

PROJECT_PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "models.md"
"""The page that is kept with the recipes that ship."""

_STRAYED: Final = (
    " Where *strays* is said, the int8 file is too far from its float model to be exported, and its "
    "figures are not the recipe's: the float accuracy is."
)


def compare(paths: Sequence[Path], out: Path, steps: Sequence[str] = ()) -> Path:
    """Adds evaluated runs and cross-validations to those that are on record, and writes all of them.

    Args:
        paths: folders of ``fit`` or ``crossval``, and versions in a store; with none, the record
            is written again.
        out: the Markdown file; the record, ``.json``, and the plot, ``.png``, go beside it.
        steps: recipes of which one step is measured.

    Raises:
        RecipeError: there is no such recipe.
        RunError: a folder holds neither an evaluated run nor a cross-validation, or the record is
            damaged; or there is no run, no step and no record; or the page would have the name of what
            goes beside it.
    """
    record, plot = out.with_suffix(".json"), out.with_suffix(".png")
    if out in {record, plot}:
        raise RunError(
            f"{out} is no name for the page: what lies beside it has that; end it in .md"
        )
    if not (paths or steps or record.is_file()):
        raise RunError(f"nothing to compare: name runs; {record} is not there to be written again")
    entries = read_record(record)
    for path in paths:
        add(entries, path)
    for name in steps:
        recipe = load_recipe(name)
        entries.setdefault(recipe.name, Entry()).step = measure_step(recipe)
    out.parent.mkdir(parents=True, exist_ok=True)
    plots.accuracies(plot, [*_bars(entries)])
    write_aside(out, _document(entries, out).encode())
    write_record(entries, record)
    print(f"wrote {out}")
    return out


def _bars(entries: Entries) -> Iterator[Bar]:
    for recipe, entry in sorted(entries.items()):
        for protocol, runs in sorted(entry.evaluated.items()):
            for data, found in sorted(runs.items()):
                if "accuracy" in found:
                    yield Bar(
                        recipe,
                        "left out" if found.get("held_out") else protocol,
                        _short(data, found),
                        found["accuracy"],
                        _interval(found),
                        found.get("float_accuracy") if strays(found) else None,
                    )
        for data, found in sorted(entry.crossvals.items()):
            name = _short(data, found)
            yield Bar(recipe, "cross-validated", name, found["accuracy"], _interval(found))


def _short(data: str, found: dict[str, Any]) -> str:
    """Of data sets; more than two are counted."""
    names = found.get("sources", [])
    return (
        data if len(names) <= 2 else data.replace(" + ".join(names), f"{len(names)} data sets", 1)
    )


def _interval(figures: dict[str, Any]) -> tuple[float, float] | None:
    if "accuracy" not in figures["interval"]:
        return None
    low, high = figures["interval"]["accuracy"]
    return low, high


def _document(entries: Entries, page: Path) -> str:
    prose = PROJECT if page.resolve() == PROJECT_PAGE else ANY
    lines = [
        "# The recipes, compared",
        "",
        _introduction(entries),
        "",
        prose.patients,
        *(["", prose.served] if prose.served else []),
        "",
        "## Size and speed",
        "",
        (
            "Milliseconds of processor time for one slice, all threads together: int8 and float32 "
            "LiteRT, and the SavedModel under TensorFlow. Medians of 100 calls; those of two "
            "processors do not compare."
        ),
        "",
        *SIZE_HEAD,
    ]
    run = {name: entry for name, entry in sorted(entries.items()) if entry.weights}
    lines += [size_row(name, entry) for name, entry in run.items()]
    lines += _testing_section(entries, prose)
    lines += _grouped_section(entries, prose)
    lines += _left_out_section(entries, prose)
    if any(entry.crossvals for entry in entries.values()):
        lines += ["", *_crossval_section(entries, prose)]
    if any(entry.step for entry in entries.values()):
        lines += ["", *_step_section(entries)]
    plot = page.with_suffix(".png").name
    lines += ["", f"![Accuracies with intervals]({plot})", *_leak_section(entries, prose)]
    lines += _claims_section(entries, prose)
    if prose is PROJECT:
        lines += ["", "## What is missing", "", *_missing(entries, prose)]
    return "\n".join([*lines, ""])


def _introduction(entries: Entries) -> str:
    return (
        "Written by `python -m training compare` from the reports of the runs; every figure was "
        "measured. What it shows of runs that are gone is kept in the file of the same name that "
        "ends in `.json`. Accuracies are in percent, with 95 % bootstrap intervals over "
        "near-duplicate groups, where there are five of them and their draws differ at all (shares "
        "at and near 0 and 1 with at least Clopper and Pearson's limits for the effective number "
        "of groups; in reports until 2026-11-28 the limit nearer to 0 or 1 may be too narrow)."
        f"{_older(entries)} In brackets behind the data: what a run was given instead of "
        "its recipe's own, or left out." + _told_apart(entries)
    )


def _rows(entries: Entries) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of each run that is on record, how it is called and its figures."""
    for entry in entries.values():
        for runs in (*entry.evaluated.values(), entry.crossvals):
            yield from runs.items()


def _older(entries: Entries) -> str:
    if all(found.get("edge_limits") for _, found in _rows(entries)):
        return ""
    return (
        f" An interval with {OLDER} is of an older report, which may lack these limits: near 0 and 1 "
        "it is then too narrow."
    )


def _told_apart(entries: Entries) -> str:
    if not any("(another run " in data for data, _ in _rows(entries)):
        return ""
    return (
        " *Another run* has the names of one that was there, and another recipe, other data or another "
        "number of parts."
    )


def _testing_section(entries: Entries, prose: Prose) -> list[str]:
    rows = _testing_rows(entries, {"clean", "published"})
    if not rows:
        return []
    return [
        "",
        f"## {prose.testing}",
        "",
        (
            "`published` trains on Training as it comes, `clean` on nothing that shares a "
            "near-duplicate group with a Testing image. int8 file. F1 is the mean over the classes; "
            "tumour F1 (from one half on, or a recipe's own `tumor_threshold`) and AUC are those of "
            "tumour against none." + _STRAYED
        ),
        "",
        *TESTING_HEAD,
        *rows,
    ]


def _grouped_section(entries: Entries, prose: Prose) -> list[str]:
    rows = _testing_rows(entries, {"grouped"})
    if not rows:
        return []
    return [
        "",
        "## Held-out groups and folds",
        "",
        (
            "Protocol `grouped`: the test is drawn in whole near-duplicate groups, whether a set calls "
            f"them Training or Testing{prose.grouped}. Of a set with "
            "patient-wise folds, only those are tested that the recipe sends there."
            + _sends(entries, prose)
        ),
        "",
        *TESTING_HEAD,
        *rows,
    ]


def _sends(entries: Entries, prose: Prose) -> str:
    """Which folds recipes that ship test, and which data sets they never do, where they were run."""
    noted: dict[str, list[str]] = {}
    for name in sorted(entries):
        runs = _own(entries[name], "grouped")
        if name not in recipe_names() or not runs:
            continue
        recipe = load_recipe(name)
        sets = {source for found in runs.values() for source in found.get("sources", ())}
        fixed = [source for source in recipe.train_only if source in sets]
        # Older reports do not say which data sets have folds; on the project's page, one has.
        folded = any(found.get("folded", prose is PROJECT) for found in runs.values())
        notes = []
        if recipe.folds and folded:
            notes.append(f"fold {', '.join(str(number) for number in recipe.folds.test)} is tested")
        if fixed:
            notes.append(f"{', '.join(fixed)} is for training alone")
        if notes:
            noted.setdefault("; ".join(notes), []).append(f"`{name}`")
    return "".join(f" {', '.join(names)}: {note}." for note, names in noted.items())


def _own(entry: Entry, protocol: str) -> dict[str, dict[str, Any]]:
    """The runs of a protocol that left no data set out: those are tested on something else."""
    runs = entry.evaluated.get(protocol, {})
    return {data: found for data, found in runs.items() if not found.get("held_out")}


def _left_out_section(entries: Entries, prose: Prose) -> list[str]:
    rows = [
        left_out_row(name, data, found)
        for name, entry in sorted(entries.items())
        for protocol, runs in sorted(entry.evaluated.items())
        for data, found in sorted(runs.items())
        if found.get("held_out")
    ]
    if not rows:
        return []
    return [
        "",
        "## A data set left out",
        "",
        (
            "Trained without the data set that the brackets name and tested on it alone, int8. "
            "Accuracy and F1 are of the slices with a class, and there are none where these show one "
            "class. Tumour or not is of all test slices, from a probability of one half on, or a "
            "recipe's own `tumor_threshold`: those whose kind of tumour is not stated too, where the "
            "recipe has a mask head. Slices with a tumour alone have no specificity and no AUC, slices "
            "without have no sensitivity and no AUC." + prose.left_out
        ),
        "",
        *LEFT_OUT_HEAD,
        *rows,
    ]


def _crossval_section(entries: Entries, prose: Prose) -> list[str]:
    lines = [
        "## By patient, and by near-duplicate group",
        "",
        (
            f"`python -m training crossval`, float. {prose.crossval} What is tested had no part in the "
            "training nor in the choice of an epoch. Spread is the standard deviation of the parts as "
            "a sample (n - 1)."
        ),
        "",
        *CROSSVAL_HEAD,
    ]
    for name, entry in sorted(entries.items()):
        lines += [
            crossval_row(name, data, found) for data, found in sorted(entry.crossvals.items())
        ]
    return lines


def _step_section(entries: Entries) -> list[str]:
    return [
        "## One step at full size",
        "",
        (
            "Of recipes that are too long for the machine: the second of two steps of the last phase, "
            "with the recipe's batch and resolution, in float32 (`python -m training compare --step "
            "NAME`)."
        ),
        "",
        *STEP_HEAD,
        *(step_row(name, entry.step) for name, entry in sorted(entries.items()) if entry.step),
    ]


def _testing_rows(entries: Entries, protocols: Collection[str]) -> list[str]:
    return [
        testing_row(name, protocol, data, found)
        for name, entry in sorted(entries.items())
        for protocol in sorted(protocols)
        for data, found in sorted(_own(entry, protocol).items())
    ]


def _claims_section(entries: Entries, prose: Prose) -> list[str]:
    """What others publish, beside what the record has of it with the leak and without."""
    if not prose.claims:
        return []
    lines, bars = [], [*_bars(entries)]
    for claim in prose.claims:
        figures: dict[str, list[str]] = {}
        for bar in bars:
            if bar.recipe in claim.ours:
                figures.setdefault(bar.protocol, []).append(_figure(bar))
        # What is tested on other images says more only where nothing is tested on the same ones.
        others = figures.get("grouped", []) + figures.get("cross-validated", [])
        columns = (figures.get("published", []), figures.get("clean", others))
        cells = [f"`{claim.recipe}`", claim.published, *("; ".join(column) for column in columns)]
        lines.append(f"| {' | '.join(cell or '-' for cell in cells)} |")
    return [
        "",
        "## What others publish",
        "",
        "By other projects with such a recipe, on their own split. Ours are accuracies in percent.",
        "",
        "| recipe | published by others | here, with the leak | here, without |",
        "|---|---|---|---|",
        *lines,
        "",
        prose.missed,
    ]


def _figure(bar: Bar) -> str:
    accuracy = bar.accuracy if bar.strayed_from is None else bar.strayed_from
    kind = "" if bar.strayed_from is None else "float, "
    return f"{100 * accuracy:.2f} (`{bar.recipe}`, {kind}{bar.protocol}, {bar.data})"


def _missing(entries: Entries, prose: Prose) -> list[str]:
    """Recipes that ship and have no figures, or only some."""
    lines = []
    for name in recipe_names():
        entry = entries.get(name)
        remark = f"; {prose.remarks[name]}" if name in prose.remarks else ""
        if entry is None or not entry.weights:
            lines.append(f"- `{name}`: no figures{remark}.")
            continue
        absent = [p for p in ("clean", "published") if not _own(entry, p)]
        absent += [] if entry.crossvals else ["cross-validation"]
        if absent:
            lines.append(f"- `{name}`: no figures for {', '.join(absent)}{remark}.")
    return lines or ["Nothing: every recipe was run on both protocols and cross-validated."]


def _leak_section(entries: Entries, prose: Prose) -> list[str]:
    lines = []
    for name, entry in sorted(entries.items()):
        published, clean = (_own(entry, p) for p in ("published", "clean"))
        for data in sorted(published.keys() & clean.keys()):
            if "accuracy" not in published[data] or "accuracy" not in clean[data]:
                continue
            leaked, unleaked = (runs[data]["accuracy"] for runs in (published, clean))
            lines.append(
                f"- **{name}**, {data}: {100 * leaked:.2f} % where the leak stays and "
                f"{100 * unleaked:.2f} % without it, on the same images: "
                f"{100 * (leaked - unleaked):+.2f} points. Part of it is the smaller training set "
                "that `clean` leaves."
            )
    if not lines and prose is not PROJECT:
        return []
    lines = lines or ["No recipe was run on both protocols."]
    return ["", "## What the leak is worth", "", *lines, "", prose.leak]
