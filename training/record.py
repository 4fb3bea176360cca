"""What is known of each recipe, of the runs that are there and of those that are gone.

Runs stay out of git and are lost with the machine that made them; what a comparison shows of them is
kept in a record beside it, so that the next comparison needs only what is new.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from training.errors import RunError
from training.files import read_json, write_aside


@dataclass
class Entry:
    """One recipe.

    Attributes:
        weights: what the runs started from.
        evaluated: protocol, then data sets and what else the run differs in from the recipe's own, to
            the figures of the int8 file (``accuracy``, ``macro_f1``, ``tumor.f1``, ``tumor.auc`` and
            their ``interval``), ``float_accuracy`` and ``trained``, the number of slices, if it is
            known; ``strays``, if that file is too far from the float model to be exported;
            ``run``, which tells runs of the same names apart (see :class:`training.origin.Origin`);
            ``sources``, names of the data sets, and ``folded``, of those with patient-wise folds;
            ``edge_limits``, if shares near 0 and 1 have limits of their own, as
            :func:`training.interval.bootstrap` gives them. There is no accuracy and no F1 of test
            images of one class. Of a run that left data sets out also ``held_out``, which, ``tested``,
            ``named`` and ``tumors``, the numbers of test slices, of those with a class and of those
            with a tumour, ``tumor.sensitivity`` and ``tumor.specificity``.
        crossvals: the same to ``sources``, ``run``, ``edge_limits``, ``parts``, ``mean_accuracy``,
            ``lowest_accuracy`` and, of several, ``accuracy_spread`` of the parts, and the figures of
            all tested images together.
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
