"""Writes docs/models.md: the recipes that were run, side by side, and what the leak is worth."""

import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from training import plots
from training.card import METRICS_FILE
from training.crossval import CROSSVAL_FILE
from training.errors import RunError
from training.latency import measure
from training.recipe import recipe_names
from training.run import Run

LATENCY_FILE: Final = "latency.json"
MANIFEST_FILE: Final = "manifest.json"
PLOT_FILE: Final = "models.png"
_DASH: Final = "-"


_TESTING_HEAD: Final = (
    "| recipe | protocol | data | slices | accuracy | F1 | tumour F1 | tumour AUC | float accuracy |",
    "|---|---|---|---|---|---|---|---|---|",
)


class Entry(NamedTuple):
    """What is known of one recipe.

    Attributes:
        evaluated: protocol and data sets to ``report/metrics.json`` of a run.
        crossvals: data sets to ``crossval.json``.
        sizes: parameters, bytes and milliseconds; see :func:`training.latency.measure`.
        weights: what the runs started from.
    """

    recipe: str
    weights: set[str]
    evaluated: dict[tuple[str, str], dict[str, Any]]
    crossvals: dict[str, dict[str, Any]]
    sizes: dict[str, float]


def compare(paths: Sequence[Path], out: Path) -> Path:
    """Reads evaluated runs and cross-validations, measures what is not measured yet, and writes.

    Args:
        paths: folders of ``fit`` or ``crossval``, and versions in a store.
        out: the Markdown file; the plot goes beside it.

    Raises:
        RunError: a folder holds neither an evaluated run nor a cross-validation.
    """
    entries: dict[str, Entry] = {}
    for path in paths:
        _add(entries, path)
    ordered = [entries[name] for name in sorted(entries)]
    out.parent.mkdir(parents=True, exist_ok=True)
    bars = [bar for entry in ordered for bar in _bars(entry)]
    plots.accuracies(out.parent / PLOT_FILE, bars)
    out.write_text(_document(ordered), encoding="utf-8")
    print(f"wrote {out}")
    return out


def _add(entries: dict[str, Entry], path: Path) -> None:
    if (path / CROSSVAL_FILE).is_file():
        found = _read(path / CROSSVAL_FILE)
        entry = entries.setdefault(found["recipe"], Entry(found["recipe"], set(), {}, {}, {}))
        entry.crossvals[_together(source["name"] for source in found["data"])] = found
        entry.weights.add(found["weights"])
        return
    if not (path / "report" / METRICS_FILE).is_file():
        raise RunError(f"{path} holds neither an evaluated run nor a cross-validation")
    found = _read(path / "report" / METRICS_FILE)
    data, weights = _origin(path)
    name = found["recipe"]
    entry = entries.setdefault(name, Entry(name, set(), {}, {}, {}))
    entry.weights.add(weights)
    for protocol, figures in found["protocols"].items():
        own = protocol == found["protocol"]
        # Of a run that was only shown beside this one, its own report says more.
        if own or (protocol, data) not in entry.evaluated:
            split = found["split"] if own else {}
            entry.evaluated[protocol, data] = {"figures": figures, "split": split}
    if not entry.sizes:
        entry.sizes.update(_sizes(path))


def _together(names: Iterable[str]) -> str:
    return " + ".join(names)


def _origin(path: Path) -> tuple[str, str]:
    """Data sets and starting weights of a run, or of a version in a store."""
    if (path / MANIFEST_FILE).is_file():
        provenance = _read(path / MANIFEST_FILE)["provenance"]
        return _together(source["name"] for source in provenance["data"]), provenance["weights"]
    config = Run.open(path).config
    return _together(source.name for source in config.data), config.recipe.weights


def _sizes(path: Path) -> dict[str, float]:
    """Measured once for a run; a version never changes, and keeps no such file."""
    artifacts = path / "artifacts"
    if not artifacts.is_dir():
        return measure(path)
    stored = artifacts / LATENCY_FILE
    if not stored.is_file():
        stored.write_text(json.dumps(measure(artifacts), indent=1) + "\n", encoding="utf-8")
    found: dict[str, float] = _read(stored)
    return found


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _bars(entry: Entry) -> list[tuple[str, str, float, tuple[float, float]]]:
    bars = []
    for (protocol, data), found in sorted(entry.evaluated.items()):
        figures = _best_file(found["figures"]["testing"])
        kind = f"{protocol}, {_short(data)}"
        bars.append((entry.recipe, kind, figures["accuracy"], _interval(figures, "accuracy")))
    for data, found in sorted(entry.crossvals.items()):
        figures = found["together"]
        bars.append(
            (
                entry.recipe,
                f"held out, {_short(data)}",
                figures["accuracy"],
                _interval(figures, "accuracy"),
            )
        )
    return bars


def _short(data: str) -> str:
    """Of data sets; more than two are counted."""
    count = data.count(" + ") + 1
    return data if count <= 2 else f"{count} data sets"


def _best_file(kinds: dict[str, Any]) -> dict[str, Any]:
    """The figures of what serves on a CPU."""
    figures: dict[str, Any] = kinds["int8"]
    return figures


def _interval(figures: dict[str, Any], name: str) -> tuple[float, float]:
    low, high = figures["interval"][name]
    return low, high


def _document(entries: Sequence[Entry]) -> str:
    lines = [
        "# The recipes, compared",
        "",
        (
            "Written by `python -m training compare` from the reports of the runs; every figure was "
            "measured. Accuracies are in percent, with 95 % bootstrap intervals over near-duplicate "
            "groups."
        ),
        "",
        "## Size and speed",
        "",
        (
            "Milliseconds of processor time for one slice, all threads together: int8 and float32 "
            "LiteRT, and the SavedModel under TensorFlow. Medians of 100 calls."
        ),
        "",
        "| recipe | weights | parameters | int8 file | SavedModel | int8 | float32 | TensorFlow |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_size_row(entry) for entry in entries]
    lines += [
        "",
        "## Four classes, or tumour and none: nickparvar's 1311 Testing images",
        "",
        (
            "`published` trains on Training as it comes, `clean` on nothing that shares a "
            "near-duplicate group with a Testing image. int8 file. F1 is the mean over the classes; "
            "tumour F1 and AUC are those of tumour against none."
        ),
        "",
        *_TESTING_HEAD,
    ]
    lines += _testing_rows(entries, {"clean", "published"})
    grouped = _testing_rows(entries, {"grouped"})
    if grouped:
        lines += [
            "",
            "## Held-out groups and folds of all data sets",
            "",
            (
                "Protocol `grouped`: whole near-duplicate groups of every data set, and fold 5 of "
                "figshare_cheng, are the test: other images than the 1311 above."
            ),
            "",
            *_TESTING_HEAD,
            *grouped,
        ]
    if any(entry.crossvals for entry in entries):
        lines += ["", *_crossval_section(entries)]
    lines += ["", f"![Accuracies with intervals]({PLOT_FILE})", "", "## What the leak is worth", ""]
    lines += [*_reading(entries), "", "## What is missing", "", *_missing(entries), ""]
    return "\n".join(lines)


def _crossval_section(entries: Sequence[Entry]) -> list[str]:
    lines = [
        "## By patient, and by near-duplicate group",
        "",
        (
            "`python -m training crossval`, float. figshare_cheng by its author's patient-wise folds: "
            "three tumour classes. navoneel, tumour or not: repeated splits in whole near-duplicate "
            "groups, since it names no patients. What is tested had no part in the training nor in the "
            "choice of an epoch."
        ),
        "",
        "| recipe | data | parts | accuracy, mean | spread | lowest | all tested | F1 | AUC |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in entries:
        lines += [
            _crossval_row(entry.recipe, data, found)
            for data, found in sorted(entry.crossvals.items())
        ]
    return lines


def _size_row(entry: Entry) -> str:
    sizes = entry.sizes

    def mib(name: str) -> str:
        return f"{sizes[name] / 2**20:.1f} MiB" if name in sizes else _DASH

    def ms(name: str) -> str:
        return f"{sizes[name]:.1f}" if name in sizes else _DASH

    parameters = f"{sizes['parameters']:,.0f}" if "parameters" in sizes else _DASH
    cells = [
        entry.recipe,
        ", ".join(f"`{name}`" for name in sorted(entry.weights)),
        parameters,
        mib("int8_bytes"),
        mib("saved_model_bytes"),
        ms("int8_ms"),
        ms("float32_ms"),
        ms("tensorflow_ms"),
    ]
    return f"| {' | '.join(cells)} |"


def _percent(figures: dict[str, Any], value: float, name: str) -> str:
    if name not in figures["interval"]:
        return f"{100 * value:.2f}"
    low, high = _interval(figures, name)
    return f"{100 * value:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def _testing_rows(entries: Sequence[Entry], protocols: Collection[str]) -> list[str]:
    return [
        _testing_row(entry.recipe, protocol, data, found)
        for entry in entries
        for (protocol, data), found in sorted(entry.evaluated.items())
        if protocol in protocols
    ]


def _testing_row(recipe: str, protocol: str, data: str, found: dict[str, Any]) -> str:
    figures = _best_file(found["figures"]["testing"])
    tumor = figures["tumor"]
    cells = [
        recipe,
        protocol,
        data,
        str(found["split"].get("train", _DASH)),
        _percent(figures, figures["accuracy"], "accuracy"),
        _percent(figures, figures["macro_f1"], "macro_f1"),
        *(
            _percent(figures, tumor[name], f"tumor.{name}") if name in tumor else _DASH
            for name in ("f1", "auc")
        ),
        f"{100 * found['figures']['testing']['float']['accuracy']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _crossval_row(recipe: str, data: str, found: dict[str, Any]) -> str:
    figures = found["together"]
    auc = figures["tumor"]["auc"] if "tumor" in figures else figures["macro_auc"]
    cells = [
        recipe,
        data,
        str(len(found["parts"])),
        f"{100 * found['mean_accuracy']:.2f}",
        f"{100 * found['accuracy_deviation']:.2f}",
        f"{100 * min(part['accuracy'] for part in found['parts']):.2f}",
        _percent(figures, figures["accuracy"], "accuracy"),
        _percent(figures, figures["macro_f1"], "macro_f1"),
        f"{100 * auc:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _missing(entries: Sequence[Entry]) -> list[str]:
    """Recipes that ship and have no figures, or only some."""
    known = {entry.recipe: entry for entry in entries}
    lines = []
    for name in recipe_names():
        entry = known.get(name)
        if entry is None:
            lines.append(f"- `{name}`: not run.")
            continue
        run = {protocol for protocol, _ in entry.evaluated}
        absent = [p for p in ("clean", "published") if p not in run]
        absent += [] if entry.crossvals else ["cross-validation"]
        if absent:
            lines.append(f"- `{name}`: no figures for {', '.join(absent)}.")
    return lines or ["Nothing: every recipe was run on both protocols and cross-validated."]


def _reading(entries: Sequence[Entry]) -> list[str]:
    lines = []
    for entry in entries:
        for data in sorted({data for _, data in entry.evaluated}):
            pair = [("published", data), ("clean", data)]
            if not entry.evaluated.keys() >= set(pair):
                continue
            leaked, clean = (
                _best_file(entry.evaluated[run]["figures"]["testing"])["accuracy"] for run in pair
            )
            lines.append(
                f"- **{entry.recipe}**, {data}: {100 * leaked:.2f} % where the leak stays and "
                f"{100 * clean:.2f} % without it, on the same images: "
                f"{100 * (leaked - clean):+.2f} points. Part of it is the smaller training set "
                "that `clean` leaves."
            )
    if not lines:
        lines.append("No recipe was run on both protocols.")
    lines += [
        "",
        (
            "103 of the 1311 Testing images are byte-identical to a Training image and 1064 have a "
            "near duplicate there (`python -m training audit`). A model that remembers its training "
            "slices gets those right, so `published` says how well it recognises patients that it has "
            "seen. `clean` removes copies and neighbouring slices, but nickparvar names no patients: "
            "other slices of a tested patient may still train. Only the patient-wise folds leave whole "
            "patients out: they are the figures to expect of a new patient from the same hospitals. "
            "None of them says how a model does at another hospital."
        ),
    ]
    return lines
