"""When a client is listened to, and when not."""

import asyncio
from collections.abc import Sized
from dataclasses import dataclass

from uvicorn.protocols.http.flow_control import FlowControl

from service.pacing import EXTENSION
from service.presence import Presence


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may take.

    Attributes:
        header_seconds: from the connection or a request's first byte to the end of its headers.
        body_seconds: for the rest of a body whose request has been answered.
    """

    header_seconds: float
    body_seconds: float


class Flow(FlowControl):
    """Uvicorn's, but of a client whose requests wait for their turn nothing more is read.

    Uvicorn reads on whenever one is answered, or its body is looked at, and there may be ever more.

    Args:
        transport: of the client.
        queued: the requests that wait.

    Attributes:
        has_ended: the client sends nothing more; to read on would be undefined.
        presence: of the client.
    """

    def __init__(self, transport: asyncio.Transport, queued: Sized) -> None:
        super().__init__(transport)
        self._queued = queued
        self.has_ended = False
        self.presence = Presence()

    @property
    def extensions(self) -> dict[str, dict[object, object]]:
        """Of the ASGI scope of a request."""
        return {EXTENSION: {"for_seconds": self.pause_for, "presence": self.presence}}

    def resume_reading(self) -> None:
        """Reads on, if no request waits."""
        if not self._queued and not self.has_ended:
            super().resume_reading()

    def pause_for(self, seconds: float) -> None:
        """Reads nothing for a while, and then on."""
        self.pause_reading()
        asyncio.get_running_loop().call_later(seconds, self._listen)

    def _listen(self) -> None:
        if not self._transport.is_closing():
            self.resume_reading()
