"""Overload: whoever was refused comes back in turn, and is not listened to for a moment.

The refusal goes out at once, with a ``Retry-After`` that is the longer the more are refused. What an
impatient client sends next, the rest of the refused body first, waits in the kernel, where it costs
nothing, so that those who ask again at once cannot spend the time in which the others are answered. Who
waits as long as ``Retry-After`` says never notices.
"""

from math import ceil
from typing import Final

REFUSALS_PER_SECOND: Final = 200
"""Refusals in a second that are worth their time; more of them are spaced out."""

MAX_TURN_SECONDS: Final = 3.0
"""A client is not sent away for longer, since there may be room again by then."""

MAX_PAUSE_SECONDS: Final = 0.8
"""Longest pause. Who has gone meanwhile is not noticed and keeps a place among the connections, so
this is less than a turn may be; it is also less than the shortest ``Retry-After``."""

EXTENSION: Final = "brain.connection"
"""ASGI extension of :class:`service.connections.Connection`: calling its ``for_seconds`` pauses it, and
its ``presence`` is a :class:`service.presence.Presence`."""


def pause_seconds(turn_seconds: float) -> float:
    """How long a refused client is not listened to, given how long it is until its turn."""
    return min(turn_seconds, MAX_PAUSE_SECONDS)


def retry_after(least_seconds: int, turn_seconds: float) -> str:
    """The value of ``Retry-After``, likewise.

    Args:
        least_seconds: what the refusal itself asks for.
        turn_seconds: as :meth:`Pacer.turn` has it.
    """
    return str(max(least_seconds, ceil(turn_seconds)))


class Pacer:
    """Gives every refusal a turn of its own."""

    def __init__(self) -> None:
        self._free = 0.0

    def is_flooded(self, now: float) -> bool:
        """Whether the next refusal would have to wait for its turn."""
        return self._free > now

    def turn(self, now: float) -> float:
        """Seconds until it is the turn of a client that is refused; 0 as long as refusals are few.

        Args:
            now: monotonic seconds.
        """
        turn = min(max(self._free, now), now + MAX_TURN_SECONDS)
        self._free = turn + 1 / REFUSALS_PER_SECOND
        return turn - now
