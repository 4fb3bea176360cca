"""A series on its way through the inbox: its instances, and what is known of them."""

from dataclasses import dataclass
from typing import NamedTuple

from service.pacs.identity import Identity
from service.pacs.segments import Place


class Instance(NamedTuple):
    """What tells an instance from others.

    Attributes:
        sop: SOP instance UID, which some anonymisers give to several images.
        digest: of its content (:mod:`service.content`); empty where an earlier release accepted it.
    """

    sop: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Received:
    """An instance in a segment that is about to be accepted.

    Attributes:
        digest: of its content (:mod:`service.content`).
    """

    identity: Identity
    digest: bytes
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A series to analyse.

    Attributes:
        uid: of the series.
        attempts: begun before, and neither ended nor given back.
        reason: error code of the last of them; None where there was none, or it ended the process.
        sender, request_id: of its newest instance.
        instances: with their places, in the order of arrival.
    """

    uid: str
    attempts: int
    reason: str | None
    sender: str | None
    request_id: str
    instances: dict[Instance, Place]


@dataclass(frozen=True, slots=True)
class SetAside:
    """A series that cannot be analysed.

    Attributes:
        uid: of the series.
        reason: error code, or a word for why.
        instances: that it has here.
        since: Unix seconds.
        request_id: of the request that brought the newest of them.
    """

    uid: str
    reason: str
    instances: int
    since: float
    request_id: str
