"""Files of the spool: each holds the objects of one request or one result, one after the other.

One file for each request means one ``fsync`` for a whole series instead of one for each slice. File
names are random, so they tell nothing; whose objects a file holds stands in the ledger alone.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Final, NamedTuple

from service.disks import DiskFails, check_folder, is_in_place, kind, unusable
from service.errors import SpoolFull

FOLDER: Final = "segments"
"""Where they lie, beside the ledger."""

SUFFIX: Final = ".segment"

UNREADABLE: Final = "unreadable"
"""Reason of what cannot be read while the disk is well otherwise."""

WAY_OUT: Final = "put the whole folder back as it was, or move it away"
"""A ledger of another day, or a new one, would have the files deleted that it does not know."""

FULL: Final = kind(OSError(errno.ENOSPC, ""))
"""Why a disk takes nothing on which there is too little room, which nobody has to try."""

_OF_THE_MACHINE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that say nothing of a file: there are too many of them, or no memory is left."""


class Unreadable(OSError):
    """A file cannot be read, as one on a bad sector, while the disk takes another and gives it back."""


class Place(NamedTuple):
    """Where an object lies.

    Attributes:
        segment: name of the file.
        offset, length: of the object in it, in bytes.
    """

    segment: str
    offset: int
    length: int


class Segments:
    """The files, and how much room they may take. Any thread.

    Args:
        folder: theirs; made if need be, for this user alone.
        max_bytes: of all files together.

    Attributes:
        make_room: asked to remove what can be spared, with the bytes that are missing.

    Raises:
        SettingsError: the folder is not for this user, or its disk does not take it.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # One of another user's would seem to be empty.
            with os.scandir(folder):
                pass
            check_folder(folder)
            self._identity = folder.stat()
        except OSError as error:
            raise unusable("BRAIN_SPOOL", error) from error
        self.folder = folder
        self.max_bytes = max_bytes
        self.make_room: Callable[[int], None] = lambda _missing: None
        self._used = 0
        self._failure = ""
        # Bytes that the largest file would have had that the disk did not take since it last took all.
        self._wanted = 0
        self._lock = Lock()

    @property
    def used(self) -> int:
        """Bytes of all files."""
        return self._used

    def keep_only(self, names: Iterable[str] | None, *, needed: bool = True) -> None:
        """Removes files that nothing refers to, such as those of requests that a crash cut off.

        Args:
            names: of the others; None where nobody can say, and all stay.
            needed: whether they hold more than what was given up, as for a file that is gone.

        Raises:
            service.disks.DiskFails: they are needed, not one of them is there, and nothing has been
                removed. Started without them, all that they hold would be given up.
        """
        wanted = None if names is None else set(names)
        paths = list(self.folder.glob(f"*{SUFFIX}"))
        if needed and wanted and wanted.isdisjoint(path.stem for path in paths):
            # Not for good: their disk may be mounted a little later.
            raise DiskFails(
                "BRAIN_SPOOL: of the files that its ledger knows none is there: mount their disk, "
                f"{WAY_OUT}"
            )
        for path in paths:
            if wanted is not None and path.stem not in wanted:
                # What cannot be deleted now is at the next start.
                with suppress(OSError):
                    path.unlink()
        self._used = sum(path.stat().st_size for path in self.folder.glob(f"*{SUFFIX}"))

    def create(self, share: float = 1.0) -> "Segment":
        """A new, empty file.

        Args:
            share: of all room; what is written to this file may not fill the spool beyond it.

        Raises:
            SpoolFull: the disk does not take it, or another one lies over the folder.
        """
        self.check_place()
        # Counted once: some file systems free a file's room a while after it is gone, and asked for
        # each piece they would have more removed than is needed.
        room = self._room()
        limit = int(room * share)
        held = room - limit if room < self.max_bytes else None
        return Segment(self, secrets.token_hex(16), limit, held)

    def check_place(self) -> None:
        """Sees whether the folder is still that of the start.

        Raises:
            SpoolFull: it is not: what the ledger knows is missing there, and what comes would be lost
                once it is back.
        """
        if is_in_place(self.folder, self._identity):
            return
        raise SpoolFull(
            "another disk lies over the spool's segments, or they were moved; bring them back, and"
            " if they are, restart the service"
        )

    def path(self, name: str) -> Path:
        """Of a file."""
        return self.folder / f"{name}{SUFFIX}"

    def read(self, place: Place) -> bytes:
        """The bytes of an object.

        Raises:
            FileNotFoundError: they are not there, or not all of them.
            Unreadable: the fault is this file's.
            SpoolFull: they cannot be read now.
        """
        try:
            with self.path(place.segment).open("rb") as file:
                file.seek(place.offset)
                data = file.read(place.length)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                # Without its folder, it is the disk that is not there.
                self.check_place()
                raise
            if error.errno not in _OF_THE_MACHINE and self._is_well():
                raise Unreadable(error.errno, "a segment cannot be read") from error
            raise SpoolFull("the spool cannot be read; try again") from error
        if len(data) != place.length:
            raise FileNotFoundError("a segment is shorter than it was")
        return data

    @contextmanager
    def writing(self, size: int = 0) -> Iterator[None]:
        """Around what writes to a file.

        Args:
            size: bytes that it has then.

        Raises:
            SpoolFull: the disk does not take it.
        """
        try:
            yield
        except OSError as error:
            if error.errno not in _OF_THE_MACHINE:
                self.fails(kind(error), size)
            raise SpoolFull("the spool cannot be written to; try again") from error

    def fails(self, cause: str, size: int) -> None:
        """The disk does not take a file of so many bytes, and why."""
        self._failure = cause
        self._wanted = max(self._wanted, size)

    def took(self, size: int) -> None:
        """The disk has taken a file of so many bytes."""
        if size >= self._wanted:
            self._failure, self._wanted = "", 0

    def failure(self, size: int) -> str:
        """Why the disk takes nothing, or empty; if it did not the last time, this tries it.

        Args:
            size: bytes for which it must have room then, if it did not want for more.
        """
        if self._failure and self._is_free(max(size, self._wanted)) and self._is_well():
            self._failure, self._wanted = "", 0
        return self._failure

    def _room(self) -> int:
        """Bytes that all files together may have: by the setting, and on the disk."""
        try:
            free = shutil.disk_usage(self.folder).free
        except OSError:
            # Whoever writes will see.
            return self.max_bytes
        return min(self.max_bytes, self._used + free)

    def _is_free(self, size: int) -> bool:
        try:
            return shutil.disk_usage(self.folder).free >= size
        except OSError:
            return False

    def _is_well(self) -> bool:
        """Whether the disk takes a file and gives it back."""
        # A start removes one that stays.
        path = self.path(f"probe-{secrets.token_hex(16)}")
        try:
            with path.open("x+b", buffering=0) as file:
                file.write(b"well")
                os.fsync(file.fileno())
                # Memory would give it back as well.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                return os.pread(file.fileno(), 4, 0) == b"well"
        except OSError:
            return False
        finally:
            with suppress(OSError):
                path.unlink()

    def remove(self, names: Iterable[str]) -> None:
        """Deletes files that nothing refers to any more."""
        for name in names:
            path = self.path(name)
            # What cannot be deleted now is at the next start.
            with suppress(OSError):
                size = path.stat().st_size
                path.unlink()
                self.release(size)

    def reserve(self, size: int, limit: int) -> None:
        """Counts bytes that are about to be written.

        Args:
            size: how many.
            limit: bytes of all files after that.

        Raises:
            SpoolFull: there is no room for them.
        """
        missing = self.used + size - limit
        if missing > 0:
            self.make_room(missing)
        with self._lock:
            if self._used + size > limit:
                raise SpoolFull("the spool is full; try again")
            self._used += size

    def has_room(self, size: int) -> bool:
        """Whether so many bytes could be written now; what can be spared makes room for them."""
        missing = self.used + size - self._room()
        if missing > 0:
            self.make_room(missing)
        if self.used + size > self.max_bytes:
            return False
        if not self._is_free(size):
            self.fails(FULL, size)
            return False
        return True

    def release(self, size: int) -> None:
        """Counts bytes that are gone."""
        with self._lock:
            self._used -= size


class Segment:
    """A file that is being written; nothing refers to it yet. One thread at a time.

    Args:
        segments: what it belongs to.
        name: its own.
        limit: bytes that all files may have with it.
        held: bytes of the disk beyond that which stay free, where it is the disk that sets the limit;
            None where it is not.
    """

    def __init__(self, segments: Segments, name: str, limit: int, held: int | None) -> None:
        self.name = name
        self.size = 0
        self._segments = segments
        self._limit = limit
        self._held = held
        with segments.writing():
            descriptor = os.open(segments.path(name), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._file: BinaryIO = os.fdopen(descriptor, "r+b", buffering=0)

    def write(self, data: bytes) -> None:
        """Appends.

        Raises:
            SpoolFull: the spool or its disk has no room.
        """
        size = self.size + len(data)
        try:
            self._segments.reserve(len(data), self._limit)
        except SpoolFull:
            if self._held is not None:
                self._segments.fails(FULL, size + self._held)
            raise
        view = memoryview(data)
        try:
            with self._segments.writing(size):
                while view:
                    view = view[self._file.write(view) :]
        except SpoolFull:
            self._segments.release(len(data))
            raise
        self.size = size

    def read(self, offset: int, most: int) -> bytes:
        """What has been written from there on, at most so many bytes of it.

        Raises:
            SpoolFull: the disk does not give it.
        """
        try:
            return os.pread(self._file.fileno(), min(most, self.size - offset), offset)
        except OSError as error:
            raise SpoolFull("the spool cannot be read; try again") from error

    def cut(self, size: int) -> None:
        """Forgets what was written after that many bytes.

        Raises:
            SpoolFull: the disk does not do it.
        """
        with self._segments.writing():
            self._file.truncate(size)
            self._file.seek(size)
        self._segments.release(self.size - size)
        self.size = size

    def sync(self) -> None:
        """Returns once all of it is on the disk; it is closed then.

        Raises:
            SpoolFull: the disk does not take it.
        """
        with self._segments.writing(self.size):
            os.fsync(self._file.fileno())
            self._file.close()
            folder = os.open(self._segments.folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        self._segments.took(self.size + (self._held or 0))

    def discard(self) -> None:
        """Deletes it; what cannot be deleted now is at the next start."""
        # Over a quota, or on a network, closing may fail; the file is closed all the same.
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._segments.path(self.name).unlink()
        self._segments.release(self.size)
        self.size = 0
