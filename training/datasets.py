"""Finds labelled images in folders as people keep them, and reads them as the service does."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from training.errors import DatasetError
from training.folders import look_through
from training.images import ImageFile, ImageSet
from training.index import INDEX_FILE, read_index
from training.names import is_own, printable
from training.places import Found
from training.reading import read_images


def find_images(roots: Sequence[Path]) -> list[ImageFile]:
    """Finds the images that have a class; for what else lies there see :func:`read_folders`.

    Raises:
        DatasetError: a folder is missing, holds no class folders, or is given twice.
    """
    return [image for _, images in _find(roots) for image in images]


def read_folders(roots: Sequence[Path]) -> ImageSet:
    """Finds and reads images; what has no class, or is no image, is counted.

    Raises:
        DatasetError: see :func:`find_images` and :func:`read_images`.
    """
    every = _find(roots)
    images = read_images([image for _, files in every for image in files])
    return replace(
        images,
        unlabelled=sum((found.unlabelled for found, _ in every), Counter[str]()),
        passed_over=sum((found.passed_over for found, _ in every), Counter[str]()),
        remarks=(*_remarks(every), *images.remarks),
    )


def given(root: Path) -> Path:
    """A data set's folder, absolute, under the name that it is given by, which may be a link's."""
    return root.resolve() if root.name in {"", ".."} else root.parent.resolve() / root.name


def _find(roots: Sequence[Path]) -> list[tuple[Found, list[ImageFile]]]:
    """What each of the data sets' folders holds, and its images."""
    for root in roots:
        if not root.is_dir():
            raise DatasetError(f"{root} is no folder")
    places = [given(root) for root in roots]
    for place in places:
        try:
            str(place).encode()
        except UnicodeEncodeError as error:
            # A run's description names it.
            raise DatasetError(
                f"{printable(str(place))}: the path is not UTF-8; rename it, or give a link to it"
            ) from error
    if len({place.name for place in places}) != len(places):
        raise DatasetError("two data folders have the same name; results could not tell them apart")
    real = [root.resolve() for root in roots]
    if twice := [root for number, root in enumerate(roots) if real[number] in real[:number]]:
        raise DatasetError(f"{twice[0]} is a folder that is given twice")
    result = []
    for root, place, site in zip(roots, places, _sites(places), strict=True):
        found = read_index(place) if (place / INDEX_FILE).is_file() else look_through(place)
        if not found.places:
            raise DatasetError(
                f"{root} holds no images below class folders (yes/no, or glioma, meningioma, "
                f"pituitary, notumor){_instead(found)}"
            )
        images = [
            ImageFile(
                path=at.path,
                source=place.name,
                part=at.part,
                label=at.label,
                mask=at.mask,
                person=at.person,
                site=site,
            )
            for at in found.places
        ]
        result.append((found, images))
    return result


def _sites(roots: Sequence[Path]) -> list[str]:
    """Within which each data set's names of persons mean something.

    ``set/Training`` and ``set/Testing`` are halves of one, as are ``set/glioma`` and ``set/notumor``:
    folders side by side whose names are nothing of their own, be these names of links or of what they
    lead to.
    """
    sites = [root.name for root in roots]
    for places in (roots, [root.resolve() for root in roots]):
        halves = Counter(place.parent for place in places if not is_own(place.name))
        sites = [
            str(place.parent) if halves[place.parent] > 1 and not is_own(place.name) else site
            for place, site in zip(places, sites, strict=True)
        ]
    return sites


def _remarks(every: Sequence[tuple[Found, Sequence[ImageFile]]]) -> Iterator[str]:
    """What is surprising in what was found, by data set, and between two of them."""
    persons: dict[str, set[tuple[str, str]]] = {}
    for found, images in every:
        yield from (f"{images[0].source}: {remark}" for remark in found.remarks)
        persons[images[0].source] = {(file.site, file.person) for file in images if file.person}
    for (one, ours), (other, theirs) in itertools.combinations(persons.items(), 2):
        same = {person for _, person in ours - theirs} & {person for _, person in theirs - ours}
        if same:
            yield (
                f"{len(same)} persons of {one} are called as ones of {other}, and taken for others; "
                "if they are not, give both folders as one data set"
            )


def _instead(found: Found) -> str:
    """What a folder without images holds."""
    named = [f"{count} images in {folder}" for folder, count in found.unlabelled.most_common(3)]
    named += [f"{count} of {kind!r}" for kind, count in found.passed_over.most_common(3)]
    return f"; it holds {', '.join(named)}" if named else ""
