"""Headers that every answer has, unless a route chose its own."""

from typing import Final

ALWAYS: Final = (
    # An answer is what its Content-Type says, whatever a browser makes of its bytes.
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # Of what is no page nothing runs, and no page frames it; pages have a policy of their own.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""OWASP REST Security Cheat Sheet, "Security Headers", and Fetch, section 3.7."""

UNSTORED: Final = (b"cache-control", b"no-store")
"""An answer may tell of a patient, so no cache keeps it (RFC 9111, section 5.2.2.5)."""

REVALIDATED: Final = (b"cache-control", b"no-cache")
"""The page's files may be kept, and are asked for again by their ETag."""

STATIC: Final = "/static/"

Headers = list[tuple[bytes, bytes]]


def protected(headers: Headers, path: str) -> Headers:
    """The headers of an answer, in lower case, and those that it lacks.

    Args:
        headers: of the answer.
        path: of the request.
    """
    present = {name for name, _ in headers}
    caching = REVALIDATED if path.startswith(STATIC) else UNSTORED
    return [*headers, *(header for header in (*ALWAYS, caching) if header[0] not in present)]
