"""Masks in the forms that tools write them in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.datasets import find_images
from training.errors import DatasetError
from training.reading import read_images
from training.regions import read_mask

BOX = (90, 90, 130, 130)


def _set(root: Path, mask: Image.Image, label: str = "glioma") -> Path:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    Image.new("L", (256, 256), 90).save(root / "images" / "1.jpg")
    mask.save(root / "masks" / "1.png")
    (root / "index.csv").write_text(f"id,label,fold\n1,{label},1\n")
    return root


def _mask(mode: str, under: Any, over: Any) -> Image.Image:
    if mode == "I;16":
        # Pillow pastes values of 16 bits as it sees fit.
        pixels = np.full((256, 256), under, np.uint16)
        pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = over
        return Image.fromarray(pixels)
    mask = Image.new(mode, (256, 256), under)
    mask.paste(over, BOX)
    return mask


def _palette() -> Image.Image:
    mask = Image.new("P", (256, 256), 0)
    mask.putpalette([0, 0, 0, 128, 0, 0])
    mask.paste(1, BOX)
    return mask


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(_mask("1", 0, 1), id="one bit"),
        pytest.param(_mask("L", 0, 255), id="white"),
        pytest.param(_mask("L", 0, 1), id="zeros and ones"),
        pytest.param(_mask("L", 0, 100), id="grey"),
        pytest.param(_mask("L", 3, 250), id="nearly black and white"),
        pytest.param(_mask("I;16", 0, 1), id="16 bits of ones"),
        pytest.param(_mask("I;16", 0, 65535), id="16 bits"),
        pytest.param(_mask("RGB", (0, 0, 0), (255, 0, 0)), id="red"),
        pytest.param(_mask("RGB", (0, 0, 0), (0, 0, 255)), id="blue"),
        pytest.param(_mask("RGB", (2, 0, 0), (255, 250, 255)), id="white in colour"),
        pytest.param(_mask("RGB", (0, 0, 0), (0, 0, 1)), id="hardly blue"),
        pytest.param(_mask("RGBA", (0, 0, 0, 255), (1, 1, 1, 90)), id="hardly anything"),
        pytest.param(_palette(), id="palette"),
        pytest.param(_mask("LA", (0, 0), (0, 255)), id="black on nothing"),
        pytest.param(_mask("LA", (0, 255), (255, 255)), id="opaque"),
        pytest.param(_mask("RGBA", (0, 0, 0, 0), (0, 200, 0, 90)), id="green on nothing"),
        pytest.param(
            _mask("RGBA", (255, 255, 255, 0), (255, 255, 255, 255)), id="white on nothing"
        ),
        pytest.param(_mask("RGBA", (0, 0, 0, 255), (255, 0, 0, 255)), id="opaque red"),
    ],
)
def test_a_mask_of_two_values_is_read_in_every_form(tmp_path: Path, mask: Image.Image) -> None:
    root = _set(tmp_path / "set", mask)
    expected = np.asarray(_mask("L", 0, 255)) > 0
    np.testing.assert_array_equal(read_mask(root / "masks" / "1.png"), expected)
    images = read_images(find_images([root]))
    whole = read_images(find_images([_set(tmp_path / "white", _mask("L", 0, 255))]))
    # What is nearly black stays so.
    np.testing.assert_allclose(images.masks[0], whole.masks[0], atol=8)


def test_grey_levels_of_a_scaled_mask_are_kept(tmp_path: Path) -> None:
    mask = _mask("L", 0, 255).resize((85, 85)).resize((256, 256))
    root = _set(tmp_path / "set", mask)
    expected = np.asarray(mask) > 127
    np.testing.assert_array_equal(read_mask(root / "masks" / "1.png"), expected)
    assert len(np.unique(read_images(find_images([root])).masks[0])) > 10


def _half(rows: int) -> Image.Image:
    mask = Image.new("L", (256, 256))
    mask.paste(255, (0, 0, 256, rows))
    return mask


def _three(mode: str, *values: Any) -> Image.Image:
    mask = _mask(mode, values[0], values[1])
    mask.paste(values[2], (10, 10, 20, 20))
    return mask


def _levels(count: int) -> Image.Image:
    """Of so many grey levels, evenly spaced from black on, a few pixels of each but black."""
    mask = Image.new("L", (256, 256))
    for number in range(count):
        mask.paste(255 * number // (count - 1), (10 * number, 0, 10 * number + 9, 9))
    return mask


def test_more_levels_than_classes_are_a_scaled_mask_s(tmp_path: Path) -> None:
    root = _set(tmp_path / "set", _levels(9))
    assert read_mask(root / "masks" / "1.png").sum() == 4 * 81


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (_mask("L", 255, 0), "calls 98% of its image tumour: is it inverted"),
        (_mask("RGB", (255, 0, 0), (0, 0, 0)), "calls 98%"),
        (_half(129), "calls 50%"),
    ],
)
def test_most_of_a_slice_is_no_tumour(tmp_path: Path, mask: Image.Image, says: str) -> None:
    with pytest.raises(DatasetError, match=rf"1\.png {says}"):
        read_images(find_images([_set(tmp_path / "set", mask)]))


def test_half_of_it_may_be(tmp_path: Path) -> None:
    assert len(read_images(find_images([_set(tmp_path / "set", _half(128))])).masks) == 1


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_mask_that_is_white_all_over_is_an_error(tmp_path: Path, mode: str) -> None:
    with pytest.raises(DatasetError, match=r"1\.png calls 100%"):
        read_images(find_images([_set(tmp_path / "set", Image.new(mode, (256, 256), "white"))]))


@pytest.mark.parametrize(
    ("mask", "holds"),
    [
        pytest.param(_three("L", 0, 1, 2), "0, 1, 2;", id="classes"),
        pytest.param(_three("L", 0, 170, 255), "0, 170, 255;", id="classes to the full"),
        pytest.param(_levels(8), "0, 36, 72, 109, 145, 182 …;", id="eight classes"),
        pytest.param(_mask("L", 1, 2), "1, 2;", id="no black"),
        pytest.param(_mask("L", 200, 255), "200, 255;", id="bright"),
        pytest.param(_mask("I;16", 70, 300), "70, 300;", id="16 bits"),
        pytest.param(
            _three("RGB", (0, 0, 0), (255, 0, 0), (0, 255, 0)),
            r"\(0, 0, 0\), \(0, 255, 0\), \(255, 0, 0\);",
            id="two colours",
        ),
        pytest.param(_mask("RGB", (9, 90, 0), (255, 0, 0)), r"\(9, 90, 0\)", id="no black, colour"),
    ],
)
def test_a_mask_that_does_not_say_what_is_tumour_is_an_error(
    tmp_path: Path, mask: Image.Image, holds: str
) -> None:
    root = _set(tmp_path / "set", mask)
    with pytest.raises(DatasetError, match=f"1.png does not say .* it holds {holds}.*expected"):
        read_images(find_images([root]))


@pytest.mark.parametrize(
    "mask",
    [Image.new("L", (256, 256)), Image.new("RGB", (256, 256)), Image.new("RGBA", (256, 256))],
    ids=lambda mask: mask.mode,
)
def test_a_mask_may_outline_nothing(tmp_path: Path, mask: Image.Image) -> None:
    images = read_images(find_images([_set(tmp_path / "set", mask, "notumor")]))
    assert not images.masks
    assert "\n  1 masks outline nothing, and count as none" in images.describe()


def test_a_slice_that_is_filed_as_no_tumour_has_no_outlined_one(tmp_path: Path) -> None:
    root = _set(tmp_path / "set", _mask("L", 0, 255), "notumor")
    with pytest.raises(DatasetError, match=r"1\.png outlines a tumour.*filed as notumor"):
        read_images(find_images([root]))
