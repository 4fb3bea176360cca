import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.errors import (
    CorruptVersion,
    IncompleteVersion,
    NewerSchema,
    PreprocessMismatch,
    StoreError,
    VersionExists,
    VersionNotFound,
)
from contract.manifest import SCHEMA_VERSION, Manifest
from contract.store import ALIASES, MANIFEST, STAGING_PREFIX, ModelStore, file_digest
from tests.contract.versions import FILES, NAME, fill, manifest_fields, publish

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "model_store")


@pytest.fixture
def version(store: ModelStore) -> Path:
    """The folder of a published version 1."""
    return publish(store)


def edit_manifest(version: Path, **changes: Any) -> None:
    content = json.loads((version / MANIFEST).read_bytes())
    (version / MANIFEST).write_text(json.dumps(content | changes), encoding="utf-8")


class TestPublish:
    def test_a_published_version_loads(self, store: ModelStore) -> None:
        path = publish(store)
        loaded = store.load(NAME, 1)
        assert loaded.path == path == store.root / NAME / "1"
        assert {entry.path for entry in loaded.manifest.files} == set(FILES)
        assert all(
            entry.sha256 == file_digest(path / entry.path) for entry in loaded.manifest.files
        )
        assert loaded.manifest_digest == file_digest(path / MANIFEST)
        assert loaded.preprocess.digest == loaded.manifest.preprocess.digest

    def test_nothing_is_left_aside(self, version: Path) -> None:
        assert [path.name for path in version.parent.iterdir()] == ["1"]
        assert version.stat().st_mode & 0o755 == 0o755, "others may read it, as in a container"

    def test_a_number_is_used_once(self, store: ModelStore, version: Path) -> None:
        before = (version / MANIFEST).read_bytes()
        with pytest.raises(VersionExists):
            publish(store, metrics={"accuracy": 0.5})
        assert (version / MANIFEST).read_bytes() == before
        assert not list(version.parent.glob(f"{STAGING_PREFIX}*"))

    @pytest.mark.parametrize(
        "artifact", ["missing.tflite", "saved_model/missing", "empty_folder"], ids=str
    )
    def test_an_artifact_must_be_there(self, store: ModelStore, artifact: str) -> None:
        manifest = Manifest.model_validate(manifest_fields() | {"artifacts": {"litert": artifact}})
        with store.staging(NAME) as staged:
            fill(staged)
            (staged / "empty_folder").mkdir()
            with pytest.raises(IncompleteVersion):
                store.publish(staged, manifest)
        assert store.versions(NAME) == []

    def test_a_failed_export_leaves_nothing(self, store: ModelStore) -> None:
        def export() -> None:
            with store.staging(NAME) as staged:
                fill(staged)
                raise RuntimeError("out of memory")

        with pytest.raises(RuntimeError, match="out of memory"):
            export()
        assert list((store.root / NAME).iterdir()) == []

    def test_a_staged_folder_is_invisible(self, store: ModelStore) -> None:
        with store.staging(NAME) as staged:
            fill(staged)
            assert store.names() == []
            assert store.versions(NAME) == []
            with pytest.raises(VersionNotFound):
                store.resolve(NAME, "latest")

    def test_of_many_publishers_one_wins(self, store: ModelStore) -> None:
        publishers, rounds = 6, 5
        for version in range(1, rounds + 1):
            start = threading.Barrier(publishers)
            outcomes: list[str] = []

            def run(
                version: int = version,
                start: threading.Barrier = start,
                outcomes: list[str] = outcomes,
            ) -> None:
                with store.staging(NAME) as staged:
                    fill(staged)
                    manifest = Manifest.model_validate(manifest_fields(version))
                    start.wait(timeout=30)
                    try:
                        store.publish(staged, manifest)
                    except VersionExists:
                        outcomes.append("exists")
                    else:
                        outcomes.append("published")

            threads = [threading.Thread(target=run) for _ in range(publishers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(timeout=60)
            assert sorted(outcomes) == ["exists"] * (publishers - 1) + ["published"]
            store.load(NAME, version)

    def test_a_publish_killed_anywhere_leaves_all_or_nothing(self) -> None:
        script = "import tests.contract.killed_publish as trial; trial.main()"
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            timeout=120,
            check=True,
        )
        outcomes = json.loads(done.stdout)
        assert [outcome for outcome in outcomes if "error" in outcome] == []
        assert all(outcome["versions"] in ([1], [1, 2]) for outcome in outcomes)
        assert all(outcome["latest"] == outcome["versions"][-1] for outcome in outcomes)
        assert all(outcome["names"] == [NAME] for outcome in outcomes)
        killed = outcomes[:-1]
        assert len(killed) > 2 * len(FILES), "every file is written, hashed and synced"
        assert any(outcome["staged"] for outcome in killed), "killed in the middle"
        assert [outcome["versions"] for outcome in outcomes[::-1]].index([1]) > 1, "killed at last"
        assert outcomes[-1]["exit"] == 0
        assert outcomes[-1]["versions"] == [1, 2]

    def test_a_full_disk_leaves_no_version(
        self, store: ModelStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def half_write(path: Path, text: str, encoding: str) -> None:
            path.write_bytes(text.encode(encoding)[: len(text) // 2])
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_text", half_write)
            with pytest.raises(OSError, match="No space left"):
                publish(store)
        assert store.versions(NAME) == []
        assert list((store.root / NAME).iterdir()) == []
        publish(store)
        store.load(NAME, 1)


class TestResolve:
    @pytest.fixture
    def three(self, store: ModelStore) -> ModelStore:
        for number in (1, 2, 10):
            publish(store, number)
        return store

    def test_versions_are_in_numeric_order(self, three: ModelStore) -> None:
        assert three.versions(NAME) == [1, 2, 10]
        assert three.names() == [NAME]

    def test_latest_is_the_highest_number(self, three: ModelStore) -> None:
        assert three.resolve(NAME, "latest") == 10

    def test_a_number_is_itself(self, three: ModelStore) -> None:
        assert three.resolve(NAME, "2") == 2

    def test_an_alias_is_what_it_points_at(self, three: ModelStore) -> None:
        three.set_alias(NAME, "stable", 2)
        three.set_alias(NAME, "canary", 10)
        three.set_alias(NAME, "stable", 1)
        assert three.aliases(NAME) == {"stable": 1, "canary": 10}
        assert three.resolve(NAME, "stable") == 1
        assert sorted(path.name for path in (three.root / NAME).iterdir()) == sorted(
            ["1", "2", "10", ALIASES]
        )

    @pytest.mark.parametrize("alias", ["latest", "", "1", "Stable", "a/b", "..", "a" * 33])
    def test_an_alias_is_a_word(self, three: ModelStore, alias: str) -> None:
        with pytest.raises(StoreError):
            three.set_alias(NAME, alias, 1)
        assert three.aliases(NAME) == {}

    def test_an_alias_needs_its_version(self, three: ModelStore) -> None:
        with pytest.raises(VersionNotFound):
            three.set_alias(NAME, "stable", 3)

    def test_an_alias_to_a_removed_version_is_not_found(self, three: ModelStore) -> None:
        three.set_alias(NAME, "stable", 2)
        shutil.rmtree(three.root / NAME / "2")
        with pytest.raises(VersionNotFound):
            three.resolve(NAME, "stable")

    @pytest.mark.parametrize(
        "selector", ["3", "0", "01", "-1", "1.0", "nightly", "", "../1", "9" * 5000], ids=repr
    )
    def test_what_names_no_version_is_not_found(self, three: ModelStore, selector: str) -> None:
        with pytest.raises(VersionNotFound):
            three.resolve(NAME, selector)

    @pytest.mark.parametrize("name", ["other", "", ".", "..", "../model_store/brain-tumor", "a\0b"])
    def test_a_name_that_is_none_is_not_found(self, three: ModelStore, name: str) -> None:
        assert three.versions(name) == []
        with pytest.raises(VersionNotFound):
            three.resolve(name, "latest")
        with pytest.raises(VersionNotFound):
            three.load(name, 1)

    @pytest.mark.parametrize(
        "text",
        ["", "{", "[]", "null", '{"a": "1"}', '{"a": 1.5}', '{"a": true}', '{"a": [1]}', "\udcff"],
        ids=repr,
    )
    def test_a_damaged_alias_file_is_corrupt(self, three: ModelStore, text: str) -> None:
        (three.root / NAME / ALIASES).write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(CorruptVersion):
            three.resolve(NAME, "stable")
        assert three.resolve(NAME, "latest") == 10, "a number needs no alias"

    def test_strangers_in_the_store_are_passed_over(self, three: ModelStore) -> None:
        (three.root / "README.md").write_text("what this is", encoding="utf-8")
        (three.root / ".git").mkdir()
        (three.root / NAME / "12").write_text("a file, not a version", encoding="utf-8")
        (three.root / NAME / "007").mkdir()
        (three.root / NAME / "x1").mkdir()
        assert three.names() == [NAME]
        assert three.versions(NAME) == [1, 2, 10]

    def test_a_store_that_is_not_there_is_empty(self, store: ModelStore) -> None:
        assert store.names() == []
        with pytest.raises(VersionNotFound):
            store.resolve(NAME, "latest")


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

    @pytest.mark.parametrize("place", ["extra.py", "saved_model/assets/vocabulary.txt"])
    def test_an_extra_file_is_corrupt(self, store: ModelStore, version: Path, place: str) -> None:
        (version / place).parent.mkdir(exist_ok=True)
        (version / place).write_bytes(b"")
        with pytest.raises(CorruptVersion):
            store.load(NAME, 1)

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

        monkeypatch.setattr("contract.store.file_digest", fail)
        with pytest.raises(IncompleteVersion, match="cannot be read"):
            store.load(version.parent.name, 1)

    def test_every_failure_has_a_message_without_paths(
        self, store: ModelStore, version: Path
    ) -> None:
        flip_byte(version / "model.int8.tflite")
        with pytest.raises(CorruptVersion) as caught:
            store.load(NAME, 1)
        assert str(store.root) not in caught.value.detail
