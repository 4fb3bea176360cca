"""Takes runs, versions and cross-validations in among what is known of each recipe."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from training.card import METRICS_FILE
from training.crossval import CROSSVAL_FILE
from training.errors import RunError
from training.excerpt import of_crossval, of_run
from training.files import read_json, whole, write_json
from training.latency import measure
from training.origin import origin_of, origin_of_crossval
from training.record import Entries, Entry
from training.run import ARTIFACTS, REPORT

LATENCY_FILE: Final = "latency.json"
_NO_FIGURES: Final = frozenset(
    {"run", "sources", "folded", "trained", "strays", "accuracy_spread", "edge_limits"}
)
"""What of a row depends on which release wrote it, or on which report, with the same figures."""


def add(entries: Entries, path: Path) -> None:
    """Takes in a folder of ``fit`` or ``crossval``, or a version in a store, for what was known of it.

    Raises:
        RunError: the folder holds neither an evaluated run nor a cross-validation, or a damaged one.
    """
    if (path / CROSSVAL_FILE).is_file():
        _add_crossval(entries, path / CROSSVAL_FILE)
    elif (path / REPORT / METRICS_FILE).is_file():
        _add_run(entries, path)
    else:
        raise RunError(f"{path} holds neither an evaluated run nor a cross-validation")


def _add_crossval(entries: Entries, path: Path) -> None:
    found = read_json(path)
    with whole(path):
        recipe = found["recipe"]
        origin = origin_of_crossval(found)
        row = {**of_crossval(found), "run": origin.run, "sources": origin.sources}
    entry = entries.setdefault(recipe, Entry())
    entry.add_weights(origin.weights)
    name = _name(origin.data, origin.run, (), [entry.crossvals])
    _put(entry.crossvals, name, row, f"{recipe}, cross-validated")


def _add_run(entries: Entries, path: Path) -> None:
    report = path / REPORT / METRICS_FILE
    found = read_json(report)
    # Where it is not noted yet, nothing was held out.
    held_out = found.get("held_out", ())
    origin = origin_of(path, held_out)
    with whole(report):
        recipe, own = found["recipe"], found["protocol"]
        told: dict[str, Any] = {"run": origin.run, "sources": origin.sources}
        if "by_fold" in found:
            told["folded"] = found["by_fold"]
        rows = {
            protocol: of_run(found, kinds["testing"], protocol == own) | told
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


def _sizes(path: Path) -> dict[str, Any]:
    """Measured once for a run; a version never changes, and keeps no such file."""
    artifacts = path / ARTIFACTS
    if not artifacts.is_dir():
        return measure(path)
    stored = artifacts / LATENCY_FILE
    if not stored.is_file():
        write_json(stored, measure(artifacts))
    return read_json(stored)
