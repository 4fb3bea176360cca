"""Outlines of JPEGs that are decoded at a reduced size, whose last pixels reach over the border."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.datasets import find_images
from training.reading import read_images


@pytest.mark.parametrize(("columns", "rows"), [(2049, 2056), (2056, 2049), (2048, 2048)])
def test_an_outline_lies_where_its_tumour_does(tmp_path: Path, columns: int, rows: int) -> None:
    shown = np.full((rows, columns), 60, np.uint8)
    shown[1700:1900, 1650:1950] = 255
    for folder in ("images", "masks"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    Image.fromarray(shown).save(tmp_path / "set" / "images" / "1.jpg", quality=100)
    outline = np.uint8(255) * (shown == 255)
    Image.fromarray(outline).save(tmp_path / "set" / "masks" / "1.png")
    (tmp_path / "set" / "index.csv").write_text("id,label,patient\n1,glioma,P1\n")
    images = read_images(find_images([tmp_path / "set"]))
    tumour = np.clip(images.slices[0].astype(float) - 60, 0, None)
    assert np.allclose(centre(images.masks[0].astype(float)), centre(tumour), atol=0.1)


def centre(shares: np.ndarray) -> tuple[float, float]:
    """In pixels, from the top and from the left."""
    y, x = np.indices(shares.shape)
    return float((y * shares).sum() / shares.sum()), float((x * shares).sum() / shares.sum())
