"""What a request may say of the host that it is for (RFC 9112, 3.2)."""

import re
from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import Final

_HOST: Final = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|[A-Za-z0-9._~-]*)(?::[0-9]*)?")
"""``uri-host [":" port]`` (RFC 3986, 3.2.2), without characters that no name of a host has: whoever
decodes ``%2e`` or a full stop of another script would understand another name than the service does."""


def is_named_once(headers: Iterable[tuple[bytes, bytes]], http_version: str) -> bool:
    """Whether a request has one well-formed ``Host``; under HTTP/1.0 it need not have any."""
    hosts = [value for name, value in headers if name == b"host"]
    if not hosts:
        return http_version == "1.0"
    return len(hosts) == 1 and _is_host(hosts[0])


def _is_host(text: bytes) -> bool:
    match = _HOST.fullmatch(text)
    if match is None:
        return False
    if match[1] is None:
        return True
    try:
        IPv6Address(match[1].decode())
    except ValueError:
        return False
    return True
