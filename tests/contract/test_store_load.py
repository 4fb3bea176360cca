"""A version that is damaged in any way does not load."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.errors import CorruptVersion, IncompleteVersion, NewerSchema, PreprocessMismatch
from contract.manifest import SCHEMA_VERSION
from contract.store import ModelStore
from contract.version import MANIFEST, file_digest
from tests.contract.versions import FILES, NAME


def edit_manifest(version: Path, **changes: Any) -> None:
    content = json.loads((version / MANIFEST).read_bytes())
    (version / MANIFEST).write_text(json.dumps(content | changes), encoding="utf-8")


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes() or b"\0")
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


class TestLoad:
    @pytest.mark.parametrize("name", FILES)
    def test_a_changed_byte_is_corrupt(self, store: ModelStore, version: Path, name: str) -> None:
        flip_byte(version / name)
        with pytest.raises(CorruptVersion, match=name):
            store.load(NAME, 1)

    @pytest.mark.parametrize("name", FILES)
    def test_a_longer_file_is_corrupt(self, store: ModelStore, version: Path, name: str) -> None:
        (version / name).write_bytes((version / name).read_bytes() + b"\0")
        with pytest.raises(CorruptVersion, match=name):
            store.load(NAME, 1)

    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file_is_incomplete(
        self, store: ModelStore, version: Path, name: str
    ) -> None:
        (version / name).unlink()
        with pytest.raises(IncompleteVersion, match=name):
            store.load(NAME, 1)

    def test_a_missing_manifest_is_incomplete(self, store: ModelStore, version: Path) -> None:
        (version / MANIFEST).unlink()
        with pytest.raises(IncompleteVersion):
            store.load(NAME, 1)

    @pytest.mark.parametrize(
        "place", [".DS_Store", "saved_model/assets/vocabulary.txt", "of other bytes \udcff"]
    )
    def test_an_extra_file_is_corrupt(self, store: ModelStore, version: Path, place: str) -> None:
        (version / place).parent.mkdir(exist_ok=True)
        (version / place).write_bytes(b"")
        with pytest.raises(CorruptVersion) as caught:
            store.load(NAME, 1)
        assert f"holds {place!r}, which" in caught.value.detail
        assert caught.value.detail.encode()

    def test_a_linked_folder_is_corrupt(
        self, store: ModelStore, version: Path, tmp_path: Path
    ) -> None:
        (version / "saved_model" / "assets").symlink_to(tmp_path, target_is_directory=True)
        with pytest.raises(CorruptVersion):
            store.load(NAME, 1)

    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
    def test_a_truncated_manifest_is_corrupt(
        self, store: ModelStore, version: Path, share: float
    ) -> None:
        content = (version / MANIFEST).read_bytes()
        (version / MANIFEST).write_bytes(content[: int(share * len(content))])
        with pytest.raises(CorruptVersion):
            store.load(NAME, 1)

    @pytest.mark.parametrize(
        "content",
        [b"null", b"[]", b"3", b'"text"', b"{}", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000],
        ids=lambda content: repr(content[:8]),
    )
    def test_a_manifest_that_is_none_is_corrupt(
        self, store: ModelStore, version: Path, content: bytes
    ) -> None:
        (version / MANIFEST).write_bytes(content)
        with pytest.raises(CorruptVersion):
            store.load(NAME, 1)

    @pytest.mark.parametrize("schema", [SCHEMA_VERSION + 1, 10**30])
    def test_a_newer_schema_is_told_apart(
        self, store: ModelStore, version: Path, schema: int
    ) -> None:
        edit_manifest(version, schema_version=schema, a_field_of_the_future={})
        with pytest.raises(NewerSchema):
            store.load(NAME, 1)

    @pytest.mark.parametrize("schema", [0, -1, "1", None, 1.5])
    def test_an_impossible_schema_is_corrupt(
        self, store: ModelStore, version: Path, schema: object
    ) -> None:
        edit_manifest(version, schema_version=schema)
        with pytest.raises(CorruptVersion):
            store.load(NAME, 1)

    def test_another_versions_folder_is_corrupt(self, store: ModelStore, version: Path) -> None:
        shutil.copytree(version, version.parent / "2")
        with pytest.raises(CorruptVersion):
            store.load(NAME, 2)

    def test_another_models_folder_is_corrupt(self, store: ModelStore, version: Path) -> None:
        shutil.copytree(version, store.root / "other" / "1")
        with pytest.raises(CorruptVersion):
            store.load("other", 1)

    @pytest.mark.parametrize("path", ["../2/secret", "/etc/hostname", "a/../../secret"])
    def test_a_path_out_of_the_version_is_corrupt(
        self, store: ModelStore, version: Path, path: str
    ) -> None:
        outside = version.parent / "2" / "secret"
        outside.parent.mkdir()
        outside.write_bytes(b"x")
        entry = {"path": path, "sha256": file_digest(outside), "size_bytes": 1}
        files = json.loads((version / MANIFEST).read_bytes())["files"]
        edit_manifest(version, files=[*files, entry])
        with pytest.raises(CorruptVersion):
            store.load(NAME, 1)

    def test_a_file_struck_from_the_manifest_is_noticed(
        self, store: ModelStore, version: Path
    ) -> None:
        files = json.loads((version / MANIFEST).read_bytes())["files"]
        edit_manifest(version, files=files[1:])
        with pytest.raises(CorruptVersion):
            store.load(NAME, 1)

    def test_an_artifact_without_files_is_incomplete(
        self, store: ModelStore, version: Path
    ) -> None:
        edit_manifest(version, artifacts={"litert": "another.tflite"})
        with pytest.raises(IncompleteVersion):
            store.load(NAME, 1)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda record: record | {"digest": "0" * 64},
            lambda record: record | {"probe_digest": "0" * 64},
            lambda record: record | {"parameters": record["parameters"] | {"gamma": 2.0}},
            lambda record: record | {"parameters": record["parameters"] | {"algorithm": 2}},
        ],
        ids=["digest", "probe", "unknown-parameter", "unknown-algorithm"],
    )
    def test_preprocessing_that_cannot_be_reproduced_is_a_mismatch(
        self,
        store: ModelStore,
        version: Path,
        damage: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> None:
        record = json.loads((version / MANIFEST).read_bytes())["preprocess"]
        edit_manifest(version, preprocess=damage(record))
        with pytest.raises(PreprocessMismatch):
            store.load(NAME, 1)

    def test_an_unreadable_file_is_incomplete(
        self, store: ModelStore, version: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(path: Path) -> str:
            raise OSError(5, "Input/output error", str(path))

        monkeypatch.setattr("contract.version.file_digest", fail)
        with pytest.raises(IncompleteVersion, match="cannot be read"):
            store.load(version.parent.name, 1)

    def test_every_failure_has_a_message_without_paths(
        self, store: ModelStore, version: Path
    ) -> None:
        flip_byte(version / "model.int8.tflite")
        with pytest.raises(CorruptVersion) as caught:
            store.load(NAME, 1)
        assert str(store.root) not in caught.value.detail
