"""``python -m service``: one process, one event loop, graceful drain on SIGTERM and SIGINT."""

import asyncio
import gc
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from fastapi import FastAPI

from service.app import create_app
from service.logs import configuration
from service.settings import Settings, SettingsError
from service.state import State

KEEP_ALIVE_SECONDS: Final = 30
"""How long an idle connection is kept; longer than a PACS pauses between two slices."""

INVALID_SETTINGS: Final = 2
"""Exit status when the environment is wrong, as of a command that is used wrongly."""


class DrainingServer(uvicorn.Server):
    """Uvicorn that says that it is about to stop before it stops, and then exits with 0.

    On the first signal readiness drops and new predictions get 503; after the notice period it stops
    listening and finishes what it accepted. A second signal ends it at once.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, notice_seconds: float) -> None:
        super().__init__(config)
        self._app = app
        self._notice_seconds = notice_seconds

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes the place of uvicorn's, which ends the process by the signal, not by exit 0."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        state: State | None = getattr(self._app.state, "parts", None)
        if state is None or state.draining:
            self.force_exit = state is not None
            self.should_exit = True
            return
        state.drain()
        asyncio.get_running_loop().call_later(self._notice_seconds, self._close)

    def _close(self) -> None:
        self.should_exit = True


def main() -> int:
    """Runs the service; returns the process' exit status."""
    try:
        settings = Settings.from_environment()
        app = create_app(settings)
    except SettingsError as error:
        sys.stderr.write(f"brain-mri service: {error}\n")
        return INVALID_SETTINGS
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=configuration(settings.log_level),
        access_log=False,
        server_header=False,
        # Nothing here depends on a client's address.
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=settings.drain_seconds,
    )
    # What exists now stays; the collector need not walk through it again and again.
    gc.freeze()
    DrainingServer(config, app, settings.drain_notice_ms / 1000).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
