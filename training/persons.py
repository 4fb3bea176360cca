"""Whom images show, by the names of the folders that they lie in."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

from training.names import classes_among, is_own, person_name
from training.places import Candidate

_NEARLY_ALL: Final = 0.95
"""Share of images in a folder that is the data set's, and no person's."""


def persons_of(candidates: Sequence[Candidate]) -> tuple[list[str], int]:
    """Whom each image shows: the outermost folder that says neither class nor part, or nobody.

    It is one person wherever it lies: in each class and part, above or below them. Folders above the
    classes that nearly all images lie in are the data set's: how many is returned as well.
    """
    numbered = _numbered(candidates)
    above: list[tuple[str, ...]] = []
    below: list[tuple[str, ...]] = []
    for _, folders in candidates:
        last, _ = classes_among(folders)[-1]
        named = [
            (place, folder)
            for place, folder in enumerate(folders)
            if place and (is_own(folder) or person_name(folder) in numbered)
        ]
        above.append(tuple(folder for place, folder in named if place < last))
        below.append(tuple(folder for place, folder in named if place >= last))
    shared = _shared(above)
    persons = []
    for up, down in zip(above, below, strict=True):
        own = up[len(shared) :] if up[: len(shared)] == shared else up
        persons.append(person_name(next(iter((*own, *down)), "")))
    return persons, len(shared)


def _shared(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The folders that all paths begin with, but for a few stray files."""
    shared: tuple[str, ...] = ()
    while True:
        begun = Counter(path[: len(shared) + 1] for path in paths)
        longest, count = begun.most_common(1)[0] if begun else ((), 0)
        if len(longest) <= len(shared) or count < _NEARLY_ALL * len(paths):
            return shared
        shared = longest


def _numbered(candidates: Sequence[Candidate]) -> set[str]:
    """Names of a class with different numbers, which are persons' as well: ``glioma_07``.

    Wherever they lie, since one may be alone in its part; one number alone is a class's: ``1 glioma``.
    """
    names: defaultdict[str, set[str]] = defaultdict(set)
    for folders in {candidate.folders for candidate in candidates}:
        for place, label in classes_among(folders):
            if place and any(letter.isdigit() for letter in folders[place]):
                names[label].add(person_name(folders[place]))
    return {name for same in names.values() if len(same) > 1 for name in same}
