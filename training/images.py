"""Images of data sets: where each lies and what is known of it, and all of them as they were read."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.manifest import DataSource
from contract.region import Geometry
from training.identities import PATIENT_ID
from training.names import printable

BLANK_SHARE: Final = 0.05
"""Of a blank slice, less than this share shows anything: a letter in a corner takes 0.01. Every slice
of figshare_cheng, navoneel, nickparvar and normal_volumes has 0.29 or more."""
BLANK_LEVELS: Final = 8
"""Grey levels by which air may vary, either way."""
WHOLE_SIDE: Final = 64
"""Pixels of a side of the whole picture that is kept small, for its copies to be found."""


class ImageFile(NamedTuple):
    """An image as it lies in a data set.

    Attributes:
        path: the file.
        source: name of the data set's folder.
        part: ``training``, ``testing``, ``fold1`` and so on where the data set names patient-wise
            folds, or empty where it is not divided.
        label: class, by :func:`training.names.canonical_label`.
        mask: the radiologist's outline of the tumour, in the image's pixels, where there is one; see
            :func:`training.outlines.load_outline`.
        person: whom it shows, by the folder that it lies in or by the index file, where they say so.
        identities: whom it shows, by its DICOM header, as digests that mean nothing outside this
            process. What has one in common shows one person, whatever data set it lies in.
        site: within which ``person`` means something: the data set, where it is empty.
    """

    path: Path
    source: str
    part: str
    label: str
    mask: Path | None = None
    person: str = ""
    identities: tuple[str, ...] = ()
    site: str = ""

    @property
    def patient(self) -> bool:
        """Whether the data set names the person, or keeps a person's slices in one fold."""
        return self.part.startswith("fold") or self.named

    @property
    def named(self) -> bool:
        """Whether something names the person: a study does not, of which one may have several."""
        return bool(self.person) or any(i.startswith(PATIENT_ID) for i in self.identities)

    @property
    def name(self) -> str:
        """How reports name it: data set, part, label and file name, never the full path."""
        names = (self.source, self.part, self.label, self.path.name)
        return printable("/".join(filter(None, names)))


@dataclass(frozen=True)
class ImageSet:
    """Images that were read, in one fixed order.

    Attributes:
        files: where they come from.
        sha256: of each file's bytes, hex.
        slices: preprocessed, uint8 (N, height, width).
        masks: index to share of tumour in each pixel of the slice, uint8 (height, width), 255 is all
            of it; for the images that come with a mask.
        geometries: where each slice lies in its original image, (N,).
        formats, sizes: how often each file format and each (rows, columns) occurs.
        unreadable: files that gave no slice, with the error code.
        unlabelled: folder, by its name below the data set's, to how many images lie in it that no
            folder's name gives a class; they were not read.
        passed_over: kind of what else lies there, mostly its suffix, to how many files.
        remarks: what of all this may surprise, for people; they name nobody.
        whole: the pictures as decoded, laid upright and squeezed into a small square, with what
            preprocessing crops: uint8 (N, :data:`WHOLE_SIDE`, :data:`WHOLE_SIDE`). None where nothing
            but the slices is known.
    """

    files: tuple[ImageFile, ...]
    sha256: tuple[str, ...]
    slices: NDArray[np.uint8]
    masks: Mapping[int, NDArray[np.uint8]] = field(default_factory=dict)
    geometries: tuple[Geometry, ...] = ()
    formats: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    unreadable: tuple[tuple[Path, str], ...] = ()
    unlabelled: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    remarks: tuple[str, ...] = ()
    whole: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.files)

    def relabelled(self, labels: Mapping[str, str]) -> "ImageSet":
        """The same images, with labels renamed that the map holds: four classes to two, say."""
        files = tuple(f._replace(label=labels.get(f.label, f.label)) for f in self.files)
        return replace(self, files=files)

    @property
    def labels(self) -> NDArray[np.str_]:
        """Class names, (N,)."""
        return np.array([file.label for file in self.files])

    @property
    def parts(self) -> NDArray[np.str_]:
        """Parts of the data sets, (N,)."""
        return np.array([file.part for file in self.files])

    @property
    def linked(self) -> NDArray[np.bool_]:
        """Which images of persons whom nothing names share a study or series with another, (N,)."""
        count = Counter(identity for file in self.files for identity in file.identities)
        return np.array(
            [not f.named and any(count[one] > 1 for one in f.identities) for f in self.files],
            np.bool_,
        )

    def sources(self) -> tuple[DataSource, ...]:
        """What was read, for the manifest: name, count and a digest over the files' hashes."""
        names = sorted({file.source for file in self.files})
        return tuple(self._source(name) for name in names)

    def _source(self, name: str) -> DataSource:
        hashes = sorted(
            digest
            for file, digest in zip(self.files, self.sha256, strict=True)
            if file.source == name
        )
        digest = hashlib.sha256("".join(hashes).encode()).hexdigest()
        return DataSource(name=name, images=len(hashes), digest=digest)

    def describe(self) -> str:
        """A table for people: classes by data set and part, formats, sizes, what was not read.

        And for how many images a person, and an outline, is known.
        """
        counts = Counter((file.source, file.part or "-", file.label) for file in self.files)
        lines = [f"{'data set':<20}{'part':<10}{'class':<12}{'images':>7}"]
        lines += [f"{s:<20}{p:<10}{c:<12}{n:>7}" for (s, p, c), n in sorted(counts.items())]
        lines.append(f"{'total':<42}{len(self):>7}")
        lines.append("formats: " + ", ".join(f"{k} {v}" for k, v in self.formats.most_common()))
        common = ", ".join(f"{c}x{r} {n}" for (r, c), n in self.sizes.most_common(5))
        lines.append(f"sizes (columns x rows): {len(self.sizes)} different; most often {common}")
        lines.append(f"unreadable files: {len(self.unreadable)}")
        lines += [f"  {path}: {code}" for path, code in self.unreadable]
        lines.append(f"images without a class: {self.unlabelled.total()}")
        lines += [f"  {folder}: {count}" for folder, count in sorted(self.unlabelled.items())]
        lines.append(f"other files, not read: {self.passed_over.total()}")
        lines += [f"  {kind}: {count}" for kind, count in sorted(self.passed_over.items())]
        named = sum(file.named for file in self.files)
        linked = int(self.linked.sum())
        lines.append(
            f"images whose person a folder, the index or a DICOM header names: {named}"
            + (f"; a study or series links {linked} others" if linked else "")
        )
        lines.append(f"images with an outlined tumour: {len(self.masks)}")
        lines += [f"  {remark}" for remark in self.remarks]
        return printable("\n".join(lines))


def blank(slices: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which slices (N, height, width) show nothing but air and perhaps a mark on it, (N,).

    Nearly all of their pixels have one grey level, or are the black that makes a slice square.
    """
    return np.array([_shown(pixels) < BLANK_SHARE for pixels in slices], np.bool_)


def _shown(pixels: NDArray[np.uint8]) -> float:
    """Share of a slice's pixels that are neither of its commonest grey level nor black."""
    counts = np.array(Image.fromarray(pixels).histogram())
    for level in (int(counts.argmax()), 0):
        counts[max(0, level - BLANK_LEVELS) : level + BLANK_LEVELS + 1] = 0
    return float(counts.sum()) / pixels.size
