"""How many bytes of request bodies are held in memory at a time, over all requests."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import QueueFull


class Buffers:
    """A bound on bytes, which requests claim as they come; event loop only.

    Args:
        limit: bytes of all claims together.

    Attributes:
        used: bytes that are claimed now.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0

    @contextmanager
    def claim(self) -> Iterator["Claim"]:
        """One request's claim, given back at the end."""
        claim = Claim(self)
        try:
            yield claim
        finally:
            self.used -= claim.size

    def take(self, size: int) -> None:
        """Counts bytes.

        Raises:
            QueueFull: there is no room for them now.
        """
        if self.used + size > self._limit:
            raise QueueFull("the service holds as many bytes as it can take; try again")
        self.used += size


class Claim:
    """What one request holds.

    Attributes:
        size: bytes.
    """

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = buffers
        self.size = 0

    def add(self, size: int) -> None:
        """Claims more bytes.

        Raises:
            QueueFull: there is no room for them now.
        """
        self._buffers.take(size)
        self.size += size
