"""What every runtime is to the rest of the service."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import product
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from contract.answer import Outputs
from contract.manifest import OUTPUT_AXES, Manifest
from contract.sealing import SealedFile
from service.errors import RuntimeUnusable

PROBABILITY_SUM_TOLERANCE = 0.05
"""Int8 rounds each probability to 1/256; over a handful of classes that stays far below this."""


Shapes = Mapping[str, tuple[int, ...]]
"""Of one slice, by the name of the output."""


def served_shapes(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """Shapes of the outputs that mean something to the service; a version may have more."""
    return {
        name: tuple(size or 0 for size in output.shape[1:])
        for name, output in manifest.outputs.items()
        if name in OUTPUT_AXES
    }


class Predictor(Protocol):
    """What predicts in a thread of its own."""

    def predict(self, batch: NDArray[np.uint8]) -> Outputs:
        """uint8 (n, height, width) to outputs for ``n`` slices."""
        ...


class Runtime(ABC):
    """A loaded model version that predicts.

    Attributes:
        name: as in the settings and in every answer.
        device: ``cpu``, or the accelerator's name.
        batch_sizes: the sizes that a warm-up has to cover, ascending; no batch may be larger than
            the last of them.
        whole: a lane takes each slice all the way, from its file to its answer. Otherwise other threads
            decode, while a batch is being predicted.
    """

    name: ClassVar[str]
    whole: ClassVar[bool] = False
    device: str
    batch_sizes: Sequence[int]

    @abstractmethod
    def predict(self, batch: NDArray[np.uint8]) -> Outputs:
        """Predicts up to ``batch_sizes[-1]`` slices; called by one thread at a time.

        Args:
            batch: uint8 (n, height, width), preprocessed.

        Returns:
            All of the version's outputs that mean something to the service.
        """

    @property
    def lanes(self) -> Sequence[Predictor]:
        """What predicts at the same time as the others do, each called by a thread of its own."""
        return (self,)

    @property
    def solo(self) -> Predictor | None:
        """What predicts faster than a lane, on the cores of all of them; for one thread at a time."""
        return None

    @property
    def file(self) -> SealedFile | None:
        """What an interpreter in another process predicts the same from, if one can."""
        return None

    @property
    def explains(self) -> bool:
        """Whether :meth:`explain` can be asked."""
        return False

    def explain(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """How much each part of a slice speaks for its label, of a version that computes this aside.

        Any thread.

        Args:
            batch: as for :meth:`predict`.

        Returns:
            float32 (n, h, w), at least 0, for cells that cover the input evenly.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Gives threads and memory back."""
        return

    def warm_up(self, height: int, width: int, shapes: Shapes) -> None:
        """Predicts once in every lane at every batch size, so that no client pays for a first time.

        So does :attr:`solo`.

        Args:
            height: of the model's input.
            width: likewise.
            shapes: of the outputs that the manifest names.

        Raises:
            RuntimeUnusable: the model does not answer with what its manifest says.
        """
        ramp = np.linspace(0, 255, height * width).astype(np.uint8).reshape(1, height, width)
        predictors = (*self.lanes, *filter(None, [self.solo]))
        for lane, size in product(predictors, self.batch_sizes):
            outputs = lane.predict(np.repeat(ramp, size, axis=0))
            found = {
                name: (str(array.dtype), array.shape) for name, array in outputs.arrays.items()
            }
            if found != {name: ("float32", (size, *shape)) for name, shape in shapes.items()}:
                raise RuntimeUnusable("warm-up: the model's outputs have not the manifest's shapes")
            if not all(np.isfinite(array).all() for array in outputs.arrays.values()):
                raise RuntimeUnusable("warm-up: the model's outputs are not finite")
            if not np.all(
                np.abs(outputs.probabilities.sum(axis=1) - 1) < PROBABILITY_SUM_TOLERANCE
            ):
                raise RuntimeUnusable("warm-up: the model's output is no probability distribution")
            if outputs.mask is not None and not (
                outputs.mask.min() >= 0 and outputs.mask.max() <= 1
            ):
                raise RuntimeUnusable("warm-up: the model's mask holds no probabilities")
