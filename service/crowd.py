"""Who holds the service's connections, and whose gives way where all of them are taken.

Nothing here takes longer the more connections there are: a flood of clients that are refused asks each
time, on the event loop. An address is what :func:`service.addresses.counted` makes of a client's.
"""

from enum import Enum, auto
from time import monotonic
from typing import Final, Protocol

GRACE_SECONDS: Final = 1.0
"""How long a connection without a request is left alone by those with no more right to it: so far away
may a client be. So long has one been idle that is ended for another one of its own address: before
that, a client's next request may be on its way."""

RESERVE_DIVISOR: Final = 16
"""Where one address has more than half of the connections, others get so large a part more."""

MAX_LOOKS: Final = 32
"""Connections of a kind that a search looks at; one that still sends an answer goes to their end."""


def most(limit: int) -> int:
    """How many connections there may be with the reserve."""
    return limit + limit // RESERVE_DIVISOR


class Standing(Enum):
    """What a connection does."""

    BUSY = auto()
    """A request of it is being answered."""
    UNFINISHED = auto()
    """It has made no request, has begun another one, or sends what nobody wants."""
    IDLE = auto()
    """It has its answer, and asks nothing more for now."""


class Party:
    """The connections of one address.

    Attributes:
        count: of all of them.
        free: those without a request under way by standing, with the monotonic seconds since when, the
            longest first.
    """

    __slots__ = ("count", "free")

    def __init__(self) -> None:
        self.count = 0
        self.free: dict[Standing, dict[Member, float]] = {
            Standing.UNFINISHED: {},
            Standing.IDLE: {},
        }


class Member(Protocol):
    """A connection as it is counted here.

    Attributes:
        party: those of its address; None where it is not counted.
        standing: as :meth:`Crowd.move` has it.
    """

    party: Party | None
    standing: Standing

    @property
    def address(self) -> str:
        """Its client's."""

    @property
    def has_sent_all(self) -> bool:
        """Whether it is open, and nothing of an answer waits to be sent."""

    def make_way(self) -> None:
        """Ends it, and removes it from the crowd."""


class Crowd:
    """The connections of a service. Event loop only.

    Args:
        limit: of connections, but for a reserve.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._parties: dict[str, Party] = {}
        # Those with more than half; by the reserve there may be two.
        self._greedy: set[Party] = set()
        self._unfinished: dict[Member, float] = {}

    @property
    def is_full(self) -> bool:
        """Whether there are as many as there may be."""
        return self._count >= self._limit

    def add(self, member: Member) -> None:
        """Counts a new connection, which has made no request."""
        party = self._parties.setdefault(member.address, Party())
        party.count += 1
        self._count += 1
        if party.count > self._limit / 2:
            self._greedy.add(party)
        member.party, member.standing = party, Standing.UNFINISHED
        self._enter(member, party)

    def remove(self, member: Member) -> None:
        """Counts one no more; does nothing where it is not counted."""
        party = member.party
        if party is None:
            return
        self._leave(member, party)
        member.party = None
        party.count -= 1
        self._count -= 1
        if party.count <= self._limit / 2:
            self._greedy.discard(party)
        if not party.count:
            del self._parties[member.address]

    def move(self, member: Member, standing: Standing) -> None:
        """Notes what a connection does from now on; does nothing where it is not counted."""
        party = member.party
        if party is None or member.standing is standing:
            return
        self._leave(member, party)
        member.standing = standing
        self._enter(member, party)

    def make_room(self, address: str) -> bool:
        """Whether a client is let in though there are as many connections as there may be.

        An address with more than half of them gives way to others, first with what it does not use,
        and where it uses all of them, others get the reserve. Next, whoever has not even made a request
        gives way, but to an address with more than half only its own; last, what is idle of the same
        address.

        Args:
            address: the client's.
        """
        greedy = max(self._greedy, key=lambda party: party.count, default=None)
        own = self._parties.get(address)
        if own is not None and own in self._greedy:
            unfinished = own.free[Standing.UNFINISHED]
        else:
            if greedy is not None:
                if any(self._end_one(members, 0) for members in greedy.free.values()):
                    return True
                if self._count < most(self._limit):
                    return True
            unfinished = self._unfinished
        return self._end_one(unfinished, GRACE_SECONDS) or (
            own is not None and self._end_one(own.free[Standing.IDLE], GRACE_SECONDS)
        )

    def _end_one(self, members: dict[Member, float], seconds: float) -> bool:
        """Ends the connection that has been free for longest, if it has been for some time."""
        now = monotonic()
        for _ in range(MAX_LOOKS):
            member = next(iter(members), None)
            if member is None or now - members[member] < seconds:
                return False
            if member.has_sent_all:
                member.make_way()
                return True
            # Its answer is on its way to it, and it has been free since now at most.
            if member.party is not None:
                self._leave(member, member.party)
                self._enter(member, member.party)
        return False

    def _enter(self, member: Member, party: Party) -> None:
        if member.standing is Standing.BUSY:
            return
        now = monotonic()
        party.free[member.standing][member] = now
        if member.standing is Standing.UNFINISHED:
            self._unfinished[member] = now

    def _leave(self, member: Member, party: Party) -> None:
        if member.standing is Standing.BUSY:
            return
        del party.free[member.standing][member]
        if member.standing is Standing.UNFINISHED:
            del self._unfinished[member]
