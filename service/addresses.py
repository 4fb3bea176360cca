"""Addresses of clients, and what of them a client is counted by."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final

NETWORK_BITS: Final = 64
"""Of an IPv6 address, those of its network: the others, a client chooses as it likes (RFC 7421)."""

EMBEDDING: Final = tuple(map(IPv6Network, ("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")))
"""Whose last 32 bits are the address of a client of IPv4: mapped (RFC 4291, 2.5.5.2), and behind a
translator (RFC 2765, 2.1; RFC 6052, 2.1), where all of IPv4 would else be one client."""

INSIDE: Final = tuple(map(IPv6Network, ("::/127", "fd00::/8", "fe80::/10", "64:ff9b:1::/48")))
"""Where an address counts by itself: this machine, and what a site has for its own use (RFC 4193; RFC
4291, 2.5.6; RFC 8215). No provider hands networks of them out, and one is a whole ward or hospital,
which must not be one client. Who is inside could take several addresses, as with IPv4."""

Address = IPv4Address | IPv6Address


def unmapped(address: Address) -> Address:
    """The IPv4 address that one of IPv6 stands for (RFC 4291, 2.5.5.2), or else the address itself."""
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def counted(address: str) -> str:
    """What a client is counted by: its address, but of most of IPv6 only the network.

    Whatever is no address, such as of a socket of this machine, is counted by itself.
    """
    # Asked for each connection, and those of IPv4 need no look at what they say.
    if ":" not in address:
        return address
    try:
        # A zone says by which of this machine's own networks it came.
        parsed = IPv6Address(address)
    except ValueError:
        return address
    if any(parsed in network for network in EMBEDDING):
        return str(IPv4Address(parsed.packed[-4:]))
    if any(parsed in network for network in INSIDE):
        return str(parsed)
    return str(IPv6Network((int(parsed), NETWORK_BITS), strict=False))
