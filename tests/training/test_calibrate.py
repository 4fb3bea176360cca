import numpy as np
import pytest
from scipy.special import log_softmax

from contract.answer import Decision, Rules
from contract.space import ORIENTATION_ARRAYS, EmbeddingSpace, Orientation
from training.calibrate import (
    conformal,
    embedding_space,
    expected_calibration_error,
    fit_evidence,
    fit_orientation,
    fit_temperature,
    operating_point,
    risk_coverage,
)
from training.errors import DatasetError

RNG = np.random.default_rng(20261125)


def test_the_temperature_undoes_a_scaling_of_the_logits() -> None:
    logits = RNG.normal(size=(4000, 3)) * 2
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = np.array([RNG.choice(3, p=row) for row in shares])
    allowed = np.eye(3, dtype=np.float32)[truth]
    assert fit_temperature((3 * logits).astype(np.float32), allowed) == pytest.approx(3, rel=0.1)


def test_evidence_weighs_what_tells_tumours_and_never_negatively() -> None:
    tumor = RNG.random(800) < 0.5
    mask = np.full((800, 16, 16), 0.01, np.float32)
    mask[tumor, 4:12, 4:12] = 0.9
    # The class head is worse than chance.
    logits = np.stack([np.where(tumor, -1.0, 1.0), np.zeros(800)], axis=1)
    found = fit_evidence(logits, mask, tumor, np.array([True, False]), np.ones(800))
    assert found.class_weight == 0
    assert found.mask_weight > 0.3


def test_evidence_that_speaks_against_tumours_counts_for_nothing() -> None:
    tumor = RNG.random(800) < 0.25
    mask = np.full((800, 16, 16), 0.01, np.float32)
    mask[~tumor, 4:12, 4:12] = 0.9
    logits = np.stack([np.where(tumor, -1.0, 1.0), np.zeros(800)], axis=1)
    found = fit_evidence(logits, mask, tumor, np.array([True, False]), np.ones(800))
    assert (found.class_weight, found.mask_weight) == (0, 0)
    assert 1 / (1 + np.exp(-found.bias)) == pytest.approx(tumor.mean())


def test_prediction_sets_cover_as_promised() -> None:
    logits = RNG.normal(size=(6000, 4)) * 1.5
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = np.array([RNG.choice(4, p=row) for row in shares])
    record = conformal(shares[:3000], truth[:3000], coverage=0.9)
    covered = shares[3000:][np.arange(3000), truth[3000:]] >= record.threshold
    assert covered.mean() == pytest.approx(0.9, abs=0.02)


def test_the_operating_point_finds_its_share_of_the_tumours() -> None:
    tumor = np.arange(1000) < 500
    probability = np.where(tumor, RNG.beta(5, 2, 1000), RNG.beta(2, 5, 1000))
    threshold, point = operating_point(probability, tumor)
    assert (probability[tumor] >= threshold).mean() == pytest.approx(0.98, abs=0.003)
    assert point.sensitivity >= 0.98
    assert point.refer_low == threshold < point.refer_high
    assert (probability[~tumor] < point.refer_high).mean() == pytest.approx(0.98, abs=0.003)


def test_without_overlap_nothing_is_referred() -> None:
    tumor = np.arange(200) < 100
    _, point = operating_point(np.where(tumor, 0.9, 0.1), tumor)
    assert point.refer_low == point.refer_high


def test_a_slice_far_from_every_cluster_is_far() -> None:
    centres = RNG.normal(size=(5, 20)) * 10
    training = (centres[RNG.integers(0, 5, 2000)] + RNG.normal(size=(2000, 20))).astype(np.float32)
    space = EmbeddingSpace(*embedding_space(training, seed=1))
    near = space.distance(training)
    far = space.distance(training[:100] + 6)
    assert np.median(near) == pytest.approx(1, abs=0.25)
    assert far.min() > np.quantile(near, 0.99)


def _views(count: int) -> list[np.ndarray]:
    """Embeddings of slices as they lie, turned by one to three quarters, and mirrored downwards."""
    directions = np.repeat(np.eye(5, dtype=np.float32), 4, axis=1)
    directions[0] = 0
    return [(RNG.normal(size=(count, 20)) + 3 * way).astype(np.float32) for way in directions]


def test_turned_slices_lie_beyond_the_limit_of_the_distance() -> None:
    upright = _views(1000)[0]
    distance = RNG.gamma(20, 0.05, 1000)
    arrays = fit_orientation(_views(1000), np.zeros(1000, np.bool_), upright, distance)
    orientation = Orientation(*(arrays[name] for name in ORIENTATION_ARRAYS))
    seen = orientation.distance(upright)
    for share in (0.5, 0.995):
        assert np.quantile(seen, share) == pytest.approx(np.quantile(distance, share), rel=0.02)
    for strange in _views(1000)[1:]:
        assert (orientation.distance(strange) > np.quantile(distance, 0.995)).mean() > 0.95


def test_slices_of_doubt_are_laid_upright_before_they_count() -> None:
    views = _views(1000)
    doubtful = np.arange(1000) < 700
    # Most of the doubtful ones lie upside down, and all of them have what no other slice has.
    wrong = np.arange(1000) < 500
    for view in views:
        view[doubtful, 0] += 5
    as_filed = [view.copy() for view in views]
    for quarters in range(4):
        as_filed[quarters][wrong] = views[(quarters + 2) % 4][wrong]
    distance = RNG.gamma(20, 0.05, 300)
    arrays = fit_orientation(as_filed, doubtful, views[0][~doubtful], distance)
    orientation = Orientation(*(arrays[name] for name in ORIENTATION_ARRAYS))
    limit = np.quantile(distance, 0.995)
    assert (orientation.distance(views[0][doubtful]) > limit).mean() < 0.03
    assert (orientation.distance(views[2][doubtful]) > limit).mean() > 0.9


def test_the_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    confidence = np.full(1000, 0.9)
    assert expected_calibration_error(confidence, np.arange(1000) < 900) == pytest.approx(0)
    assert expected_calibration_error(confidence, np.arange(1000) < 600) == pytest.approx(0.3)


def test_the_calibration_error_is_counted_bin_by_bin() -> None:
    # Two bins: 0.05 too modest, and 0.55 too sure. Over both at once it would be 0.25.
    confidence, correct = np.array([0.95, 0.95, 0.55, 0.55]), np.array([1, 1, 0, 0], bool)
    assert expected_calibration_error(confidence, correct) == pytest.approx(0.5 * 0.05 + 0.5 * 0.55)
    # Each bin counts by its slices, and the last one holds 1.
    assert expected_calibration_error(
        np.array([1.0, 1.0, 1.0, 0.3]), np.array([1, 1, 0, 0], bool)
    ) == pytest.approx(0.75 / 3 + 0.25 * 0.3)


def test_of_no_slices_there_is_no_calibration_error() -> None:
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0, bool)))


def test_tumors_of_probability_0_are_missed_with_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    probability = np.concatenate([np.zeros(3), np.full(97, 0.9), np.zeros(100)])
    _, point = operating_point(probability, np.arange(200) < 100)
    assert (point.sensitivity, point.target_sensitivity) == (0.97, 0.98)
    assert "no threshold finds 98% of the validation tumours" in capsys.readouterr().out
    operating_point(probability[2:], np.arange(198) < 98)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("tumor", [True, False])
def test_an_operating_point_needs_slices_of_both_kinds(tumor: bool) -> None:
    with pytest.raises(DatasetError, match="with a tumour and without"):
        operating_point(np.array([0.1, 0.9]), np.array([tumor, tumor]))


def test_too_few_slices_have_no_space_and_no_scale() -> None:
    views = _views(50)
    with pytest.raises(DatasetError, match="there are 9"):
        embedding_space(views[0][:9], seed=1)
    none = np.zeros(50, np.bool_)
    for count in (0, 1):
        with pytest.raises(DatasetError, match=f"upright for certain: there are {count}"):
            fit_orientation(views, none, views[0][:count], np.ones(count))
    with pytest.raises(DatasetError, match="all alike"):
        fit_orientation(views, none, np.repeat(views[0][:1], 9, axis=0), np.ones(9))
    with pytest.raises(DatasetError, match="training slices that lie upright"):
        fit_orientation(views, ~none, views[0], np.ones(50))


def test_risk_falls_as_the_unsure_are_left_out() -> None:
    answered, risk = risk_coverage(np.array([0.9, 0.5, 0.8, 0.6]), np.array([1, 0, 1, 0], bool))
    assert answered.tolist() == [0.25, 0.5, 0.75, 1]
    assert risk.tolist() == [0, 0, pytest.approx(1 / 3), 0.5]


def test_the_prediction_set_threshold_is_the_rank_that_the_coverage_asks_for() -> None:
    of_truth = np.arange(1, 100) / 100
    probabilities = np.stack([of_truth, 1 - of_truth], axis=1)
    order = RNG.permutation(99)
    record = conformal(probabilities[order], np.zeros(99, np.intp))
    # floor(0.05 * (99 + 1)) = 5: four of a hundred to come lie below, and no more than five.
    assert record.threshold == pytest.approx(0.05)
    # Too few slices promise nothing, so that each set holds every class.
    assert conformal(probabilities[:18], np.zeros(18, np.intp)).threshold == 0


@pytest.mark.parametrize("negatives", [100, 130])
def test_of_slices_without_tumour_the_band_leaves_out_no_more_than_it_may(negatives: int) -> None:
    without = np.linspace(0.1, 0.6, negatives)
    probability = np.concatenate([np.linspace(0.3, 0.9, 100), without])
    threshold, point = operating_point(probability, np.arange(len(probability)) < 100)
    rules = Rules(
        ("notumor", "tumor"), ("tumor",), threshold, refer_band=(point.refer_low, point.refer_high)
    )
    wrong = [rules.decide(value) for value in without.tolist()].count(Decision.TUMOR)
    assert wrong <= 0.02 * negatives


def test_slices_of_several_possible_classes_count_for_the_temperature_as_one_of_them() -> None:
    logits = RNG.normal(size=(4000, 3)) * 2
    truth = np.array([RNG.choice(3, p=np.exp(row)) for row in log_softmax(logits, axis=1)])
    # Of the tumours, classes 0 and 1, it is not known which.
    allowed = np.where((truth < 2)[:, None], [1, 1, 0], [0, 0, 1]).astype(np.float32)
    found = fit_temperature((3 * logits).astype(np.float32), allowed)
    assert found == pytest.approx(3, rel=0.1)
