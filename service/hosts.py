"""What a request says of the host that it is for, and of what it wants there (RFC 9112, 3.2)."""

import re
from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import Final

import httptools

_HOST: Final = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._~-]*))(?::([0-9]*))?")
"""``uri-host [":" port]`` (RFC 3986, 3.2.2), without characters that no name of a host has: whoever
decodes ``%2e`` or a full stop of another script would understand another name than the service does."""


_AUTHORITY: Final = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)")
"""What an absolute target begins with; its host counts in the place of ``Host`` (RFC 9112, 3.2.2)."""

_DEFAULT_PORTS: Final = {b"http": b"80", b"https": b"443"}
"""What a scheme's host without a port has (RFC 9110, 4.2.1 and 4.2.2)."""


def is_named_once(target: bytes, headers: Iterable[tuple[bytes, bytes]], http_version: str) -> bool:
    """Whether a request has one well-formed ``Host``, of which an absolute target says the same.

    Under HTTP/1.0 it need not have any, but for such a target: what looks at the header alone, as all
    here does, would not know of the other name.
    """
    hosts = [value for name, value in headers if name == b"host"]
    absolute = _AUTHORITY.match(target)
    if not hosts:
        return http_version == "1.0" and absolute is None
    host = _parsed(hosts[0])
    if host is None or len(hosts) > 1:
        return False
    if absolute is None:
        return True
    other = _parsed(absolute[2])
    default = _DEFAULT_PORTS.get(absolute[1].lower(), b"")
    return other is not None and _with_port(other, default) == _with_port(host, default)


def origin_form(target: bytes) -> bytes:
    """A target without its host, where no path stands for ``/`` (RFC 9110, 4.2.3).

    Uvicorn's parser takes less for a host than may be one.
    """
    absolute = _AUTHORITY.match(target)
    if absolute is None:
        return target
    rest = target[absolute.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest


def has_path(target: bytes) -> bool:
    """Whether there is a path in a target; one that is a host alone, as of CONNECT, has none."""
    try:
        return httptools.parse_url(target).path is not None
    except httptools.HttpParserInvalidURLError:
        return False


def _parsed(text: bytes) -> tuple[bytes | IPv6Address, bytes] | None:
    """Host, and port if there is one; None for what is neither."""
    match = _HOST.fullmatch(text)
    if match is None:
        return None
    port = match[3] or b""
    if match[1] is None:
        return match[2].lower(), port
    try:
        # The same one may be written in several ways.
        return IPv6Address(match[1].decode()), port
    except ValueError:
        return None


def _with_port(
    host: tuple[bytes | IPv6Address, bytes], default: bytes
) -> tuple[bytes | IPv6Address, bytes]:
    return host[0], host[1] or default
