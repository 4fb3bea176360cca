"""A destination for each test."""

from collections.abc import Iterator

import pytest

from tests.support.pacs import Pacs, pacs


@pytest.fixture
def destination() -> Iterator[Pacs]:
    with pacs() as running:
        yield running
