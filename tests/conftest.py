"""What tests of several packages share."""

import gc
import os
import shutil
from pathlib import Path

import pytest

from contract.store import ModelStore
from tests.support.service import MODEL

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"
SLOW_SECONDS = 10
"""What a test marked slow takes at least, and counts for where its mark says no more."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest files come first: of several processes none then works alone at the end."""
    seconds: dict[Path, int] = {}
    for item in items:
        for mark in item.iter_markers("slow"):
            seconds[item.path] = max(seconds.get(item.path, 0), *(mark.args or (SLOW_SECONDS,)))
    items.sort(key=lambda item: -seconds.get(item.path, 0))


def pytest_collection_finish() -> None:
    """Keras collects garbage before each command: not in all that was imported, each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def model_store() -> Path:
    """The store that ships; ``BRAIN_TEST_STORE`` names another one."""
    store = Path(os.environ.get("BRAIN_TEST_STORE") or ROOT / "model_store")
    assert ModelStore(store).versions(MODEL), f"{store} has no version of {MODEL}"
    return store


@pytest.fixture
def store_copy(model_store: Path, tmp_path: Path) -> Path:
    """A store of one's own with the latest version, to damage."""
    version = str(ModelStore(model_store).versions(MODEL)[-1])
    store = tmp_path / "store"
    shutil.copytree(model_store / MODEL / version, store / MODEL / version)
    return store


@pytest.fixture(scope="session")
def slices() -> list[Path]:
    """Eight real slices, two of each class, JPEG."""
    return sorted((DATA / "slices").glob("*/*.jpg"))


@pytest.fixture(scope="session")
def jpeg(slices: list[Path]) -> bytes:
    """One real slice."""
    return slices[0].read_bytes()


@pytest.fixture(scope="session")
def dicom() -> bytes:
    """One real MR object."""
    return (DATA / "dicom" / "axial_t1_defaced_0220.dcm").read_bytes()
