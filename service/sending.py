"""The way of answers to a client, which may be slow, but has to read them."""

import asyncio
from collections.abc import Callable
from typing import Final

SEND_SECONDS: Final = 30.0
SEND_BYTES: Final = 2**18
"""A client that reads less of an answer in that time, and not the rest of it, does not want it."""


class Outgoing(asyncio.Transport):
    """A connection's transport, which lets a client go that does not read.

    A transport waits for ever to send the last bytes before it closes, and says that something is not
    read only where that is much.

    Args:
        transport: of the event loop.
        loop: the same.
        stays: asked before it closes; whether the connection does that itself, later.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        stays: Callable[[], bool],
    ) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._stays = stays
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        # Called for each piece of an answer.
        self.write = transport.write  # type: ignore[method-assign]
        self.is_closing = transport.is_closing  # type: ignore[method-assign]
        self.get_write_buffer_size = transport.get_write_buffer_size  # type: ignore[method-assign]

    def write_eof(self) -> None:
        """Ends what is sent, and still hears the client."""
        self._transport.write_eof()

    def close(self) -> None:
        """Closes once all is sent, or the client does not read it; or leaves that for later."""
        if self._stays():
            return
        self._transport.close()
        self.watch()

    def abort(self) -> None:
        """Closes at once."""
        self._transport.abort()

    def watch(self) -> None:
        """Lets the client go unless it reads what waits to be sent."""
        if self._timer is None and self.get_write_buffer_size():
            self._expect()

    def rest(self) -> None:
        """The client keeps up again; where the connection is being closed, it has to go on doing so."""
        if not self.is_closing():
            self.stop()

    def stop(self) -> None:
        """Watches no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def lose(self) -> None:
        """The connection is lost, and nobody is asked any more: who would be, holds this as well."""
        self.stop()
        self._stays = lambda: False

    def _expect(self) -> None:
        self._unsent = self.get_write_buffer_size()
        self._timer = self._loop.call_later(SEND_SECONDS, self._check)

    def _check(self) -> None:
        self._timer = None
        unsent = self.get_write_buffer_size()
        if not unsent:
            return
        if self._unsent - unsent < SEND_BYTES:
            self.abort()
            return
        self._expect()
