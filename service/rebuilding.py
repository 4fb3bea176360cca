"""How long what broke waits until it is built anew: a runtime, or a worker."""

from typing import Final

WAITS_SECONDS: Final = (0.0, 1.0, 5.0, 30.0)


def rebuild_seconds(attempt: int) -> float:
    """The wait before an attempt, from 0; the last one repeats."""
    return WAITS_SECONDS[min(attempt, len(WAITS_SECONDS) - 1)]
