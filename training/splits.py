"""Who trains, who validates, who tests: decided by group, never by image."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from training.datasets import ImageSet
from training.duplicates import Audit
from training.errors import DatasetError


class Protocol(StrEnum):
    """How much of the published leak is kept.

    ``published`` leaves Training and Testing as they are, for comparison with others' figures only.
    ``clean`` has the same Testing images, and none in training or validation that shares a
    near-duplicate group with them.
    """

    CLEAN = "clean"
    PUBLISHED = "published"


@dataclass(frozen=True)
class Split:
    """Indices into an :class:`~training.datasets.ImageSet`; disjoint, ascending."""

    train: NDArray[np.intp]
    validation: NDArray[np.intp]
    test: NDArray[np.intp]

    def counts(self) -> dict[str, int]:
        """Images in each part."""
        return {
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.test),
        }


def split(
    images: ImageSet, audit: Audit, protocol: Protocol, validation_share: float, seed: int
) -> Split:
    """Splits a set; images that the data sets do not mark as testing are for training.

    Images in groups with conflicting labels are dropped from training and validation; Testing stays
    whole, so that its figures mean the same in both protocols.

    Args:
        images: what was read.
        audit: its duplicates.
        protocol: see :class:`Protocol`.
        validation_share: of the training images of each class, in whole groups.
        seed: of the choice of groups.

    Raises:
        DatasetError: a class is left without training or validation images.
    """
    testing = images.parts == "testing"
    usable = ~testing
    usable[audit.conflicting] = False
    if protocol is Protocol.CLEAN:
        usable &= ~np.isin(audit.groups, audit.groups[testing])
    validates = _pick_validation(images.labels, audit.groups, usable, validation_share, seed)
    result = Split(
        np.flatnonzero(usable & ~validates),
        np.flatnonzero(usable & validates),
        np.flatnonzero(testing),
    )
    _check(result, images, audit.groups, protocol)
    return result


def _pick_validation(
    labels: NDArray[np.str_],
    groups: NDArray[np.intp],
    usable: NDArray[np.bool_],
    share: float,
    seed: int,
) -> NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    picked = np.zeros(len(labels), bool)
    for label in np.unique(labels[usable]):
        members = usable & (labels == label)
        wanted = share * members.sum()
        names, sizes = np.unique(groups[members], return_counts=True)
        for position in rng.permutation(len(names)):
            # A group that would overshoot is passed over: validation stays near its share.
            if (picked & members).sum() + sizes[position] <= wanted + 1:
                picked |= members & (groups == names[position])
        if not (picked & members).any() and len(names) > 1:
            picked |= members & (groups == names[sizes.argmin()])
    return picked


def _check(split: Split, images: ImageSet, groups: NDArray[np.intp], protocol: Protocol) -> None:
    parts = [split.train, split.validation]
    if protocol is Protocol.CLEAN:
        parts.append(split.test)
    for number, one in enumerate(parts):
        for other in parts[number + 1 :]:
            shared = np.intersect1d(groups[one], groups[other])
            assert shared.size == 0, f"{shared.size} groups span two parts of the split"
    labels = images.labels
    for name, part in (("training", split.train), ("validation", split.validation)):
        missing = set(labels) - set(labels[part])
        if missing:
            raise DatasetError(f"no {name} images of {', '.join(sorted(missing))}")
