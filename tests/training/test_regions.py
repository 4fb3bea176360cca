import numpy as np
import pytest

from contract.region import Region
from training.regions import Found, average_precision, box, compare, summary


def _region(top: int, left: int, bottom: int, right: int) -> Region:
    inside = np.ones((bottom - top, right - left), bool)
    return Region((left, top, right, bottom), 0.8, inside, (20, 20), None)


def _truth() -> np.ndarray:
    truth = np.zeros((20, 20), bool)
    truth[4:8, 4:8] = True
    return truth


def test_the_same_pixels_are_dice_one() -> None:
    found = compare(_region(4, 4, 8, 8), _truth(), 0.5)
    assert found[:3] == (1.0, 1.0, True)
    assert found.score == pytest.approx(0.4)


def test_half_of_the_box_is_worked_out_by_hand() -> None:
    found = compare(_region(4, 4, 8, 6), _truth(), 1.0)
    assert found.dice == pytest.approx(2 * 8 / (8 + 16))
    assert found.overlap == pytest.approx(8 / 16)


def test_no_region_is_dice_zero_and_not_centred() -> None:
    assert compare(None, _truth(), 1.0) == Found(0.0, 0.0, False, 0.0)


def test_a_mask_that_outlines_nothing_is_missed() -> None:
    found = compare(_region(4, 4, 8, 8), np.zeros((20, 20), bool), 1.0)
    assert found == Found(0.0, 0.0, False, 0.0)


def test_a_region_beside_the_mask_is_not_centred() -> None:
    found = compare(_region(12, 12, 16, 16), _truth(), 1.0)
    assert (found.dice, found.overlap, found.centred) == (0, 0, False)


def test_the_box_of_a_mask_is_exclusive_at_right_and_bottom() -> None:
    assert box(_truth()) == (4, 4, 8, 8)


def test_average_precision_ranks_by_score_and_counts_what_is_missed() -> None:
    hit, miss, none = (Found(0.5, o, True, s) for o, s in ((0.6, 0.9), (0.3, 0.8), (0.0, 0.0)))
    assert average_precision([hit, hit]) == pytest.approx(1)
    assert average_precision([hit, none]) == pytest.approx(0.5)
    # A miss that ranks below all hits costs its own recall only.
    assert average_precision([hit, miss]) == pytest.approx(0.5)
    assert average_precision([hit], [0.95]) == pytest.approx(0.5)
    assert average_precision([miss]) == 0


def test_of_boxes_with_one_score_none_comes_first() -> None:
    hit, miss = (Found(0.5, overlap, True, 0.9) for overlap in (0.6, 0.3))
    assert average_precision([hit], [0.9]) == pytest.approx(0.5)
    assert average_precision([hit, miss]) == average_precision([miss, hit]) == pytest.approx(0.25)
    assert average_precision([hit], [0.8]) == pytest.approx(1)


def test_the_summary_counts_slices_without_a_region() -> None:
    figures = summary([Found(0.8, 0.7, True, 0.9), Found(0.0, 0.0, False, 0.0)])
    assert figures["dice"] == pytest.approx(0.4)
    assert figures["without_region"] == 0.5
    assert figures["centre_inside"] == 0.5
