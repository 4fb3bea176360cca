"""Warnings of the libraries that read files: they go nowhere.

pydicom's quote attribute values. Pillow's are as many as a file has damaged tags, and Python itself
writes them to standard error: no lines of a log, and a write that waits where nobody reads it.
"""

import re
import threading
import warnings
from typing import Final

_READERS: Final = "pydicom|PIL"

_QUIET: Final = ("ignore", None, Warning, re.compile(_READERS), 0)

_QUIET_LOCK: Final = threading.Lock()


def quieten() -> None:
    """Ignores them from now on and in all threads.

    ``catch_warnings`` would leave no trace, but is not safe in threads, and decoding runs in them.
    """
    if next(iter(warnings.filters), None) == _QUIET:
        return
    with _QUIET_LOCK:
        if next(iter(warnings.filters), None) != _QUIET:
            warnings.filterwarnings("ignore", module=_READERS)
