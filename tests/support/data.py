"""Where the real MRI sets lie that the data tests read."""

import os
from pathlib import Path

import pytest

VARIABLE = "MRI_DATA"
"""Names the folder. Not ``BRAIN_DATA``: the service refuses what is no setting of that prefix."""

DEFAULT = Path(__file__).resolve().parents[2].parent / "shared" / "data"
"""Beside the checkout."""


def data_root() -> Path | None:
    """The folder with ``nickparvar/``, ``navoneel/``, ``figshare_cheng/``, if it is there."""
    root = Path(os.environ.get(VARIABLE) or DEFAULT)
    return root if root.is_dir() else None


def require_data(*names: str) -> Path:
    """The folder of the sets, or a skip that says which of ``names`` is missing in it.

    A name is a folder below the root, as in ``nickparvar/Training``.
    """
    root = data_root()
    if root is None:
        pytest.skip(
            f"the MRI sets are absent: no {VARIABLE}, no ../shared/data beside the checkout"
        )
    missing = [name for name in names if not (root / name).is_dir()]
    if missing:
        pytest.skip(f"the MRI sets lack {', '.join(missing)}")
    return root
