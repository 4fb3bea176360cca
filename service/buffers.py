"""How many bytes requests hold in memory at a time: of their bodies, and of what those unpack to."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from service.errors import QueueFull, UnpackedTooLarge


class Buffers:
    """A bound on bytes, which requests claim as they come. Any thread.

    Args:
        limit: bytes of all claims together.

    Attributes:
        used: bytes that are claimed now.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = Lock()
        self.used = 0

    @contextmanager
    def claim(self) -> Iterator["Claim"]:
        """One request's claim, given back at the end."""
        claim = Claim(self)
        try:
            yield claim
        finally:
            with self._lock:
                claim.ended = True
                self.used -= claim.size

    def take(self, claim: "Claim", size: int) -> None:
        """Counts bytes of a claim, unless it has ended.

        Raises:
            UnpackedTooLarge: there never is room for so many bytes of one request.
            QueueFull: there is no room for them now.
        """
        with self._lock:
            if claim.ended:
                return
            if claim.size + size > self._limit:
                raise UnpackedTooLarge(f"the request unpacks to more than {self._limit} bytes")
            if self.used + size > self._limit:
                raise QueueFull("the service holds as many bytes as it can take; try again")
            self.used += size
            claim.size += size


class Claim:
    """What one request holds.

    Attributes:
        size: bytes.
        ended: nobody waits for the request any more; what a thread still has in hand is let go soon.
    """

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = buffers
        self.size = 0
        self.ended = False

    def add(self, size: int) -> None:
        """Claims more bytes.

        Raises:
            UnpackedTooLarge: there never is room for so many bytes of one request.
            QueueFull: there is no room for them now.
        """
        self._buffers.take(self, size)
