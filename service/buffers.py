"""How many bytes requests hold in memory at a time: of their bodies, and of what those unpack to.

Whoever is alone may have all of it. Where another client needs some, one that holds more than half
makes room: what it is still sending is given up, what has been silent longest first; and for a while it
gets no more than half, but for a single request, which with what it unpacks to may need all. Small
bodies of others have a reserve besides, as what has arrived is not given up before its answer.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from typing import Final

from service.errors import QueueFull, UnpackedTooLarge

RESERVE_DIVISOR: Final = 16
"""So large a part of the limit is there once more, for small bodies where there is no other room."""

SMALL_BYTES: Final = 2**20
"""Most bytes of a request that counts as small: a slice or two; less where the reserve is small."""

SMALL_DIVISOR: Final = 8
"""At least so many small ones fit into the reserve."""

NEED_SECONDS: Final = 30.0
"""How long a client that needed room is taken to need it still; it comes back after a second or so."""


class Buffers:
    """A bound on bytes, which requests claim as they come. Any thread.

    Args:
        limit: bytes of all claims together, but for the reserve.

    Attributes:
        used: bytes that are claimed now.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._share = limit // 2
        self._reserve = limit // RESERVE_DIVISOR
        self._small = min(SMALL_BYTES, self._reserve // SMALL_DIVISOR)
        self._lock = Lock()
        self._held: Counter[str] = Counter()
        self._arriving: dict[Claim, Callable[[], object]] = {}
        self._needy = ""
        self._needed_until = 0.0
        self.used = 0

    @contextmanager
    def claim(self, owner: str = "") -> Iterator["Claim"]:
        """One request's claim, given back at the end.

        Args:
            owner: whose it is: a client, or the service itself.
        """
        claim = Claim(self, owner)
        try:
            yield claim
        finally:
            with self._lock:
                self._end(claim)

    def take(self, claim: "Claim", size: int) -> None:
        """Counts bytes of a claim, unless it has ended.

        Raises:
            UnpackedTooLarge: there never is room for so many bytes of one request.
            QueueFull: there is no room for them now, or others need what there is.
        """
        with self._lock:
            if claim.ended:
                return
            if claim.size + size > self._limit:
                raise UnpackedTooLarge(f"the request unpacks to more than {self._limit} bytes")
            held = self._held[claim.owner]
            if held + size > self._share and held > claim.size and self._is_needed(claim.owner):
                raise QueueFull("its other requests hold this client's share; try again")
            if self.used + size > self._limit:
                self._make_room(claim, size)
            self._count(claim, size)

    def give(self, claim: "Claim", size: int) -> None:
        """Counts bytes that are not held any more."""
        with self._lock:
            if not claim.ended:
                self._count(claim, -size)

    @contextmanager
    def arriving(self, claim: "Claim", give_up: Callable[[], object]) -> Iterator[None]:
        """See :meth:`Claim.arriving`."""
        with self._lock:
            self._arriving[claim] = give_up
        try:
            yield
        finally:
            with self._lock:
                self._arriving.pop(claim, None)
        if claim.ended:
            raise QueueFull("others needed the room of this body; try again")

    def _make_room(self, claim: "Claim", size: int) -> None:
        """For a claim that its client's share has room for; in the reserve, or at others' cost."""
        is_within = self._held[claim.owner] + size <= self._share
        # The service itself tries again later, which costs nobody anything.
        if is_within and claim.owner:
            self._needy, self._needed_until = claim.owner, monotonic() + NEED_SECONDS
            is_small = claim.size + size <= self._small
            if is_small and self.used + size <= self._limit + self._reserve:
                return
            chosen = self._chosen(claim.owner, self.used + size - self._limit)
            for other in chosen:
                give_up = self._arriving[other]
                self._end(other)
                give_up()
            if chosen:
                return
        raise QueueFull("the service holds as many bytes as it can take; try again")

    def _chosen(self, owner: str, missing: int) -> list["Claim"]:
        """Whose end makes so much room; none if not enough of them may be ended."""
        chosen = []
        held = self._held.copy()
        for claim in sorted(self._arriving, key=lambda claim: claim.grown):
            if claim.owner != owner and held[claim.owner] > self._share and claim.size:
                chosen.append(claim)
                held[claim.owner] -= claim.size
                missing -= claim.size
            if missing <= 0:
                return chosen
        return []

    def _is_needed(self, owner: str) -> bool:
        """Whether another one has needed room of late."""
        return self._needy != owner and monotonic() < self._needed_until

    def _end(self, claim: "Claim") -> None:
        self._count(claim, -claim.size)
        claim.ended = True

    def _count(self, claim: "Claim", size: int) -> None:
        claim.size += size
        claim.grown = monotonic()
        self.used += size
        self._held[claim.owner] += size
        if not self._held[claim.owner]:
            del self._held[claim.owner]


class Claim:
    """What one request holds.

    Attributes:
        owner: whose request it is.
        size: bytes.
        grown: monotonic seconds at which it last became larger.
        ended: nobody waits for the request any more; what a thread still has in hand is let go soon.
    """

    def __init__(self, buffers: Buffers, owner: str = "") -> None:
        self._buffers = buffers
        self.owner = owner
        self.size = 0
        self.grown = monotonic()
        self.ended = False

    def add(self, size: int) -> None:
        """Claims more bytes.

        Raises:
            UnpackedTooLarge: there never is room for so many bytes of one request.
            QueueFull: there is no room for them now, or others need what there is.
        """
        self._buffers.take(self, size)

    def free(self, size: int) -> None:
        """Gives some of them back."""
        self._buffers.give(self, size)

    @contextmanager
    def arriving(self, give_up: Callable[[], object]) -> Iterator[None]:
        """Around what reads the body: so long the claim may be ended where others need its room.

        Args:
            give_up: called then, in whatever thread.

        Raises:
            QueueFull: the claim was ended, and the reading was not.
        """
        with self._buffers.arriving(self, give_up):
            yield
