"""Files and sockets that the process may have open at a time."""

import logging
import os
import resource
import sys
from contextlib import suppress
from typing import Final

ENOUGH: Final = 8192
"""What is asked for at least: connections that are refused stay open for a second, and count too."""

OTHERS: Final = 512
"""What is no connection: STOW-RS requests on their way to the spool, versions, workers, the log."""

logger = logging.getLogger(__name__)


def fill_standard_streams() -> None:
    """Opens what of standard input, output and error is closed, to lead nowhere.

    Before anything else is opened: that would get its number, and what is written there, as the audit
    log would get the lines of the log.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # It gets the lowest number that is free, and so this one; as do processes that are started.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Python has none in its place.
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def raise_limit(connections: int) -> None:
    """Allows as many as the service may need, or as many as it is let; says so where these are too few.

    Without one left, the event loop takes no connection, and nobody hears of it. Systems give 1024 for
    programs that use ``select``.

    Args:
        connections: most at a time, reserve and all.
    """
    needed = connections + OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(needed, ENOUGH)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # Where it is forbidden, what is allowed stays.
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    if soft != resource.RLIM_INFINITY and soft < needed:
        logger.warning(
            "%d files may be open, and BRAIN_MAX_CONNECTIONS needs %d: raise the limit "
            "(ulimit -n, LimitNOFILE) or lower the setting",
            soft,
            needed,
        )
