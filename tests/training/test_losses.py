import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="training needs TensorFlow")

from training.losses import UNKNOWN, AllowedClasses, MaskLoss, accuracy  # noqa: E402
from training.recipe import Mask  # noqa: E402

pytestmark = pytest.mark.tensorflow
SETTINGS = Mask(weight=2, cell_weight=5, channels=32, removed=0, pasted=0)


def _value(tensor: object) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def test_with_one_allowed_class_the_loss_is_the_cross_entropy() -> None:
    logits = np.log(np.array([[0.5, 0.3, 0.2]], np.float32))
    loss = AllowedClasses(0.0).call(np.array([[0, 1, 0]], np.float32), logits)
    assert _value(loss) == pytest.approx(-np.log(0.3), rel=1e-4)


def test_with_two_allowed_classes_it_is_that_of_either() -> None:
    logits = np.log(np.array([[0.5, 0.3, 0.2]], np.float32))
    loss = AllowedClasses(0.0).call(np.array([[1, 1, 0]], np.float32), logits)
    assert _value(loss) == pytest.approx(-np.log(0.8), rel=1e-4)


def test_smoothing_wants_a_share_of_every_class() -> None:
    logits = np.log(np.array([[0.5, 0.3, 0.2]], np.float32))
    loss = AllowedClasses(0.1).call(np.array([[1, 0, 0]], np.float32), logits)
    even = -np.mean(np.log([0.5, 0.3, 0.2]))
    assert _value(loss) == pytest.approx(-0.9 * np.log(0.5) + 0.1 * even, rel=1e-4)


def test_where_every_class_is_allowed_nothing_is_learned() -> None:
    logits = np.array([[4.0, 0.0, -1.0], [4.0, 0.0, -1.0]], np.float32)
    allowed = np.array([[1, 1, 1], [1, 1, 0]], np.float32)
    of_all, of_two = _value(AllowedClasses(0.1).call(allowed, logits))
    assert of_all == 0
    assert of_two > 0.1


def test_an_unknown_mask_adds_nothing_and_an_empty_one_wants_no_cells() -> None:
    truth = np.stack([np.full((4, 4), UNKNOWN), np.zeros((4, 4))]).astype(np.float32)
    logits = np.full((2, 4, 4), 3.0, np.float32)
    unknown, empty = _value(MaskLoss(SETTINGS).call(truth, logits))
    assert unknown == 0
    # 2 (weight) x 5 (cell weight) x log(1 + e^3), and no Dice loss without a tumour.
    assert empty == pytest.approx(10 * np.log1p(np.exp(3.0)), rel=1e-4)


def test_a_perfect_mask_costs_next_to_nothing() -> None:
    truth = np.zeros((1, 4, 4), np.float32)
    truth[0, 1:3, 1:3] = 1
    logits = np.where(truth > 0, 20.0, -20.0).astype(np.float32)
    assert _value(MaskLoss(SETTINGS).call(truth, logits)) == pytest.approx(0, abs=1e-3)
    # The Dice loss of a mask that is all wrong is one; the weight doubles it.
    assert _value(MaskLoss(SETTINGS).call(truth, -logits)) > 2


def test_accuracy_takes_any_allowed_class() -> None:
    logits = np.array([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]], np.float32)
    truth = np.array([[1, 1, 0], [1, 0, 1]], np.float32)
    assert _value(accuracy(truth, logits)).tolist() == [1, 0]
