"""Uvicorn as this service runs it: its settings, its connections, and its way to stop."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, cast

import uvicorn

from service.app import App
from service.connections import Connection
from service.crowd import Crowd
from service.flow import Limits
from service.settings import PassingFault, Settings, SettingsError
from service.state import State

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS: Final = 30
"""How long an idle connection is kept; longer than a PACS pauses between two slices."""

LAST_SECONDS: Final = 0.1
"""From when nobody new is let in to when the service stops listening: time for those in the queue."""


def check_address(settings: Settings) -> None:
    """Does nothing where the address to listen on is one.

    Raises:
        SettingsError: it is none.
        PassingFault: it is a name, and who knows the address does not answer.
    """
    try:
        socket.getaddrinfo(settings.host, settings.port)
    except (OSError, UnicodeError) as error:
        later = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
        fault = PassingFault if later else SettingsError
        raise fault(f"BRAIN_HOST: {settings.host} is no address: {error}") from error


def check_drain(settings: Settings) -> None:
    """Says so where a stop may refuse what was accepted, and could still be answered in time.

    It is no error: where a process is killed some seconds after SIGTERM, a 503 is better than nothing.
    """
    if settings.drain_seconds * 1000 < settings.deadline_ms:
        logger.warning(
            "BRAIN_DRAIN_SECONDS is less than BRAIN_DEADLINE_MS: a stop may answer 503 to what was "
            "accepted, and would have had its answer in time"
        )


def configure(app: App, settings: Settings, log_config: dict[str, Any] | None) -> uvicorn.Config:
    """How uvicorn runs an app.

    Args:
        app: what it runs.
        settings: of the same app.
        log_config: for :func:`logging.config.dictConfig`; None leaves the logging as it is.
    """
    limits = Limits(
        header_seconds=settings.header_timeout_ms / 1000,
        body_seconds=settings.body_timeout_ms / 1000,
    )
    protocol = partial(
        Connection,
        crowd=Crowd(settings.max_connections),
        limits=limits,
        turnstile=app.turnstile,
    )
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=cast("type[asyncio.Protocol]", protocol),
        ws="none",
        lifespan="on",
        log_config=log_config,
        access_log=False,
        server_header=False,
        # A client's address counts for its rate and its shares only, where a proxy's word is asked for.
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=settings.drain_seconds,
    )


class DrainingServer(uvicorn.Server):
    """Uvicorn that says that it is about to stop before it stops, and then exits with 0.

    On the first signal (SIGTERM, SIGINT or SIGHUP) readiness drops and new predictions get 503; after
    the notice period it stops listening and finishes what it accepted. A second signal ends it at once,
    but for SIGHUP.
    """

    def __init__(self, config: uvicorn.Config, app: App, notice_seconds: float) -> None:
        super().__init__(config)
        self._app = app
        self._notice_seconds = notice_seconds

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes the place of uvicorn's, which ends the process by the signal, not by exit 0."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        # Under nohup it is ignored, and what is started so shall outlive its terminal.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        yield

    def _hang_up(self) -> None:
        # A shell and its terminal both send it as they end, so that a second one says nothing new.
        state: State | None = getattr(self._app.state, "parts", None)
        if state is None or not state.draining:
            self._stop()

    def _stop(self) -> None:
        state: State | None = getattr(self._app.state, "parts", None)
        if state is None or state.draining:
            self.force_exit = state is not None
            self.should_exit = True
            return
        state.drain()
        asyncio.get_running_loop().call_later(self._notice_seconds, self._let_in_the_last)

    def _let_in_the_last(self) -> None:
        """Keeps new clients out of the queue of connections: closed, it resets all that are in it.

        They try again, and are refused or find another instance.
        """
        # Uvicorn has no servers yet where the signal comes while it starts.
        for server in self.servers if self.started else ():
            for listening in server.sockets:
                with socket.socket(fileno=os.dup(listening.fileno())) as duplicate:
                    duplicate.listen(0)
        asyncio.get_running_loop().call_later(LAST_SECONDS, self._close)

    def _close(self) -> None:
        self.should_exit = True
