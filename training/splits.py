"""Who trains, who validates, who tests: decided by group, never by image."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.duplicates import Audit
from training.errors import DatasetError
from training.images import ImageFile, ImageSet
from training.names import ANY_TUMOR, canonical_label, person_name, printable
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
    groups, labels = audit.groups, images.labels
    fixed = ~divisible(images, recipe)
    folds = recipe.folds
    validates = _in_folds(images, folds.validation if folds else ()) & ~fixed
    rng = np.random.default_rng(recipe.seed)
    remarks = [*_of_folds(images, protocol, recipe, held_out)]
    if held_out:
        test = np.isin(sources, list(held_out))
        if 2 * test.sum() > len(test):
            test &= ~np.isin(groups, groups[~test])
    elif protocol is Protocol.GROUPED:
        test = _in_folds(images, folds.test if folds else ()) & ~fixed
        free = _free(images, groups, fixed) & ~np.isin(groups, groups[test])
        drawn = pick(labels, groups, free, recipe.test_share, rng, audit.persons)
        remarks += _off("test", labels, groups, free, drawn, recipe.test_share)
        test |= drawn
    else:
        test = (images.parts == "testing") & ~fixed
    usable = ~test & ~np.isin(sources, list(held_out))
    usable[audit.conflicting] = False
    if protocol is not Protocol.PUBLISHED:
        usable &= ~np.isin(groups, groups[test])
    validates &= usable
    free = usable & _free(images, groups, fixed) & ~np.isin(groups, groups[validates])
    drawn = pick(labels, groups, free, recipe.validation_share, rng, audit.persons)
    remarks += _off("validation", labels, groups, free, drawn, recipe.validation_share)
    validates |= drawn
    result = Split(
        np.flatnonzero(usable & ~validates & ~np.isin(groups, groups[validates])),
        np.flatnonzero(validates),
        np.flatnonzero(test),
    )
    _check(result, groups, protocol)
    result = replace(
        result, remarks=(*remarks, *_left_out(result, audit, np.isin(sources, list(held_out))))
    )
    try:
        require_classes(result, images, recipe, np.ones(len(images), bool))
    except DatasetError as error:
        present = set(labels[result.train]) & set(labels[result.validation])
        lacking = sorted({*labels.tolist()} - present)
        reasons = [*_all_tested(labels, groups, test, lacking), *why_few(images, audit, lacking)]
        if _names_folds(images).any():
            reasons += _of_folds(images, protocol, recipe, held_out)
            reasons.append("the command crossval tests fold by fold")
        raise DatasetError("; ".join([str(error), *reasons])) from error
    return result


def _left_out(split: Split, audit: Audit, held_out: NDArray[np.bool_]) -> Iterator[str]:
    """How many images are in no part, for whose sake; those of conflicting labels are said elsewhere.

    Args:
        split: who is in which part.
        audit: groups.
        held_out: images of data sets that are held out, (N,).
    """
    out = ~held_out
    out[[*split.train, *split.validation, *split.test, *audit.conflicting]] = False
    for part, does in ((split.test, "is tested"), (split.validation, "validates")):
        beside = out & np.isin(audit.groups, audit.groups[part])
        out &= ~beside
        if beside.any():
            yield f"{beside.sum()} images are left out: their person or near duplicate {does}"


def divisible(images: ImageSet, recipe: Recipe) -> NDArray[np.bool_]:
    """Images of data sets that may validate and be tested as well."""
    sources = np.array([file.source for file in images.files])
    return np.asarray(~np.isin(sources, list(recipe.train_only)))


def _all_tested(
    labels: NDArray[np.str_],
    groups: NDArray[np.intp],
    test: NDArray[np.bool_],
    lacking: Sequence[str],
) -> Iterator[str]:
    """Which of the classes that are lacking have all of their groups in the test."""
    beside = np.isin(groups, groups[test]) & ~test
    for label in lacking:
        others = (labels == label) & ~test
        if others.any() and beside[others].all():
            yield (
                f"each {label} slice that is not tested shares its person or a near duplicate with one "
                "that is"
            )


def _names_folds(images: ImageSet) -> NDArray[np.bool_]:
    return np.asarray(np.char.startswith(images.parts, "fold"))


def _of_folds(
    images: ImageSet, protocol: Protocol, recipe: Recipe, held_out: Collection[str]
) -> Iterator[str]:
    """Where the folds of each data set go that names some: a recipe's are meant for one data set."""
    folds = recipe.folds
    tests = folds.test if folds and protocol is Protocol.GROUPED and not held_out else ()
    sent = {"validates": folds.validation if folds else (), "is tested": tests}
    for source in sorted({file.source for file in images.files} - set(held_out)):
        parts = {file.part for file in images.files if file.source == source}
        found = sorted(int(part[4:]) for part in parts if part.startswith("fold"))
        if not found:
            continue
        where = [
            f"fold {number} {what}" if number in found else f"it has no fold {number} that {what}"
            for what, numbers in sent.items()
            for number in numbers
        ]
        if source in recipe.train_only or not any(n in found for ns in sent.values() for n in ns):
            where.append("all of its slices train")
        if folds is None:
            where.insert(0, f"the recipe {recipe.name} sends none anywhere")
        elif source in recipe.train_only:
            where = [f"{recipe.name} has it for training alone"]
        yield f"{printable(source)} names folds {', '.join(map(str, found))}: {', '.join(where)}"


def _off(
    part: str,
    labels: NDArray[np.str_],
    groups: NDArray[np.intp],
    free: NDArray[np.bool_],
    drawn: NDArray[np.bool_],
    share: float,
) -> Iterator[str]:
    """Classes of which far more or fewer images were drawn than the recipe's share.

    Args:
        part: what they were drawn for.
        labels: of all images, (N,).
        groups: theirs, (N,).
        free: what could be drawn, (N,).
        drawn: what was, (N,).
        share: the recipe's.
    """
    for label in np.unique(labels[free]):
        members = free & (labels == label)
        wanted, got = share * members.sum(), int((drawn & members).sum())
        # A class of a few images cannot meet a share.
        if wanted / 2 - 1 <= got <= 2 * wanted + 1:
            continue
        sizes = np.unique(groups[members], return_counts=True)[1]
        yield (
            f"{part} has {got} of {members.sum()} {label} slices, and {wanted:.0f} are its share: "
            f"groups of persons or near duplicates have {sizes.min()} to {sizes.max()} of them"
        )


FEW_GROUPS: Final = 3
"""A class needs so many to train, to validate and to be tested."""


def why_few(images: ImageSet, audit: Audit, labels: Sequence[str]) -> list[str]:
    """Why some classes cannot be in every part of a split: too few groups, and what makes them few.

    Args:
        images: what was read.
        audit: its groups.
        labels: the classes.
    """
    reasons = []
    for label in labels:
        rows = np.flatnonzero(images.labels == label)
        groups = len(np.unique(audit.groups[rows]))
        if groups >= FEW_GROUPS:
            continue
        files = [images.files[row] for row in rows]
        persons = {(file.site or file.source, file.person) for file in files}
        shared = set.intersection(*(set(file.identities) for file in files))
        keywords = sorted({identity.partition(":")[0] for identity in shared})
        if len(files) > 1 and shared:
            reasons.append(
                f"the DICOM headers of all {label} slices have one {' and one '.join(keywords)}, "
                "as they do where a placeholder stands for every patient"
            )
        elif len(files) > 1 and len(persons) == 1 and files[0].person:
            level = _level(files[0])
            reasons.append(
                f"all {len(files)} {label} slices have one person by {level}: "
                + (
                    "if its column patient has a placeholder there, leave it empty"
                    if level == _INDEX
                    else "a folder that is neither class, part nor container is taken for one"
                )
            )
        else:
            named = len({person for person in persons if person[1]})
            levels = " or ".join(sorted({_level(file) for file in files if file.person}))
            reasons.append(
                f"the {len(files)} {label} slices are {groups} group(s) of persons and near duplicates"
                + (f", of {named} person(s) by {levels}" if named else "")
            )
    return reasons


_INDEX: Final = "the index file"


def _level(file: ImageFile) -> str:
    """What names the person whom an image shows: a folder, and which, or the index."""
    folders = file.path.parts[:-1]
    named = [place for place, folder in enumerate(folders) if person_name(folder) == file.person]
    if not named:
        return _INDEX
    above = any(canonical_label(folder) for folder in folders[named[-1] + 1 :])
    return f"their outermost folder {'above' if above else 'below'} the class"


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
