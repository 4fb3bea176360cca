"""Reads images of data sets, through the functions that the service calls."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.decoding import Media, decode, sniff
from contract.errors import DecodeError
from contract.preprocessing import DEFAULT_SPEC, PreprocessSpec, preprocess_placed
from contract.region import Geometry
from training.errors import DatasetError
from training.identities import identities
from training.images import WHOLE_SIDE, ImageFile, ImageSet, blank
from training.masks import mask_of_slice

READ_THREADS: Final = 4


class _Read(NamedTuple):
    """An image that was read.

    Attributes:
        file: where it comes from, with whom its header shows, and with its mask if this outlines
            anything.
        sha256: of the file's bytes, hex.
        format: of the file.
        size: rows and columns as stored.
        pixels: preprocessed, uint8 (height, width).
        whole: see :class:`ImageSet`.
        mask: see :func:`training.masks.mask_of_slice`.
        geometry: where the slice lies in its original image.
    """

    file: ImageFile
    sha256: str
    format: str
    size: tuple[int, int]
    pixels: NDArray[np.uint8]
    whole: NDArray[np.uint8]
    mask: NDArray[np.uint8] | None
    geometry: Geometry


def read_images(files: Sequence[ImageFile], spec: PreprocessSpec = DEFAULT_SPEC) -> ImageSet:
    """Decodes and preprocesses images.

    Raises:
        DatasetError: not one of them is readable; or a file is missing, or a mask is damaged, no mask
            of its image, or outlines a tumour where there is none.
    """
    with ThreadPoolExecutor(READ_THREADS) as pool:
        results = list(pool.map(lambda file: _read(file, spec), files))
    read = [result for result in results if isinstance(result, _Read)]
    unreadable = tuple(
        (file.path, code)
        for file, code in zip(files, results, strict=True)
        if isinstance(code, str)
    )
    if not read:
        errors = Counter(code for _, code in unreadable).most_common()
        raise DatasetError(
            "none of the images is readable: " + ", ".join(f"{n} x {code}" for code, n in errors)
        )
    slices = np.stack([result.pixels for result in read])
    empty = sum(
        file.mask is not None and isinstance(result, _Read) and result.mask is None
        for file, result in zip(files, results, strict=True)
    )
    air = int(blank(slices).sum())
    remarks = [f"{empty} masks outline nothing, and count as none"] if empty else []
    remarks += [f"{air} slices are blank, and count as nobody's copies"] if air else []
    return ImageSet(
        files=tuple(result.file for result in read),
        sha256=tuple(result.sha256 for result in read),
        slices=slices,
        masks={i: result.mask for i, result in enumerate(read) if result.mask is not None},
        geometries=tuple(result.geometry for result in read),
        formats=Counter(result.format for result in read),
        sizes=Counter(result.size for result in read),
        unreadable=unreadable,
        remarks=tuple(remarks),
        whole=np.stack([result.whole for result in read]),
    )


def _read(file: ImageFile, spec: PreprocessSpec) -> _Read | str:
    """An image, or the code of the error where it cannot be decoded; raises as :func:`read_images`."""
    try:
        data = file.path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{file.path} cannot be read: {error.strerror}") from error
    try:
        decoded = decode(data, spec)
    except DecodeError as error:
        return error.code
    pixels, placement = preprocess_placed(decoded.upright, spec)
    mask = None
    if file.mask is not None:
        mask = mask_of_slice(file.mask, file.label, decoded, placement, spec)
    media = sniff(data)
    shown = identities(data, file.site or file.source) if media is Media.DICOM else ()
    return _Read(
        file._replace(mask=file.mask if mask is not None else None, identities=shown),
        hashlib.sha256(data).hexdigest(),
        media.name,
        decoded.original_size,
        pixels,
        _whole(decoded.upright),
        mask,
        Geometry.of(decoded, placement, spec),
    )


def _whole(upright: NDArray[np.uint8]) -> NDArray[np.uint8]:
    small = Image.fromarray(upright).resize((WHOLE_SIDE, WHOLE_SIDE), Image.Resampling.BOX)
    return np.asarray(small)
