"""What is minimised: the class loss over the classes that an image may be, and the mask's loss."""

from typing import Any, Final

import keras

from training.recipe import Mask

UNKNOWN: Final = -1.0
"""Value of every cell of a mask target whose slice has no mask."""
_TINY: Final = 1e-7


class AllowedClasses(keras.losses.Loss):
    """Cross-entropy of the event that the class is one of those an image may be.

    With one allowed class it is the usual cross-entropy; with all tumour classes allowed, that of
    "some tumour"; with all classes allowed it is 0. Targets are zeros and ones, (N, classes).

    Args:
        label_smoothing: share of the loss that wants every class alike.
    """

    def __init__(self, label_smoothing: float) -> None:
        super().__init__(name="classes")
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Losses, (N,), from logits (N, classes)."""
        logs = keras.ops.log_softmax(y_pred)
        # A class that is not allowed counts with next to nothing.
        of_allowed = keras.ops.logsumexp(logs + keras.ops.log(y_true + _TINY), axis=-1)
        even = keras.ops.mean(logs, axis=-1)
        # The smoothing alone would still pull a slice that teaches nothing.
        teaches = keras.ops.cast(keras.ops.min(y_true, axis=-1) < 1, logs.dtype)
        return -teaches * ((1 - self.label_smoothing) * of_allowed + self.label_smoothing * even)


class MaskLoss(keras.losses.Loss):
    """Cross-entropy of the cells plus, where there is a tumour, the Dice loss of the slice.

    A slice without a mask, which :data:`UNKNOWN` says, adds nothing.

    Args:
        settings: the weights.
    """

    def __init__(self, settings: Mask) -> None:
        super().__init__(name="mask")
        self.settings = settings

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Losses, (N,), from shares and logits (N, h, w)."""
        ops = keras.ops
        known = ops.cast(y_true[:, 0, 0] >= 0, "float32")
        truth = ops.maximum(y_true, 0.0)
        # The stable form of the cross-entropy of a sigmoid.
        cells = ops.maximum(y_pred, 0.0) - y_pred * truth + ops.log1p(ops.exp(-ops.abs(y_pred)))
        shares = ops.sigmoid(y_pred)
        overlap = ops.sum(shares * truth, axis=(1, 2))
        total = ops.sum(shares + truth, axis=(1, 2))
        tumor = ops.sum(truth, axis=(1, 2))
        dice = ops.where(tumor > 0, 1 - 2 * overlap / (total + _TINY), 0.0)
        entropy = self.settings.cell_weight * ops.mean(cells, axis=(1, 2))
        return self.settings.weight * known * (entropy + dice)


def accuracy(y_true: Any, y_pred: Any) -> Any:
    """Whether the most probable class is allowed, (N,)."""
    best = keras.ops.one_hot(keras.ops.argmax(y_pred, axis=-1), y_pred.shape[-1])
    return keras.ops.sum(best * y_true, axis=-1)
