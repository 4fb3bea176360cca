"""What a model is fitted on and validated on: slices, the classes each may be, and masks."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.images import ImageFile, ImageSet
from training.names import NO_TUMOR
from training.recipe import Mask, Recipe
from training.splits import Split
from training.synthesis import synthesise
from training.truth import allowed


@dataclass(frozen=True)
class Examples:
    """Rows to draw from.

    Attributes:
        slices: uint8 (N, H, W).
        allowed: classes that each may be, float32 (N, classes).
        masks: share of tumour, uint8 (N, H, W); None without a mask head.
        known: whether the mask of a row is known, (N,). A slice without tumour has an empty one.
        weights: how likely a row is drawn into an epoch, against the others, (N,).
        epoch_size: rows of one epoch.
        kinds: what the rows are, for people.
    """

    slices: NDArray[np.uint8]
    allowed: NDArray[np.float32]
    masks: NDArray[np.uint8] | None
    known: NDArray[np.bool_]
    weights: NDArray[np.float64]
    epoch_size: int
    kinds: Counter[str]

    def draw(self, rng: np.random.Generator) -> NDArray[np.intp]:
        """Rows of one epoch in their order, (epoch_size,); none twice."""
        shares = self.weights / self.weights.sum()
        drawn = rng.choice(len(self.slices), self.epoch_size, replace=False, p=shares)
        # Likely rows tend to be drawn first: an epoch would begin with one kind and end with another.
        return rng.permutation(drawn)

    def describe(self) -> str:
        """How many rows of each kind there are, and how many an epoch draws."""
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kinds.items()))
        return f"{len(self.slices)} slices ({kinds}), {self.epoch_size} an epoch"


def training_examples(
    images: ImageSet, alike: NDArray[np.intp], parts: Split, recipe: Recipe
) -> Examples:
    """The training images and, with a mask head, the synthetic slices made from them.

    Args:
        images: what was read.
        alike: near-duplicate group of each image, (N,), persons apart.
        parts: who trains.
        recipe: what is drawn how often.
    """
    real = _real(images, parts.train, recipe)
    weights = np.array(
        [recipe.source_weights.get(file.source, 1.0) for file in _files(images, parts.train)]
    )
    kinds = Counter(f"{file.source} {file.label}" for file in _files(images, parts.train))
    if recipe.mask is not None:
        masked = [index for index in parts.train if int(index) in images.masks]
        copies = np.isin(alike[parts.train], alike[masked]) & ~real.known
        weights[copies] *= recipe.copy_weight
        weights[np.isin(parts.train, masked)] *= recipe.mask.mask_weight
        made = synthesise(images, parts, recipe.mask, recipe.seed)
        assert real.masks is not None
        real = Examples(
            np.concatenate([real.slices, made.slices]),
            np.concatenate([real.allowed, _allowed_synthetic(made.labels, recipe.mask, recipe)]),
            np.concatenate([real.masks, made.masks]),
            np.concatenate([real.known, np.ones(len(made.slices), bool)]),
            np.concatenate([weights, np.full(len(made.slices), recipe.mask.synthetic_weight)]),
            0,
            Counter(),
        )
        weights = real.weights
        kinds += Counter(f"synthetic {label}" for label in made.labels)
    size = min(recipe.epoch_images or len(real.slices), len(real.slices))
    return Examples(real.slices, real.allowed, real.masks, real.known, weights, size, kinds)


def validation_examples(images: ImageSet, parts: Split, recipe: Recipe) -> Examples:
    """The validation images."""
    return _real(images, parts.validation, recipe)


def _real(images: ImageSet, rows: NDArray[np.intp], recipe: Recipe) -> Examples:
    labels = images.labels[rows]
    known = np.array([int(i) in images.masks for i in rows]) | (labels == NO_TUMOR)
    masks = None
    if recipe.mask is not None:
        empty = np.zeros(images.slices.shape[1:], np.uint8)
        masks = np.stack([images.masks.get(int(i), empty) for i in rows])
    slices = images.slices[rows]
    ones = np.ones(len(rows))
    return Examples(
        slices, _allowed(labels, recipe), masks, known, ones, len(rows), Counter(labels.tolist())
    )


def _allowed(labels: NDArray[np.str_], recipe: Recipe) -> NDArray[np.float32]:
    return allowed(labels, recipe.classes, recipe.tumor_classes)


def _allowed_synthetic(labels: NDArray[np.str_], mask: Mask, recipe: Recipe) -> NDArray[np.float32]:
    if mask.synthetic_classes:
        return _allowed(labels, recipe)
    # Where every class is right, none is learned.
    return np.ones((len(labels), len(recipe.classes)), np.float32)


def _files(images: ImageSet, rows: NDArray[np.intp]) -> list[ImageFile]:
    return [images.files[int(index)] for index in rows]
