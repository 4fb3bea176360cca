"""Structured logs: one JSON object a line, on standard error, where LiteRT's code greets as well.

A line never holds a file name, an attribute of a DICOM object, a body, an address as the client typed
it, or a query: whatever could name a patient.
"""

import json
import logging
import os
import traceback
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from select import select
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any, Final

from service.choices import LogLevel

WRITE_SECONDS: Final = 0.1
"""How long a line below a warning may wait to be written."""

STDERR: Final = 2
"""Its file descriptor."""

MAX_LINES: Final = 10_000
"""Lines that wait to be written; beyond them, lines are lost."""

FLUSH_SECONDS: Final = 1.0
"""How long the end of the process waits for a log that nobody reads."""

POLL_SECONDS: Final = 0.002

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
    """Writes to standard error in a thread of its own, ten times a second, and for a warning at once.

    A write of its own for each request would make the event loop give up the interpreter's lock and
    queue for it again behind the decoding threads: a tenth of a request's time. And a pipe that nobody
    reads any more fills up, as a disk does: then lines are lost, and said to be, but nobody else waits.
    """

    def __init__(self, max_lines: int = MAX_LINES) -> None:
        super().__init__()
        self._max_lines = max_lines
        self._lines: deque[str] = deque()
        self._lost = 0
        self._unwritten = 0
        self._torn = False
        self._writing = False
        self._waiting = Event()
        self._urgent = Event()
        Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Takes one record; never blocks."""
        if len(self._lines) >= self._max_lines:
            self._lost += 1
            return
        self._lines.append(f"{self.format(record)}\n")
        if record.levelno >= logging.WARNING:
            self._urgent.set()
        self._waiting.set()

    def flush(self) -> None:
        """Returns once what has been taken is written, or cannot be; also called at the end."""
        end = monotonic() + FLUSH_SECONDS
        while (self._lines or self._writing) and monotonic() < end:
            self._urgent.set()
            self._waiting.set()
            sleep(POLL_SECONDS)

    def _run(self) -> None:
        while True:
            self._waiting.wait()
            self._urgent.wait(WRITE_SECONDS)
            self._waiting.clear()
            self._urgent.clear()
            self._writing = True
            self._write()
            self._writing = False

    def _write(self) -> None:
        # Each with how many lines are lost with it.
        lines: list[tuple[str, int]] = []
        if self._torn:
            lines.append(("\n", 0))
        if self._unwritten:
            lines.append((self._loss(self._unwritten), self._unwritten))
        while self._lines:
            lines.append((self._lines.popleft(), 1))
        if self._lost:
            lost, self._lost = self._lost, 0
            lines.append((self._loss(lost), lost))
        block = "".join(text for text, _ in lines).encode()
        written = _write_most(block)
        if written:
            self._torn = block[written - 1 : written] != b"\n"
        # A line of JSON has no end within it.
        self._unwritten = sum(lost for _, lost in lines[block[:written].count(b"\n") :])

    def _loss(self, lost: int) -> str:
        text = "the log was not read in time or could not be written, and lines are missing here"
        fields = {"name": __name__, "levelname": "WARNING", "msg": text, "fields": {"lines": lost}}
        return f"{self.format(logging.makeLogRecord(fields))}\n"


def _write_most(block: bytes) -> int:
    """Writes to standard error until all is written, or it fails; how many bytes were.

    A log that nobody can read any more must not take the service with it. Python's own stream has a
    lock, which a write that never ends would hold while the interpreter ends.
    """
    written = 0
    with suppress(OSError):
        while written < len(block):
            try:
                written += os.write(STDERR, block[written:])
            except BlockingIOError:
                # Of a pipe that another program has told not to wait for its reader; this thread may.
                select([], [STDERR], [])
    return written


def configuration(level: LogLevel) -> dict[str, Any]:
    """For :func:`logging.config.dictConfig`: this service, uvicorn and other libraries, all alike.

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
