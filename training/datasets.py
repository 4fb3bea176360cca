"""Finds labelled images in folders as people keep them, and reads them as the service does."""

import hashlib
import itertools
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.decoding import Media, decode, open_source, sniff
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
from training.folders import Found, look
from training.names import ANY_TUMOR as ANY_TUMOR  # that others may take it from here
from training.names import NO_TUMOR as NO_TUMOR
from training.names import is_own, printable
from training.outlines import MASK_LEVEL, load_outline

READ_THREADS: Final = 4
MOST_TUMOR: Final = 0.5
"""No more of a slice is tumour: the largest of figshare's 3064 outlines has a tenth of its image."""
BLANK_SHARE: Final = 0.05
"""Of a blank slice, less than this share shows anything: a letter in a corner takes 0.01. Every slice
of figshare_cheng, navoneel, nickparvar and normal_volumes has 0.29 or more."""
BLANK_LEVELS: Final = 8
"""Grey levels by which air may vary, either way."""
_PATIENT_ID: Final = "PatientID"
_IDENTIFIERS: Final = (_PATIENT_ID, "StudyInstanceUID", "SeriesInstanceUID")
"""Attributes of a DICOM object whose values objects of one person share."""
_SALT: Final = secrets.token_bytes(32)
"""Of this process alone, and never written: no digest that is made with it leads back to a patient."""


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
        return bool(self.person) or any(i.startswith(_PATIENT_ID) for i in self.identities)

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
        lines.append(f"other files, not read: {self.passed_over.total()}")
        lines += [f"  {kind}: {count}" for kind, count in sorted(self.passed_over.items())]
        named = sum(file.named for file in self.files)
        linked = int(self.linked.sum())
        lines.append(
            f"images whose person a folder, the index or a DICOM header names: {named}"
            + (f"; a study or series links {linked} others" if linked else "")
        )
        lines += [f"  {remark}" for remark in self.remarks]
        return printable("\n".join(lines))


def find_images(roots: Sequence[Path]) -> list[ImageFile]:
    """Finds the images that have a class; for what else lies there see :func:`read_folders`.

    Raises:
        DatasetError: a folder is missing, holds no class folders, or is given twice.
    """
    return [image for _, images in _find(roots) for image in images]


def _find(roots: Sequence[Path]) -> list[tuple[Found, list[ImageFile]]]:
    """What each of the data sets' folders holds, and its images."""
    for root in roots:
        if not root.is_dir():
            raise DatasetError(f"{root} is no folder")
    places = [given(root) for root in roots]
    if len({place.name for place in places}) != len(places):
        raise DatasetError("two data folders have the same name; results could not tell them apart")
    real = [root.resolve() for root in roots]
    if twice := [root for number, root in enumerate(roots) if real[number] in real[:number]]:
        raise DatasetError(f"{twice[0]} is a folder that is given twice")
    result = []
    for root, place, site in zip(roots, places, _sites(places), strict=True):
        found = look(place)
        if not found.places:
            raise DatasetError(
                f"{root} holds no images below class folders (yes/no, or glioma, meningioma, "
                f"pituitary, notumor){_instead(found)}"
            )
        images = [
            ImageFile(*(at.path, place.name, at.part, at.label, at.mask, at.person), site=site)
            for at in found.places
        ]
        result.append((found, images))
    return result


def given(root: Path) -> Path:
    """A data set's folder, absolute, under the name that it is given by, which may be a link's."""
    return root.resolve() if root.name in {"", ".."} else root.parent.resolve() / root.name


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
    identities: tuple[str, ...]
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
        return _Read(digest, "", (0, 0), None, None, None, (), error.code)
    pixels, placement = preprocess_placed(decoded.upright, spec)
    mask = None
    if file.mask is not None:
        outline = _read_mask(file.mask, decoded)
        if outline is not None and file.label == NO_TUMOR:
            raise DatasetError(
                f"{file.mask} outlines a tumour, and its image is filed as {NO_TUMOR}"
            )
        if outline is not None:
            # It outlines the slice as it is stored, and is placed as the slice was: as it is read.
            upright = Image.fromarray(decoded.turn.apply(np.asarray(outline)))
            mask = place_mask(upright, placement, spec)
    geometry = Geometry.of(decoded, placement, spec)
    media, size = sniff(data), decoded.original_size
    identities = _identities(data, file.site or file.source) if media is Media.DICOM else ()
    return _Read(digest, media.name, size, pixels, mask, geometry, identities, "")


def _identities(data: bytes, site: str) -> tuple[str, ...]:
    """Whom a DICOM object shows, by its patient, study and series: digests, keyed with :data:`_SALT`.

    Each begins with its attribute. Two sites may number their patients alike, but UIDs are unique.

    All three, since any of them may be missing, and some tools that take a patient's name away give
    each object an identifier of its own.
    """
    header = open_source(data, keep=_IDENTIFIERS).header
    if header is None:
        return ()
    found = []
    for keyword in _IDENTIFIERS:
        try:
            value = str(header.get(keyword) or "").strip()
        except Exception:  # noqa: BLE001, S112 - whatever damage makes pydicom raise, with the value in it
            continue
        if value:
            within = site if keyword == _PATIENT_ID else ""
            text = f"{keyword} {value.casefold()} {within}".encode("utf-8", "surrogateescape")
            digest = hashlib.blake2b(text, key=_SALT, digest_size=16).hexdigest()
            found.append(f"{keyword}:{digest}")
    return tuple(found)


def _read_mask(path: Path, decoded: Slice) -> Image.Image | None:
    """A mask in the size of its decoded slice, 0 or 255 but for scaling; None if it outlines nothing.

    Raises:
        DatasetError: it is damaged, or is no mask of that slice, or calls most of it tumour.
    """
    mask = load_outline(path)
    rows, columns = decoded.original_size
    if mask.size != (columns, rows):
        raise DatasetError(
            f"{path} has {mask.width}x{mask.height} pixels and its image {columns}x{rows}"
        )
    share = (np.asarray(mask) > MASK_LEVEL).mean()
    if share > MOST_TUMOR:
        raise DatasetError(
            f"{path} calls {share:.0%} of its image tumour: is it inverted, or a mask of the brain?"
        )
    if not share:
        return None
    size = decoded.pixels.shape[::-1]
    if mask.size == size:
        return mask
    # A reduced JPEG's last pixels reach over its border, where there is no tumour.
    reach = zip(decoded.reach, (columns, rows) * 2, strict=True)
    left, top, right, bottom = (round(share * side) for share, side in reach)
    return mask.crop((left, top, right, bottom)).resize(size, Image.Resampling.BOX)


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
        DatasetError: not one of them is readable; or a file is missing, or a mask is damaged, no mask
            of its image, or outlines a tumour where there is none.
    """
    with ThreadPoolExecutor(READ_THREADS) as pool:
        results = list(pool.map(lambda file: _read(file, spec), files))
    good = [(f, r) for f, r in zip(files, results, strict=True) if r.pixels is not None]
    if not good:
        errors = Counter(result.error for result in results).most_common()
        raise DatasetError(
            "none of the images is readable: " + ", ".join(f"{n} x {code}" for code, n in errors)
        )
    slices = np.stack([r.pixels for _, r in good if r.pixels is not None])
    empty = sum(f.mask is not None and r.mask is None for f, r in good)
    air = int(blank(slices).sum())
    remarks = [f"{empty} masks outline nothing, and count as none"] if empty else []
    remarks += [f"{air} slices are blank, and count as nobody's copies"] if air else []
    return ImageSet(
        files=tuple(
            f._replace(mask=f.mask if r.mask is not None else None, identities=r.identities)
            for f, r in good
        ),
        sha256=tuple(r.sha256 for _, r in good),
        slices=slices,
        masks={i: r.mask for i, (_, r) in enumerate(good) if r.mask is not None},
        geometries=tuple(r.geometry for _, r in good if r.geometry is not None),
        formats=Counter(r.format for _, r in good),
        sizes=Counter(r.size for _, r in good),
        unreadable=tuple(
            (f.path, r.error) for f, r in zip(files, results, strict=True) if r.pixels is None
        ),
        remarks=tuple(remarks),
    )


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


def require_kinds(labels: NDArray[np.str_]) -> None:
    """Raises DatasetError where all images have one label."""
    found = set(labels.tolist())
    if len(found) < 2:
        raise DatasetError(
            f"there is nothing to tell apart: all images are {', '.join(found) or 'none'}"
        )
