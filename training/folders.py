"""Images below folders that are named for classes: where they lie, and what else lies there.

``docs/training-data.md`` has the layouts.
"""

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from contract.decoding import DICOM_PREAMBLE_BYTES, sniff
from contract.errors import UnsupportedMedia
from training.errors import DatasetError
from training.names import (
    canonical_label,
    classes_among,
    is_mask_folder,
    is_own,
    like_masks,
    masked_by,
    nearest_label,
    part_of,
    printable,
)
from training.persons import persons_of
from training.places import Candidate, Found, Place

IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".dcm"})
"""A file that is named so is called unreadable where it is no image; others are looked at."""
_NO_SLICES: Final = frozenset({"@eadir", "__macosx", "thumbs", "thumbnails"})
"""Folders that systems and viewers make, with small copies of the images beside them."""
_SNIFFED_BYTES: Final = DICOM_PREAMBLE_BYTES + 4


def look_through(root: Path) -> Found:
    """Looks through a data set's folder, and through folders that links in it lead to.

    Raises:
        DatasetError: a folder cannot be read.
    """
    passed_over: Counter[str] = Counter()
    found: list[Candidate] = []
    labelled: list[tuple[Candidate, str]] = []
    unlabelled: Counter[str] = Counter()
    own = _own_name(root)
    for path in sorted(_files(root, frozenset(), passed_over)):
        folders = (own, *path.relative_to(root).parts[:-1])
        kind = _passed_over(path, folders)
        if kind is None:
            found.append(Candidate(path, folders))
        else:
            passed_over[kind] += 1
    images = _without_masks(found)
    passed_over += Counter({"masks beside images": len(found) - len(images)})
    divided = _divided(images)
    for path, folders in images:
        label = None if _beside_classes(folders, divided) else nearest_label(folders)
        if label is None:
            unlabelled[_up_to_a_person(folders)] += 1
        else:
            labelled.append((Candidate(path, folders), label))
    persons, shared = persons_of([candidate for candidate, _ in labelled])
    places = [
        Place(candidate.path, _part(candidate.folders), label, person)
        for (candidate, label), person in zip(labelled, persons, strict=True)
    ]
    return Found(places, unlabelled, passed_over, tuple(_remarks(labelled, shared)))


def _remarks(labelled: Sequence[tuple[Candidate, str]], shared: int) -> Iterator[str]:
    """What may surprise of images with a class.

    Args:
        labelled: these.
        shared: see :func:`training.persons.persons_of`.
    """
    if shared:
        yield (
            f"the {shared} outermost folder(s) above the classes, which hold nearly all images, are "
            "taken for the data set's own: if one is a person's, its slices are not kept together"
        )
    like = sum(like_masks(folders[1:], path.stem) for (path, folders), _ in labelled)
    if like:
        yield (
            f"{like} images are taken for slices, though their name or a folder's is like that of "
            "masks: no image of the same name lies beside them"
        )


def _own_name(root: Path) -> str:
    """What a data set's folder is called: where a link's name says nothing, that of its folder may."""
    names = (root.name, root.resolve().name)
    return next((name for name in names if canonical_label(name) or part_of(name)), root.name)


def _up_to_a_person(folders: Sequence[str]) -> str:
    """Folders as reports name them: from the first on that may be called like a person, a star."""
    known = list(itertools.takewhile(lambda folder: not is_own(folder), folders[1:]))
    more = ["*"] if len(known) < len(folders) - 1 else []
    return printable("/".join([folders[0], *known, *more]))


def _files(folder: Path, inside: frozenset[Path], passed_over: Counter[str]) -> Iterator[Path]:
    """Files below a folder, also where links lead; counts what is none.

    Args:
        folder: where to look.
        inside: the real folders that lead here: a link back to one of them would never end.
        passed_over: gets the counts.
    """
    real = folder.resolve()
    if real in inside:
        passed_over["links back to a folder above"] += 1
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DatasetError(f"{printable(str(folder))} cannot be read: {error.strerror}") from error
    for entry in entries:
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:
            # A link to itself, say.
            is_folder = is_file = False
        if entry.name.startswith("."):
            passed_over["hidden"] += 1
        elif is_folder:
            yield from _files(Path(entry), inside | {real}, passed_over)
        elif is_file:
            yield Path(entry)
        else:
            passed_over["links to nowhere" if entry.is_symlink() else "no file"] += 1


def _passed_over(path: Path, folders: Sequence[str]) -> str | None:
    """What a file counts as that is not taken; None for an image."""
    if any(folder.casefold() in _NO_SLICES for folder in folders[1:]):
        return "thumbnails and system folders"
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        try:
            with path.open("rb") as file:
                sniff(file.read(_SNIFFED_BYTES))
        except OSError:
            return "no permission to read"
        except UnsupportedMedia:
            # What stands behind a dot may also be a UID's last number, or a person's name.
            is_kind = re.fullmatch(r"\.(?=.*[a-z])[a-z0-9]{1,5}", suffix)
            return suffix if is_kind else "without a suffix"
    return None


def _without_masks(found: Sequence[Candidate]) -> list[Candidate]:
    """All but the outlines of others: an image of the same name lies beside them.

    By the file's name beside it in its folder (``7_mask`` and ``7``), or by a folder's that is called
    for masks, in the folder that this lies in or at the same place in one beside it.
    """
    within = [_mask_folder(candidate.folders) for candidate in found]
    beside: set[tuple[tuple[str, ...], tuple[str, ...], str]] = set()
    for (path, folders), place in zip(found, within, strict=True):
        if not place:
            for at in range(1, len(folders) + 1):
                beside |= {(folders[:at], folders[at + more :], _stem(path)) for more in (0, 1)}
    masks: Counter[tuple[str, ...]] = Counter()
    files: Counter[tuple[str, ...]] = Counter()
    for (path, folders), place in zip(found, within, strict=True):
        if place:
            key = folders[: place + 1]
            names = {_stem(path), *masked_by(path.stem)}
            files[key] += 1
            masks[key] += any((folders[:place], folders[place + 1 :], n) in beside for n in names)
    here = {(candidate.folders, _stem(candidate.path)) for candidate in found}
    return [
        candidate
        for candidate, place in zip(found, within, strict=True)
        if not (place and 2 * masks[key := candidate.folders[: place + 1]] > files[key])
        and not any((candidate.folders, name) in here for name in masked_by(candidate.path.stem))
    ]


def _mask_folder(folders: Sequence[str]) -> int:
    """Where the outermost folder is that is called for masks, or 0."""
    return next((place for place, name in enumerate(folders) if place and is_mask_folder(name)), 0)


def _stem(path: Path) -> str:
    return path.stem.casefold()


def _divided(candidates: Sequence[Candidate]) -> set[tuple[str, ...]]:
    """Class folders that hold folders of other classes, as ``Brain Tumor/{glioma,notumor}`` does."""
    return {
        folders[: place + 1]
        for folders in {candidate.folders for candidate in candidates}
        for (place, outer), (_, inner) in itertools.combinations(classes_among(folders), 2)
        if outer != inner
    }


def _beside_classes(folders: tuple[str, ...], divided: set[tuple[str, ...]]) -> bool:
    """Whether the nearest class is that of a divided folder, which says nothing of others in it.

    ``Brain Tumor/unclear`` is no tumour only because the data set is called so, nor is what lies in
    the data set's own folder.
    """
    classes = classes_among(folders)
    nearest = classes[-1][0] + 1 if classes else 0
    return (nearest < len(folders) or nearest == 1) and folders[:nearest] in divided


def _part(folders: Sequence[str]) -> str:
    """The part that the nearest folder names which names one."""
    return next((part for folder in reversed(folders) if (part := part_of(folder))), "")
