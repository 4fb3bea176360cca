"""Where the embeddings of the training data lie, and how far a slice is from them."""

import zipfile
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from contract.errors import CorruptVersion

ORIENTATION_ARRAYS: Final = ("orientation_weights", "orientation_bias", "orientation_scale")
"""Names of what :class:`Orientation` takes, in the file of :class:`EmbeddingSpace`."""

MAX_SPACE_BYTES: Final = 64 * 2**20
"""What the arrays of :class:`EmbeddingSpace` may take; 1000 features squared are 4 MB."""


class Orientation:
    """Whether a slice lies as those of training do, by a linear classifier of the embedding.

    A mean over places hardly moves when a slice is turned, so the distance alone does not see it.

    Args:
        weights: float32 (d, o), of the upright slice and then of ``o - 1`` turned ones.
        bias: float32 (o,).
        scale: float32 (2,), factor and offset that make the log odds of "turned" a distance.

    Raises:
        ValueError: the arrays are not of these forms, or not finite.
    """

    def __init__(
        self, weights: NDArray[np.float32], bias: NDArray[np.float32], scale: NDArray[np.float32]
    ) -> None:
        _check({"weights": (weights, 2), "bias": (bias, 1), "scale": (scale, 1)})
        if bias.shape != weights.shape[1:] or len(bias) < 2 or scale.shape != (2,):
            raise ValueError("weights, bias and scale must be (d, o), (o,) and (2,)")
        self.weights, self.bias = weights, bias
        self._factor, self._offset = scale.tolist()

    def distance(self, embedding: NDArray[np.float32]) -> NDArray[np.float64]:
        """How turned slices look: float32 (n, d) to float64 (n,), comparable with a distance."""
        return np.asarray(self._factor * self.odds(embedding) + self._offset)

    def odds(self, embedding: NDArray[np.float32]) -> NDArray[np.float64]:
        """Log odds of "turned", (n,)."""
        logits = (embedding @ self.weights + self.bias).astype(np.float64)
        return np.asarray(np.logaddexp.reduce(logits[:, 1:], axis=1) - logits[:, 0])


class EmbeddingSpace:
    """Where the embeddings of the training data lie.

    Args:
        means: float32 (k, d).
        whitening: float32 (d, r); embeddings are compared after it, where distances mean the same in
            every direction (Mahalanobis, with the covariance that all means share).
        orientation: of slices that lie as the training data do; None does not ask.

    Raises:
        ValueError: the arrays are not of these forms, or not finite.
    """

    def __init__(
        self,
        means: NDArray[np.float32],
        whitening: NDArray[np.float32],
        orientation: Orientation | None = None,
    ) -> None:
        _check({"means": (means, 2), "whitening": (whitening, 2)})
        if means.shape[1] != whitening.shape[0]:
            raise ValueError("means and whitening are of different embeddings")
        if orientation is not None and len(orientation.weights) != len(whitening):
            raise ValueError("the orientation is of different embeddings")
        self._orientation = orientation
        self._centre = means.mean(axis=0)
        self._means = (means - self._centre) @ whitening
        self._whitening = whitening

    @property
    def features(self) -> int:
        """Length of an embedding."""
        return len(self._whitening)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The arrays of an npz file; nothing in it is executed, whatever it holds.

        Raises:
            CorruptVersion: it is no such file.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                if sum(member.file_size for member in archive.infolist()) > MAX_SPACE_BYTES:
                    raise ValueError("too large")
            with np.load(path, allow_pickle=False) as arrays:
                means, whitening = arrays["means"], arrays["whitening"]
                # Version 2 of the default model was made before there was one.
                turned = [arrays[name] for name in ORIENTATION_ARRAYS if name in arrays]
            # What is no array in the archive, numpy hands over as bytes.
            if not all(isinstance(array, np.ndarray) for array in (means, whitening, *turned)):
                raise TypeError("no arrays")
            return cls(means, whitening, Orientation(*turned) if turned else None)
        except Exception as error:
            # zipfile, zlib and numpy raise nearly anything, depending on where the damage is.
            raise CorruptVersion("the training embeddings do not hold what they should") from error

    def distance(self, embedding: NDArray[np.float32]) -> NDArray[np.float64]:
        """From the nearest mean, after whitening, or how turned a slice looks, whichever is more.

        float32 (n, d) to float64 (n,).
        """
        from_means = self._from_means(embedding)
        if self._orientation is None:
            return from_means
        return np.maximum(from_means, self._orientation.distance(embedding))

    def _from_means(self, embedding: NDArray[np.float32]) -> NDArray[np.float64]:
        # Around the common centre float32 loses least.
        whitened = (embedding - self._centre) @ self._whitening
        offsets = whitened[:, None, :] - self._means[None]
        squares = np.einsum("nkr,nkr->nk", offsets, offsets, dtype=np.float64)
        return np.asarray(np.sqrt(squares.min(axis=1)))


def _check(arrays: dict[str, tuple[NDArray[np.float32], int]]) -> None:
    """Raises ValueError for an array that is not float32 with that many axes, or not finite."""
    for name, (array, axes) in arrays.items():
        if array.dtype != np.float32 or array.ndim != axes or not array.size:
            raise ValueError(f"{name} must be float32 with {axes} axes")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite")
