"""Why a split came out as it did, for people: what surprises of one, and what made one impossible."""

from collections.abc import Collection, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.duplicates import Audit
from training.images import ImageFile, ImageSet
from training.names import canonical_label, person_name, printable
from training.recipe import Recipe

FEW_GROUPS: Final = 3
"""A class needs so many to train, to validate and to be tested."""
OTHER_FOLDS: Final = (
    "[folds] in a copy of the recipe says which folds validate and are tested; an index file with "
    "patient and without fold is split in whole groups; the command crossval tests fold by fold, and "
    "gives no model to serve"
)
"""What to do about folds that leave a part of a split empty."""
_INDEX: Final = "the index file"


def folds_sent(
    images: ImageSet, recipe: Recipe, held_out: Collection[str], tests: bool
) -> Iterator[str]:
    """Where the folds of each data set go that names some: a recipe's are meant for one data set.

    Args:
        images: what was read.
        recipe: its folds, and its data sets that only train.
        held_out: data sets that are test, folds and all.
        tests: whether any fold is tested.
    """
    folds = recipe.folds
    sent = {
        "validates": folds.validation if folds else (),
        "is tested": folds.test if folds and tests else (),
    }
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


def off_share(
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


def _level(file: ImageFile) -> str:
    """What names the person whom an image shows: a folder, and which, or the index."""
    folders = file.path.parts[:-1]
    named = [place for place, folder in enumerate(folders) if person_name(folder) == file.person]
    if not named:
        return _INDEX
    above = any(canonical_label(folder) for folder in folders[named[-1] + 1 :])
    return f"their outermost folder {'above' if above else 'below'} the class"


def all_tested(
    labels: NDArray[np.str_],
    groups: NDArray[np.intp],
    test: NDArray[np.bool_],
    lacking: Sequence[str],
) -> Iterator[str]:
    """Which of the classes that are lacking have all of their groups in the test.

    Args:
        labels: of all images, (N,).
        groups: theirs, (N,).
        test: which are tested, (N,).
        lacking: the classes.
    """
    beside = np.isin(groups, groups[test]) & ~test
    for label in lacking:
        others = (labels == label) & ~test
        if others.any() and beside[others].all():
            yield (
                f"each {label} slice that is not tested shares its person or a near duplicate with one "
                "that is"
            )
