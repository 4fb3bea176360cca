"""Files and folders of the store: one writer at a time, and on the disk before others see them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.errors import ReadOnlyStore


@contextmanager
def locked(folder: Path, required: bool = True) -> Iterator[bool]:
    """A folder's lock, which one thread of one process has at a time; whether this one has it.

    Raises:
        OSError: the file system locks no folders, as some of a network do, and that is required.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            is_locked = True
        except OSError:
            if required:
                raise
            is_locked = False
        yield is_locked
    finally:
        os.close(descriptor)


def replace(path: Path, text: str) -> None:
    """Writes a file that is read meanwhile: aside, and renamed once it is on the disk.

    Raises:
        ReadOnlyStore: it cannot be written.
    """
    aside = path.with_name(f".{path.name}")
    try:
        aside.write_text(text, encoding="utf-8")
        make_readable(aside)
        sync(aside)
        aside.replace(path)
        sync(path.parent)
    except OSError as error:
        raise ReadOnlyStore("the model store cannot be written") from error


def make_readable(path: Path) -> None:
    """Lets everybody read a file, or look into a folder: the service is seldom who exports."""
    path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))


def sync(path: Path) -> None:
    """Returns once a file, or the names in a folder, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
