"""Whose a request is that comes by a reverse proxy: to the service, all of them are the proxy's.

``X-Forwarded-For`` says it, and anybody can send that, so it counts from a proxy that is named in the
settings, and of what it says only what such a proxy has put there: a list that grows to the right.
"""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from starlette.types import Scope

from service.addresses import Address, unmapped

HEADER: Final = b"x-forwarded-for"

MOST_PROXIES: Final = 16
"""Elements that are looked at: more proxies are not in a row, and a header may have thousands."""

MAPPED_BITS: Final = 96
"""Of an IPv6 address that stands for one of IPv4 (RFC 4291, 2.5.5.2), those before the latter."""

Network = IPv4Network | IPv6Network
Networks = frozenset[Network]


def networks(listed: str) -> Networks:
    """Addresses and networks with commas between them.

    Raises:
        ValueError: there is something else among them, or the network of all addresses.
    """
    return frozenset(_network(item.strip()) for item in listed.split(","))


def client_of(scope: Scope, trusted: Networks) -> str:
    """The address that a request comes from: its peer's, or what a proxy says.

    Args:
        scope: of the request.
        trusted: whose word counts.

    Returns:
        The right-most address that no trusted proxy has. Where the peer is none, or what it says is no
        address or none of a client, the peer's.
    """
    peer: str = scope["client"][0] if scope["client"] else ""
    if not trusted or not _is_among(_address(peer), trusted):
        return peer
    # Several lines are one list (RFC 9110, 5.3), of which empty elements are no part (5.6.1.2).
    lines = [value.decode("latin-1") for name, value in scope["headers"] if name == HEADER]
    for element in reversed(",".join(lines).rsplit(",", MOST_PROXIES)[-MOST_PROXIES:]):
        if not (entry := element.strip(" \t")):
            continue
        address = _address(_without_port(entry))
        if not _is_among(address, trusted):
            return peer if address is None else str(address)
    return peer


def _network(item: str) -> Network:
    try:
        network = ip_network(item)
    except ValueError:
        raise ValueError(
            "addresses, or networks without bits beyond their mask, with commas between them "
            "(127.0.0.1, 10.20.0.0/16), and no names or ports"
        ) from None
    first = unmapped(network.network_address)
    if network.version != first.version and network.prefixlen >= MAPPED_BITS:
        network = ip_network((first, network.prefixlen - MAPPED_BITS))
    if network.prefixlen == 0:
        raise ValueError("everybody is no proxy: list the addresses of the proxies alone")
    return network


def _without_port(entry: str) -> str:
    """``192.0.2.1:80`` and ``[2001:db8::1]:80`` without what is not the address."""
    if entry.startswith("["):
        host, closed, rest = entry[1:].partition("]")
        return host if closed and (not rest or _is_port(rest)) else ""
    host, colon, port = entry.partition(":")
    return host if _is_port(colon + port) else entry


def _is_port(text: str) -> bool:
    return text.startswith(":") and text[1:].isascii() and text[1:].isdecimal()


def _address(text: str) -> Address | None:
    # A zone, which may be of any length, means something on the machine alone that it comes from.
    if "%" in text:
        return None
    try:
        return unmapped(ip_address(text))
    except ValueError:
        return None


def _is_among(address: Address | None, trusted: Networks) -> bool:
    return address is not None and any(address in network for network in trusted)
