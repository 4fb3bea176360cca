"""What a request may say of the host that it is for (RFC 9112, 3.2)."""

import re
from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import Final

_HOST: Final = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|[A-Za-z0-9._~-]*)(?::[0-9]*)?")
"""``uri-host [":" port]`` (RFC 3986, 3.2.2), without characters that no name of a host has: whoever
decodes ``%2e`` or a full stop of another script would understand another name than the service does."""


_AUTHORITY: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
"""What an absolute target begins with; its host counts in the place of ``Host`` (RFC 9112, 3.2.2)."""


def is_named_once(target: bytes, headers: Iterable[tuple[bytes, bytes]], http_version: str) -> bool:
    """Whether a request has one well-formed ``Host``, of which an absolute target says the same.

    Under HTTP/1.0 it need not have any, but for such a target: what looks at the header alone, as all
    here does, would not know of the other name.
    """
    hosts = [value for name, value in headers if name == b"host"]
    absolute = _AUTHORITY.match(target)
    if not hosts:
        return http_version == "1.0" and absolute is None
    if absolute is not None and absolute[1].lower() != hosts[0].lower():
        return False
    return len(hosts) == 1 and _is_host(hosts[0])


def with_path(target: bytes) -> bytes:
    """A target, where an absolute one without a path stands for ``/`` (RFC 9110, 4.2.3)."""
    absolute = _AUTHORITY.match(target)
    if absolute is None or target.startswith(b"/", absolute.end()):
        return target
    return target[: absolute.end()] + b"/" + target[absolute.end() :]


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
