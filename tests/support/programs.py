"""Programs of Debian that tests ask, and what happens where they are not installed."""

import os
import shutil

import pytest

REQUIRED = os.environ.get("TOOLS") == "required"
"""So it is in .ci/run: there a test fails without its programs, and is not skipped."""


PLACES = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
"""Where programs lie; servers lie where only root looks by itself."""


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips a test where none of some names (``"chromium|google-chrome"``) is a program here."""
    absent = [names for names in programs if not any(map(found, names.split("|")))]
    return pytest.mark.skipif(
        bool(absent) and not REQUIRED, reason=f"not installed: {', '.join(absent)}"
    )


def found(program: str) -> str | None:
    """Where a program lies, or None."""
    return shutil.which(program, path=PLACES)
