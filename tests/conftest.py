"""What tests of several packages share."""

import os
import shutil
from pathlib import Path

import pytest

from contract.store import ModelStore
from tests.support.service import MODEL

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of slow tests come first: of several processes none then works alone at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


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
