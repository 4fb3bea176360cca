"""The real slices of ``tests/data`` as a model gets them."""

import numpy as np
from numpy.typing import NDArray

from contract.decoding import decode
from contract.preprocessing import PreprocessSpec, preprocess
from tests.support.service import ROOT


def preprocessed(spec: PreprocessSpec) -> NDArray[np.uint8]:
    """All of them, uint8 (n, height, width), in the order of their paths."""
    files = sorted((ROOT / "tests" / "data" / "slices").glob("*/*.jpg"))
    return np.stack([preprocess(decode(file.read_bytes()).pixels, spec) for file in files])
