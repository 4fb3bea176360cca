"""A store that several users copy to: what one may not read costs no other version anything."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contract.errors import IncompleteVersion, StoreError
from contract.store import ALIASES, HIGHEST, ModelStore
from tests.contract.versions import NAME, publish

NOBODY = 65534


@contextmanager
def unprivileged() -> Iterator[None]:
    """As another user than root, who may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared() -> Iterator[ModelStore]:
    """Of three versions, in a folder that every user can reach."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    store = ModelStore(root)
    for version in (1, 2, 3):
        publish(store, version)
    yield store
    for path in root.rglob("*"):
        path.chmod(0o755)
    shutil.rmtree(root)


def test_a_version_that_may_not_be_looked_into_is_passed_over(shared: ModelStore) -> None:
    (shared.root / NAME / "3").chmod(0)
    with unprivileged():
        assert shared.versions(NAME) == [1, 2, 3]
        assert shared.described(NAME) == [1, 2]
        assert shared.resolve(NAME, "latest") == 2
        with pytest.raises(IncompleteVersion, match="no readable manifest"):
            shared.load(NAME, 3)


def test_a_private_folder_beside_the_models_is_none(shared: ModelStore) -> None:
    (shared.root / "backup" / "1").mkdir(parents=True)
    (shared.root / "backup").chmod(0)
    with unprivileged():
        assert shared.names() == [NAME]


def test_a_model_that_may_not_be_looked_into_is_not_called_empty(shared: ModelStore) -> None:
    (shared.root / NAME).chmod(0)
    with unprivileged(), pytest.raises(PermissionError):
        shared.resolve(NAME, "latest")


def test_aliases_that_may_not_be_read_are_not_called_damaged(shared: ModelStore) -> None:
    shared.set_alias(NAME, "stable", 2)
    (shared.root / NAME / ALIASES).chmod(0)
    with unprivileged():
        with pytest.raises(StoreError, match=f"{ALIASES} cannot be read") as caught:
            shared.resolve(NAME, "stable")
        assert caught.value.code == "model_store_error"
        assert shared.resolve(NAME, "latest") == 3


def test_a_record_that_cannot_be_read_is_not_called_damaged(store: ModelStore) -> None:
    publish(store, 1)
    (store.root / NAME / HIGHEST).unlink()
    (store.root / NAME / HIGHEST).mkdir()
    unreadable = f"{HIGHEST} cannot be read"
    with pytest.raises(StoreError, match=unreadable):
        store.next_version(NAME)
    with pytest.raises(StoreError, match=unreadable):
        publish(store, 2)
    with pytest.raises(StoreError, match=unreadable):
        store.set_alias(NAME, "stable", 1)


@pytest.mark.parametrize("path", [".", "manifest.json", "saved_model", "model.int8.tflite"])
def test_a_stamp_changes_with_permissions(shared: ModelStore, path: str) -> None:
    """So that a version is tried again whose permissions were mended."""
    (shared.root / NAME / "3" / path).chmod(0)
    with unprivileged():
        before = shared.stamp(NAME, 3)
    (shared.root / NAME / "3" / path).chmod(0o755)
    with unprivileged():
        assert shared.stamp(NAME, 3) != before


def test_a_stamp_passes_over_a_folder_that_goes_meanwhile(
    store: ModelStore, version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    def scanned(path: str | Path) -> Iterator[os.DirEntry[str]]:
        if Path(path) == version / "report":
            Path(path).rename(version.parent / "gone")
        return scan(path)

    monkeypatch.setattr(os, "scandir", scanned)
    assert store.stamp(NAME, 1)
    assert not (version / "report").exists()


def test_what_is_published_everybody_may_read(tmp_path: Path) -> None:
    """Though who exports, in a folder of a new store, makes files for itself alone."""
    before = os.umask(0o077)
    try:
        store = ModelStore(tmp_path / "store")
        publish(store)
        store.set_alias(NAME, "stable", 1)
    finally:
        os.umask(before)
    made = [store.root, *store.root.rglob("*")]
    assert {store.root / NAME / name for name in (HIGHEST, ALIASES)} <= {*made}
    for path in made:
        needed = 0o555 if path.is_dir() else 0o444
        assert stat.S_IMODE(path.stat().st_mode) & needed == needed, path
