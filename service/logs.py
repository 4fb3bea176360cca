"""Structured logs: one JSON object a line, on standard error.

A line never holds a file name, an attribute of a DICOM object, a body, an address as the client typed
it, or a query: whatever could name a patient.
"""

import json
import logging
import sys
import traceback
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from threading import Event, Lock, Thread
from time import sleep
from typing import Any, Final

from service.settings import LogLevel

WRITE_SECONDS: Final = 0.1
"""How long a line below a warning may wait to be written."""

_encode = json.JSONEncoder(default=str).encode


def log_discreetly(logger: logging.Logger, message: str, error: BaseException) -> None:
    """Logs an error whose text may quote a patient's attributes: its type and where it was raised."""
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s: %s\n%s", message, type(error).__name__, where)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; ``extra={"fields": {...}}`` adds members."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _encode(line)


class BufferedHandler(logging.Handler):
    """Writes to standard error ten times a second; a warning or worse, and all before it, at once.

    A write of its own for each request would make the event loop give up the interpreter's lock and
    queue for it again behind the decoding threads: a tenth of a request's time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque()
        self._waiting = Event()
        self._writing = Lock()
        Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Takes one record."""
        self._lines.append(f"{self.format(record)}\n")
        if record.levelno >= logging.WARNING:
            self.flush()
        else:
            self._waiting.set()

    def flush(self) -> None:
        """Writes what has been taken; :func:`logging.shutdown` does so at the end."""
        with self._writing:
            lines = []
            while self._lines:
                lines.append(self._lines.popleft())
            # A log that nobody reads any more must not take the service with it.
            with suppress(OSError, ValueError):
                sys.stderr.write("".join(lines))
                sys.stderr.flush()

    def _run(self) -> None:
        while True:
            self._waiting.wait()
            sleep(WRITE_SECONDS)
            self._waiting.clear()
            self.flush()


def configuration(level: LogLevel) -> dict[str, Any]:
    """For :func:`logging.config.dictConfig`: this service, uvicorn and warnings, all alike.

    Uvicorn's access log stays off: it would hold addresses, and the middleware logs each request.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {
            "stderr": {
                "class": "service.logs.BufferedHandler",
                "formatter": "json",
            }
        },
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {
            "service": {"level": level.upper()},
            "uvicorn": {"level": level.upper()},
            # A client's broken form is its own affair, and is answered with 400.
            "python_multipart": {"level": "ERROR"},
        },
    }
