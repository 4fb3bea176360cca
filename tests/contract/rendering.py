"""What a DICOM object's values become, and what they should."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.dicom import open_dicom
from contract.errors import DecodeError
from contract.policy import DEFAULT_POLICY, Checks, Policy
from contract.preprocessing import Slice
from tests.contract.samples import grey_slice, mr_object

ANY = Policy(checks=Checks.OFF)
"""Takes images of any kind."""


def decoded(data: bytes, policy: Policy = DEFAULT_POLICY, **options: Any) -> Slice:
    """The first frame of an object."""
    return open_dicom(data, policy, **options).slice(1)


def outcome(attributes: Mapping[str, Any], checks: Checks) -> type[DecodeError] | None:
    """The error that an object of these attributes gets, or none."""
    values = grey_slice()
    try:
        result = decoded(mr_object(values, attributes=attributes), Policy(checks=checks))
    except DecodeError as error:
        return type(error)
    assert result.pixels.shape == values.shape
    return None


def difference(pixels: NDArray[np.uint8], expected: NDArray[Any]) -> float:
    assert pixels.shape == expected.shape
    assert pixels.dtype == np.uint8
    return float(np.abs(pixels.astype(float) - expected).max())


def linear(values: NDArray[Any], center: float, width: float) -> NDArray[np.float64]:
    """PS3.3 C.11.2.1.2.1, word for word, one value at a time."""

    def one(x: float) -> float:
        if x <= center - 0.5 - (width - 1) / 2:
            return 0.0
        if x > center - 0.5 + (width - 1) / 2:
            return 255.0
        return ((x - (center - 0.5)) / (width - 1) + 0.5) * 255

    return np.asarray(np.vectorize(one, otypes=[np.float64])(values))
