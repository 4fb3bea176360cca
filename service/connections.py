"""A client's connection: how many there may be, and how long and how large a request may be on its way.

Uvicorn's own protocol waits for ever for headers that never end, takes headers of any size, and lets a
client take for ever to send a body that is not wanted or to receive an answer.
"""

import asyncio
from typing import Any, Final

import uvicorn
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import get_remote_addr
from uvicorn.server import ServerState

from service.addresses import counted
from service.breakage import BrokenBody, Unheard
from service.crowd import Crowd, Party, Standing
from service.errors import (
    HeadersTimeout,
    HeadersTooLarge,
    MalformedRequest,
    RateExceeded,
    ServiceError,
    TooManyConnections,
)
from service.flow import Flow, Limits
from service.framing import is_understood
from service.hosts import has_path, is_named_once, origin_form
from service.sending import Outgoing
from service.turnstile import Turnstile
from service.upgrades import WithoutUpgrades

MAX_HEAD_BYTES: Final = 64 * 1024
"""Request line and headers together, or the trailers of a chunked body, which are counted with all else
since its last data; more than any client of this service has reason to send."""

MAX_QUEUED: Final = 16
"""Requests of a connection that wait while an earlier one of it is answered. One piece may have
thousands, each of which costs memory, and time on the event loop, before others have theirs."""

LINGER_SECONDS: Final = 1.0
"""How long a refused client may take to read why; closed at once, a connection loses its last words."""

FRESH_SECONDS: Final = 0.2
"""How long a client that has just connected may take to send its request while the service ends; closed
at once, the connection would be reset under it."""


class Connection(WithoutUpgrades):
    """Uvicorn's protocol with limits.

    Attributes:
        party, standing: as of :class:`service.crowd.Member`.
        cycle: of the latest request with a whole head; None before the first.
    """

    transport: Outgoing
    flow: Flow
    cycle: RequestResponseCycle | None  # type: ignore[assignment]

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        crowd: Crowd,
        limits: Limits,
        turnstile: Turnstile,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._crowd = crowd
        self._limits = limits
        self._turnstile = turnstile
        self._timer: asyncio.TimerHandle | None = None
        self._in_message = False
        self._in_head = True
        self._head_bytes = 0
        self._trailer_bytes = 0
        self._refused = False
        self._is_ending = False
        self._last_words: ServiceError | None = None
        self.party: Party | None = None
        self.standing = Standing.UNFINISHED

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes a client, or tells it that there are too many."""
        self.transport = outgoing = Outgoing(transport, self.loop, self._stays)
        self.flow = flow = Flow(transport, self.pipeline)
        self.client = get_remote_addr(transport)
        if self._crowd.is_full and not self._crowd.make_room(self.address):
            self._refuse(TooManyConnections("the service has as many connections as it can take"))
            return
        super().connection_made(transport)
        # Uvicorn has put others in their place.
        self.transport, self.flow = outgoing, flow
        self._crowd.add(self)
        self._arm(self._limits.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the client."""
        self._disarm()
        super().connection_lost(exc)
        self.transport.lose()
        self._crowd.remove(self)
        self.flow.presence.leave()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends nothing more, and may still wait for the answers to what came whole.

        One that has gone looks the same. For requests without the rest of their bodies this is the end.

        Returns:
            Whether the connection is left open.
        """
        self.flow.has_ended = True
        self._refuse(None)
        if self._is_ending:
            self.transport.close()
        return not self._is_ending

    def data_received(self, data: bytes) -> None:
        """Takes a piece of a request; of a refused one nothing more."""
        if self._refused:
            return
        if not self._in_message and self._timer is None:
            self._arm(self._limits.header_seconds)
        if self._in_head:
            self._head_bytes += len(data)
        elif self._in_message:
            self._trailer_bytes += len(data)
        self._unset_keepalive_if_required()
        self.feed(data)
        self._check_size()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        # What comes in one piece with a refused request may be thousands of others.
        if self._refused:
            raise Unheard
        super().on_message_begin()
        self.scope["extensions"] = self.flow.extensions
        self._in_message = self._in_head = True
        self._note_standing()
        if self._timer is None:
            self._arm(self._limits.header_seconds)

    def on_headers_complete(self) -> None:
        """The request starts; its body has a limit of its own where it is read."""
        if self._refused or self.offers_upgrade():
            return
        self._disarm()
        # What came in one piece with the head may be body, and does not count.
        fields = sum(len(name) + len(value) + len(b": \r\n") for name, value in self.headers)
        if len(self.url) + fields > MAX_HEAD_BYTES:
            self._refuse_head()
            return
        if not is_named_once(self.url, self.headers, self.parser.get_http_version()):
            self._refuse(MalformedRequest("a request must name one host, in its header Host alone"))
            return
        if not is_understood(self.headers):
            self._refuse(MalformedRequest("the only transfer coding that is taken is chunked"))
            return
        self.url = origin_form(self.url)
        # Uvicorn would fail on it once the request counts as begun.
        if self.parser.get_method() == b"CONNECT" or not has_path(self.url):
            self._refuse(MalformedRequest("the target of a request must have a path"))
            return
        if len(self.pipeline) >= MAX_QUEUED:
            self._refuse(RateExceeded(f"of a connection {MAX_QUEUED} requests may wait", 1))
            return
        self._in_head = False
        self._head_bytes = self._trailer_bytes = 0
        # A client of HTTP/1.0 would take it for the answer (RFC 9110, 10.1.1).
        self.expect_100_continue &= self.parser.get_http_version() == "1.1"
        super().on_headers_complete()
        self._note_standing()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head; trailers are ignored, as RFC 9110, section 6.5.1, allows."""
        if self._in_head:
            # The parser leaves the white space behind it, which is no part of it (RFC 9110, 5.5).
            super().on_header(name, value.rstrip(b" \t"))

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._trailer_bytes = 0
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        if self._refused or self.offers_upgrade():
            return
        self._disarm()
        self._in_message = False
        # The next piece begins another head, which the parser says only after it has come.
        self._in_head = True
        self._head_bytes = 0
        super().on_message_complete()
        if self.cycle and not self.cycle.response_complete:
            # A large last piece has paused it, and who leaves meanwhile would not be noticed.
            self.flow.resume_reading()
        self._note_standing()

    def on_response_complete(self) -> None:
        """The last byte of an answer, which may come before the last of its request."""
        is_last = not self.pipeline
        was_deaf = self.flow.read_paused
        super().on_response_complete()
        if was_deaf and self._timer is not None:
            # The rest of a head could not be heard before.
            self._arm(self._limits.header_seconds)
        self._note_standing()
        if self._refused:
            if is_last and not self.transport.is_closing():
                self._end(self._last_words)
        elif self._stays():
            self._arm(self._limits.body_seconds)
            if self.cycle is not None and not self.cycle.keep_alive:
                self._part()

    def shutdown(self) -> None:
        """Ends the connection after its answer, or after the first one where there was none yet."""
        if self.cycle is None:
            self.loop.call_later(FRESH_SECONDS, super().shutdown)
        elif self._stays():
            self._arm(LINGER_SECONDS)
            self._part()
        else:
            super().shutdown()

    @property
    def address(self) -> str:
        """What its client is counted by; nothing where it has no address, as of a socket."""
        return counted(self.client[0]) if self.client else ""

    @property
    def has_sent_all(self) -> bool:
        """Whether it is open, and nothing of an answer waits to be sent."""
        return not self.transport.is_closing() and not self.transport.get_write_buffer_size()

    def make_way(self) -> None:
        """Ends the connection, of which no request is being answered, in favour of another one."""
        if self.standing is Standing.UNFINISHED and not self._is_ending:
            self._refuse(TooManyConnections("others need the connection; try again"))
        else:
            self._forget()
            self.transport.close()

    def pause_writing(self) -> None:
        """The client does not keep up with the answer."""
        super().pause_writing()
        self.transport.watch()

    def resume_writing(self) -> None:
        """It does again."""
        self.transport.rest()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets a problem as everything else does."""
        self._refuse(MalformedRequest(msg))

    def _note_standing(self) -> None:
        cycle = self.cycle
        if cycle is not None and (not cycle.response_complete or self.pipeline):
            standing = Standing.BUSY
        elif self._in_message or cycle is None:
            standing = Standing.UNFINISHED
        else:
            standing = Standing.IDLE
        self._crowd.move(self, standing)

    def _forget(self) -> None:
        """Counts no more for how many connections there are."""
        self.connections.discard(self)
        self._crowd.remove(self)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Turns a request away, or lets it in."""
        # Of several under way at once only the first is certain to be answered next.
        refusal = None
        if cycle.keep_alive and not self.pipeline:
            refusal = self._turnstile.turn_away(cycle.scope)
        if refusal is None:
            super()._start_asgi_task(cycle, app)
            return
        self.transport.write(refusal.answer)
        cycle.response_started = cycle.response_complete = True
        self.on_response_complete()
        if refusal.pause_seconds > 0:
            self.flow.pause_for(refusal.pause_seconds)

    def _check_size(self) -> None:
        if self._refused:
            return
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()
        elif self._in_message and self._trailer_bytes > MAX_HEAD_BYTES:
            self._refuse(HeadersTooLarge(f"trailers may have {MAX_HEAD_BYTES} bytes"))

    def _refuse_head(self) -> None:
        self._refuse(HeadersTooLarge(f"headers may have {MAX_HEAD_BYTES} bytes"))

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self._run_out)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run_out(self) -> None:
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            # An earlier request has no answer yet; the next one may as well take its time.
            self._arm(self._limits.header_seconds)
        elif self._in_message and self._in_head:
            self._refuse(HeadersTimeout("the headers did not arrive in time"))
        else:
            # It has sent nothing to answer, or has had its answer.
            self._is_ending = True
            self.transport.close()

    def _refuse(self, failure: ServiceError | None) -> None:
        """Hears nothing more, and says why, if at all, once all requests before have their answers."""
        # The parser goes on with what came in one piece, and may find more that is wrong.
        if self._refused:
            return
        self._refused = True
        self._disarm()
        cycle = self.cycle
        if cycle is None:
            self._end(failure)
        elif self._in_message and not self._in_head:
            self._break_off(cycle, failure)
        elif cycle.response_complete:
            self._end(failure)
        else:
            self._last_words = failure

    def _break_off(self, cycle: RequestResponseCycle, failure: ServiceError | None) -> None:
        """Ends the body of the latest request, whose own answer is to say what is wrong with it."""
        # What is asked for now would be written behind the end of what is sent.
        cycle.waiting_for_100_continue = False
        if cycle.response_complete:
            self._end(None)
        elif failure is not None:
            cycle.keep_alive = False
            if not cycle.response_started:
                cycle.body = BrokenBody(failure)  # type: ignore[assignment]
        else:
            cycle.disconnected = True
            if self.pipeline:
                self.pipeline.popleft()
            else:
                self._end(None)
        cycle.message_event.set()

    def _stays(self) -> bool:
        """Whether the body of an answered request still comes: closed, the connection is reset."""
        is_answered = self.cycle is not None and self.cycle.response_complete
        return is_answered and self._in_message and not (self._in_head or self._is_ending)

    def _part(self) -> None:
        """Sends nothing more, and closes once the client does, or time is up."""
        self._refused = self._is_ending = True
        self._unset_keepalive_if_required()
        self.transport.write_eof()
        self.transport.watch()

    def _end(self, failure: ServiceError | None) -> None:
        """Says why, and closes once the client has had time to read it."""
        self._disarm()
        self._is_ending = True
        if not self.transport.get_write_buffer_size():
            self._forget()
        # What waits to be sent takes room, and so counts until it is.
        self._crowd.move(self, Standing.BUSY)
        if failure is not None:
            # Between requests, the fields are those of the last one.
            fields = self.headers if self._in_message else ()
            self.transport.write(self._turnstile.last_words(failure, fields))
        if self.flow.has_ended:
            # It sends nothing for which the connection would be reset under what it has not read.
            self.transport.close()
            return
        self.transport.write_eof()
        # The event loop sends what was written above before it looks.
        self.loop.call_soon(self._linger)

    def _linger(self) -> None:
        """Gives the client time to read from when all is sent, which it may take slowly."""
        if self.transport.is_closing():
            return
        if self.transport.get_write_buffer_size():
            self.transport.watch()
            self._timer = self.loop.call_later(LINGER_SECONDS, self._linger)
        else:
            self._forget()
            self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)
