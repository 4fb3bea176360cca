"""Files that are read once, into memory, where nothing can change them any more."""

import fcntl
import os
import shutil
from pathlib import Path
from typing import Final
from weakref import finalize

CHUNK_BYTES: Final = 2**20


class SealedFile:
    """What a file held when it was read, whatever becomes of the file (memfd_create(2), on Linux).

    A library that maps a file into memory sees each change to it, and the process ends with SIGBUS
    where the file has become shorter. This copy can be mapped: no process can write to it, shorten it
    or lengthen it. Those that are handed its descriptor share its memory.

    Args:
        source: the file.

    Attributes:
        descriptor: of the copy; open as long as this object is there.

    Raises:
        OSError: the file cannot be read, or the system gives no memory for it.
    """

    def __init__(self, source: Path) -> None:
        self.descriptor: Final = os.memfd_create("sealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        finalize(self, os.close, self.descriptor)
        with source.open("rb") as file, open(self.descriptor, "wb", closefd=False) as copy:
            shutil.copyfileobj(file, copy, CHUNK_BYTES)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals)

    @property
    def path(self) -> Path:
        """Where this process finds the copy."""
        return path_of(self.descriptor)


def path_of(descriptor: int) -> Path:
    """Where a process finds what it has open."""
    return Path(f"/proc/self/fd/{descriptor}")
