"""The release that runs. It is run from its folder as often as installed, so it is written here."""

from typing import Final

RELEASE: Final = "0.1.0"
"""The same as in ``pyproject.toml``; a test compares them."""
