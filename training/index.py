"""The file by which a data set lists its images itself, with class, fold and patient."""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from training.errors import DatasetError
from training.names import canonical_label, is_mask_folder, person_name
from training.places import Found, Place

INDEX_FILE: Final = "index.csv"
"""A data set with this file lists its images itself: columns id, label, and fold, patient or both;
images and masks lie in ``images/ID.jpg`` and ``masks/ID.png``."""
_FOLDERS: Final = ("images", "masks")
_COLUMNS: Final = ("id", "label", "fold", "patient")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PERSON_COLUMN: Final = re.compile(r".*(patient|subject|person).*|pid")


def read_index(root: Path) -> Found:
    """The images that a data set's index file lists.

    Raises:
        DatasetError: it is no text, lacks a column or lists nothing; or a row lacks a value, has a
            label that is no class, or lists an image again.
    """
    path = root / INDEX_FILE
    columns, rows = _table(path)
    places = [_place(root, number, row) for number, row in rows]
    lines: dict[Path, int] = {}
    for (number, _), place in zip(rows, places, strict=True):
        if lines.setdefault(place.path, number) != number:
            raise DatasetError(f"{path}, line {number}: the id of line {lines[place.path]} again")
    images = {place.path.name for place in places}
    masks = {place.mask.name for place in places if place.mask}
    passed_over = Counter(
        {
            "images that the index does not list": _others(root / "images", images),
            "masks of no image in the index": _others(root / "masks", masks),
        }
    )
    passed_over += _other_folders(root)
    ignored = sorted(set(columns) - {*_COLUMNS, ""})
    remarks = [f"{INDEX_FILE}: not read are the columns {', '.join(ignored)}"] if ignored else []
    return Found(places, Counter(), +passed_over, tuple(remarks))


def _table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str | None]]]]:
    """The columns of an index file, and its rows with the last line of each."""
    try:
        # Spreadsheets write a byte order mark, which would be part of the first column's name.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8") from error
    # Strict, as a quotation mark that is not closed would swallow the rows after it.
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        columns = [name.strip().casefold() for name in reader.fieldnames or ()]
        _require_columns(path, columns)
        reader.fieldnames = columns
        # A blank line is no row, and a row may be of several lines.
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        # Of a row that has no end, the line before it.
        raise DatasetError(
            f"{path}, line {max(1, reader.line_num)} or after it: {error}"
        ) from error
    if not rows:
        raise DatasetError(f"{path} lists no images: it has no line but its first")
    return columns, rows


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


def _place(root: Path, number: int, row: dict[str, str | None]) -> Place:
    where = f"{root / INDEX_FILE}, line {number}"
    for column in _COLUMNS:
        if _CONTROL.search(row.get(column) or ""):
            raise DatasetError(
                f"{where}: the {column} is of several lines or has control characters; is a quotation "
                "mark before it that does not belong there?"
            )
    name, spelt = ((row[column] or "").strip() for column in ("id", "label"))
    if not name or not spelt:
        raise DatasetError(f"{where}: no {'label' if name else 'id'}")
    label = canonical_label(spelt)
    if label is None:
        raise DatasetError(f"{where}: no class {spelt!r}")
    part = ""
    if "fold" in row:
        fold = row["fold"]
        if not re.fullmatch(r"\s*[0-9]{1,4}\s*", fold or ""):
            raise DatasetError(f"{where}: {fold or ''!r} is no number of a fold")
        part = f"fold{int(fold or '')}"
    person = person_name(row.get("patient") or "")
    mask = root / "masks" / f"{name}.png"
    path = root / "images" / f"{name}.jpg"
    return Place(path, part, label, person, mask if mask.is_file() else None)


def _other_folders(root: Path) -> Counter[str]:
    """Files in folders beside those that an index is of: masks in ``Masks/`` are none, say."""
    found: Counter[str] = Counter()
    for entry in os.scandir(root):
        if entry.name in _FOLDERS or entry.name.startswith(".") or not entry.is_dir():
            continue
        # Others may be called like a person.
        name = f"{entry.name}/" if is_mask_folder(entry.name) else "other folders"
        files = sum(len(names) for _, _, names in os.walk(entry))
        found[f"in {name} beside {' and '.join(f'{n}/' for n in _FOLDERS)}"] += files
    return found


def _others(folder: Path, listed: set[str]) -> int:
    """How many files lie in a folder beside those that are listed."""
    if not folder.is_dir():
        return 0
    return sum(not entry.name.startswith(".") for entry in os.scandir(folder)) - sum(
        (folder / name).is_file() for name in listed
    )
