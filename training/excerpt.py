"""What a comparison shows of the figures in a report or in a cross-validation."""

from collections.abc import Sequence
from typing import Any, Final

from training.crossval import deviation
from training.errors import ExportRefused
from training.fidelity import require_faithful
from training.names import NO_TUMOR

_TUMOR_FIGURES: Final = ("sensitivity", "specificity", "f1", "auc")


def of_run(found: dict[str, Any], kinds: dict[str, Any], own: bool) -> dict[str, Any]:
    """What a comparison shows of a run; see :class:`training.record.Entry`.

    Args:
        found: its report.
        kinds: of that, the figures of a protocol's test, by ``int8`` and ``float``.
        own: whether the run was trained for that protocol, not shown beside one that was.
    """
    one = len(kinds["int8"]["classes"]) < 2
    agreed = found.get("validation", {})
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
    if not found.get("held_out"):
        return shown
    counts = {"tested": found["split"]["test"], "named": kinds["int8"]["images"]}
    return {**_left_out(shown, found), **counts, "held_out": list(found["held_out"])}


def _left_out(shown: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What is shown of a run, with tumour or not over all slices of the data set that it left out.

    That may hold tumours of an unstated kind, which are no class's.
    """
    tumor = tumor_of_test(found)
    tumors = {"tumors": tumor["tumors"]} if "tumors" in tumor else {}
    figures = {f"tumor.{name}": tumor[name] for name in _TUMOR_FIGURES if name in tumor}
    limits = {f"tumor.{name}": span for name, span in tumor["interval"].items()}
    shown = {name: value for name, value in shown.items() if not name.startswith("tumor.")}
    shown["interval"] = {
        name: span
        for name, span in {**shown["interval"], **limits}.items()
        if name in shown or name in figures
    }
    return {**shown, **figures, **tumors}


def tumor_of_test(found: dict[str, Any]) -> dict[str, Any]:
    """Tumour or not over all test slices, with ``images`` and ``tumors``, by a report.

    At one half where the recipe has a mask head, else at its ``tumor_threshold``. A run without
    answers has only slices with a class. Figures that are of nothing are left out, and so are intervals
    of no width, which reports of earlier releases have.
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
    # Reports name the threshold since shares near 0 and 1 have limits of their own, or a little later.
    edges = {"edge_limits": True} if "threshold" in found.get("tumor", {}) else {}
    return {
        **edges,
        **{name: value for name, value in {**found, **tumor}.items() if name in named},
        "interval": {
            n: limits for n, limits in found["interval"].items() if n in named and _wide(limits)
        },
    }


def of_crossval(found: dict[str, Any]) -> dict[str, Any]:
    """What a comparison shows of a cross-validation's file."""
    # By the parts: what the file says may be of these as if there could be no others.
    spread = deviation(found["parts"])
    return {
        "parts": len(found["parts"]),
        "mean_accuracy": found["mean_accuracy"],
        **({} if spread is None else {"accuracy_spread": spread}),
        "lowest_accuracy": min(part["accuracy"] for part in found["parts"]),
        **_figures(found["together"]),
    }
