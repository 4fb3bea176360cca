"""Versions are found by number or alias, and a number is used once."""

import fcntl
import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from contract.errors import (
    CorruptStore,
    IncompleteVersion,
    ReadOnlyStore,
    StoreError,
    VersionExists,
    VersionNotFound,
)
from contract.manifest import MAX_VERSION
from contract.store import ALIASES, HIGHEST, ModelStore
from contract.version import MANIFEST
from tests.contract.versions import FILES, NAME, publish
from tests.support.threads import at_once

SHIPPED = Path(__file__).parents[2] / "model_store"


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
        with pytest.raises(CorruptStore, match=f"{HIGHEST} is damaged: .* backup"):
            store.next_version(NAME)
        with pytest.raises(CorruptStore, match=HIGHEST):
            publish(store, 2)
        with pytest.raises(CorruptStore, match=HIGHEST):
            store.set_alias(NAME, "stable", 1)
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

        at_once(*[partial(move, word) for word in words])
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
        with pytest.raises(CorruptStore, match=f"{ALIASES} is damaged: .* backup"):
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
