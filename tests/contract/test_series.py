"""From slices to a series: their order, and what a single slice can and cannot do."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.preprocessing import DicomReference
from contract.series import score_series

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
PLACE = DicomReference("1.2.3", "1.2", 1, (1.0, 1.0))


def axial(depth: float) -> DicomReference:
    return replace(PLACE, position_mm=(-100.0, -100.0, depth), orientation=AXIAL)


def sagittal(depth: float) -> DicomReference:
    return replace(PLACE, position_mm=(depth, -100.0, 100.0), orientation=SAGITTAL)


def test_single_slice_that_stands_out_counts_a_third() -> None:
    score = score_series([axial(z) for z in range(9)], [0, 0, 0, 0, 0.9, 0, 0, 0, 0])
    assert score.tumor_probability == pytest.approx(0.3)
    assert score.most_suspicious == 4


def test_three_neighbours_count_in_full() -> None:
    score = score_series([axial(z) for z in range(9)], [0.99, 0, 0, 0, 0.8, 0.9, 0.7, 0, 0])
    assert score.tumor_probability == pytest.approx(0.8)
    assert score.window == (4, 5, 6)
    assert score.most_suspicious == 5, "not the one that stands out elsewhere"


@pytest.mark.parametrize("step", [3.0, -3.0, 0.5])
def test_order_is_that_of_the_places_and_not_of_the_request(step: float) -> None:
    depths = [2, 0, 4, 1, 3]
    score = score_series([axial(step * depth) for depth in depths], [0.9, 0.1, 0.1, 0.9, 0.9])
    along = sorted(range(5), key=lambda index: step * depths[index])
    assert score.order == tuple(along)
    assert score.tumor_probability == pytest.approx(0.9), "1, 2 and 3 are neighbours"


def test_order_along_an_oblique_normal() -> None:
    tilt = math.radians(30)
    rows = (1.0, 0.0, 0.0, 0.0, math.cos(tilt), math.sin(tilt))
    normal = (0.0, -math.sin(tilt), math.cos(tilt))
    places = [
        # The corner moves within the plane too, more than along the normal.
        replace(
            PLACE,
            orientation=rows,
            position_mm=(50.0 * (k % 2), normal[1] * k + rows[4] * 9, normal[2] * k + rows[5] * 9),
        )
        for k in (3, 1, 2, 0)
    ]
    assert score_series(places, [0.0] * 4).order == (3, 1, 2, 0)


def test_each_plane_is_a_stack_of_its_own() -> None:
    places = [axial(0), sagittal(0), axial(1), sagittal(1), axial(2), sagittal(2)]
    score = score_series(places, [0.9, 0.1, 0.1, 0.2, 0.1, 0.3])
    assert score.order == (0, 2, 4, 5, 3, 1), "the normal of the sagittal ones points to the right"
    assert score.tumor_probability == pytest.approx(1.1 / 3)


def test_orientation_may_waver() -> None:
    wavering = replace(axial(1), orientation=(0.9999, 0.01, 0.0, -0.01, 0.9999, 0.0))
    assert score_series([axial(0), wavering, axial(2)], [0.3, 0.6, 0.9]).tumor_probability == (
        pytest.approx(0.6)
    )


def test_cosines_of_two_decimals_make_one_stack() -> None:
    """The row is 0.995 long."""
    oblique = (0.99, 0.1, 0.0, 0.0, 0.0, -1.0)
    places = [
        replace(PLACE, orientation=oblique, position_mm=(-0.5 * k, 4.95 * k, 0.0)) for k in range(5)
    ]
    score = score_series(places, [0.1, 0.1, 0.9, 0.1, 0.1])
    assert score.tumor_probability == pytest.approx(1.1 / 3)
    assert len(score.window) == 3


def test_a_stack_that_is_tilted_by_ten_degrees_is_another_one() -> None:
    tilt = math.radians(10)
    tilted = (1.0, 0.0, 0.0, 0.0, math.cos(tilt), math.sin(tilt))
    places = [replace(axial(z), orientation=AXIAL if z < 3 else tilted) for z in range(6)]
    score = score_series(places, [0.0, 0.9, 0.9, 0.9, 0.0, 0.0])
    assert score.tumor_probability == pytest.approx(0.6), "1, 2 and 3 are no neighbours"


def test_slices_a_fifth_of_a_millimetre_apart_are_two_places() -> None:
    score = score_series([axial(z / 5) for z in range(5)], [0.0, 0.9, 0.9, 0.9, 0.0])
    assert score.tumor_probability == pytest.approx(0.9)
    assert len(score.window) == 3


def test_one_place_seen_several_times_counts_once() -> None:
    places = [axial(z) for z in range(5) for _ in range(3)]
    probabilities = [0.0] * 6 + [0.9, 0.8, 0.7] + [0.0] * 6
    score = score_series(places, probabilities)
    assert score.tumor_probability == pytest.approx(0.3)
    assert score.window == tuple(range(9))
    assert score.most_suspicious == 6


@pytest.mark.parametrize("shift", [0.0, 0.02, -0.02], ids=["alike", "rounded up", "rounded down"])
def test_a_tumour_that_one_contrast_shows_is_not_averaged_away(shift: float) -> None:
    places = [axial(3 * z + shift * contrast) for z in range(5) for contrast in range(3)]
    score = score_series(places, [0.998, 0.04, 0.04] * 5)
    assert score.tumor_probability == pytest.approx(0.998)
    assert len(score.window) == 9, "all contrasts of the three places"
    assert score.most_suspicious % 3 == 0


@pytest.mark.parametrize("depth", [0.0, 57.5])
def test_one_position_stated_by_all_is_as_good_as_none(depth: float) -> None:
    """As after a de-identification that zeroes it; the highest of a whole head is often an error."""
    probabilities = [0.99 if 10 <= number < 16 else 0.05 for number in range(30)]
    places = [replace(axial(depth), instance_number=number) for number in range(30)]
    score = score_series(places[::-1], probabilities[::-1])
    assert score.tumor_probability == pytest.approx(0.99)
    assert len(score.window) == 3
    assert score.order == tuple(range(29, -1, -1)), "by instance number"


def test_without_places_instance_and_frame_numbers_order() -> None:
    places = [replace(PLACE, instance_number=number) for number in (5, 3, 4, 1, 2)]
    assert score_series(places, [0.1] * 5).order == (3, 4, 1, 2, 0)
    both = [replace(PLACE, instance_number=n, frame=f) for n, f in ((2, 1), (1, 2), (1, 1))]
    assert score_series(both, [0.1] * 3).order == (2, 1, 0)
    frames = [replace(PLACE, frame=frame) for frame in (3, 1, 2)]
    assert score_series(frames, [0.1] * 3).order == (1, 2, 0)
    assert score_series([PLACE] * 3, [0.1] * 3).order == (0, 1, 2), "else as they came"


def test_what_places_do_not_order_is_in_the_order_of_instances() -> None:
    """At one place, without one, and the stacks themselves; the order of the request never counts."""
    one, none, other = axial(0), PLACE, sagittal(0)
    echoes = [("1.9", 1, 1), ("1.10", 2, 1), ("1.10", 2, 2), ("1.11", 2, 1)]
    places = [
        replace(place, sop_instance_uid=f"{uid}.{kind}", instance_number=number, frame=frame)
        for kind, place in enumerate((one, other, none))
        for uid, number, frame in echoes
    ]
    expected = tuple(range(len(places)))
    assert score_series(places, [0.5] * len(places)).order == expected
    backwards = score_series(places[::-1], [0.5] * len(places))
    assert tuple(len(places) - 1 - index for index in backwards.order) == expected
    assert places[::-1][backwards.most_suspicious] == places[0]


def test_some_without_places() -> None:
    score = score_series([axial(1), PLACE, axial(0)], [0.2, 0.9, 0.4])
    assert score.order == (2, 0, 1)
    assert score.tumor_probability == pytest.approx(0.9)


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_slices_than_neighbours_give_their_mean(count: int) -> None:
    score = score_series([axial(z) for z in range(count)], [0.4, 0.8][:count])
    assert score.tumor_probability == pytest.approx(0.4 if count == 1 else 0.6)
    assert score.most_suspicious == count - 1


def test_what_is_no_series() -> None:
    with pytest.raises(ValueError, match="needs slices"):
        score_series([], [])
    with pytest.raises(ValueError, match="needs slices"):
        score_series([PLACE], [0.1, 0.2])


@given(st.data())
def test_it_holds_together(data: st.DataObject) -> None:
    probability = st.floats(0, 1)
    place = st.one_of(
        st.just(PLACE),
        st.builds(axial, st.floats(-200, 200)),
        st.builds(sagittal, st.integers(-3, 3).map(float)),
    )
    slices = data.draw(st.lists(st.tuples(place, probability), min_size=1, max_size=30))
    places, probabilities = [p for p, _ in slices], [v for _, v in slices]
    score = score_series(places, probabilities)
    assert sorted(score.order) == list(range(len(slices)))
    assert set(score.window) <= set(score.order)
    assert score.most_suspicious in score.window
    assert 0 <= score.tumor_probability <= max(probabilities) + 1e-9
    assert probabilities[score.most_suspicious] >= score.tumor_probability - 1e-9
    assert score.tumor_probability >= min(probabilities) - 1e-9


def test_slices_without_numbers_or_places_make_a_stack() -> None:
    places = [
        DicomReference("1.1", "1", 1, None, instance_number=2),
        DicomReference("1.2", "1", 1, None, instance_number=None),
        DicomReference("1.3", "1", 1, None, instance_number=1),
        DicomReference("1.4", "1", 1, None, position_mm=(0, 0, 0), instance_number=3),
        DicomReference("1.5", "1", 1, None, orientation=(1, 0, 0, 0, 1, 0), instance_number=4),
    ]
    score = score_series(places, [0.1, 0.2, 0.3, 0.4, 0.5])
    assert score.order == (1, 2, 0, 3, 4)
    assert score.tumor_probability == pytest.approx((0.1 + 0.4 + 0.5) / 3)
