"""What fills a spool without a service, and what fails there."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from contract.policy import Checks
from service.pacs.identity import Identity
from service.pacs.inbox import Inbox
from service.pacs.receiver import Limits, Receipt, Receiver
from service.pacs.segments import Segments
from service.pacs.series import Received, Waiting

LIMITS = Limits(10**6, 10**6, 10, Checks.STRICT)
"""Of what a receiver takes."""

SERIES = "1.5"
"""Its UID, where a test needs no more than one."""


def put(
    inbox: Inbox, segments: Segments, sop: str, uid: str = SERIES, content: bytes = b"x" * 10
) -> None:
    """An instance arrives, of which the inbox knows no more than its identifiers."""
    segment = segments.create()
    segment.write(content)
    identity = Identity("1.2", sop, uid, "1.9")
    received = Received(identity, sha256(content).digest(), 0, len(content))
    inbox.accept(segment, [received], "pacs-1", "visit-1")


def receiver_of(
    inbox: Inbox, segments: Segments, media: str = "application/dicom", limits: Limits = LIMITS
) -> Receiver:
    """Of a request whose body is still to come."""
    return Receiver(media, None, limits, inbox, segments)


def finish(receiver: Receiver) -> Receipt:
    """A request has come to its end."""
    return receiver.finish("pacs-1", "visit-1")


def receive(inbox: Inbox, segments: Segments, data: bytes) -> Receipt:
    """A file arrives, in a request of its own."""
    receiver = receiver_of(inbox, segments)
    receiver.feed(data)
    return finish(receiver)


def sops_of(waiting: Waiting) -> list[str]:
    """SOP instance UIDs of what waits, in the order in which it came."""
    return [instance.sop for instance in waiting.instances]


def failing(number: int) -> Callable[..., Any]:
    """What fails with an error of the system, whatever it is called with."""

    def fail(*_: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may become larger, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
