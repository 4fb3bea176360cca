"""A sealed copy keeps what its file held, and nobody can change it."""

import mmap
import os
from pathlib import Path

import pytest

from contract.sealing import SealedFile
from contract.store import ModelStore
from tests.contract.versions import FILES, NAME

CONTENT = bytes(range(256)) * 5000
"""More than is copied at a time."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.write_bytes(CONTENT)
    return path


def test_it_keeps_what_the_file_held(source: Path) -> None:
    sealed = SealedFile(source)
    with sealed.path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        os.truncate(source, 0)
        assert mapped[:] == CONTENT
    source.unlink()
    assert sealed.path.read_bytes() == CONTENT


def test_nobody_can_change_it(source: Path) -> None:
    sealed = SealedFile(source)
    for size in (0, 2 * len(CONTENT)):
        with pytest.raises(PermissionError):
            os.truncate(sealed.path, size)
    with pytest.raises(PermissionError):
        os.pwrite(sealed.descriptor, b"x", 0)
    with pytest.raises(PermissionError):
        sealed.path.write_bytes(b"x")


def test_its_memory_is_given_back_with_it(source: Path) -> None:
    path = SealedFile(source).path
    assert not path.exists()


def test_a_version_keeps_the_bytes_that_were_verified(store: ModelStore, version: Path) -> None:
    loaded = store.load(NAME, 1)
    (version / "model.int8.tflite").write_bytes(b"")
    assert {name: file.path.read_bytes() for name, file in loaded.files.items()} == {
        "model.int8.tflite": FILES["model.int8.tflite"]
    }
