"""The tables of a comparison: their heads, and a row of what is on record of a run or a recipe."""

from typing import Any, Final

from training.record import Entry

_DASH: Final = "-"
"""Where there is no figure."""
OLDER: Final = "°"
"""Behind the interval of a share in an older report, which has no limits of its own near 0 and 1."""
_SHARES: Final = frozenset({"accuracy", "tumor.sensitivity", "tumor.specificity"})
STRAYS_ON_TEST: Final = 0.01
"""Accuracy by which an int8 file that is apart from its float model on test is marked."""

SIZE_HEAD: Final = (
    (
        "| recipe | weights | parameters | int8 file | SavedModel | int8 | float32 | TensorFlow "
        "| processor |"
    ),
    "|---|---|---|---|---|---|---|---|---|",
)
LEFT_OUT_HEAD: Final = (
    (
        "| recipe | data | training slices | test slices, with tumour | accuracy | F1 | sensitivity "
        "| specificity | tumour AUC | float accuracy |"
    ),
    "|---|---|---|---|---|---|---|---|---|---|",
)
TESTING_HEAD: Final = (
    "| recipe | protocol | data | slices | accuracy | F1 | tumour F1 | tumour AUC | float accuracy |",
    "|---|---|---|---|---|---|---|---|---|",
)
CROSSVAL_HEAD: Final = (
    "| recipe | data | parts | accuracy, mean | spread | lowest | all tested | F1 | AUC |",
    "|---|---|---|---|---|---|---|---|---|",
)
STEP_HEAD: Final = (
    "| recipe | parameters | that learn | batch | pixels | seconds a step | processor |",
    "|---|---|---|---|---|---|---|",
)


def strays(found: dict[str, Any]) -> bool:
    """Whether an int8 file is not what its float model is.

    By what was found on validation; where that is not noted, by what is plain on test.
    """
    if "accuracy" not in found or "float_accuracy" not in found:
        return False
    apart = abs(found["accuracy"] - found["float_accuracy"])
    return bool(found.get("strays", apart > STRAYS_ON_TEST))


def size_row(recipe: str, entry: Entry) -> str:
    """A row below :data:`SIZE_HEAD`."""
    sizes = entry.sizes

    def mib(name: str) -> str:
        return f"{sizes[name] / 2**20:.1f} MiB" if name in sizes else _DASH

    def ms(name: str) -> str:
        return f"{sizes[name]:.1f}" if name in sizes else _DASH

    parameters = f"{sizes['parameters']:,.0f}" if "parameters" in sizes else _DASH
    cells = [
        recipe,
        ", ".join(f"`{name}`" for name in entry.weights),
        parameters,
        mib("int8_bytes"),
        mib("saved_model_bytes"),
        ms("int8_ms"),
        ms("float32_ms"),
        ms("tensorflow_ms"),
        sizes.get("processor", _DASH),
    ]
    return f"| {' | '.join(cells)} |"


def step_row(recipe: str, step: dict[str, Any]) -> str:
    """A row below :data:`STEP_HEAD`."""
    cells = [
        recipe,
        *(f"{step[name]:,.0f}" for name in ("parameters", "trainable")),
        *(f"{step[name]:.0f}" for name in ("batch", "resolution")),
        f"{step['seconds']:.1f}",
        step["processor"],
    ]
    return f"| {' | '.join(cells)} |"


def _percent(figures: dict[str, Any], name: str) -> str:
    if name not in figures:
        return _DASH
    text = f"{100 * figures[name]:.2f}"
    if name not in figures["interval"]:
        return text
    low, high = figures["interval"][name]
    if low == high:
        # Older records have intervals of no width.
        return text
    mark = OLDER if name in _SHARES and not figures.get("edge_limits") else ""
    return f"{text} [{100 * low:.2f}, {100 * high:.2f}]{mark}"


def testing_row(recipe: str, protocol: str, data: str, found: dict[str, Any]) -> str:
    """A row below :data:`TESTING_HEAD`."""
    cells = [
        recipe,
        protocol,
        data,
        _DASH if found["trained"] is None else str(found["trained"]),
        *(_percent(found, name) for name in ("accuracy", "macro_f1", "tumor.f1", "tumor.auc")),
        _float_accuracy(found),
    ]
    return f"| {' | '.join(cells)} |"


def crossval_row(recipe: str, data: str, found: dict[str, Any]) -> str:
    """A row below :data:`CROSSVAL_HEAD`."""
    auc = found["tumor.auc"] if "tumor.auc" in found else found["macro_auc"]
    cells = [
        recipe,
        data,
        str(found["parts"]),
        f"{100 * found['mean_accuracy']:.2f}",
        f"{100 * found['accuracy_spread']:.2f}" if "accuracy_spread" in found else _DASH,
        f"{100 * found['lowest_accuracy']:.2f}",
        _percent(found, "accuracy"),
        _percent(found, "macro_f1"),
        f"{100 * auc:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def left_out_row(recipe: str, data: str, found: dict[str, Any]) -> str:
    """A row below :data:`LEFT_OUT_HEAD`."""
    figures = ("accuracy", "macro_f1", "tumor.sensitivity", "tumor.specificity", "tumor.auc")
    cells = [
        recipe,
        data,
        _DASH if found["trained"] is None else str(found["trained"]),
        f"{found['tested']}, {found.get('tumors', _DASH)}" if "tested" in found else _DASH,
        *(_percent(found, name) for name in figures),
        _float_accuracy(found),
    ]
    return f"| {' | '.join(cells)} |"


def _float_accuracy(found: dict[str, Any]) -> str:
    if "float_accuracy" not in found:
        return _DASH
    return f"{100 * found['float_accuracy']:.2f}" + (" (int8 strays)" if strays(found) else "")
