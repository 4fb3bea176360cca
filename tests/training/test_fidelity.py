"""The gate before publishing: how far a quantised model may stray from the float one."""

import numpy as np
import pytest

from training.errors import ExportRefused, RunError
from training.fidelity import agreement, require_faithful, strayed


@pytest.mark.parametrize(
    ("wrong", "flipped", "refused"), [(0, 0, False), (1, 0, False), (4, 0, True), (0, 12, True)]
)
def test_the_limits_are_one_percent_of_labels_and_0_3_points(
    wrong: int, flipped: int, refused: bool
) -> None:
    truth = np.tile(np.array([1, 0], np.float32), (1000, 1))
    reference = np.tile(np.array([0.8, 0.2], np.float32), (1000, 1))
    other = reference.copy()
    other[:wrong] = other[:wrong, ::-1]
    # Wrong in both directions: the labels differ while the accuracy stays.
    other[100 : 100 + flipped // 2] = other[100 : 100 + flipped // 2, ::-1]
    reference[200 : 200 + flipped // 2] = reference[200 : 200 + flipped // 2, ::-1]
    result = agreement({"probabilities": reference}, {"probabilities": other}, truth)
    if refused:
        with pytest.raises(ExportRefused):
            require_faithful(result)
    else:
        require_faithful(result)


FAITHFUL = {
    "label_disagreement": 0.0,
    "accuracy_float": 1.0,
    "accuracy_int8": 1.0,
    "mean_probability_difference": 0.0,
    "mean_mask_difference": 0.0007,
}


@pytest.mark.parametrize("name", FAITHFUL)
def test_a_figure_that_is_no_number_is_not_faithful(name: str) -> None:
    require_faithful(FAITHFUL)
    nan = FAITHFUL | {name: float("nan")}
    assert min([nan, FAITHFUL], key=strayed) is FAITHFUL or name == "mean_mask_difference"
    if name != "mean_probability_difference":
        with pytest.raises(ExportRefused):
            require_faithful(nan)


def test_a_mask_that_strays_is_not_faithful() -> None:
    with pytest.raises(ExportRefused, match=r"masks of int8 and float differ by 0\.0040"):
        require_faithful(FAITHFUL | {"mean_mask_difference": 0.004})
    with pytest.raises(RunError, match="damaged"):
        require_faithful({"label_disagreement": 0.0})
