"""What the service knows of a request besides its body; it is logged, so it names no patient."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from time import monotonic
from typing import Any, Final

KEY: Final = "brain"
"""Where a request's context lies in its ASGI state."""

# Ids are no secret. Asked of the system for each request, they would have the event loop give the
# interpreter's lock away each time, and wait for it behind the inference threads.
_ids = Random()  # noqa: S311
_REQUEST_ID = re.compile(
    r"[0-9a-f]{32}"
    r"|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}",
    re.IGNORECASE,
)
"""128 random bits in hex, a UUID, or a W3C ``traceparent`` (Trace Context, 3.2): longer than a date or
a number of a patient, and without letters that make a name."""

_TRACEPARENT = re.compile(
    rb"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)
"""The header that tracing libraries send by themselves (W3C Trace Context, 3.2), with its trace-id.

After version 00 more fields may follow, of which nothing is read.
"""


@dataclass(slots=True)
class Context:
    """One request.

    Attributes:
        request_id: the client's ``X-Request-ID`` if it can name nobody, else a random one.
        code: error code of an answer that is a problem.
        fields: more for its log line, such as durations.
        logged: it gets a log line; a flood of refusals is only counted.
        client: who makes it, once :class:`service.access.Access` has let it in: the name of its key or,
            without keys, what its address is counted by. No key is called like that, as it has a dot or
            a colon. It goes into no log and no metric.
        is_admin: it comes with the role admin, or there are no keys and everybody may do everything.
        start: monotonic seconds of its first byte.
    """

    request_id: str
    code: str | None = None
    fields: dict[str, object] = field(default_factory=dict)
    logged: bool = True
    client: str = ""
    is_admin: bool = True
    start: float = field(default_factory=monotonic)

    @property
    def key(self) -> str | None:
        """Name of the API key that it was made with."""
        name = self.fields.get("key")
        return name if isinstance(name, str) else None

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> "Context":
        """The context that the middleware made for a request."""
        context: Context = scope["state"][KEY]
        return context


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client's request id where it is safe to log and repeat, else 32 hex digits.

    They are its ``traceparent``'s trace-id, or random.
    """
    trace = None
    for name, value in headers:
        if name == b"x-request-id":
            text = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(text):
                return text
        elif name == b"traceparent":
            trace = _TRACEPARENT.fullmatch(value)
    return trace[1].decode() if trace else new_request_id()


def new_request_id() -> str:
    """32 random hex digits."""
    return f"{_ids.getrandbits(128):032x}"
