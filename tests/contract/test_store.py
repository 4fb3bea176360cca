"""Versions are published all or not at all, and found by number or alias."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from contract.errors import (
    CorruptVersion,
    IncompleteVersion,
    PreprocessMismatch,
    ReadOnlyStore,
    StoreError,
    VersionExists,
    VersionNotFound,
)
from contract.manifest import MAX_VERSION, Manifest
from contract.store import ALIASES, HIGHEST, STAGING_PREFIX, ModelStore
from contract.version import MANIFEST, file_digest
from tests.contract.versions import FILES, NAME, fill, manifest_fields, publish
from tests.support.killing import require_all_or_nothing

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "model_store"


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
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.killing"],
            cwd=ROOT,
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
        lost: list[int] = []

        def export(number: int) -> None:
            for _ in range(20):
                with store.staging(NAME) as staged:
                    fill(staged)
                    if not all((staged / name).is_file() for name in FILES):
                        lost.append(number)

        threads = [threading.Thread(target=export, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert lost == []
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


class TestNextVersion:
    """A number is used once, whether its version is still there or not."""

    def test_the_first_is_1(self, store: ModelStore) -> None:
        assert store.next_version(NAME) == 1

    def test_what_is_no_version_takes_its_number_too(self, store: ModelStore) -> None:
        publish(store, 1)
        (store.root / NAME / "2").write_text("a file, not a version", encoding="utf-8")
        (store.root / NAME / "007").mkdir()
        assert store.next_version(NAME) == 3

    def test_after_the_highest_there_may_be_is_none(self, store: ModelStore) -> None:
        publish(store, MAX_VERSION)
        with pytest.raises(VersionExists, match="name one that is free"):
            store.next_version(NAME)

    def test_a_deleted_number_is_not_used_again(self, store: ModelStore) -> None:
        for number in (1, 2, 3):
            publish(store, number)
        for number in (3, 2):
            shutil.rmtree(store.root / NAME / str(number))
            assert store.next_version(NAME) == 4
        publish(store, 2)
        assert store.next_version(NAME) == 4, "a lower number by hand does not lower it"

    def test_a_number_stays_used_when_all_versions_are_deleted(self, store: ModelStore) -> None:
        publish(store, 7)
        shutil.rmtree(store.root / NAME / "7")
        assert store.next_version(NAME) == 8

    def test_in_a_store_that_keeps_no_record_an_alias_remembers(self, store: ModelStore) -> None:
        """As in one of an earlier release."""
        for number in (1, 6):
            publish(store, number)
        store.set_alias(NAME, "stable", 6)
        (store.root / NAME / HIGHEST).unlink()
        assert store.next_version(NAME) == 7
        shutil.rmtree(store.root / NAME / "6")
        assert store.next_version(NAME) == 7

    def test_what_was_copied_in_is_recorded_with_the_next_one(self, store: ModelStore) -> None:
        publish(store, 1)
        shutil.copytree(store.root / NAME / "1", store.root / NAME / "5")
        publish(store, 2)
        shutil.rmtree(store.root / NAME / "5")
        assert store.next_version(NAME) == 6

    def test_a_publish_that_fails_at_last_uses_no_number_twice(
        self, store: ModelStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(store, 1)

        def refuse(*_: Path) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", refuse)
            with pytest.raises(OSError, match="Input/output"):
                publish(store, 2)
        assert store.versions(NAME) == [1]
        assert store.next_version(NAME) == 3

    @pytest.mark.parametrize(
        "text",
        ["", "{}", '"7"', "7.5", "null", "0", "-3", "true", str(MAX_VERSION + 1)],
        ids=repr,
    )
    def test_a_damaged_record_is_not_guessed_at(self, store: ModelStore, text: str) -> None:
        publish(store, 1)
        (store.root / NAME / HIGHEST).write_text(text, encoding="utf-8")
        with pytest.raises(CorruptVersion, match=HIGHEST):
            store.next_version(NAME)
        with pytest.raises(CorruptVersion, match=HIGHEST):
            publish(store, 2)
        assert store.versions(NAME) == [1]

    def test_a_record_that_cannot_be_written_is_a_store_that_cannot(
        self, store: ModelStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(store, 1)

        def refuse(*_: Path) -> None:
            raise OSError(30, "Read-only file system")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", refuse)
            with pytest.raises(ReadOnlyStore):
                publish(store, 2)
        assert store.versions(NAME) == [1]

    def test_an_alias_records_what_was_copied_in(self, store: ModelStore) -> None:
        publish(store, 1)
        for number in (2, 3):
            shutil.copytree(store.root / NAME / "1", store.root / NAME / str(number))
        store.set_alias(NAME, "stable", 2)
        shutil.rmtree(store.root / NAME / "3")
        assert store.next_version(NAME) == 4

    def test_the_store_that_ships_keeps_its_highest_number(self) -> None:
        (name,) = ModelStore(SHIPPED).names()
        highest = json.loads((SHIPPED / name / HIGHEST).read_bytes())
        assert highest >= ModelStore(SHIPPED).versions(name)[-1]


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

    def test_latest_passes_over_what_has_no_manifest(self, three: ModelStore) -> None:
        """As NFS leaves a deleted version with a file of it that is still open."""
        folder = three.root / NAME / "10"
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / ".nfs0001").write_bytes(b"x")
        assert three.resolve(NAME, "latest") == 2
        assert three.described(NAME) == [1, 2]
        assert three.versions(NAME) == [1, 2, 10]
        with pytest.raises(IncompleteVersion):
            three.load(NAME, 10)

    def test_latest_of_none_with_a_manifest_is_the_highest_number(self, three: ModelStore) -> None:
        """Else nobody would be told what is wrong with it."""
        for path in (three.root / NAME).glob(f"*/{MANIFEST}"):
            path.unlink()
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
            ["1", "2", "10", ALIASES, HIGHEST]
        )

    def test_aliases_that_are_moved_at_once_are_all_moved(self, three: ModelStore) -> None:
        """None of them takes back what another one has just written."""
        words = [f"alias-{letter}" for letter in "abcdefgh"]

        def move(word: str) -> None:
            for version in (1, 2, 10):
                three.set_alias(NAME, word, version)

        threads = [threading.Thread(target=move, args=(word,)) for word in words]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert three.aliases(NAME) == dict.fromkeys(words, 10)

    def test_an_alias_tells_where_it_pointed(self, three: ModelStore) -> None:
        assert three.set_alias(NAME, "stable", 1) is None
        assert three.set_alias(NAME, "stable", 2) == 1

    def test_a_stamp_changes_with_any_file(self, three: ModelStore) -> None:
        before = three.stamp(NAME, 1)
        assert before == three.stamp(NAME, 1)
        assert before != three.stamp(NAME, 2)
        (three.root / NAME / "1" / "more").write_bytes(b"")
        assert before != three.stamp(NAME, 1)
        assert three.stamp(NAME, 4711) != before

    def test_a_stamp_changes_with_a_copy_that_keeps_its_times(self, three: ModelStore) -> None:
        file = three.root / NAME / "1" / next(iter(FILES))
        before, status = three.stamp(NAME, 1), file.stat()
        file.write_bytes(file.read_bytes() + b"\0")
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert before != three.stamp(NAME, 1)

    def test_the_highest_number_there_may_be_is_found(self, three: ModelStore) -> None:
        publish(three, MAX_VERSION)
        assert three.resolve(NAME, "latest") == MAX_VERSION
        assert three.resolve(NAME, str(MAX_VERSION)) == MAX_VERSION
        three.load(NAME, MAX_VERSION)

    def test_names_are_in_alphabetical_order(self, three: ModelStore) -> None:
        names = [f"model-{letter}" for letter in "hdbagcfe"]
        for name in names:
            publish(three, name=name)
        assert three.names() == [NAME, *sorted(names)]

    def test_an_alias_moves_while_nobody_else_reads_or_writes_them(
        self, three: ModelStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        aliases = ModelStore.aliases

        def watched(store: ModelStore, name: str) -> dict[str, int]:
            # As another process would.
            descriptor = os.open(store.root / name, os.O_RDONLY)
            try:
                with pytest.raises(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            finally:
                os.close(descriptor)
            return aliases(store, name)

        with monkeypatch.context() as patch:
            patch.setattr(ModelStore, "aliases", watched)
            three.set_alias(NAME, "stable", 2)
        assert three.aliases(NAME) == {"stable": 2}

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
        with pytest.raises(VersionNotFound, match="the alias stable points at version 2 of"):
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
