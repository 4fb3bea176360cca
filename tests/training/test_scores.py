import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from training.scores import bootstrap, scores, tumor_probability, tumor_scores

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
