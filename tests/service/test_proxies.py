"""Which client a request is counted for that came by a reverse proxy."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.access import Access
from service.context import Context, new_request_id
from service.keys import Role, make_key
from service.proxies import client_of, networks
from service.settings import Settings, SettingsError
from tests.support.keys import write_keys
from tests.support.service import FakeRuntimes, Service, process, serving, settings_for

PEER = "10.0.0.1"
TRUSTED = "10.0.0.0/24, fd00::/64"

LOOPBACK = "127.0.0.1"


def client(*lines: str, peer: str = PEER, trusted: str = TRUSTED) -> str:
    """Of a request with some lines of the header."""
    headers = [(b"x-forwarded-for", line.encode("latin-1")) for line in lines]
    others = [(b"forwarded", b"for=192.0.2.99"), (b"x-real-ip", b"192.0.2.98")]
    scope = {"client": (peer, 50000), "headers": [others[0], *headers, others[1]]}
    return client_of(scope, networks(trusted) if trusted else frozenset())


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["192.0.2.1"], "192.0.2.1"),
        ([" \t192.0.2.1 "], "192.0.2.1"),
        (["192.0.2.9, 192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1, 10.0.0.7, 10.0.0.8"], "192.0.2.1"),
        (["192.0.2.9,192.0.2.1,fd00::7"], "192.0.2.1"),
        (["192.0.2.9", "192.0.2.1"], "192.0.2.1"),
        (["192.0.2.9, 192.0.2.1", "10.0.0.8"], "192.0.2.1"),
        (["192.0.2.1, , "], "192.0.2.1"),
        (["nonsense, 192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1:4711"], "192.0.2.1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["2001:DB8:0:0::1"], "2001:db8::1"),
        (["[2001:db8::1]"], "2001:db8::1"),
        (["[2001:db8::1]:4711"], "2001:db8::1"),
        (["::ffff:192.0.2.1"], "192.0.2.1"),
        (["[::ffff:c000:201]:4711"], "192.0.2.1"),
        (["192.0.2.1, ::ffff:10.0.0.8"], "192.0.2.1"),
    ],
    ids=str,
)
def test_a_proxy_s_word_counts(lines: list[str], address: str) -> None:
    assert client(*lines) == address


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [""],
        [" , "],
        ["10.0.0.7"],
        ["fd00::7, 10.0.0.8"],
        ["unknown"],
        ["192.0.2.9, unknown"],
        ["192.0.2.9, nonsense, 10.0.0.8"],
        ["192.0.2.9", "nonsense"],
        ["192.0.2.256"],
        ["192.0.2.1:"],
        ["192.0.2.1:http"],
        ["192.0.2.1:²"],
        ["192.0.2.1 192.0.2.2"],
        ["192.0.2.0/24"],
        ["[2001:db8::1"],
        ["[2001:db8::1]4711"],
        ["2001:db8::1]"],
        ['"192.0.2.1"'],
        ["for=192.0.2.1"],
        ["3221225985"],
        ["fe80::1%" + "z" * 1000],
        ["[fe80::1%eth0]:4711"],
    ],
    ids=lambda lines: str(lines)[:40],
)
def test_what_says_nothing_of_a_client_counts_for_the_proxy(lines: list[str]) -> None:
    assert client(*lines) == PEER


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        (PEER, ""),
        ("10.0.1.1", TRUSTED),
        ("fd00:0:0:1::1", TRUSTED),
        ("192.0.2.5", "::1"),
        ("a socket", TRUSTED),
    ],
)
def test_from_others_the_header_is_ignored(peer: str, trusted: str) -> None:
    assert client("192.0.2.1", peer=peer, trusted=trusted) == peer


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("10.0.0.255", TRUSTED),
        ("fd00::1:2", TRUSTED),
        ("::ffff:10.0.0.1", TRUSTED),
        ("10.0.0.1", "::ffff:10.0.0.0/120"),
        ("10.0.0.1", " 10.0.0.1 ,::1"),
    ],
)
def test_a_proxy_is_known_in_every_spelling(peer: str, trusted: str) -> None:
    assert client("192.0.2.1", peer=peer, trusted=trusted) == "192.0.2.1"


def test_no_more_proxies_are_looked_for_than_stand_in_a_row() -> None:
    """A header of 64 KiB would take a tenth of a second."""
    assert client("192.0.2.1" + ", 10.0.0.9" * 15) == "192.0.2.1"
    assert client("192.0.2.1" + ", 10.0.0.9" * 20_000) == PEER


@pytest.mark.parametrize(
    ("named", "counted"), [("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::/64")]
)
def test_memory_is_that_of_the_same_client(named: str, counted: str) -> None:
    context = Context(new_request_id())
    scope = {"method": "POST", "path": "/predict", "client": ("10.0.0.1", 1)}
    headers = [(b"host", b"localhost"), (b"x-forwarded-for", named.encode())]
    access = Access(None, None, frozenset(), networks(TRUSTED))
    access.check({**scope, "headers": headers}, context)
    assert context.client == counted


def test_a_request_without_a_peer_counts_as_one_client() -> None:
    scope = {"client": None, "headers": [(b"x-forwarded-for", b"192.0.2.1")]}
    assert client_of(scope, networks(TRUSTED)) == ""


@pytest.mark.parametrize(
    "listed",
    [
        *("proxy.example", "127.0.0.1:80", "[::1]", "127.0.0.1,", "10.0.0.1/8", "10.0.0.0/33"),
        *(" ", "*", "127.0.0.1 ::1", "0.0.0.0/0", "::/0", "::ffff:0:0/96"),
    ],
)
def test_proxies_are_addresses_and_networks(listed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAIN_TRUSTED_PROXIES", listed)
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment()
    text = str(raised.value)
    assert text.startswith("BRAIN_TRUSTED_PROXIES: ")
    assert "addresses" in text


def test_nobody_is_trusted_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAIN_TRUSTED_PROXIES", "")
    assert Settings.from_environment().trusted_proxies == frozenset()


@contextmanager
def limited(store: Path, trusted: str, **changes: object) -> Iterator[Service]:
    """A service that answers a client once."""
    proxies = networks(trusted) if trusted else frozenset()
    settings = settings_for(store, rate_per_second=0.02, trusted_proxies=proxies, **changes)
    with serving(settings, FakeRuntimes()) as running:
        yield running


def forwarded(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": address}


def statuses(service: Service, jpeg: bytes, *addresses: str, **headers: str) -> list[int]:
    """Of a prediction for each address that a proxy names."""
    return [
        service.predict_raw(jpeg, headers=forwarded(address) | headers).status_code
        for address in addresses
    ]


def test_clients_of_a_trusted_proxy_have_rates_of_their_own(model_store: Path, jpeg: bytes) -> None:
    with limited(model_store, LOOPBACK) as service:
        asked = statuses(service, jpeg, "192.0.2.1", "192.0.2.1", "192.0.2.2", "9, 192.0.2.2")
        assert asked == [200, 429, 200, 429]
        # The proxy itself is one more.
        assert [service.predict_raw(jpeg).status_code for _ in range(2)] == [200, 429]


def test_a_client_of_ipv6_has_one_rate_for_all_of_its_addresses(
    model_store: Path, jpeg: bytes, tmp_path: Path
) -> None:
    clients = ["2001:db8::1", "2001:db8::2:3", "2001:db8:0:1::1"]
    with limited(model_store, LOOPBACK) as service:
        assert statuses(service, jpeg, *clients) == [200, 429, 200]
    # And for its attempts at a key.
    path = write_keys(tmp_path / "keys.txt", make_key("one", [Role.PREDICT])[1])
    with limited(model_store, LOOPBACK, api_keys_file=path) as service:
        assert statuses(service, jpeg, *clients, **{"X-API-Key": "one.wrong"}) == [401, 429, 401]


@pytest.mark.parametrize("trusted", ["", "192.0.2.0/24"])
def test_nobody_else_gets_out_of_its_rate_by_a_header(
    model_store: Path, jpeg: bytes, trusted: str
) -> None:
    with limited(model_store, trusted) as service:
        assert statuses(service, jpeg, "192.0.2.1", "192.0.2.2") == [200, 429]


def test_a_key_has_one_rate_wherever_it_comes_from_and_a_wrong_one_that_of_its_client(
    model_store: Path, jpeg: bytes, tmp_path: Path
) -> None:
    presented, key = make_key("one", [Role.PREDICT])
    path = write_keys(tmp_path / "keys.txt", key)
    with limited(model_store, LOOPBACK, api_keys_file=path) as service:
        clients = ["192.0.2.1", "192.0.2.2"]
        assert statuses(service, jpeg, *clients, **{"X-API-Key": presented}) == [200, 429]
        wrong = {"X-API-Key": "one.wrong"}
        assert statuses(service, jpeg, *clients, clients[0], **wrong) == [401, 401, 429]


def test_the_address_is_in_no_log_and_no_metric(
    model_store: Path, tmp_path: Path, jpeg: bytes
) -> None:
    log = tmp_path / "log"
    variables = {
        "BRAIN_TRUSTED_PROXIES": LOOPBACK,
        "BRAIN_RATE_PER_SECOND": "0.02",
        "BRAIN_LOG_LEVEL": "debug",
        "BRAIN_WORKERS": "0",
    }
    with process(model_store, log, **variables) as (child, port):
        url = f"http://127.0.0.1:{port}"
        headers = {"Content-Type": "image/jpeg", **forwarded("192.0.2.77")}
        asked = [httpx.post(f"{url}/predict", content=jpeg, headers=headers) for _ in range(2)]
        scrape = httpx.get(f"{url}/metrics").text
        child.terminate()
        child.wait()
    assert [answer.status_code for answer in asked] == [200, 429]
    text = log.read_text("utf-8")
    assert '"status": 429' in text
    for shown in (text, scrape, *(answer.text for answer in asked)):
        assert "192.0.2" not in shown
