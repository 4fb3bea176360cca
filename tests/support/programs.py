"""Programs of Debian that tests ask, and what happens where they are not installed."""

import os
import shutil

import pytest

REQUIRED = os.environ.get("TOOLS") == "required"
"""So it is in .ci/run: there a test fails without its programs, and is not skipped."""


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips a test where none of some names (``"chromium|google-chrome"``) is a program here."""
    absent = [names for names in programs if not any(map(shutil.which, names.split("|")))]
    return pytest.mark.skipif(
        bool(absent) and not REQUIRED, reason=f"not installed: {', '.join(absent)}"
    )
