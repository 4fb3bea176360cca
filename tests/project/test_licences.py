"""What the service ships with is under licences that go with Apache-2.0."""

import importlib.metadata
import re

import pytest

from tests.project.test_locks import pinned

PERMISSIVE = re.compile(r"MIT|BSD|Apache|PSF|MPL-2\.0")


@pytest.mark.parametrize("name", sorted(pinned("service").keys() - {"colorama"}))
def test_licence_is_permissive(name: str) -> None:
    metadata = importlib.metadata.metadata(name)
    stated = [
        *(metadata.get_all("License-Expression") or []),
        *(metadata.get_all("License") or []),
        *(c for c in metadata.get_all("Classifier") or [] if c.startswith("License")),
    ]
    text = "; ".join(stated)
    assert PERMISSIVE.search(text)
    assert re.search(r"\b[AL]?GPL|General Public", text) is None
