"""How often a client may ask: token buckets, one for each client, in bounded memory."""

from collections import OrderedDict
from time import monotonic
from typing import Final

MAX_CLIENTS: Final = 10_000
"""Buckets that are kept; the one that was used longest ago goes first, as if it had filled up."""


class RateLimiter:
    """Grants each client so many requests a second, and as many at once as it left unused.

    Args:
        per_second: requests a second; a bucket holds one second's worth, and at least one request.
        max_clients: most buckets in memory.
    """

    def __init__(self, per_second: float, max_clients: int = MAX_CLIENTS) -> None:
        self._per_second = per_second
        self._size = max(1.0, per_second)
        self._max_clients = max_clients
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, now: float | None = None) -> float:
        """Takes a request out of a client's bucket.

        Args:
            client: whose.
            now: monotonic seconds.

        Returns:
            0 if it may be made, else the seconds until one may.
        """
        now = monotonic() if now is None else now
        tokens, since = self._buckets.pop(client, (self._size, now))
        tokens = min(self._size, tokens + (now - since) * self._per_second)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self._per_second
        self._buckets[client] = (tokens if wait else tokens - 1, now)
        if len(self._buckets) > self._max_clients:
            self._buckets.popitem(last=False)
        return wait
