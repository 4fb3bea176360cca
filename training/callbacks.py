"""What happens after each batch."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from training.errors import DivergedError


def require_finite(loss: float, batch: int) -> None:
    """Raises DivergedError when the loss so far is not finite."""
    if not math.isfinite(loss):
        raise DivergedError(f"the loss is {loss} at batch {batch}; lower the learning rate")


class RaiseOnNaN(keras.callbacks.Callback):
    """Ends training where Keras's own TerminateOnNaN would only stop quietly."""

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Raises DivergedError when the loss so far is not finite."""
        require_finite((logs or {}).get("loss", 0.0), batch)


class AverageWeights(keras.callbacks.Callback):
    """Keeps an exponential average of the trainable weights, which validates better than the last.

    The average starts fast, (1 + n) / (10 + n) after n batches, and ends at ``momentum``; with a
    momentum of 0 there is none, and the weights are taken as they are.
    """

    def __init__(self, model: keras.Model, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.sources = model.trainable_variables if momentum else []
        self.averages = [tf.Variable(source.value, trainable=False) for source in self.sources]
        self.batches = tf.Variable(0.0, trainable=False)
        self._step = tf.function(self._update, autograph=False)

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """Moves the averages one step."""
        if self.momentum:
            self._step()

    def _update(self) -> None:
        self.batches.assign_add(1.0)
        momentum = tf.minimum(self.momentum, (1.0 + self.batches) / (10.0 + self.batches))
        for average, source in zip(self.averages, self.sources, strict=True):
            average.assign(momentum * average + (1.0 - momentum) * source.value)

    @property
    def variables(self) -> list[Any]:
        """The averages' whole state."""
        return [*self.averages, self.batches]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the averages into the model, and the model's own weights back afterwards."""
        own = [source.numpy() for source in self.sources]
        for source, average in zip(self.sources, self.averages, strict=True):
            source.assign(average)
        try:
            yield
        finally:
            for source, value in zip(self.sources, own, strict=True):
                source.assign(value)
