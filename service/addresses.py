"""Addresses of clients, and what of them a client is counted by."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

NETWORK_BITS: Final = 64
"""Of an IPv6 address, those of its network: the others, a client chooses as it likes (RFC 7421)."""

Address = IPv4Address | IPv6Address


def unmapped(address: Address) -> Address:
    """The IPv4 address that one of IPv6 stands for (RFC 4291, 2.5.5.2), or else the address itself."""
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def counted(address: str) -> str:
    """What a client is counted by: its address, but of one of IPv6 only the network.

    Whatever is no address, such as of a socket of this machine, is counted by itself.
    """
    # Asked for each connection, and those of IPv4 need no look at what they say.
    if ":" not in address:
        return address
    try:
        # A zone says by which of this machine's own networks it came.
        parsed = unmapped(ip_address(address.partition("%")[0]))
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((int(parsed), NETWORK_BITS), strict=False))
    return str(parsed)
