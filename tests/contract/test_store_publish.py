"""Versions are published all or not at all, whatever cuts an export off."""

import fcntl
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from contract.errors import (
    IncompleteVersion,
    PreprocessMismatch,
    ReadOnlyStore,
    VersionExists,
    VersionNotFound,
)
from contract.manifest import Manifest
from contract.store import ALIASES, HIGHEST, STAGING_PREFIX, ModelStore
from contract.version import MANIFEST, file_digest
from tests.contract.versions import FILES, NAME, fill, manifest_fields, publish
from tests.support.killing import require_all_or_nothing
from tests.support.threads import at_once


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
        assert sorted(path.name for path in version.parent.iterdir()) == ["1", HIGHEST]
        assert version.stat().st_mode & 0o755 == 0o755, "others may read it, as in a container"

    def test_a_number_is_used_once(self, store: ModelStore, version: Path) -> None:
        before = (version / MANIFEST).read_bytes()
        with pytest.raises(VersionExists):
            publish(store, metrics={"accuracy": 0.5})
        assert (version / MANIFEST).read_bytes() == before
        assert not list(version.parent.glob(f"{STAGING_PREFIX}*"))

    @pytest.mark.parametrize(
        ("runtime", "artifact"),
        [
            ("litert", "missing.tflite"),
            ("litert", "model"),
            ("litert", "saved_model"),
            ("litert", "saved_model/missing"),
            ("litert", "saved_model/saved"),
            ("litert", "empty_folder"),
            ("tensorflow", "model.int8.tflite"),
            ("tensorflow", "missing"),
            ("tensorflow", "empty_folder"),
        ],
    )
    def test_an_artifact_must_be_there(
        self, store: ModelStore, runtime: str, artifact: str
    ) -> None:
        artifacts = {"litert": "model.int8.tflite"} | {runtime: artifact}
        manifest = Manifest.model_validate(manifest_fields() | {"artifacts": artifacts})
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
            manifest = Manifest.model_validate(manifest_fields(version))

            def run(manifest: Manifest = manifest, start: threading.Barrier = start) -> str:
                with store.staging(NAME) as staged:
                    fill(staged)
                    start.wait(timeout=30)
                    try:
                        store.publish(staged, manifest)
                    except VersionExists:
                        return "exists"
                    return "published"

            outcomes = at_once(*[run] * publishers)
            assert sorted(outcomes) == ["exists"] * (publishers - 1) + ["published"]
            store.load(NAME, version)

    def test_a_publish_killed_anywhere_leaves_all_or_nothing(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.killing"],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            timeout=120,
            check=True,
        )
        require_all_or_nothing(json.loads(done.stdout), 2 * len(FILES) + 1)

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


class TestStaging:
    def _kill_an_export(self, store: ModelStore) -> Path:
        """What one leaves that was killed while it wrote."""
        child = os.fork()
        if child == 0:
            with store.staging(NAME) as staged:
                (staged / "half").write_bytes(b"half of a model")
                os._exit(9)
        os.waitpid(child, 0)
        (left,) = (store.root / NAME).glob(f"{STAGING_PREFIX}*")
        return left

    def test_what_a_killed_export_left_is_removed_by_the_next(self, store: ModelStore) -> None:
        left = self._kill_an_export(store)
        publish(store)
        assert not left.exists()
        assert {path.name for path in (store.root / NAME).iterdir()} == {"1", HIGHEST}

    def test_what_another_export_is_writing_stays(self, store: ModelStore) -> None:
        with store.staging(NAME) as staged:
            fill(staged)
            publish(store, 1)
            store.publish(staged, Manifest.model_validate(manifest_fields(2)))
        assert store.versions(NAME) == [1, 2]
        store.load(NAME, 2)

    def test_exports_that_begin_at_once_remove_nothing_of_each_other(
        self, store: ModelStore
    ) -> None:
        def export() -> int:
            lost = 0
            for _ in range(20):
                with store.staging(NAME) as staged:
                    fill(staged)
                    lost += not all((staged / name).is_file() for name in FILES)
            return lost

        assert at_once(*[export] * 4) == [0] * 4
        assert list((store.root / NAME).iterdir()) == []

    def test_what_is_not_locked_yet_is_not_taken_for_abandoned(
        self, store: ModelStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make = tempfile.mkdtemp

        def made(**options: Any) -> str:
            path: str = make(**options)
            # As another export would, before it looks for what was abandoned.
            descriptor = os.open(store.root / NAME, os.O_RDONLY)
            try:
                with pytest.raises(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            finally:
                os.close(descriptor)
            return path

        monkeypatch.setattr(tempfile, "mkdtemp", made)
        publish(store)

    def test_where_folders_cannot_be_locked_nothing_is_removed(
        self, store: ModelStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left = self._kill_an_export(store)

        def none(*_: object) -> None:
            raise OSError(37, "No locks available")

        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", none)
            publish(store)
        assert left.exists()
        store.load(NAME, 1)

    def test_a_link_is_not_followed(self, store: ModelStore, tmp_path: Path) -> None:
        (tmp_path / "precious").mkdir()
        (store.root / NAME).mkdir(parents=True)
        link = store.root / NAME / f"{STAGING_PREFIX}link"
        link.symlink_to(tmp_path / "precious", target_is_directory=True)
        publish(store)
        assert (tmp_path / "precious").is_dir()

    def test_a_store_that_is_a_file_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "store").write_text("x", encoding="utf-8")
        with pytest.raises(ReadOnlyStore):
            publish(ModelStore(tmp_path / "store"))

    def test_what_would_not_load_takes_no_number(self, store: ModelStore) -> None:
        record = manifest_fields()["preprocess"] | {"probe_digest": "0" * 64}
        with pytest.raises(PreprocessMismatch):
            publish(store, preprocess=record)
        assert list((store.root / NAME).iterdir()) == []


class TestPowerCut:
    """What has its name is whole even then: content reaches the disk first, and the name after it."""

    @pytest.fixture
    def steps(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
        """Paths that are synced, and new names that are given, in their order."""
        done: list[tuple[str, Path]] = []
        fsync, rename, replace = os.fsync, os.rename, os.replace

        def synced(descriptor: int) -> None:
            done.append(("synced", Path(f"/proc/self/fd/{descriptor}").readlink()))
            fsync(descriptor)

        def renamed(source: Path, target: Path) -> None:
            rename(source, target)
            done.append(("named", target))

        def replaced(source: Path, target: Path) -> None:
            replace(source, target)
            done.append(("named", target))

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "rename", renamed)
        monkeypatch.setattr(os, "replace", replaced)
        return done

    def test_a_version_gets_its_number_when_all_of_it_is_on_the_disk(
        self, store: ModelStore, steps: list[tuple[str, Path]]
    ) -> None:
        version = publish(store)
        number = steps.index(("named", version))
        (staging,) = {path for _, path in steps[:number] if path.name.startswith(STAGING_PREFIX)}
        synced = {
            path.relative_to(staging)
            for _, path in steps[:number]
            if staging in [path, *path.parents]
        }
        assert synced == {path.relative_to(version) for path in [version, *version.rglob("*")]}
        assert steps[number + 1 :] == [("synced", version.parent)]

    def test_an_alias_moves_when_its_file_is_on_the_disk(
        self, store: ModelStore, version: Path, steps: list[tuple[str, Path]]
    ) -> None:
        store.set_alias(NAME, "stable", 1)
        (_, aside), *rest = steps
        assert aside.parent == version.parent
        assert aside.name != ALIASES, "whoever reads it meanwhile reads the old one"
        assert rest == [("named", version.parent / ALIASES), ("synced", version.parent)]

    def test_a_number_is_on_the_disk_before_a_version_has_it(
        self, store: ModelStore, steps: list[tuple[str, Path]]
    ) -> None:
        version = publish(store)
        (_, aside), *rest = steps[-5:]
        assert aside.name not in {"1", HIGHEST}, "whoever reads it meanwhile reads the old one"
        assert rest == [
            ("named", version.parent / HIGHEST),
            ("synced", version.parent),
            ("named", version),
            ("synced", version.parent),
        ]
