"""How many requests of a kind there may be at a time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import QueueFull


class Places:
    """So many places, and half of them for one client. Event loop only.

    Args:
        places: how many there are.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._share = max(1, places // 2)
        self._taken: Counter[str] = Counter()

    @contextmanager
    def one(self, client: str) -> Iterator[None]:
        """A place for a request, given back at the end.

        Raises:
            QueueFull: there is none for this client.
        """
        if self._taken.total() >= self._places or self._taken[client] >= self._share:
            raise QueueFull("the service receives as many of these as it can take; try again")
        self._taken[client] += 1
        try:
            yield
        finally:
            self._taken[client] -= 1
            if not self._taken[client]:
                del self._taken[client]
