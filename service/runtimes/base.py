"""What every runtime is to the rest of the service."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from service.errors import RuntimeUnusable

PROBABILITY_SUM_TOLERANCE = 0.05
"""Int8 rounds each probability to 1/256; over a handful of classes that stays far below this."""


class Runtime(ABC):
    """A loaded model version that predicts.

    Attributes:
        name: as in the settings and in every answer.
        device: ``cpu``, or the accelerator's name.
        batch_sizes: the sizes that a warm-up has to cover, ascending; no batch may be larger than
            the last of them.
    """

    name: ClassVar[str]
    device: str
    batch_sizes: Sequence[int]

    @abstractmethod
    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Predicts up to ``batch_sizes[-1]`` slices; called by one thread at a time.

        Args:
            batch: uint8 (n, height, width), preprocessed.

        Returns:
            float32 (n, classes), probabilities.
        """

    def close(self) -> None:
        """Gives threads and memory back."""
        return

    def warm_up(self, height: int, width: int, classes: int) -> None:
        """Predicts once at every batch size, so that no client pays for a first time.

        Raises:
            RuntimeUnusable: the model does not answer with probabilities of its classes.
        """
        ramp = np.linspace(0, 255, height * width).astype(np.uint8).reshape(1, height, width)
        for size in self.batch_sizes:
            output = self.predict(np.repeat(ramp, size, axis=0))
            if output.dtype != np.float32 or output.shape != (size, classes):
                raise RuntimeUnusable("warm-up: the model's output has not the manifest's shape")
            if not np.all(np.abs(output.sum(axis=1) - 1) < PROBABILITY_SUM_TOLERANCE):
                raise RuntimeUnusable("warm-up: the model's output is no probability distribution")
