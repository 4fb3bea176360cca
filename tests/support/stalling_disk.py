"""The service, on a disk that stalls as long as a file is there: ``stalling_disk FILE``."""

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service import __main__ as command
from service.pacs import ledger

# Taken away, as the service takes no arguments.
FILE = Path(sys.argv.pop())


def stalling(function: Callable[..., Any]) -> Callable[..., Any]:
    """Waits in native code for a signal, again and again, before it is called."""

    def call(*arguments: Any) -> Any:
        while FILE.exists():
            ctypes.CDLL(None).pause()
        return function(*arguments)

    return call


class Connection:
    """To SQLite, whose commits wait for the disk."""

    def __init__(self, path: Path) -> None:
        self._connection = opened(path)
        self._commit = stalling(self._connection.execute)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *values: Any) -> Any:
        """See :meth:`sqlite3.Connection.execute`."""
        if statement == "COMMIT":
            return self._commit(statement)
        return self._connection.execute(statement, *values)


if __name__ == "__main__":
    opened = ledger._open
    ledger._open = Connection  # type: ignore[assignment]
    os.fsync = stalling(os.fsync)
    sys.exit(command.main())
