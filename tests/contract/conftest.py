"""A store for the tests that publish to it."""

from pathlib import Path

import pytest

from contract.store import ModelStore
from tests.contract.versions import publish


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "model_store")


@pytest.fixture
def version(store: ModelStore) -> Path:
    """The folder of a published version 1."""
    return publish(store)
