"""Files that are whole or not there.

Each is written aside, and takes its name once its content is on the disk.
"""

import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from training.errors import RunError

_ASIDE: Final = re.compile(r"\.[a-z_]+\.(json|npz)\.[0-9]+")
"""A file that is being written, until it is renamed."""
_DAMAGE: Final = (
    AttributeError,  # A file of one array, which has no names.
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and zipfile raise on a file that is cut or changed."""


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an npz file whole or not at all."""
    with _aside(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for a key


def load_arrays(path: Path, only: str | None = None) -> dict[str, np.ndarray] | None:
    """An npz file's arrays, or only that of one name if it has it; None if the file is not there.

    Raises:
        RunError: it is damaged.
    """
    if not path.is_file():
        return None
    try:
        # Opened here: NumPy leaves a file open that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files if only in {None, name}}
    except _DAMAGE as error:
        raise RunError(f"{path} is damaged: {error!r}") from error


def read_json(path: Path) -> dict[str, Any]:
    """What a file of a run, or of its report, holds.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path} is missing; evaluate that run first") from error
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} is damaged")
    return content


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """Raises RunError where a file that is read inside lacks what it should have."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error!r}") from error


def write_json(path: Path, content: Any) -> None:
    """Writes a file of figures, all of them finite, whole or not at all."""
    write_aside(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def write_aside(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    with _aside(path) as file:
        file.write(content)


@contextmanager
def _aside(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes the path's place once its content is on the disk."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException as error:
        # A full disk must not be kept full.
        with suppress(OSError):
            aside.unlink()
        if isinstance(error, OSError) and error.filename is None:
            # An open file that cannot be written on does not say which it is.
            error.filename = str(path)
        raise


def tidy(folder: Path) -> None:
    """Deletes what is half-written in a folder; whoever calls must be its only writer."""
    for file in folder.glob(".*"):
        if _ASIDE.fullmatch(file.name):
            with suppress(OSError):
                file.unlink()
