"""The body of a STOW-RS request to instances in the inbox (DICOM PS3.18 2024e, section 10.5).

A receiver takes the body piece by piece, writes each instance to the spool as it comes, and forgets
those that it refuses. It blocks on the disk, so it belongs in a thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from python_multipart.multipart import parse_options_header

from contract.policy import Checks
from contract.quiet import quieten
from service.consistency import INTAKE_SHARE
from service.content import ContentHash
from service.errors import (
    BodyTooLarge,
    NoInput,
    TooManyFiles,
    UnsupportedRequestMedia,
)
from service.pacs.identity import HEAD_BYTES, Identity, Reason, Refused, identify
from service.pacs.inbox import Inbox
from service.pacs.related import RelatedParser
from service.pacs.segments import Segments
from service.pacs.series import Received
from service.uploads import check_encoding

DICOM: Final = b"application/dicom"
RELATED: Final = b"multipart/related"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may bring.

    Attributes:
        body_bytes: of the whole body.
        instance_bytes: of one instance.
        instances: how many.
        checks: what an instance must say of itself.
    """

    body_bytes: int
    instance_bytes: int
    instances: int
    checks: Checks


@dataclass(slots=True)
class Receipt:
    """What became of a request's instances, in order.

    Attributes:
        stored: accepted, and on the disk.
        refused: not stored.
    """

    stored: list[Identity] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


class Receiver:
    """One request.

    Args:
        content_type: of the body.
        study: the UID of the only study that is accepted; None accepts any.
        limits: of the request.
        inbox: takes the instances.
        segments: where they are written.

    Raises:
        UnsupportedRequestMedia: the body is declared to be something else.
        MalformedMultipart: its boundary is none.
    """

    def __init__(
        self,
        content_type: str | None,
        study: str | None,
        limits: Limits,
        inbox: Inbox,
        segments: Segments,
    ) -> None:
        media, options = parse_options_header(content_type)
        # The type of the root part, which RFC 2387 asks for; every part says its own as well.
        declared = options.get(b"type", DICOM).lower()
        if media not in {RELATED, DICOM} or (media == RELATED and declared != DICOM):
            accepted = 'multipart/related; type="application/dicom", or application/dicom'
            raise UnsupportedRequestMedia(f"the body must be {accepted}")
        quieten()
        self._parser = None
        if media == RELATED:
            self._parser = RelatedParser(options.get(b"boundary", b""), self)
        self._study = study
        self._limits = limits
        self._inbox = inbox
        self._segment = segments.create(INTAKE_SHARE)
        self._size = 0
        self._parts = 0
        self._start = 0
        self._hash = ContentHash()
        self._failure: Refused | None = None
        self._received: list[Received] = []
        self._refused: list[Refused] = []
        self._announced: list[str] = []
        if self._parser is None:
            self.begin_part({})

    def feed(self, data: bytes) -> None:
        """Takes the next piece of the body.

        Raises:
            BodyTooLarge, TooManyFiles: over the limits.
            MalformedMultipart: the body is not what it should be.
            SpoolFull: there is no room.
        """
        self._size += len(data)
        if self._size > self._limits.body_bytes:
            raise BodyTooLarge(f"a request may have {self._limits.body_bytes} bytes")
        if self._parser is None:
            self.add_data(data)
        else:
            self._parser.feed(data)

    def finish(self, sender: str | None, request_id: str) -> Receipt:
        """The body has ended; what is in the receipt as stored is on the disk.

        Args:
            sender: name of the API key.
            request_id: of the request.

        Raises:
            MalformedMultipart, NoInput: the body is not what it should be; nothing was stored.
            SpoolFull: there is no room; nothing was stored.
        """
        if self._parser is None:
            if not self._size:
                raise NoInput("the body is empty")
            self.end_part()
        else:
            self._parser.close()
            if not self._parts:
                raise NoInput("the body has no part")
        if self._received:
            self._inbox.accept(self._segment, self._received, sender, request_id)
            self._inbox.dismiss(self._announced)
            self._announced = []
        else:
            self._segment.discard()
        return Receipt([received.identity for received in self._received], self._refused)

    def abandon(self) -> None:
        """Forgets everything, after any error."""
        self._inbox.dismiss(self._announced)
        self._announced = []
        # Last, as the disk may be what failed.
        self._segment.discard()

    def begin_part(self, headers: Mapping[bytes, bytes]) -> None:
        """Called by the parser."""
        self._parts += 1
        if self._parts > self._limits.instances:
            raise TooManyFiles.of("a request", self._limits.instances, "instance")
        self._start = self._segment.size
        self._hash = ContentHash()
        self._failure = None
        media, _ = parse_options_header(headers.get(b"content-type", DICOM))
        if media != DICOM:
            raise UnsupportedRequestMedia("every part must be application/dicom")
        check_encoding(headers.get(b"content-transfer-encoding", b"binary"))

    def add_data(self, data: bytes) -> None:
        """Called by the parser."""
        if self._failure is not None:
            return
        if self._segment.size - self._start + len(data) > self._limits.instance_bytes:
            # Its beginning still says what it is.
            beginning = self._segment.read(self._start, HEAD_BYTES) + data
            self._failure = self._too_large(beginning[:HEAD_BYTES])
            self._segment.cut(self._start)
            return
        self._segment.write(data)
        self._hash.update(data)

    def end_part(self) -> None:
        """Called by the parser."""
        if self._failure is not None:
            self._refused.append(self._failure)
            return
        # A few large instances at a time would take all memory if they were read as a whole.
        head = self._segment.read(self._start, HEAD_BYTES)
        try:
            identity = identify(head, self._study, self._limits.checks)
        except Refused as refusal:
            if refusal.sop is None and self._segment.size > self._start:
                refusal.file = self._file_digest()
            self._segment.cut(self._start)
            self._refused.append(refusal)
            return
        self._inbox.announce(identity.series)
        self._announced.append(identity.series)
        length = self._segment.size - self._start
        self._received.append(Received(identity, self._hash.digest(), self._start, length))

    def _file_digest(self) -> str:
        """SHA-256 of the whole part, which is read again as few are asked for it."""
        found = sha256()
        for at in range(self._start, self._segment.size, HEAD_BYTES):
            found.update(self._segment.read(at, HEAD_BYTES))
        return found.hexdigest()

    def _too_large(self, beginning: bytes) -> Refused:
        try:
            identity = identify(beginning, self._study, self._limits.checks)
        except Refused as refusal:
            return refusal
        return Refused(Reason.OUT_OF_RESOURCES, identity.sop_class, identity.sop)
