"""Image files that the tiny models of :mod:`tests.support.models` know, and one that they do not."""

from typing import Final

import numpy as np

from tests.contract.samples import encode
from tests.support.models import head

PATCH: Final = (170, 120, 22)
"""Column, row and radius of the tumour in a head of 300 rows and 260 columns."""

TUMOR: Final = encode(head(patch=PATCH), "PNG")
HEALTHY: Final = encode(head(patch=None), "PNG")
STRANGE: Final = encode(np.tile(np.arange(256, dtype=np.uint8), (256, 1)), "PNG")
"""Grey that grows from left to right: no head at all."""
