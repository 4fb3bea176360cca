"""The service, with a runtime that never comes back from being opened."""

import ctypes
import sys
from functools import partial
from typing import Any

from service import __main__ as command
from service.app import create_app


def hang(*_: Any) -> Any:
    """Waits in native code for a signal, again and again."""
    while True:
        ctypes.CDLL(None).pause()


if __name__ == "__main__":
    command.create_app = partial(create_app, open_runtime=hang)  # type: ignore[attr-defined]
    sys.exit(command.main())
