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
        ("::1", "::1"),
        ("::", "::"),
        ("::2", "::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("::ffff:0:192.0.2.1", "192.0.2.1"),
        ("64:ff9b::192.0.2.1", "192.0.2.1"),
        ("64:ff9b::1:192.0.2.1", "64:ff9b::/64"),
        ("64:ff9b:1::192.0.2.1", "64:ff9b:1::c000:201"),
        # Each machine of a site's own network, and the same address in two of them.
        ("fd12:3456::1", "fd12:3456::1"),
        ("FD12:3456:0::0:2", "fd12:3456::2"),
        ("fe80::1", "fe80::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("2001:db8::1%eth0", "2001:db8::/64"),
        ("", ""),
        ("a socket", "a socket"),
        ("a:socket", "a:socket"),
    ],
)
def test_what_a_client_is_counted_by(address: str, expected: str) -> None:
    assert counted(address) == expected
