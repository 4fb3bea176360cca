"""Masks as answers write them, read by other means than those that wrote them."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def run_length_mask(mask: Mapping[str, Any]) -> NDArray[np.bool_]:
    """What COCO's run lengths stand for, one run after the other: bool (rows, columns)."""
    flat = [
        value
        for count, value in zip(mask["counts"], itertools.cycle([False, True]), strict=False)
        for _ in range(count)
    ]
    return np.array(flat).reshape(mask["size"], order="F")
