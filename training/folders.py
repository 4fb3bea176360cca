"""What lies where in a data set: images with their classes, parts and persons, and what is not taken.

A data set either lists its images in :data:`INDEX_FILE`, or has them below folders that are named for
classes. ``docs/training-data.md`` has the layouts.
"""

import csv
import io
import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from contract.decoding import DICOM_PREAMBLE_BYTES, sniff
from contract.errors import UnsupportedMedia
from training.errors import DatasetError
from training.names import (
    canonical_label,
    is_mask_folder,
    is_own,
    like_masks,
    masked_by,
    nearest_label,
    part_of,
    person_name,
    printable,
)

IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".dcm"})
"""A file that is named so is called unreadable where it is no image; others are looked at."""
INDEX_FILE: Final = "index.csv"
"""A data set with this file lists its images itself: columns id, label, and fold, patient or both;
images and masks lie in ``images/ID.jpg`` and ``masks/ID.png``."""
_COLUMNS: Final = ("id", "label", "fold", "patient")
_PERSON_COLUMN: Final = re.compile(r".*(patient|subject|person).*|pid")
_NEARLY_ALL: Final = 0.95
"""Share of images in a folder that is the data set's, and no person's."""
_NO_SLICES: Final = frozenset({"@eadir", "__macosx", "thumbs", "thumbnails"})
"""Folders that systems and viewers make, with small copies of the images beside them."""
_SNIFFED_BYTES: Final = DICOM_PREAMBLE_BYTES + 4


class Place(NamedTuple):
    """Where an image lies, and what follows from it; see :class:`training.datasets.ImageFile`."""

    path: Path
    part: str
    label: str
    person: str = ""
    mask: Path | None = None


class Found(NamedTuple):
    """What a data set's folder holds.

    Attributes:
        places: images with a class, in one fixed order.
        unlabelled: folder, by its name from the data set's on, to how many images lie in it that no
            folder's name gives a class.
        passed_over: what else lies there and is not taken, by suffix or kind, to how many files.
        remarks: what of it may surprise, for people; it names nobody.
    """

    places: list[Place]
    unlabelled: Counter[str]
    passed_over: Counter[str]
    remarks: tuple[str, ...] = ()


class _Candidate(NamedTuple):
    path: Path
    folders: tuple[str, ...]
    """Names of the folders that it lies in, from the data set's on."""


def look(root: Path) -> Found:
    """Looks through a data set's folder, and through folders that links in it lead to.

    Raises:
        DatasetError: a folder cannot be read, or the index file is none.
    """
    return _index(root) if (root / INDEX_FILE).is_file() else _walk(root)


def _walk(root: Path) -> Found:
    passed_over: Counter[str] = Counter()
    found: list[_Candidate] = []
    labelled: list[tuple[_Candidate, str]] = []
    unlabelled: Counter[str] = Counter()
    own = _own_name(root)
    for path in sorted(_files(root, frozenset(), passed_over)):
        folders = (own, *path.relative_to(root).parts[:-1])
        kind = _passed_over(path, folders)
        if kind is None:
            found.append(_Candidate(path, folders))
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
            labelled.append((_Candidate(path, folders), label))
    persons, shared = _persons([candidate for candidate, _ in labelled])
    remarks = []
    if shared:
        remarks.append(
            f"the {shared} outermost folder(s) above the classes, which hold nearly all images, are "
            "taken for the data set's own: if one is a person's, its slices are not kept together"
        )
    places = [
        Place(candidate.path, _part(candidate.folders), label, person)
        for (candidate, label), person in zip(labelled, persons, strict=True)
    ]
    like = sum(like_masks(folders[1:], path.stem) for (path, folders), _ in labelled)
    if like:
        remarks.append(
            f"{like} images are taken for slices, though their name or a folder's is like that of "
            "masks: no image of the same name lies beside them"
        )
    return Found(places, unlabelled, passed_over, tuple(remarks))


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


def _without_masks(found: Sequence[_Candidate]) -> list[_Candidate]:
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


def _classes(folders: Sequence[str]) -> list[tuple[int, str]]:
    """Where among folders those are that spell a class, and which, the outermost first."""
    found = ((place, canonical_label(folder)) for place, folder in enumerate(folders))
    return [(place, label) for place, label in found if label]


def _divided(candidates: Sequence[_Candidate]) -> set[tuple[str, ...]]:
    """Class folders that hold folders of other classes, as ``Brain Tumor/{glioma,notumor}`` does."""
    return {
        folders[: place + 1]
        for folders in {candidate.folders for candidate in candidates}
        for (place, outer), (_, inner) in itertools.combinations(_classes(folders), 2)
        if outer != inner
    }


def _beside_classes(folders: tuple[str, ...], divided: set[tuple[str, ...]]) -> bool:
    """Whether the nearest class is that of a divided folder, which says nothing of others in it.

    ``Brain Tumor/unclear`` is no tumour only because the data set is called so, nor is what lies in
    the data set's own folder.
    """
    classes = _classes(folders)
    nearest = classes[-1][0] + 1 if classes else 0
    return (nearest < len(folders) or nearest == 1) and folders[:nearest] in divided


def _part(folders: Sequence[str]) -> str:
    """The part that the nearest folder names which names one."""
    return next((part for folder in reversed(folders) if (part := part_of(folder))), "")


def _persons(candidates: Sequence[_Candidate]) -> tuple[list[str], int]:
    """Whom each image shows: the outermost folder that says neither class nor part, or nobody.

    It is one person wherever it lies: in each class and part, above or below them. Folders above the
    classes that nearly all images lie in are the data set's: how many is returned as well.
    """
    numbered = _numbered(candidates)
    above: list[tuple[str, ...]] = []
    below: list[tuple[str, ...]] = []
    for _, folders in candidates:
        last, _ = _classes(folders)[-1]
        own = [
            (place, folder)
            for place, folder in enumerate(folders)
            if place and (is_own(folder) or person_name(folder) in numbered)
        ]
        above.append(tuple(folder for place, folder in own if place < last))
        below.append(tuple(folder for place, folder in own if place >= last))
    shared = _shared(above)
    persons = [
        person_name(
            next(iter((*(up[len(shared) :] if up[: len(shared)] == shared else up), *down)), "")
        )
        for up, down in zip(above, below, strict=True)
    ]
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


def _numbered(candidates: Sequence[_Candidate]) -> set[str]:
    """Names of a class with different numbers, which are persons' as well: ``glioma_07``.

    Wherever they lie, since one may be alone in its part; one number alone is a class's: ``1 glioma``.
    """
    names: defaultdict[str, set[str]] = defaultdict(set)
    for folders in {candidate.folders for candidate in candidates}:
        for place, label in _classes(folders):
            if place and any(letter.isdigit() for letter in folders[place]):
                names[label].add(person_name(folders[place]))
    return {name for same in names.values() if len(same) > 1 for name in same}


def _index(root: Path) -> Found:
    """The images that an index file lists.

    Raises:
        DatasetError: it is no text, lacks a column or lists nothing; or a row lacks a value, has a
            label that is no class, or lists an image again.
    """
    path = root / INDEX_FILE
    try:
        # Spreadsheets write a byte order mark, which would be part of the first column's name.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8") from error
    reader = csv.DictReader(io.StringIO(text))
    columns = [name.strip().casefold() for name in reader.fieldnames or ()]
    _require_columns(path, columns)
    reader.fieldnames = columns
    try:
        # A blank line is no row, and a row may be of several lines.
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: {error}") from error
    if not rows:
        raise DatasetError(f"{path} lists no images: it has no line but its first")
    places = [_row(root, number, row) for number, row in rows]
    lines: dict[Path, int] = {}
    for (number, _), place in zip(rows, places, strict=True):
        if lines.setdefault(place.path, number) != number:
            raise DatasetError(f"{path}, line {number}: the id of line {lines[place.path]} again")
    passed_over = Counter(
        {
            "images that the index does not list": _others(
                root / "images", {place.path.name for place in places}
            ),
            "masks of no image in the index": _others(
                root / "masks", {place.mask.name for place in places if place.mask}
            ),
        }
    )
    ignored = sorted(set(columns) - {*_COLUMNS, ""})
    remarks = [f"{INDEX_FILE}: not read are the columns {', '.join(ignored)}"] if ignored else []
    return Found(places, Counter(), +passed_over, tuple(remarks))


def _require_columns(path: Path, found: Sequence[str]) -> None:
    missing = [name for name in ("id", "label") if name not in found]
    if not missing and "patient" not in found:
        for name in found:
            if _PERSON_COLUMN.fullmatch(re.sub("[^a-z]", "", name)):
                raise DatasetError(
                    f"{path} has a column {name!r}: call it patient if it says whose an image is, so "
                    "that nobody's slices are trained on and tested, or else take it out"
                )
    if not {"fold", "patient"} & set(found):
        missing.append("fold (or patient)")
    if missing:
        # What else its first line holds may be a row of patients.
        known = ", ".join(name for name in _COLUMNS if name in found) or "none of them"
        raise DatasetError(
            f"{path} lacks {', '.join(missing)}: {f'it has {known}' if found else 'it is empty'}; "
            "expected are the columns id,label,fold or id,label,patient or all four, with commas "
            "between them"
        )
    if twice := [name for name in _COLUMNS if found.count(name) > 1]:
        raise DatasetError(f"{path} has the column {twice[0]} twice")


def _row(root: Path, number: int, row: dict[str, str | None]) -> Place:
    where = f"{root / INDEX_FILE}, line {number}"
    name, spelt = ((row[column] or "").strip() for column in ("id", "label"))
    if not name or not spelt:
        raise DatasetError(f"{where}: no {'label' if name else 'id'}")
    label = canonical_label(spelt)
    if label is None:
        raise DatasetError(f"{where}: no class {spelt!r}")
    part = ""
    if "fold" in row:
        fold = row["fold"]
        try:
            part = f"fold{int(fold or '')}"
        except ValueError as error:
            raise DatasetError(f"{where}: {fold or ''!r} is no number of a fold") from error
    person = person_name(row.get("patient") or "")
    mask = root / "masks" / f"{name}.png"
    path = root / "images" / f"{name}.jpg"
    return Place(path, part, label, person, mask if mask.is_file() else None)


def _others(folder: Path, listed: set[str]) -> int:
    """How many files lie in a folder beside those that are listed."""
    if not folder.is_dir():
        return 0
    return sum(not entry.name.startswith(".") for entry in os.scandir(folder)) - sum(
        (folder / name).is_file() for name in listed
    )
