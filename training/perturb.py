"""Changes that another scanner, another archive or a careless export makes to a slice."""

import io
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from contract.preprocessing import preprocess_placed
from training.stripping import brain

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def _jpeg(image: Image.Image, _: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=30)
    return Image.open(buffer).convert("L")


def _noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    noisy = np.asarray(image, np.float32) + rng.normal(0, 12, image.size[::-1])
    return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))


def _blur(image: Image.Image, _: np.random.Generator) -> Image.Image:
    # A fixed share of the slice, since the sets' resolutions differ.
    return image.filter(ImageFilter.GaussianBlur(min(image.size) / 170))


def _scaled(factor: float, offset: float) -> Change:
    def change(image: Image.Image, _: np.random.Generator) -> Image.Image:
        return image.point([round(min(max(v * factor + offset, 0), 255)) for v in range(256)])

    return change


def _contrast(factor: float) -> Change:
    def change(image: Image.Image, _: np.random.Generator) -> Image.Image:
        return ImageEnhance.Contrast(image).enhance(factor)

    return change


def _rotation(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image.rotate(15, Image.Resampling.BILINEAR)


def _crop(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """Takes a tenth off each side, blackened so that masks stay where they are."""
    width, height = image.size
    box = (width // 10, height // 10, width - width // 10, height - height // 10)
    cropped = Image.new("L", image.size)
    cropped.paste(image.crop(box), box[:2])
    return cropped


def _small(image: Image.Image, _: np.random.Generator) -> Image.Image:
    factor = 128 / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BOX).resize(image.size, Image.Resampling.BILINEAR)


def _stripped(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """Blackens all but the brain; a slice in which none is found stays as it is."""
    prepared, placement = preprocess_placed(np.asarray(image))
    found = brain(prepared)
    if found is None:
        return image
    left, top, right, bottom = placement.crop
    target = Image.fromarray(found.astype(np.uint8) * 255).crop(placement.target)
    kept = Image.new("L", image.size)
    kept.paste(target.resize((right - left, bottom - top), Image.Resampling.BILINEAR), (left, top))
    return Image.fromarray(np.where(np.asarray(kept) > 127, np.asarray(image), np.uint8(0)))


PERTURBATIONS: Final[dict[str, Change]] = {
    "JPEG quality 30": _jpeg,
    "noise, sd 12 of 255": _noise,
    "blur, sd 1.5 px of 256": _blur,
    "darker by 30 %": _scaled(0.7, 0),
    "brighter by 40 levels": _scaled(1, 40),
    "contrast 0.6": _contrast(0.6),
    "contrast 1.5": _contrast(1.5),
    "rotated by 15 degrees": _rotation,
    "cropped by 10 % a side": _crop,
    "scaled to 128 and back": _small,
    "skull stripped, where a brain is found": _stripped,
}
"""Name to change of an 8-bit grey image, whose size stays. Rotation moves the mask as well."""
ROTATED: Final = "rotated by 15 degrees"


def perturbed(
    pixels: NDArray[np.uint8], change: Change, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A decoded slice, uint8 (rows, columns), after a change."""
    return np.asarray(change(Image.fromarray(pixels), rng))
