"""Who trains, who validates, who tests: decided by group, never by image."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from training.duplicates import Audit
from training.errors import DatasetError
from training.images import ImageSet
from training.names import ANY_TUMOR
from training.reasons import OTHER_FOLDS, all_tested, folds_sent, off_share, why_few
from training.recipe import Recipe


class Protocol(StrEnum):
    """Which images are the test, and how much of the published leak is kept.

    ``published`` leaves Training and Testing as they are, for comparison with others' figures only.
    ``clean`` has the same Testing images, and none in training or validation that shares a
    near-duplicate group with them. ``grouped`` ignores Training and Testing: patient-wise folds go
    where the recipe sends them, and of the other groups a share is drawn for test.
    """

    CLEAN = "clean"
    PUBLISHED = "published"
    GROUPED = "grouped"


@dataclass(frozen=True)
class Split:
    """Who trains, validates and tests.

    Attributes:
        train, validation, test: indices into an :class:`~training.images.ImageSet`; disjoint,
            ascending.
        remarks: what of it may surprise, for people.
    """

    train: NDArray[np.intp]
    validation: NDArray[np.intp]
    test: NDArray[np.intp]
    remarks: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """Images in each part."""
        return {
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.test),
        }


def split(
    images: ImageSet,
    audit: Audit,
    protocol: Protocol,
    recipe: Recipe,
    held_out: Collection[str] = (),
) -> Split:
    """Splits a set.

    What is test is decided first, then what is validation; an image that shares a group with either
    does not train, and one that shares a group with test does not validate. Images with conflicting
    labels are dropped from training and validation; test stays whole, so that its figures mean the
    same in every protocol.

    Args:
        images: what was read.
        audit: its duplicates.
        protocol: see :class:`Protocol`.
        recipe: its shares, folds and seed.
        held_out: data sets that are test; with any, nothing else is. Of the groups that they share
            with others, the smaller side keeps its images, so that neither is emptied.

    Raises:
        DatasetError: a class is left without training or validation images, or a data set that is to
            be held out is not there.
    """
    sources = np.array([file.source for file in images.files])
    missing = set(held_out) - set(sources)
    if missing:
        raise DatasetError(f"no data set is named {', '.join(sorted(missing))}")
    groups = audit.groups
    fixed = ~divisible(images, recipe)
    folds = recipe.folds
    rng = np.random.default_rng(recipe.seed)
    sent = [*folds_sent(images, recipe, held_out, protocol is Protocol.GROUPED and not held_out)]
    remarks = sent.copy()
    held = np.isin(sources, list(held_out))
    if held_out:
        test = held.copy()
        if 2 * test.sum() > len(test):
            test &= ~np.isin(groups, groups[~test])
    elif protocol is Protocol.GROUPED:
        test = _in_folds(images, folds.test if folds else ()) & ~fixed
        free = _free(images, groups, fixed) & ~np.isin(groups, groups[test])
        drawn = pick(images.labels, groups, free, recipe.test_share, rng, audit.persons)
        remarks += off_share("test", images.labels, groups, free, drawn, recipe.test_share)
        test |= drawn
    else:
        test = (images.parts == "testing") & ~fixed
    usable = ~test & ~held
    usable[audit.conflicting] = False
    if protocol is not Protocol.PUBLISHED:
        usable &= ~np.isin(groups, groups[test])
    validates = _in_folds(images, folds.validation if folds else ()) & ~fixed & usable
    free = usable & _free(images, groups, fixed) & ~np.isin(groups, groups[validates])
    drawn = pick(images.labels, groups, free, recipe.validation_share, rng, audit.persons)
    remarks += off_share("validation", images.labels, groups, free, drawn, recipe.validation_share)
    validates |= drawn
    result = Split(
        np.flatnonzero(usable & ~validates & ~np.isin(groups, groups[validates])),
        np.flatnonzero(validates),
        np.flatnonzero(test),
    )
    _check(result, groups, protocol)
    try:
        require_classes(result, images, recipe, np.ones(len(images), bool))
    except DatasetError as error:
        reasons = [*_why_impossible(result, images, audit)]
        if _names_folds(images).any():
            reasons += [*sent, OTHER_FOLDS]
        raise DatasetError("; ".join([str(error), *reasons])) from error
    return replace(result, remarks=(*remarks, *left_out(result, audit, held)))


def _why_impossible(split: Split, images: ImageSet, audit: Audit) -> Iterator[str]:
    """Why classes that the data have are left without training or validation images."""
    labels = images.labels
    present = set(labels[split.train]) & set(labels[split.validation])
    lacking = sorted(set(labels.tolist()) - present)
    tested = np.zeros(len(images), np.bool_)
    tested[split.test] = True
    yield from all_tested(labels, audit.groups, tested, lacking)
    yield from why_few(images, audit, lacking)


def left_out(
    split: Split, audit: Audit, held_out: NDArray[np.bool_] | None = None
) -> Iterator[str]:
    """How many images are in no part, and why.

    Args:
        split: who is in which part.
        audit: groups, and which images have conflicting labels.
        held_out: images of data sets that are held out, (N,); none if None.
    """
    out = np.ones(len(audit.groups), np.bool_)
    out[[*split.train, *split.validation, *split.test]] = False
    if held_out is not None:
        if untested := int((out & held_out).sum()):
            yield (
                f"{_are(untested)} held out but not tested: a near duplicate or the same person is in "
                "another data set"
            )
        out &= ~held_out
    conflicting = int(out[audit.conflicting].sum())
    out[audit.conflicting] = False
    if conflicting:
        yield (
            f"{_are(conflicting)} left out: near duplicates with conflicting labels; audit lists them"
        )
    for part, does in ((split.test, "is tested"), (split.validation, "validates")):
        beside = out & np.isin(audit.groups, audit.groups[part])
        out &= ~beside
        if beside.any():
            yield f"{_are(beside.sum())} left out: a near duplicate or the same person {does}"


def _are(images: int) -> str:
    return "1 image is" if images == 1 else f"{images} images are"


def divisible(images: ImageSet, recipe: Recipe) -> NDArray[np.bool_]:
    """Images of data sets that may validate and be tested as well."""
    sources = np.array([file.source for file in images.files])
    return np.asarray(~np.isin(sources, list(recipe.train_only)))


def _names_folds(images: ImageSet) -> NDArray[np.bool_]:
    """Images of data sets that name patient-wise folds, (N,)."""
    return np.asarray(np.char.startswith(images.parts, "fold"))


def _in_folds(images: ImageSet, folds: Collection[int]) -> NDArray[np.bool_]:
    return np.isin(images.parts, [f"fold{number}" for number in folds])


def _free(
    images: ImageSet, groups: NDArray[np.intp], fixed: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Images whose part is not decided by a fold or the recipe, for themselves or their group."""
    bound = _names_folds(images) | fixed
    return np.asarray(~np.isin(groups, groups[bound]))


def pick(
    labels: NDArray[np.str_],
    groups: NDArray[np.intp],
    usable: NDArray[np.bool_],
    share: float,
    rng: np.random.Generator,
    persons: NDArray[np.intp] | None = None,
) -> NDArray[np.bool_]:
    """Whole groups, until they make up a share of each class.

    Args:
        labels: of all images, (N,).
        groups: theirs, (N,).
        usable: which may be picked, (N,).
        share: of each class.
        rng: chooses the groups.
        persons: whom each image shows, (N,): slices of other classes go with their person, who would be
            lost to both sides otherwise.

    Returns:
        What is picked, (N,).
    """
    picked = np.zeros(len(labels), bool)
    for label in np.unique(labels[usable]):
        members = usable & (labels == label)
        wanted = share * members.sum()
        names, sizes = np.unique(groups[members], return_counts=True)
        for position in rng.permutation(len(names)):
            group = members & (groups == names[position])
            # A group that would overshoot is passed over: validation stays near its share.
            if (picked & members).sum() + (group & ~picked).sum() <= wanted + 1:
                picked |= _with_persons(group, usable, persons)
        if not (picked & members).any() and len(names) > 1:
            smallest = members & (groups == names[sizes.argmin()])
            picked |= _with_persons(smallest, usable, persons)
    return picked


def _with_persons(
    group: NDArray[np.bool_], usable: NDArray[np.bool_], persons: NDArray[np.intp] | None
) -> NDArray[np.bool_]:
    if persons is None:
        return group
    return np.asarray(group | (usable & np.isin(persons, persons[group])))


def _check(split: Split, groups: NDArray[np.intp], protocol: Protocol) -> None:
    parts = [split.train, split.validation]
    if protocol is not Protocol.PUBLISHED:
        parts.append(split.test)
    for number, one in enumerate(parts):
        for other in parts[number + 1 :]:
            shared = np.intersect1d(groups[one], groups[other])
            assert shared.size == 0, f"{shared.size} groups span two parts of the split"


def require_classes(
    split: Split, images: ImageSet, recipe: Recipe, validating: NDArray[np.bool_]
) -> None:
    """Checks that no class of the data was lost to the test, to conflicts or to a part too small.

    Args:
        split: who trains and who validates.
        images: what was read.
        recipe: its classes; of tumours of an unstated kind, where that is none, there may be none.
        validating: images whose classes validate, (N,); all classes train.

    Raises:
        DatasetError: a class is left without training or validation images.
    """
    labels = images.labels
    unstated = {ANY_TUMOR} - set(recipe.classes)
    for name, part, of in (
        ("training", split.train, labels),
        ("validation", split.validation, labels[validating]),
    ):
        missing = set(of.tolist()) - set(labels[part].tolist()) - unstated
        if missing:
            raise DatasetError(f"no {name} images of {', '.join(sorted(missing))}")
