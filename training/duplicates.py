"""Exact and near duplicates, also flipped or rotated by quarter turns, clustered into groups.

Two slices are near duplicates when two views of them correlate: the slice at 32x32 pixels (the coarse
look: same head, same framing) and its fine structure at 64x64 pixels (what is left when a blurred copy
is taken away: the same folds, vessels and edges). The first alone calls any two mid-brain slices alike;
the second tells a copy from a look-alike.

Both are taken of the preprocessed slice, which is cropped to what it shows, and of the whole picture. A
copy that was compressed, sharpened or stretched may be cropped a little otherwise, which no fine
structure survives; one with another border or canvas is another picture as a whole.
"""

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from training.images import ImageFile, ImageSet, blank
from training.names import ANY_TUMOR, NO_TUMOR

COARSE_SIDE: Final = 32
FINE_SIDE: Final = 64
FINE_BLUR_PIXELS: Final = 2.0
COARSE_CORRELATION: Final = 0.90
FINE_CORRELATION: Final = 0.80
"""Chosen by looking at pairs of nickparvar's slices, not at any model's results: at 0.80 the groups
hold one class each but for four pairs of one picture filed under two classes, and the largest has
81 slices; at 0.75 single linkage already joins 123 slices of two classes."""
WHOLE_FINE_CORRELATION: Final = 0.90
"""Likewise, of whole pictures, in which the same outline of the head and the same air are alike
already. Of 40 pairs of the public data sets above it all were one picture; between 0.80 and 0.90 some
were neighbouring slices, and 21 images of several labels were linked in place of 12."""
ORIENTATIONS: Final = 8
"""The symmetries of the square: four quarter turns, with and without a flip."""
_BLOCK: Final = 1024
_PAIRS_AT_ONCE: Final = 1024
"""Pairs whose fine structure is in memory together."""


class Pair(NamedTuple):
    """Two images alike.

    Attributes:
        first, second: indices, ``first < second``.
        orientation: what maps the second onto the first; see :func:`orient`.
        fine: correlation of their fine structure.
    """

    first: int
    second: int
    orientation: int
    fine: float


@dataclass(frozen=True)
class Audit:
    """What is alike in an :class:`~training.images.ImageSet`.

    Attributes:
        groups: group number of each image, (N,); an image without a duplicate is a group alone. The
            slices of one person are in one group too.
        copies: indices of the images whose bytes are equal, two or more each.
        near_pairs: alike but not equal, best orientation each.
        conflicting: indices of images that are alike, or linked by others that are, and hold labels
            which exclude each other. That one person has slices of two labels is no conflict.
        persons: number of the person whom each image shows, (N,), as far as anything names them; an
            image of nobody known has a number of its own. None where that was not looked at.
        equal: indices of the images whose pixels are equal, two or more each: ``copies``, and one
            picture in files that are not.
    """

    groups: NDArray[np.intp]
    copies: tuple[tuple[int, ...], ...]
    near_pairs: tuple[Pair, ...]
    conflicting: NDArray[np.intp]
    persons: NDArray[np.intp] | None = None
    equal: tuple[tuple[int, ...], ...] = ()

    def summary(self, images: ImageSet) -> dict[str, Any]:
        """Counts, as ``audit.json`` holds them."""
        parts, sources = images.parts, [file.source for file in images.files]
        sizes = np.bincount(self.groups)
        leaked_exact = {hit for same in self.copies for hit in _testing_hit(parts, same)}
        near = [(pair.first, pair.second) for pair in self.near_pairs]
        leaked = {hit for same in (*self.equal, *near) for hit in _testing_hit(parts, same)}
        beside_training = np.isin(self.groups, self.groups[parts == "training"])
        across: Counter[str] = Counter()
        for same in (*self.equal, *near):
            held = Counter(sources[index] for index in same)
            for one, other in itertools.combinations(sorted(held), 2):
                across[f"{one} / {other}"] += held[one] * held[other]
        exact, equal = (
            sum(len(same) * (len(same) - 1) // 2 for same in sets)
            for sets in (self.copies, self.equal)
        )
        return {
            "images": len(images),
            "unreadable": len(images.unreadable),
            "distinct_files": len(set(images.sha256)),
            "groups": len(sizes),
            "images_in_groups_of_two_or_more": int(sizes[sizes > 1].sum()),
            "largest_group": int(sizes.max()),
            "exact_pairs": exact,
            "near_pairs": len(self.near_pairs) + equal - exact,
            "near_pairs_turned_or_flipped": sum(p.orientation != 0 for p in self.near_pairs),
            "images_turned_against_a_copy": int(self.doubtful.sum()),
            "testing_images": int((parts == "testing").sum()),
            "testing_with_exact_copy_in_training": len(leaked_exact),
            "testing_with_near_duplicate_in_training": len(leaked),
            "testing_sharing_a_group_with_training": int(
                (beside_training & (parts == "testing")).sum()
            ),
            "pairs_across_data_sets": dict(across),
            "conflicting_labels": [
                {"file": images.files[i].name, "group": int(self.groups[i])}
                for i in self.conflicting
            ],
        }

    @property
    def doubtful(self) -> NDArray[np.bool_]:
        """Which images have a near duplicate that lies otherwise, mirror images apart, (N,).

        One of the two is turned or upside down, and nothing in the pair says which.
        """
        result = np.zeros(len(self.groups), np.bool_)
        for pair in self.near_pairs:
            if pair.orientation % (ORIENTATIONS // 2):
                result[[pair.first, pair.second]] = True
        return result

    @property
    def alike(self) -> NDArray[np.intp]:
        """Group number of each image by pictures alone, whoever they show, (N,)."""
        return _linked(_links(self.equal, self.near_pairs), len(self.groups))

    def unleaked(self, images: ImageSet) -> NDArray[np.bool_]:
        """Which images share no group with an image of the other part, (N,)."""
        testing = images.parts == "testing"
        mixed = np.intersect1d(self.groups[testing], self.groups[~testing])
        return np.asarray(~np.isin(self.groups, mixed))


def _testing_hit(parts: NDArray[np.str_], alike: Sequence[int]) -> set[int]:
    """Testing images among some that are alike, if a training image is one of them."""
    if not any(parts[index] == "training" for index in alike):
        return set()
    return {index for index in alike if parts[index] == "testing"}


def orient(images: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turns and flips (..., side, side): quarter turns by ``orientation % 4``, a flip from 4 on."""
    turned = np.rot90(images, orientation % 4, axes=(-2, -1))
    return turned[..., ::-1] if orientation >= ORIENTATIONS // 2 else turned


def audit(images: ImageSet) -> Audit:
    """Finds all exact and near duplicates in a set and clusters them, and persons, by single linkage.

    Blank slices are alike to nothing: the same air is around every head, byte for byte, and the same
    mark may be on it.

    Takes about 14 s and 1.2 GB for 7,000 images on two cores.
    """
    air = blank(images.slices)
    pictures = _pictures(images)
    _, content = np.unique(pictures, return_inverse=True)
    near = _near_pairs(images, air, content)
    copies, equal = _copies(images.sha256, air), _copies(pictures, air)
    alike = _links(equal, near)
    same_person = _person_pairs(images)
    groups = _linked([*alike, *same_person], len(images))
    # By pictures alone: one that is misfiled must not cost all slices of its patient.
    conflicting = _conflicting(_linked(alike, len(images)), images.labels)
    return Audit(groups, copies, near, conflicting, _linked(same_person, len(images)), equal)


def _links(equal: Sequence[tuple[int, ...]], near: Sequence[Pair]) -> list[tuple[int, int]]:
    """Pairs that link all images which are alike."""
    # One link from each to the first: all pairs of many copies would fill the memory.
    copies = [(same[0], index) for same in equal for index in same[1:]]
    return copies + [(pair.first, pair.second) for pair in near]


def _pictures(images: ImageSet) -> list[str]:
    """A digest of each image's pixels, which files of equal bytes have in common."""
    found: dict[str, str] = {}
    for file, pixels in zip(images.sha256, images.slices, strict=True):
        if file not in found:
            found[file] = hashlib.sha256(pixels.tobytes()).hexdigest()
    return [found[file] for file in images.sha256]


def _linked(pairs: Sequence[tuple[int, int]], count: int) -> NDArray[np.intp]:
    """Numbers of the clusters that pairs of so many images make, (N,)."""
    edges = np.array(pairs, np.intp).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), (count, count))
    _, clusters = connected_components(graph, directed=False)
    return np.asarray(clusters)


def _views(pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Zero-mean, unit-norm coarse (N, 32, 32) and fine (N, 64, 64) views."""
    coarse = np.empty((len(pictures), COARSE_SIDE, COARSE_SIDE), np.float32)
    fine = np.empty((len(pictures), FINE_SIDE, FINE_SIDE), np.float32)
    for index, pixels in enumerate(pictures):
        image = Image.fromarray(pixels)
        coarse[index] = np.asarray(image.resize((COARSE_SIDE, COARSE_SIDE), Image.Resampling.BOX))
        small = image.resize((FINE_SIDE, FINE_SIDE), Image.Resampling.BOX)
        blurred = small.filter(ImageFilter.GaussianBlur(FINE_BLUR_PIXELS))
        fine[index] = np.asarray(small, np.float32) - np.asarray(blurred, np.float32)
    return _unit(coarse), _unit(fine)


def _unit(views: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = views - views.mean(axis=(1, 2), keepdims=True)
    norm = np.sqrt((centred**2).sum(axis=(1, 2), keepdims=True))
    # A blank slice has no direction: it must correlate with nothing rather than with everything.
    return np.where(norm > 1e-3, centred / np.maximum(norm, 1e-3), 0).astype(np.float32)


def _near_pairs(
    images: ImageSet, air: NDArray[np.bool_], content: NDArray[np.intp]
) -> tuple[Pair, ...]:
    """Pairs of other pictures, which ``content`` numbers, (N,), whose two views correlate."""
    found: dict[tuple[int, int], Pair] = {}
    for pictures, threshold in (
        (images.whole, WHOLE_FINE_CORRELATION),
        (images.slices, FINE_CORRELATION),
    ):
        if pictures is not None:
            coarse, fine = _views(pictures)
            # As a slice without any structure: it must correlate with nothing.
            coarse[air] = fine[air] = 0
            found |= _correlated(coarse, fine, content, threshold)
    return tuple(found[key] for key in sorted(found))


def _correlated(
    coarse: NDArray[np.float32],
    fine: NDArray[np.float32],
    content: NDArray[np.intp],
    threshold: float,
) -> dict[tuple[int, int], Pair]:
    count = len(coarse)
    flat, flat_fine = coarse.reshape(count, -1), fine.reshape(count, -1)
    best: dict[tuple[int, int], Pair] = {}
    for orientation in range(ORIENTATIONS):
        turned = np.ascontiguousarray(orient(coarse, orientation)).reshape(count, -1)
        turned_fine = np.ascontiguousarray(orient(fine, orientation)).reshape(count, -1)
        for start in range(0, count, _BLOCK):
            # A turned copy of j on i is a turned copy of i on j: half of the matrix is enough.
            scores = flat[start : start + _BLOCK] @ turned[start:].T
            # In the flat matrix, a tenth of the time that its rows and columns take.
            alike = np.flatnonzero(scores >= COARSE_CORRELATION)
            first, second = (start + i for i in np.divmod(alike, count - start))
            apart = (first < second) & (content[first] != content[second])
            first, second = first[apart], second[apart]
            similarity = _products(flat_fine, turned_fine, first, second)
            for i in np.flatnonzero(similarity >= threshold):
                key = int(first[i]), int(second[i])
                if key not in best or similarity[i] > best[key].fine:
                    best[key] = Pair(*key, orientation, float(similarity[i]))
    return best


def _products(
    ours: NDArray[np.float32],
    theirs: NDArray[np.float32],
    first: NDArray[np.intp],
    second: NDArray[np.intp],
) -> NDArray[np.float32]:
    """The scalar product of each pair of views, the first of ours with the second of theirs."""
    result = np.empty(len(first), np.float32)
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        these = slice(start, start + _PAIRS_AT_ONCE)
        result[these] = np.einsum("ij,ij->i", ours[first[these]], theirs[second[these]])
    return result


def _copies(digests: Sequence[str], left_out: NDArray[np.bool_]) -> tuple[tuple[int, ...], ...]:
    """Indices of the images with a digest in common, two or more each."""
    found: dict[str, list[int]] = defaultdict(list)
    for index in np.flatnonzero(~left_out).tolist():
        found[digests[index]].append(index)
    return tuple(tuple(same) for same in found.values() if len(same) > 1)


def _person_pairs(images: ImageSet) -> list[tuple[int, int]]:
    """Each slice of a person with the person's first, for every name that the person goes by.

    A folder's name means something in its data set alone, or in the one that this is a half of; what
    a DICOM header says, everywhere.
    """
    first: dict[tuple[str, str], int] = {}
    return [
        (first.setdefault(key, index), index)
        for index, file in enumerate(images.files)
        for key in _names(file)
    ]


def _names(file: ImageFile) -> Iterator[tuple[str, str]]:
    if file.person:
        yield file.site or file.source, file.person
    for identity in file.identities:
        yield "", identity


def _conflicting(groups: NDArray[np.intp], labels: NDArray[np.str_]) -> NDArray[np.intp]:
    labels_of: dict[int, set[str]] = defaultdict(set)
    for group, label in zip(groups, labels, strict=True):
        labels_of[int(group)].add(str(label))
    conflicts = {group for group, names in labels_of.items() if exclude_each_other(names)}
    return np.flatnonzero([int(group) in conflicts for group in groups])


def exclude_each_other(labels: Collection[str]) -> bool:
    """Whether one picture cannot have all of these labels.

    "Some tumour" agrees with any kind of tumour, but not with none.
    """
    names = set(labels)
    return len(names - {ANY_TUMOR}) > 1 or names >= {ANY_TUMOR, NO_TUMOR}
