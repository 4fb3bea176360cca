"""Whether a client is still there to have its answer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import Scope

from service.pacing import EXTENSION


class Presence:
    """Of the client of a connection. Event loop only.

    One that only sends nothing more may still wait, and counts as there.

    Attributes:
        has_left: no answer can reach it any more.
    """

    __slots__ = ("_calls", "has_left")

    def __init__(self) -> None:
        self.has_left = False
        self._calls: set[Callable[[], None]] = set()

    @classmethod
    def of(cls, scope: Scope) -> "Presence":
        """Whether the client of a request is there; it is for ever where nothing is known."""
        connection = scope.get("extensions", {}).get(EXTENSION)
        return Presence() if connection is None else connection["presence"]

    def leave(self) -> None:
        """The connection is lost."""
        self.has_left = True
        for call in tuple(self._calls):
            call()

    @contextmanager
    def watched(self, call: Callable[[], None]) -> Iterator[None]:
        """Calls something once the client leaves in the meantime."""
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)
