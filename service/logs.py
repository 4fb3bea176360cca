"""Structured logs: one JSON object a line, on standard error.

A line never holds a file name, an attribute of a DICOM object, a body, an address as the client typed
it, or a query: whatever could name a patient.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from service.settings import LogLevel


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
        return json.dumps(line, default=str)


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
                "class": "logging.StreamHandler",
                "formatter": "json",
                "stream": "ext://sys.stderr",
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
