"""Services that run for the tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.service import FakeRuntimes, Service, serving, settings_for


@pytest.fixture(scope="session")
def service(model_store: Path) -> Iterator[Service]:
    """The shipped model on LiteRT; shared, so tests must leave it as it is."""
    with serving(settings_for(model_store)) as running:
        yield running


@pytest.fixture
def runtimes() -> FakeRuntimes:
    """Runtimes that misbehave on command."""
    return FakeRuntimes()
