"""What a client is counted by: of IPv6 it has more addresses than the service has shares."""

import pytest

from service.addresses import counted


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:DB8:0:0:ffff:ffff:ffff:ffff", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("::1", "::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("a socket", "a socket"),
        ("a:socket", "a:socket"),
    ],
)
def test_of_an_ipv6_address_the_network_counts(address: str, expected: str) -> None:
    assert counted(address) == expected
