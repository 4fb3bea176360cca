"""What is known of each recipe, of the runs that are there and of those that are gone.

Runs stay out of git and are lost with the machine that made them; what a comparison shows of them is
kept in a record beside it, so that the next comparison needs only what is new.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from training.card import METRICS_FILE
from training.catalogue import load_recipe, recipe_names
from training.crossval import CROSSVAL_FILE, deviation
from training.departure import departs, overridden
from training.errors import ExportRefused, RunError
from training.fidelity import require_faithful
from training.files import read_json, write_aside, write_json
from training.latency import measure
from training.names import NO_TUMOR
from training.run import Run

LATENCY_FILE: Final = "latency.json"
MANIFEST_FILE: Final = "manifest.json"
_NO_FIGURES: Final = frozenset({"run", "sources", "folded", "trained", "strays", "accuracy_spread"})
"""What of a row depends on which release wrote it, or on which report, with the same figures."""
_TUMOR_FIGURES: Final = ("sensitivity", "specificity", "f1", "auc")


@dataclass
class Entry:
    """One recipe.

    Attributes:
        weights: what the runs started from.
        evaluated: protocol, then data sets and what else the run differs in from the recipe's own, to
            the figures of the int8 file (``accuracy``, ``macro_f1``, ``tumor.f1``, ``tumor.auc`` and
            their ``interval``), ``float_accuracy`` and ``trained``, the number of slices, if it is
            known; ``strays``, if that file is too far from the float model to be exported;
            ``run``, which tells runs of the same names apart (see :func:`_digest`); ``sources``,
            names of the data sets, and ``folded``, of those with patient-wise folds. There
            is no accuracy and no F1 of test images of one class. Of a run that left data sets out
            also ``held_out``, which, ``tested``, ``named`` and ``tumors``, the numbers of test slices,
            of those with a class and of those with a tumour, ``tumor.sensitivity`` and
            ``tumor.specificity``.
        crossvals: the same to ``sources``, ``run``, ``parts``, ``mean_accuracy``, ``lowest_accuracy``
            and, of several, ``accuracy_spread`` of the parts, and the figures of all tested images
            together.
        sizes: parameters, bytes, milliseconds and the processor that they were measured on; see
            :func:`training.latency.measure`.
        step: of the recipe at its full size, where it was too long to be run; see
            :func:`training.step.measure_step`.
    """

    weights: list[str] = field(default_factory=list)
    evaluated: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    crossvals: dict[str, dict[str, Any]] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)
    step: dict[str, Any] = field(default_factory=dict)

    def add_weights(self, name: str) -> None:
        """Notes what another run started from."""
        self.weights = sorted({*self.weights, name})


Entries = dict[str, Entry]
"""By the recipe's name."""


class _Origin(NamedTuple):
    """What a run was made of.

    Attributes:
        data: see :func:`_data`.
        weights: what it started from.
        run: see :func:`_digest`.
        sources: names of the data sets.
    """

    data: str
    weights: str
    run: str
    sources: list[str]


def read_record(path: Path) -> Entries:
    """What earlier comparisons knew; nothing if there is no record.

    Raises:
        RunError: the record is damaged.
    """
    if not path.is_file():
        return {}
    try:
        return {name: _entry(content) for name, content in read_json(path).items()}
    except (RunError, AttributeError, KeyError, TypeError) as error:
        raise RunError(f"{path} is no record of runs: {error}") from error


def _entry(content: dict[str, Any]) -> Entry:
    entry = Entry(**content)
    for runs in (*entry.evaluated.values(), entry.crossvals):
        for data, found in runs.items():
            # In records of earlier releases, what is shown of the data is all that there is.
            found.setdefault("sources", data.partition(" (")[0].split(" + "))
    for found in entry.crossvals.values():
        # Records of earlier releases have the spread of the parts as if there could be no others.
        spread, parts = found.pop("accuracy_deviation", None), found["parts"]
        if spread is not None and parts > 1:
            found["accuracy_spread"] = spread * math.sqrt(parts / (parts - 1))
    return entry


def write_record(entries: Entries, path: Path) -> None:
    """Writes what :func:`read_record` reads."""
    content = {name: asdict(entries[name]) for name in sorted(entries)}
    write_aside(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def add(entries: Entries, path: Path) -> None:
    """Takes in a folder of ``fit`` or ``crossval``, or a version in a store, for what was known of it.

    Raises:
        RunError: the folder holds neither an evaluated run nor a cross-validation, or a damaged one.
    """
    if (path / CROSSVAL_FILE).is_file():
        _add_crossval(entries, path / CROSSVAL_FILE)
    elif (path / "report" / METRICS_FILE).is_file():
        _add_run(entries, path)
    else:
        raise RunError(f"{path} holds neither an evaluated run nor a cross-validation")


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Raises RunError where a file that is read inside lacks what it should have."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error!r}") from error


def _add_crossval(entries: Entries, path: Path) -> None:
    found = read_json(path)
    with _whole(path):
        recipe, weights = found["recipe"], found["weights"]
        changes = _changes(found.get("overridden", {}), found.get("another_recipe"))
        sources = [source["name"] for source in found["data"]]
        data = _data(sources, changes, ())
        # More splits are another cross-validation.
        run = _digest(found.get("recipe_digest"), found["data"], len(found["parts"]))
        row = {**_crossval(found), "run": run, "sources": sources}
    entry = entries.setdefault(recipe, Entry())
    entry.add_weights(weights)
    name = _name(data, run, (), [entry.crossvals])
    _put(entry.crossvals, name, row, f"{recipe}, cross-validated")


def _add_run(entries: Entries, path: Path) -> None:
    report = path / "report" / METRICS_FILE
    found = read_json(report)
    # Where it is not noted yet, nothing was held out.
    held_out = found.get("held_out", ())
    origin = _origin(path, held_out)
    with _whole(report):
        recipe, own = found["recipe"], found["protocol"]
        told: dict[str, Any] = {"run": origin.run, "sources": origin.sources}
        if "by_fold" in found:
            told["folded"] = found["by_fold"]
        rows = {
            protocol: _evaluated(found, kinds["testing"], protocol == own) | told
            for protocol, kinds in found["protocols"].items()
        }
    entry = entries.setdefault(recipe, Entry())
    entry.add_weights(origin.weights)
    name = _name(origin.data, origin.run, held_out, [*entry.evaluated.values()])
    for protocol, row in rows.items():
        known = entry.evaluated.setdefault(protocol, {})
        # Of a run that was only shown beside this one, its own report says more.
        if protocol == own or name not in known:
            _put(known, name, row, f"{recipe}, {protocol}")
    # A run without a data set is a short one beside others, and none that serves.
    if not (entry.sizes and held_out):
        entry.sizes = _sizes(path)


def _put(known: dict[str, dict[str, Any]], name: str, row: dict[str, Any], of: str) -> None:
    """Puts a row on record; says where it takes the place of another's figures."""
    before, now = (
        {key: value for key, value in figures.items() if key not in _NO_FIGURES}
        for figures in (known.get(name, row), row)
    )
    if before != now:
        print(f"{of}, {name}: other figures were on record, and are replaced")
    known[name] = row


def _name(
    data: str,
    run: str,
    held_out: Sequence[str],
    known: Sequence[Mapping[str, Mapping[str, Any]]],
) -> str:
    """What a run is on record as: its data or, where another run has that name, with its digest.

    A version says less of what its recipe was loaded with than its run, and has the run's name.
    """
    same = [
        name
        for runs in known
        for name, found in runs.items()
        if (found.get("run"), found.get("held_out", [])) == (run, [*held_out])
    ]
    if same:
        return data if data in same else same[0]
    # What has no digest on record is taken for the same.
    taken = {runs[data].get("run", run) for runs in known if data in runs}
    return data if taken <= {run} else f"{data} (another run {run})"


def _digest(recipe: str | None, data: Sequence[Mapping[str, Any]], parts: int | None = None) -> str:
    """A short digest of a recipe's digest, the data's and, of a cross-validation, its parts.

    The same for a run and its version, and for the protocols that a recipe was run on.
    """
    content = [recipe, *(source.get("digest") for source in data), parts]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]


def _evaluated(found: dict[str, Any], kinds: dict[str, Any], own: bool) -> dict[str, Any]:
    """What a comparison shows of a report's figures, by int8 and float; its own or another run's."""
    one = len(kinds["int8"]["classes"]) < 2
    left_out, agreed = found.get("held_out"), found.get("validation", {})
    shown = {
        name: value
        for name, value in _figures(kinds["int8"]).items()
        if not one or name not in {"accuracy", "macro_f1"}
    } | {
        "trained": found["split"]["train"] if own else None,
        **({} if one else {"float_accuracy": kinds["float"]["accuracy"]}),
        # Reports of earlier releases, and those shown beside another, do not say it.
        **({"strays": _strays(agreed)} if own and "label_disagreement" in agreed else {}),
    }
    if not left_out:
        return shown
    # A set that was left out may hold tumours of an unstated kind, which are no class's.
    tumor = tumor_of_test(found)
    counts = {"tested": found["split"]["test"], "named": kinds["int8"]["images"]}
    tumors = {"tumors": tumor["tumors"]} if "tumors" in tumor else {}
    figures = {f"tumor.{name}": tumor[name] for name in _TUMOR_FIGURES if name in tumor}
    limits = {f"tumor.{name}": span for name, span in tumor["interval"].items()}
    shown = {name: value for name, value in shown.items() if not name.startswith("tumor.")}
    shown["interval"] = {
        name: span
        for name, span in {**shown["interval"], **limits}.items()
        if name in shown or name in figures
    }
    return {**shown, **figures, **counts, **tumors, "held_out": list(left_out)}


def tumor_of_test(found: dict[str, Any]) -> dict[str, Any]:
    """Tumour or not over all test slices at one half, with ``images`` and ``tumors``, by a report.

    A run without answers has only slices with a class. Figures that are of nothing are left out, and
    so are intervals of no width, which reports of earlier releases have.
    """
    figures = found["protocols"][found["protocol"]]["testing"]["int8"]
    if answers := found.get("answers"):
        tumor = answers["tumor"]["all"]
        limits = tumor["interval"]
    else:
        none = figures["classes"].get(NO_TUMOR, {"images": 0})["images"]
        counts = {"images": figures["images"], "tumors": figures["images"] - none}
        tumor = {**figures["tumor"], **counts}
        limits = {name: figures["interval"].get(f"tumor.{name}") for name in figures["tumor"]}
    kept = {
        name: value
        for name, value in tumor.items()
        if name in {"images", "tumors"}
        or (name in _TUMOR_FIGURES and (name != "f1" or tumor["tumors"]))
    }
    return {
        **kept,
        "interval": {
            name: span for name, span in limits.items() if name in kept and span and _wide(span)
        },
    }


def _wide(limits: Sequence[float]) -> bool:
    return limits[0] < limits[1]


def _strays(validation: dict[str, float]) -> bool:
    """Whether an int8 file strayed too far from the float model to be exported."""
    try:
        require_faithful(validation)
    except ExportRefused:
        return True
    return False


def _figures(found: dict[str, Any]) -> dict[str, Any]:
    """Of what :func:`training.scores.scores` gives, what a comparison shows."""
    tumor = {f"tumor.{name}": value for name, value in found.get("tumor", {}).items()}
    named = ("accuracy", "macro_f1", "macro_auc", "tumor.f1", "tumor.auc")
    return {
        **{name: value for name, value in {**found, **tumor}.items() if name in named},
        "interval": {
            n: limits for n, limits in found["interval"].items() if n in named and _wide(limits)
        },
    }


def _crossval(found: dict[str, Any]) -> dict[str, Any]:
    # By the parts: what the file says may be of these as if there could be no others.
    spread = deviation(found["parts"])
    return {
        "parts": len(found["parts"]),
        "mean_accuracy": found["mean_accuracy"],
        **({} if spread is None else {"accuracy_spread": spread}),
        "lowest_accuracy": min(part["accuracy"] for part in found["parts"]),
        **_figures(found["together"]),
    }


def _data(names: Sequence[str], changes: Mapping[str, Any], held_out: Sequence[str]) -> str:
    """Data sets, and how the run was another one than the recipe has on them."""
    notes = [f"{name} {value}" for name, value in sorted(changes.items())]
    notes += [f"without {name}" for name in held_out]
    return " + ".join(names) + (f" ({', '.join(notes)})" if notes else "")


def _changes(overrides: Mapping[str, Any], another: str | None) -> dict[str, Any]:
    return {**overrides, **({"another recipe": another} if another else {})}


def _origin(path: Path, held_out: Sequence[str]) -> _Origin:
    """Of a run, or of a version in a store."""
    if (path / MANIFEST_FILE).is_file():
        manifest = read_json(path / MANIFEST_FILE)
        with _whole(path / MANIFEST_FILE):
            return _origin_of_version(manifest["provenance"], held_out)
    config = Run.open(path).config
    recipe, sources = config.recipe, [source.model_dump() for source in config.data]
    changes = _changes(overridden(recipe, config.overrides), departs(recipe))
    names = [source.name for source in config.data]
    data = _data(names, changes, held_out)
    return _Origin(data, recipe.weights_name, _digest(recipe.digest, sources), names)


def _origin_of_version(provenance: dict[str, Any], held_out: Sequence[str]) -> _Origin:
    names = [source["name"] for source in provenance["data"]]
    recipe, digest = provenance["recipe"], provenance["recipe_digest"]
    # A version does not keep its recipe, only what tells it from another.
    own = recipe not in recipe_names() or load_recipe(recipe).digest == digest
    changes = _changes({}, None if own else digest[:8])
    data = _data(names, changes, held_out)
    return _Origin(data, provenance["weights"], _digest(digest, provenance["data"]), names)


def _sizes(path: Path) -> dict[str, Any]:
    """Measured once for a run; a version never changes, and keeps no such file."""
    artifacts = path / "artifacts"
    if not artifacts.is_dir():
        return measure(path)
    stored = artifacts / LATENCY_FILE
    if not stored.is_file():
        write_json(stored, measure(artifacts))
    return read_json(stored)
