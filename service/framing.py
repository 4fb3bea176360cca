"""How the body of a request is told from what follows it (RFC 9112, 6)."""

from collections.abc import Iterable


def is_understood(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a body's transfer coding, if it has one, is ``chunked`` and nothing besides.

    The parser looks at the last coding alone: what ``gzip, chunked`` packs would count as the body, of
    which a proxy that unpacks it has seen another one.
    """
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    return codings in ([], [b"chunked"])
