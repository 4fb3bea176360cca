"""Immutable model versions on disk: ``<root>/<name>/<version>/``.

A version is written aside and renamed into place, so that it is either there as a whole or not at
all; it is verified, file by file, each time it is loaded. Aliases live beside the versions in
``aliases.json`` and are the only thing in the store that changes.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, TypeAdapter, ValidationError

from contract.errors import (
    CorruptStore,
    InvalidAlias,
    ReadOnlyStore,
    StoreError,
    VersionExists,
    VersionNotFound,
)
from contract.files import locked, make_readable, replace, sync
from contract.manifest import (
    ALIAS_PATTERN,
    MAX_VERSION,
    MODEL_NAME_PATTERN,
    VERSION_PATTERN,
    Manifest,
)
from contract.version import MANIFEST, StoredVersion, verify, with_files

ALIASES: Final = "aliases.json"
HIGHEST: Final = "highest.json"
LATEST: Final = "latest"
STAGING_PREFIX: Final = ".staging-"
"""Folders of this name hold versions still being written; nothing ever loads them."""

DAMAGED: Final = "is damaged: put it back from a backup"
"""What the error of a file says that a copy of a version does not mend."""

MAX_SHOWN: Final = 80
"""Characters of a name or a selector that a message repeats."""

_MODEL_NAME = re.compile(MODEL_NAME_PATTERN)
_VERSION_NAME = re.compile(VERSION_PATTERN)
_ALIAS_NAME = re.compile(ALIAS_PATTERN)
_ALIAS_FILE = TypeAdapter(dict[str, int])
_HIGHEST_FILE = TypeAdapter(Annotated[int, Field(ge=1, le=MAX_VERSION)])


class ModelStore:
    """The versions below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Models that have at least one version; a folder that may not be looked into is none."""
        if not self.root.is_dir():
            return []
        found = []
        for path in self.root.iterdir():
            with suppress(PermissionError):
                if self.versions(path.name):
                    found.append(path.name)
        return sorted(found)

    def versions(self, name: str) -> list[int]:
        """Version numbers of a model, ascending; whether they verify is not looked at."""
        folder = self.root / name
        if not _MODEL_NAME.fullmatch(name) or not folder.is_dir():
            return []
        found = (path.name for path in folder.iterdir() if path.is_dir())
        return sorted(int(number) for number in found if _VERSION_NAME.fullmatch(number))

    def described(self, name: str) -> list[int]:
        """Of :meth:`versions`, those that have a manifest.

        What has none is being copied in, or was deleted while a file of it was open: on NFS, the folder
        stays until the file is closed. Nor has one that may not be looked into, which another user
        copied in.
        """
        found = []
        for version in self.versions(name):
            with suppress(PermissionError):
                if (self.root / name / str(version) / MANIFEST).is_file():
                    found.append(version)
        return found

    def next_version(self, name: str) -> int:
        """The number after the highest that was ever used, even if that version has been deleted.

        What is no version takes its number too. Nothing is recorded of what came into the store by
        copying alone: of that, a version that is there or an alias that points at it says so.

        Raises:
            CorruptStore: a file that tells is damaged.
            StoreError: such a file cannot be read.
            VersionExists: there is none.
        """
        folder = self.root / name
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        taken = (int(path) for path in names if _VERSION_NAME.fullmatch(path))
        number = max((self._highest(name), *taken, *self.aliases(name).values())) + 1
        if number > MAX_VERSION:
            raise VersionExists(
                f"{name} has the highest number there may be; name one that is free"
            )
        return number

    def aliases(self, name: str) -> dict[str, int]:
        """Alias to version number; of a version that has been deleted, there may still be some.

        Raises:
            CorruptStore: the alias file is damaged.
            StoreError: it cannot be read.
        """
        path = self.root / name / ALIASES
        if not path.is_file():
            return {}
        try:
            return _ALIAS_FILE.validate_json(path.read_bytes(), strict=True)
        except OSError as error:
            raise StoreError(f"{name}/{ALIASES} cannot be read") from error
        except ValidationError as error:
            raise CorruptStore(f"{name}/{ALIASES} {DAMAGED}") from error

    def set_alias(self, name: str, alias: str, version: int) -> int | None:
        """Points an alias at a version, atomically; whoever else moves one meanwhile waits.

        Returns:
            The version that it pointed at before.

        Raises:
            InvalidAlias: the name is none for an alias.
            VersionNotFound: there is no such version.
            CorruptStore: the alias file is damaged, or the one that keeps the highest number.
            StoreError: one of them cannot be read.
            ReadOnlyStore: the store cannot be written.
        """
        if alias == LATEST or not _ALIAS_NAME.fullmatch(alias):
            raise InvalidAlias("an alias is a lower-case word other than 'latest'")
        if version not in self.versions(name):
            raise VersionNotFound(f"there is no version {version} of {name}")
        folder = self.root / name
        with locked(folder):
            aliases = self.aliases(name)
            self._record_highest(name, version)
            text = json.dumps(aliases | {alias: version}, indent=2, sort_keys=True) + "\n"
            replace(folder / ALIASES, text)
        return aliases.get(alias)

    def resolve(self, name: str, selector: str) -> int:
        """The version number that ``latest``, a number or an alias stands for.

        ``latest`` passes over what has no manifest, unless nothing has one.

        Raises:
            VersionNotFound: it stands for none.
            CorruptStore: it may be an alias, and the alias file is damaged.
            StoreError: likewise, and it cannot be read.
        """
        versions = self.versions(name)
        if not versions:
            if not self.root.is_dir():
                raise VersionNotFound("the folder of the model store does not exist")
            raise VersionNotFound(f"the store has no version of {_shown(name)}")
        if selector == LATEST:
            return (self.described(name) or versions)[-1]
        number = int(selector) if _VERSION_NAME.fullmatch(selector) else None
        if number is None:
            number = self.aliases(name).get(selector)
            if number is not None and number not in versions:
                raise VersionNotFound(
                    f"the alias {selector} points at version {number} of {name}, "
                    "which is not in the store"
                )
        if number not in versions:
            raise VersionNotFound(f"{_shown(selector)} names no version of {name}")
        return number

    def stamp(self, name: str, version: int) -> str:
        """What changes with any file of a version: hash of their names, sizes and times.

        Cheap enough to be asked again and again; whether the version is sound, :meth:`load` says. The
        time of change (``st_ctime``) tells of permissions, too, and of bytes that were mended by a copy
        with the times of the old ones.
        """
        path = self.root / name / str(version)
        lines = []
        # It passes over a folder that is gone, or may not be looked into.
        for folder, folders, files in os.walk(path):
            for file in map(Path(folder).joinpath, (".", *folders, *files)):
                # What is there now may be gone at once, in a folder that is being copied in.
                with suppress(FileNotFoundError, PermissionError):
                    status = file.stat()
                    times = f"{status.st_mtime_ns}\0{status.st_ctime_ns}"
                    lines.append(f"{file.relative_to(path)}\0{status.st_size}\0{times}")
        text = "\n".join(sorted(lines))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    def load(self, name: str, version: int) -> StoredVersion:
        """Verifies a version: its manifest, the hash of every file, its preprocessing.

        Raises:
            VersionNotFound: there is no such version.
            NewerSchema: a later release wrote it.
            IncompleteVersion: a file is missing.
            CorruptVersion: a file or the manifest is not what was published.
            PreprocessMismatch: its preprocessing cannot be reproduced here.
        """
        path = self.root / name / str(version)
        if version not in self.versions(name):
            raise VersionNotFound(f"there is no version {version} of {name}")
        return verify(path, name, version)

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """An empty folder beside the versions, to write a new one in; gone afterwards.

        What an export that was killed left there is removed.

        Raises:
            ReadOnlyStore: the store cannot be written.
        """
        folder = self.root / name
        try:
            for path in (self.root, folder):
                if not path.is_dir():
                    path.mkdir(parents=True, exist_ok=True)
                    make_readable(path)
            # One at a time: what is made and not yet locked must not pass for abandoned.
            with locked(folder, required=False) as is_locked:
                if is_locked:
                    _remove_abandoned(folder)
                path = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=folder))
                descriptor = os.open(path, os.O_RDONLY)
                with suppress(OSError):  # Where folders cannot be locked, none is removed either.
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ReadOnlyStore("the model store cannot be written") from error
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(descriptor)

    def publish(self, staged: Path, manifest: Manifest) -> Path:
        """Makes a staged folder a version: hashes, manifest, fsync, verification, rename.

        Args:
            staged: a folder from :meth:`staging` with every file but the manifest.
            manifest: its ``files`` are filled in here.

        Returns:
            The version's folder.

        Raises:
            VersionExists: the number is taken.
            IncompleteVersion: an artifact that the manifest names was not written.
            StoreError: the version would not load; see :meth:`load`.
            CorruptStore: the file that keeps the highest number is damaged.
            ReadOnlyStore: that file cannot be written.
        """
        target = self.root / manifest.name / str(manifest.version)
        if target.exists():
            raise VersionExists(f"{manifest.name}/{manifest.version} exists; versions never change")
        text = with_files(manifest, staged).model_dump_json(indent=2) + "\n"
        (staged / MANIFEST).write_text(text, encoding="utf-8")
        for path in [*sorted(staged.rglob("*")), staged]:
            make_readable(path)
            sync(path)
        # A number is used once: what does not load must not take one.
        verify(staged, manifest.name, manifest.version)
        # Before the version has it: killed in between, a number is skipped, and none is used twice.
        self._keep_highest(manifest.name, manifest.version)
        try:
            staged.rename(target)
        except OSError as error:
            if target.exists():
                raise VersionExists(f"{manifest.name}/{manifest.version} exists") from error
            raise
        sync(target.parent)
        return target

    def _highest(self, name: str) -> int:
        """The highest number that is recorded; 0 in a store that nothing was published to."""
        try:
            text = (self.root / name / HIGHEST).read_bytes()
            return _HIGHEST_FILE.validate_json(text, strict=True)
        except (FileNotFoundError, NotADirectoryError):
            return 0
        except OSError as error:
            raise StoreError(f"{name}/{HIGHEST} cannot be read") from error
        except ValidationError as error:
            raise CorruptStore(f"{name}/{HIGHEST} {DAMAGED}") from error

    def _keep_highest(self, name: str, version: int) -> None:
        """Records a number that is about to be used, with those that came by copying."""
        try:
            # Where a file system locks nothing, two exports at once may lose a record, but no version.
            with locked(self.root / name, required=False):
                self._record_highest(name, version)
        except OSError as error:
            raise ReadOnlyStore("the model store cannot be written") from error

    def _record_highest(self, name: str, version: int) -> None:
        """The same for who holds the lock."""
        recorded = self._highest(name)
        highest = max(recorded, version, *self.versions(name))
        if highest > recorded:
            replace(self.root / name / HIGHEST, f"{highest}\n")


def _shown(text: str) -> str:
    """What somebody asked for, in an answer; it may be of any length."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _remove_abandoned(folder: Path) -> None:
    """Removes staged versions that no process is writing: each locks its own while it lives."""
    for path in folder.glob(f"{STAGING_PREFIX}*"):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except OSError:
            pass  # It is being written, or whether it is cannot be told.
        finally:
            os.close(descriptor)
