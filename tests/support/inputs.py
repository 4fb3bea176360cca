"""The real slices of ``tests/data``, as a model gets them and in colour."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from contract.decoding import decode
from contract.preprocessing import PreprocessSpec, preprocess
from tests.support.service import ROOT


def preprocessed(spec: PreprocessSpec) -> NDArray[np.uint8]:
    """All of them, uint8 (n, height, width), in the order of their paths."""
    files = sorted((ROOT / "tests" / "data" / "slices").glob("*/*.jpg"))
    return np.stack([preprocess(decode(file.read_bytes()).pixels, spec) for file in files])


def in_colour(picture: bytes) -> bytes:
    """A JPEG file of the picture with an orange spot of a fiftieth of its area."""
    with Image.open(io.BytesIO(picture)) as image:
        marked = image.convert("RGB")
    radius = (marked.width * marked.height / 50 / np.pi) ** 0.5
    centre = (marked.width / 2, marked.height / 2)
    ImageDraw.Draw(marked).circle(centre, radius, fill=(255, 140, 0))
    file = io.BytesIO()
    marked.save(file, "JPEG", quality=90)
    return file.getvalue()
