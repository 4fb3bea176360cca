"""How long what failed waits for its next attempt, and how long things have waited."""

from random import SystemRandom
from time import monotonic, time
from typing import Final

JITTER: Final = 0.25
"""Share of a wait that chance adds or takes, so that many senders do not return in step."""

SERIES_MAX_SECONDS: Final = 60.0
"""The longest wait of a series, but for chance."""

_chance = SystemRandom()


def backoff(failures: int, first_seconds: float, max_seconds: float) -> float:
    """How long to wait after so many failures in a row: doubled each time, up to the most."""
    seconds = min(max_seconds, first_seconds * 2.0 ** min(failures - 1, 30))
    return seconds * (1 + JITTER * (2 * _chance.random() - 1))


def longest(max_seconds: float) -> float:
    """The longest wait that :func:`backoff` gives."""
    return max_seconds * (1 + JITTER)


class OldestAge:
    """How long the oldest of some things has waited. Any thread."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._seen = 0.0

    def seconds(self, since: float | None) -> float:
        """Seconds since a time of the ledger; 0 without one.

        They are at least as many as this process has seen it for: the clock may have been ahead then.
        """
        if since is None:
            return 0.0
        if since != self._since:
            self._since, self._seen = since, monotonic()
        return max(time() - since, monotonic() - self._seen)
