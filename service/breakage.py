"""What ends a request before its end."""

from service.errors import ServiceError


class Unheard(Exception):
    """Stops the parser: what it has found belongs to nobody who is answered."""


class BrokenBody:
    """In the place of what has come of a body; uvicorn makes bytes of that whenever more is asked for.

    Args:
        failure: what is wrong; raised where the body is read.
    """

    def __init__(self, failure: ServiceError) -> None:
        self._failure = failure

    def __bytes__(self) -> bytes:
        raise self._failure
