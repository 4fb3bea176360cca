"""Overload: a client that was refused is listened to again only after a moment.

Its refusal goes out at once. What it sends next, the rest of the refused body first, then waits in the
kernel, where it costs nothing, so that clients that ask again at once cannot spend the time in which
the others are answered. Who waits as long as ``Retry-After`` says never notices.
"""

from typing import Final

REFUSALS_PER_SECOND: Final = 200
"""Refusals in a second that are worth their time; more of them are spaced out."""

MAX_PAUSE_SECONDS: Final = 0.6
"""Longest pause; well within the shortest ``Retry-After``, which is a second."""

EXTENSION: Final = "brain.pause"
"""ASGI extension of :class:`service.connections.Connection`; calling its ``for_seconds`` pauses it."""


class Pacer:
    """Gives every refusal a turn of its own."""

    def __init__(self) -> None:
        self._free = 0.0

    def pause(self, now: float) -> float:
        """How long the client of a refusal is not listened to; 0 as long as refusals are few.

        Args:
            now: monotonic seconds.
        """
        turn = min(max(self._free, now), now + MAX_PAUSE_SECONDS)
        self._free = turn + 1 / REFUSALS_PER_SECOND
        return turn - now
