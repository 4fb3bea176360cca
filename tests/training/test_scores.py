from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from training.datasets import read_folders
from training.duplicates import audit
from training.interval import bootstrap
from training.patients import persons_named
from training.scores import scores, shares, tumor_probability, tumor_scores

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
TUMORS = ("glioma", "meningioma", "pituitary")


def _predictions() -> tuple[np.ndarray, np.ndarray]:
    truth = np.array([0, 0, 1, 1, 2, 2, 2, 3])
    predicted = np.array([0, 1, 1, 1, 2, 2, 0, 3])
    return np.eye(4, dtype=np.float32)[predicted] * 0.88 + np.float32(0.03), truth


def test_figures_are_those_counted_by_hand() -> None:
    probabilities, truth = _predictions()
    result = scores(probabilities, truth, np.arange(8), CLASSES, TUMORS)
    assert result["accuracy"] == 6 / 8
    assert result["confusion"] == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 2, 0], [0, 0, 0, 1]]
    assert result["classes"]["meningioma"] == {
        "images": 2,
        "precision": pytest.approx(2 / 3),
        "recall": 1.0,
        "f1": pytest.approx(0.8),
        "auc": pytest.approx(1 - 0.5 / 6),
    }
    assert result["tumor"]["sensitivity"] == 1.0
    assert result["tumor"]["specificity"] == pytest.approx(2 / 3)
    low, high = result["interval"]["accuracy"]
    assert 0 < low < 0.75 < high <= 1


@pytest.mark.parametrize("digits", [1, 8], ids=["ties", "none"])
def test_the_area_under_the_curve_is_scikit_learn_s(digits: int) -> None:
    rng = np.random.default_rng(digits)
    tumor = rng.random(200) < 0.3
    probability = np.round(np.clip(rng.random(200) + 0.3 * tumor, 0, 1), digits)
    found = tumor_scores(probability, tumor, np.arange(200))
    assert found["auc"] == pytest.approx(roc_auc_score(tumor, probability), abs=1e-12)


def test_slices_with_a_tumor_alone_have_no_area() -> None:
    found = tumor_scores(np.linspace(0, 1, 9), np.ones(9, bool), np.arange(9))
    assert "auc" not in found
    assert "auc" not in found["interval"]


def test_tumor_probability_adds_the_tumor_classes() -> None:
    row = np.array([[0.1, 0.2, 0.6, 0.1]], np.float32)
    assert tumor_probability(row, CLASSES, TUMORS) == pytest.approx(0.4)


def test_copies_of_one_slice_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    hits = rng.random(60) < 0.8
    copied = np.repeat(hits, 10)

    def mean(values: np.ndarray):  # type: ignore[no-untyped-def]
        return lambda rows: {"mean": float(values[rows].mean())}

    alone = bootstrap(mean(hits), np.arange(60))["mean"]
    grouped = bootstrap(mean(copied), np.repeat(np.arange(60), 10))["mean"]
    naive = bootstrap(mean(copied), np.arange(600))["mean"]
    assert grouped == pytest.approx(alone)
    assert naive[1] - naive[0] < 0.6 * (grouped[1] - grouped[0])


def test_persons_widen_the_intervals_of_data_that_name_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for number in range(48):
        for path in (tmp_path / f"named/no/{number // 6}", tmp_path / "nameless/no"):
            path.mkdir(parents=True, exist_ok=True)
            noise = rng.integers(0, 256, (64, 64), np.uint8)
            Image.fromarray(noise).save(path / f"{number:02d}.png")
    images = read_folders([tmp_path / "named", tmp_path / "nameless"])
    groups = audit(images).groups
    rows = np.arange(len(images))
    assert persons_named(images, rows) == {"named": True, "nameless": False}
    # Of three of the eight persons, all slices are wrong.
    right = np.tile(np.arange(48) // 6 > 2, 2)
    named = np.array([file.source == "named" for file in images.files])
    found = shares({"person": (right, named), "slice": (right, ~named)}, groups)
    assert found["person"] == found["slice"] == 5 / 8
    by_person, by_slice = (np.ptp(found["interval"][name]) for name in ("person", "slice"))
    assert by_person > 1.7 * by_slice


def test_a_share_of_none_or_all_has_limits_all_the_same() -> None:
    tumor = np.arange(40) < 27
    found = tumor_scores(np.where(tumor, 0.9, 0.1), tumor, np.arange(40))
    assert (found["sensitivity"], found["specificity"], found["auc"]) == (1, 1, 1)
    # Of n groups without a miss, the limit is where n hits have 2.5 %.
    low, high = found["interval"]["sensitivity"]
    assert (low**27, high) == (pytest.approx(0.025), 1)
    assert found["interval"]["specificity"] == [pytest.approx(0.025 ** (1 / 13)), 1]
    # Copies are no trials: thirteen pairs and a single slice say as much as 13.755 of one size.
    copied = tumor_scores(np.where(tumor, 0.1, 0.9), tumor, np.arange(40) // 2)
    assert copied["interval"]["sensitivity"] == [
        0,
        pytest.approx(1 - 0.025 ** (1 / (27**2 / (13 * 4 + 1)))),
    ]
    # What is no share and did not vary has no limits that say anything.
    assert not {"auc", "f1"} & found["interval"].keys()


def test_tumour_figures_are_of_the_threshold_that_is_given() -> None:
    # Tumours at 0.8, which is enough at one half, and slices without at 0.6 and 0.1.
    tumor = np.repeat([0.8, 0.6, 0.1], 10)
    probabilities = np.stack([tumor, 1 - tumor], 1).astype(np.float32)
    truth = np.repeat([0, 1, 1], 10)
    for threshold, sensitivity, specificity in ((0.5, 1, 0.5), (0.7, 1, 1), (0.9, 0, 1)):
        found = scores(
            probabilities, truth, np.arange(30), ("tumor", "notumor"), ("tumor",), threshold
        )
        assert found["tumor"]["threshold"] == threshold
        assert found["tumor"]["sensitivity"] == sensitivity
        assert found["tumor"]["specificity"] == specificity
        low, high = found["interval"]["tumor.sensitivity"]
        assert low <= sensitivity <= high
        # The label is the likelier class whatever the threshold is.
        assert found["accuracy"] == pytest.approx(2 / 3)


def test_fewer_than_five_groups_have_no_interval() -> None:
    tumor = np.arange(40) < 20
    probability = np.linspace(1, 0, 40)
    assert tumor_scores(probability, tumor, np.arange(40) // 10)["interval"] == {}
    # Twenty groups with a tumour, and four without.
    groups = np.where(tumor, np.arange(40), 100 + np.arange(40) // 5)
    found = tumor_scores(np.random.default_rng(1).random(40), tumor, groups)
    assert found["interval"].keys() == {"sensitivity", "f1"}


def test_a_class_that_does_not_occur_has_no_figures_and_no_interval() -> None:
    predicted = np.repeat([2, 0], 5)
    probabilities = np.eye(4, dtype=np.float32)[predicted] * 0.88 + np.float32(0.03)
    found = scores(probabilities, np.full(10, 2), np.arange(10), CLASSES, TUMORS)
    assert found["classes"].keys() == {"notumor"}
    assert found["tumor"] == {"threshold": 0.5, "specificity": 0.5}
    assert found["interval"].keys() == {
        "accuracy",
        "macro_f1",
        "notumor.recall",
        "notumor.precision",
        "notumor.f1",
        "tumor.specificity",
    }
    assert found["interval"]["notumor.precision"] == [pytest.approx(0.025 ** (1 / 5)), 1]


def test_shares_are_those_counted_by_hand_and_of_nothing_there_is_none() -> None:
    hits = np.array([1, 1, 0, 1, 0, 0, 1, 0], np.bool_)
    of = np.array([1, 1, 1, 0, 0, 0, 1, 1], np.bool_)
    found = shares({"some": (hits, of), "none": (hits, ~hits & ~of & hits)}, np.arange(8))
    assert found["some"] == 3 / 5
    assert "none" not in found
    low, high = found["interval"]["some"]
    assert 0 <= low < 0.6 < high <= 1


@pytest.mark.parametrize("groups", [8, 15, 30])
def test_near_0_and_1_both_limits_are_at_least_clopper_and_pearson_s(groups: int) -> None:
    """The nearer one was that of the draws alone."""
    of = np.ones(groups, np.bool_)
    for hits in {*range(6), *range(groups - 5, groups + 1)}:
        found = shares({"share": (np.arange(groups) < hits, of)}, np.arange(groups))
        low, high = found["interval"]["share"]
        exact = binomtest(hits, groups).proportion_ci(method="exact")
        assert low <= exact.low + 1e-9, hits
        assert high >= exact.high - 1e-9, hits


@pytest.mark.parametrize("sizes", [[1] * 27, [20] + [1] * 26, [9, 9, 9, 9, 9, 1, 1, 1]], ids=str)
def test_limits_do_not_go_down_when_the_share_goes_up(sizes: list[int]) -> None:
    """At 1 they were as wide as Clopper and Pearson's, and next to it narrower."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    every = np.ones(len(groups), np.bool_)
    found = [
        shares({"share": (groups >= missed, every)}, groups)["interval"]["share"]
        for missed in range(len(sizes) + 1)
    ]
    lows, highs = zip(*found, strict=True)
    assert list(lows) == sorted(lows, reverse=True)
    assert list(highs) == sorted(highs, reverse=True)
    assert (highs[0], lows[-1]) == (1, 0)


def test_a_share_near_1_is_covered_where_groups_differ_in_size() -> None:
    """Five of 65 persons have nearly all slices; each is right or wrong with all of its slices."""
    groups = np.repeat(np.arange(65), [100] * 5 + [1] * 60)
    every, rng = np.ones(len(groups), np.bool_), np.random.default_rng(5)
    covered = []
    for _ in range(60):
        right = rng.random(65) < 0.9
        low, high = shares({"share": (right[groups], every)}, groups)["interval"]["share"]
        covered.append(low <= 0.9 <= high)
    assert np.mean(covered) >= 0.9


def test_far_from_0_and_1_the_draws_alone_say_it() -> None:
    right = np.arange(60) % 2 == 0
    found = shares({"share": (right, np.ones(60, np.bool_))}, np.arange(60))
    drawn = bootstrap(lambda rows: {"share": float(right[rows].mean())}, np.arange(60))
    assert found["interval"] == drawn
