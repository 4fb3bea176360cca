"""The service, with a version that never comes back from being loaded: ``hanging_load VERSION``."""

import ctypes
import sys
from functools import partial

from contract.version import StoredVersion
from service import __main__ as command
from service.app import create_app
from service.runtimes import Runtime, open_runtime
from service.settings import Settings


def load(version: int, settings: Settings, stored: StoredVersion) -> Runtime:
    """Loads another version; in this one waits in native code for a signal, again and again."""
    if stored.manifest.version == version:
        sys.stdout.write("hangs\n")
        sys.stdout.flush()
    while stored.manifest.version == version:
        ctypes.CDLL(None).pause()
    return open_runtime(settings, stored)


if __name__ == "__main__":
    # Taken away, as the service takes no arguments.
    hanging = partial(load, int(sys.argv.pop()))
    command.create_app = partial(create_app, open_runtime=hanging)  # type: ignore[attr-defined]
    sys.exit(command.main())
