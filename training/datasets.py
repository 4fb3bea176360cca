"""Finds labelled images in folders as people keep them, and reads them as the service does."""

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.decoding import decode, sniff
from contract.errors import DecodeError
from contract.manifest import DataSource
from contract.preprocessing import (
    DEFAULT_SPEC,
    Placement,
    PreprocessSpec,
    Slice,
    preprocess_placed,
)
from contract.region import Geometry
from training.errors import DatasetError

IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".dcm"})
READ_THREADS: Final = 4
INDEX_FILE: Final = "index.csv"
"""A data set with this file lists its images itself: columns id, label, fold; images and masks lie
in ``images/ID.jpg`` and ``masks/ID.png``."""
NO_TUMOR: Final = "notumor"
MASK_LEVEL: Final = 127
"""Above this grey level a mask's pixel is tumour."""
ANY_TUMOR: Final = "tumor"
"""Label of images that show a tumour whose kind is not stated."""

_LABELS: Final = {
    "glioma": "glioma",
    "meningioma": "meningioma",
    "pituitary": "pituitary",
    "notumor": "notumor",
    "notumour": "notumor",
    "no": "notumor",
    "healthybrain": "notumor",
    "normalbrain": "notumor",
    "normal": "notumor",
    "healthy": "notumor",
    "normalvolumes": "notumor",
    "yes": "tumor",
    "tumor": "tumor",
    "tumour": "tumor",
    "tumors": "tumor",
    "tumours": "tumor",
}
_WITHOUT_TUMOR: Final = re.compile(r"(no|non|without)(an?|any)?(brain)?tumou?r|.*tumou?rfree$")
_ABSENCE: Final = frozenset(
    {"no", "non", "not", "without", "free", "healthy", "normal", "none", "negative"}
)
"""Words of a folder's name that speak of what is not there."""
_PARTS: Final = {
    "training": "training",
    "train": "training",
    "testing": "testing",
    "test": "testing",
}


def canonical_label(folder: str) -> str | None:
    """The class that a folder name spells, or None: ``No_Tumor``, ``glioma tumor``, ``yes`` …"""
    word = re.sub(r"[^a-z]", "", folder.lower())
    if _WITHOUT_TUMOR.match(word):
        return NO_TUMOR
    return _LABELS.get(word) or _LABELS.get(re.sub(r"tumou?rs?$", "", word))


def _nearest_label(folders: Sequence[str]) -> str | None:
    """The class that the folders above an image give it, the outermost first.

    ``tumor/free of it`` is no tumour, though no spelling of a class that is known: what lies below a
    name that speaks of absence has no class rather than that of a tumour.
    """
    absent = False
    for folder in reversed(folders):
        label = canonical_label(folder)
        if label is not None:
            return None if absent and label != NO_TUMOR else label
        absent |= not _ABSENCE.isdisjoint(re.split(r"[^a-z]+", folder.lower()))
    return None


class ImageFile(NamedTuple):
    """An image as it lies in a data set.

    Attributes:
        path: the file.
        source: name of the data set's folder.
        part: ``training``, ``testing``, ``fold1`` and so on where the data set names patient-wise
            folds, or empty where it is not divided.
        label: class, by :func:`canonical_label`.
        mask: the radiologist's outline of the tumour, white on black, in the image's pixels, where
            there is one.
        volume: the folder below those of class and part that the slice lies in, if there is one: what
            is in it, and below it, shows one person.
    """

    path: Path
    source: str
    part: str
    label: str
    mask: Path | None = None
    volume: str = ""

    @property
    def patient(self) -> bool:
        """Whether the data set keeps a person's slices together: in a fold, or in a folder."""
        return self.part.startswith("fold") or bool(self.volume)

    @property
    def name(self) -> str:
        """How reports name it: data set, part, label and file name, never the full path."""
        return "/".join(filter(None, (self.source, self.part, self.label, self.path.name)))


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
        """A table for people: classes by data set and part, formats, sizes, what was not read."""
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
        return "\n".join(lines)


def find_images(roots: Sequence[Path]) -> list[ImageFile]:
    """Finds the images below class folders.

    The nearest folder above an image whose name spells a class gives its label; a folder
    ``Training`` or ``Testing`` above gives its part. What no name gives a class is not among them; see
    :func:`read_folders`.

    Raises:
        DatasetError: a folder is missing, holds no class folders, or is given twice.
    """
    names = [root.resolve().name for root in roots]
    if len(set(names)) != len(names):
        raise DatasetError("two data folders have the same name; results could not tell them apart")
    found: list[ImageFile] = []
    for root, name in zip(roots, names, strict=True):
        if not root.is_dir():
            raise DatasetError(f"{root} is no folder")
        indexed = (root / INDEX_FILE).is_file()
        images = list((_index if indexed else _walk)(root.resolve(), name))
        if not images:
            raise DatasetError(
                f"{root} holds no images below class folders (yes/no, or glioma, meningioma, "
                "pituitary, notumor)"
            )
        found += images
    return found


def _image_paths(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Images below a folder, each with the names of the folders that it lies in, from that one on."""
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        if path.is_file():
            yield path, [root.name, *path.relative_to(root).parts[:-1]]


def _walk(root: Path, source: str) -> Iterable[ImageFile]:
    for path, folders in _image_paths(root):
        label = _nearest_label(folders)
        part = next((_PARTS[f.lower()] for f in reversed(folders) if f.lower() in _PARTS), "")
        # The first folder below those of class and part is one person's, whatever is below it.
        named = [canonical_label(f) is not None or f.lower() in _PARTS for f in folders]
        owner = 1 + max((place for place, is_named in enumerate(named) if is_named), default=0)
        volume = "/".join(folders[1 : owner + 1]) if owner < len(folders) else ""
        if label is not None:
            yield ImageFile(path, source, part, label, volume=volume)


def _unlabelled(roots: Sequence[Path]) -> Counter[str]:
    """Folders that hold images without a class, to how many."""
    return Counter(
        "/".join(folders)
        for root in roots
        if not (root / INDEX_FILE).is_file()
        for _, folders in _image_paths(root.resolve())
        if _nearest_label(folders) is None
    )


def _index(root: Path, source: str) -> Iterable[ImageFile]:
    """The images that an index file lists.

    Raises:
        DatasetError: it is no text; or a row lacks a column, or has a label that is no class.
    """
    try:
        text = (root / INDEX_FILE).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{root / INDEX_FILE} is not UTF-8") from error
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        try:
            name, label = row["id"], canonical_label(row["label"])
            part = f"fold{int(row['fold'])}"
        except (KeyError, ValueError, AttributeError) as error:
            raise DatasetError(f"{root / INDEX_FILE}, line {number}: {error}") from error
        if label is None:
            raise DatasetError(f"{root / INDEX_FILE}, line {number}: no class {row['label']!r}")
        mask = root / "masks" / f"{name}.png"
        image = ImageFile(root / "images" / f"{name}.jpg", source, part, label)
        yield image._replace(mask=mask) if mask.is_file() else image


def allowed(
    labels: NDArray[np.str_], classes: Sequence[str], tumor_classes: Sequence[str]
) -> NDArray[np.float32]:
    """Which classes an image may be, float32 (N, classes) of zeros and ones.

    One for each label that is a class; all tumour classes for :data:`ANY_TUMOR`, where that is none.
    """
    table = {name: [name] for name in classes} | (
        {} if ANY_TUMOR in classes else {ANY_TUMOR: list(tumor_classes)}
    )
    rows = [np.isin(classes, table[str(label)]) for label in labels]
    return np.array(rows, np.float32).reshape(-1, len(classes))


class _Read(NamedTuple):
    sha256: str
    format: str
    size: tuple[int, int]
    pixels: NDArray[np.uint8] | None
    mask: NDArray[np.uint8] | None
    geometry: Geometry | None
    error: str


def _read(file: ImageFile, spec: PreprocessSpec) -> _Read:
    try:
        data = file.path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{file.path} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(data).hexdigest()
    try:
        decoded = decode(data, spec)
    except DecodeError as error:
        return _Read(digest, "", (0, 0), None, None, None, error.code)
    pixels, placement = preprocess_placed(decoded.upright, spec)
    mask = None
    if file.mask is not None:
        outline = _read_mask(file.mask, decoded)
        if outline is not None:
            # It outlines the slice as it is stored, and is placed as the slice was: as it is read.
            upright = Image.fromarray(decoded.turn.apply(np.asarray(outline)))
            mask = place_mask(upright, placement, spec)
    geometry = Geometry.of(decoded, placement, spec)
    return _Read(digest, sniff(data).name, decoded.original_size, pixels, mask, geometry, "")


def _read_mask(path: Path, decoded: Slice) -> Image.Image | None:
    """A mask in the size of its decoded slice, 0 or 255 but for scaling; None if it outlines nothing.

    Raises:
        DatasetError: it is damaged, or is no mask of that slice.
    """
    try:
        with Image.open(path) as image:
            mask = image.convert("L")
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(f"{path} is no readable mask: {error}") from error
    rows, columns = decoded.original_size
    if mask.size != (columns, rows):
        raise DatasetError(
            f"{path} has {mask.width}x{mask.height} pixels and its image {columns}x{rows}"
        )
    if not (np.asarray(mask) > MASK_LEVEL).any():
        return None
    size = decoded.pixels.shape[::-1]
    return mask if mask.size == size else mask.resize(size, Image.Resampling.BOX)


def place_mask(mask: Image.Image, placement: Placement, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Cuts and scales a mask as its slice was, to uint8 (height, width)."""
    left, top, right, bottom = placement.target
    output = np.zeros((spec.height, spec.width), np.uint8)
    output[top:bottom, left:right] = np.asarray(
        mask.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=placement.crop)
    )
    return output


def read_images(files: Sequence[ImageFile], spec: PreprocessSpec = DEFAULT_SPEC) -> ImageSet:
    """Decodes and preprocesses images, through the functions that the service calls.

    Raises:
        DatasetError: not one of them is readable; or a file is missing, or a mask is damaged or no mask
            of its image.
    """
    with ThreadPoolExecutor(READ_THREADS) as pool:
        results = list(pool.map(lambda file: _read(file, spec), files))
    good = [(f, r) for f, r in zip(files, results, strict=True) if r.pixels is not None]
    if not good:
        raise DatasetError("none of the images is readable")
    return ImageSet(
        files=tuple(f if r.mask is not None else f._replace(mask=None) for f, r in good),
        sha256=tuple(r.sha256 for _, r in good),
        slices=np.stack([r.pixels for _, r in good if r.pixels is not None]),
        masks={i: r.mask for i, (_, r) in enumerate(good) if r.mask is not None},
        geometries=tuple(r.geometry for _, r in good if r.geometry is not None),
        formats=Counter(r.format for _, r in good),
        sizes=Counter(r.size for _, r in good),
        unreadable=tuple(
            (f.path, r.error) for f, r in zip(files, results, strict=True) if r.pixels is None
        ),
    )


def read_folders(roots: Sequence[Path]) -> ImageSet:
    """Finds and reads images; what has no class is counted.

    Raises:
        DatasetError: see :func:`find_images` and :func:`read_images`.
    """
    images = read_images(find_images(roots))
    return replace(images, unlabelled=_unlabelled(roots))


def require_kinds(labels: NDArray[np.str_]) -> None:
    """Raises DatasetError where all images have one label."""
    found = set(labels.tolist())
    if len(found) < 2:
        raise DatasetError(
            f"there is nothing to tell apart: all images are {', '.join(found) or 'none'}"
        )
