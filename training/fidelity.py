"""Whether the quantised model says what the float model says: the gate before publishing."""

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.errors import ExportRefused, RunError

SAVED_MODEL: Final = "saved_model"
LITERT_FILE: Final = "model.int8.tflite"
LITERT_FLOAT_FILE: Final = "model.float32.tflite"
AGREEMENT_FILE: Final = "agreement.json"
MAX_LABEL_DISAGREEMENT: Final = 0.01
MAX_ACCURACY_DIFFERENCE: Final = 0.003
MAX_MASK_DIFFERENCE: Final = 0.003
"""Of a cell's probability, on average. The versions that ship have 0.0007. A tumour covers 1.7 % of a
slice of figshare_cheng (every fifteenth mask), and half of the slices have none: a mask that says
nothing at all would differ by some 0.01."""


def agreement(
    reference: Mapping[str, NDArray[np.float32]],
    other: Mapping[str, NDArray[np.float32]],
    truth: NDArray[np.float32],
) -> dict[str, float]:
    """How far a float and an int8 model agree on the same images.

    Args:
        reference: outputs of the float model by name; ``probabilities`` (N, classes) is one.
        other: those of the int8 model.
        truth: classes that each image may be, zeros and ones (N, classes).
    """
    ours, theirs = reference["probabilities"], other["probabilities"]
    first, second = ours.argmax(1), theirs.argmax(1)
    rows = np.arange(len(truth))
    found = {
        "images": float(len(truth)),
        "label_disagreement": float((first != second).mean()),
        "accuracy_float": float(truth[rows, first].mean()),
        "accuracy_int8": float(truth[rows, second].mean()),
        "largest_probability_difference": float(np.abs(ours - theirs).max()),
        "mean_probability_difference": float(np.abs(ours - theirs).mean()),
    }
    if "mask" in reference:
        found["mean_mask_difference"] = float(np.abs(reference["mask"] - other["mask"]).mean())
    return found


def strayed(result: dict[str, float]) -> tuple[float, float, float]:
    """Sorts results of :func:`agreement`, the most faithful first; those that are no numbers last."""
    first, second, third = (
        math.inf if math.isnan(value) else value
        for value in (
            result["label_disagreement"],
            abs(result["accuracy_float"] - result["accuracy_int8"]),
            result["mean_probability_difference"],
        )
    )
    return first, second, third


def require_faithful(result: dict[str, float], other: str = "int8") -> None:
    """Checks what :func:`agreement` found on the validation images.

    Args:
        result: of a model and the float one.
        other: how people call that model.

    Raises:
        ExportRefused: more labels, more accuracy or more of the mask differ than the limits allow, or a
            figure is no number.
        RunError: a figure is missing.
    """
    try:
        labels = result["label_disagreement"]
        difference = abs(result["accuracy_float"] - result["accuracy_int8"])
        # Of a model without a mask there is none, nor in what was found before it was measured.
        mask = result.get("mean_mask_difference", 0.0)
        within = (
            labels <= MAX_LABEL_DISAGREEMENT,
            difference <= MAX_ACCURACY_DIFFERENCE,
            mask <= MAX_MASK_DIFFERENCE,
        )
    except (KeyError, TypeError) as error:
        raise RunError(f"{AGREEMENT_FILE} is damaged: {error!r}") from error
    # Asked for what is in order: of what is no number, nothing is.
    if not within[0]:
        raise ExportRefused(
            f"{other} and float disagree on {labels:.2%} of the validation labels; at most "
            f"{MAX_LABEL_DISAGREEMENT:.0%} may"
        )
    if not within[1]:
        raise ExportRefused(
            f"{other} and float differ by {100 * difference:.2f} points of validation accuracy; at "
            f"most {100 * MAX_ACCURACY_DIFFERENCE:.1f} may"
        )
    if not within[2]:
        raise ExportRefused(
            f"the masks of {other} and float differ by {mask:.4f} on average; at most "
            f"{MAX_MASK_DIFFERENCE} may"
        )
