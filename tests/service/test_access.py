"""API keys: who gets in, who does not, and when the service refuses to start without them."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.keys import Key, Keyring, Role, make_key
from service.settings import Settings, SettingsError
from tests.support.service import (
    MODEL,
    PATIENCE_SECONDS,
    ROOT,
    FakeRuntimes,
    Service,
    environment_with,
    newest,
    serving,
    settings_for,
)

EVERYWHERE = "0.0.0.0"  # noqa: S104 - it must refuse it

ROLES = {
    "pacs": [Role.PREDICT],
    "operator": [Role.ADMIN],
    "both": [Role.PREDICT, Role.ADMIN],
}
MADE = {name: make_key(name, roles) for name, roles in ROLES.items()}


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    lines = [key.line() for _, key in MADE.values()]
    path.write_text("# who may call\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def guarded(model_store: Path, keys_file: Path) -> Iterator[Service]:
    with serving(settings_for(model_store, api_keys_file=keys_file), FakeRuntimes()) as running:
        yield running


def sent(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {MADE[name][0]}"}


WRONG: list[Any] = [
    {},
    {"X-API-Key": ""},
    {"X-API-Key": "pacs"},
    {"X-API-Key": MADE["pacs"][0][:-1]},
    {"X-API-Key": MADE["pacs"][0] + "0"},
    {"X-API-Key": "operator" + MADE["pacs"][0].removeprefix("pacs")},
    {"X-API-Key": "nobody.0"},
    {"X-API-Key": "sha256:" + MADE["pacs"][1].digest.hex()},
    {"Authorization": f"Basic {MADE['pacs'][0]}"},
    {"Authorization": MADE["pacs"][0]},
    {"Authorization": f"Bearer {MADE['pacs'][0]}", "X-API-Key": "pacs"},
    [("X-API-Key", MADE["both"][0]), ("X-API-Key", MADE["both"][0])],
    [("Authorization", f"Bearer {MADE['pacs'][0]}")] * 2,
]


@pytest.mark.parametrize("headers", WRONG, ids=range(len(WRONG)))
def test_without_a_valid_key_nothing_is_predicted(
    guarded: Service, jpeg: bytes, headers: Any
) -> None:
    sent = httpx.Headers(headers)
    if not isinstance(headers, dict):
        assert len(sent.multi_items()) == 2
    sent["Content-Type"] = "image/jpeg"
    response = guarded.client.post("/predict", content=jpeg, headers=sent)
    assert (response.status_code, response.json()["code"]) == (401, "unauthenticated")
    assert response.headers["www-authenticate"] == "Bearer"
    assert "pacs." not in response.text


@pytest.mark.parametrize(
    "headers",
    [
        sent("pacs"),
        {"Authorization": f"bearer  {MADE['pacs'][0]}"},
        {"X-API-Key": MADE["both"][0]},
        # As the documentation's page does.
        {**sent("pacs"), "X-API-Key": MADE["pacs"][0]},
        {"Authorization": "Bearer header.of-a.gateway", "X-API-Key": MADE["pacs"][0]},
    ],
    ids=["bearer", "scheme-in-any-case", "header", "both", "beside-another-token"],
)
def test_a_key_predicts(guarded: Service, jpeg: bytes, headers: dict[str, str]) -> None:
    assert guarded.predict_raw(jpeg, headers=headers).status_code == 200
    assert guarded.predict(jpeg, headers=headers).status_code == 200


def test_the_key_in_its_own_header_counts(guarded: Service) -> None:
    headers = {**sent("operator"), "X-API-Key": MADE["pacs"][0]}
    assert guarded.client.post(f"/models/{MODEL}/rollback", headers=headers).status_code == 403


def test_white_space_behind_a_key_is_no_part_of_it(guarded: Service, jpeg: bytes) -> None:
    head = f"POST /predict HTTP/1.1\r\nHost: test\r\nX-API-Key: {MADE['pacs'][0]} \t\r\n"
    head += f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    with socket.create_connection(guarded.address, PATIENCE_SECONDS) as connection:
        connection.sendall(head.encode() + jpeg)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_roles_do_not_include_each_other(guarded: Service, model_store: Path, jpeg: bytes) -> None:
    path = f"/models/{MODEL}/{newest(model_store)}/activate"
    assert guarded.client.post(path).status_code == 401
    refused = guarded.client.post(path, headers=sent("pacs"))
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert guarded.client.post(path, headers=sent("operator")).status_code == 200
    refused = guarded.predict_raw(jpeg, headers=sent("operator"))
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert guarded.client.post(path, headers=sent("both")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", f"/models/{MODEL}/rollback"), ("PUT", f"/models/{MODEL}/aliases/stable/latest")],
)
def test_versions_are_for_administrators(guarded: Service, method: str, path: str) -> None:
    assert guarded.client.request(method, path).status_code == 401
    assert guarded.client.request(method, path, headers=sent("pacs")).status_code == 403


@pytest.mark.parametrize(
    "path",
    ["/health", "/health/live", "/health/ready", "/metrics", "/models", "/docs", "/openapi.json"],
)
def test_what_a_monitor_and_a_reader_need_is_open(guarded: Service, path: str) -> None:
    assert guarded.client.get(path).status_code == 200
    assert guarded.client.get("/static/docs.js").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/health"), ("GET", "/nowhere"), ("GET", "/predict"), ("POST", "/static/docs.js")],
)
def test_everything_else_is_closed_whether_it_exists_or_not(
    guarded: Service, method: str, path: str
) -> None:
    assert guarded.client.request(method, path).status_code == 401


def test_refusal_does_not_wait_for_the_body(guarded: Service, jpeg: bytes) -> None:
    """Ten megabytes are announced, and none of them is waited for."""
    head = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Length: 10000000\r\n\r\n"
    with socket.create_connection(guarded.address, PATIENCE_SECONDS) as connection:
        connection.sendall(head + jpeg)
        assert connection.recv(100).startswith(b"HTTP/1.1 401 ")


def test_without_keys_this_machine_may_do_everything(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    with serving(settings_for(model_store), runtimes) as service:
        assert service.predict_raw(jpeg).status_code == 200
        path = f"/models/{MODEL}/{newest(model_store)}/activate"
        assert service.client.post(path).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "Cross-Site"}, 403),
        ({"Sec-Fetch-Site": "elsewhere"}, 403),
        ({"Sec-Fetch-Site": "Same-Origin"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://mri.example"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://MRI.example:8000", "Host": "mri.example:8000"}, 200),
        ({"Origin": "http://mri.example", "X-Forwarded-Host": "mri.example"}, 200),
    ],
    ids=str,
)
def test_without_keys_no_page_of_another_site_may_do_anything(
    model_store: Path, runtimes: FakeRuntimes, headers: dict[str, str], status: int
) -> None:
    path = f"/models/{MODEL}/{newest(model_store)}/activate"
    with serving(settings_for(model_store, allowed_hosts="mri.example"), runtimes) as service:
        answer = service.client.post(path, headers=headers)
        assert answer.status_code == status
        if status == 403:
            assert answer.json()["code"] == "other_site"
        # Reading changes nothing, and a page of another site cannot see the answer.
        assert service.client.get("/models", headers=headers).status_code == 200


@pytest.fixture(scope="module")
def named(model_store: Path) -> Iterator[Service]:
    settings = settings_for(model_store, allowed_hosts="mri.example.org, AI.example.org")
    with serving(settings, FakeRuntimes()) as running:
        yield running


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1:8000", "192.0.2.7", "[::1]:8000", "[::ffff:192.0.2.7]", "localhost:8000"),
        *("service:8000", "localhost.", "mri.localhost", "mri.example.org", "MRI.Example.org.:80"),
        *("ai.example.org:8000", "host.docker.internal:8000"),
    ],
)
def test_without_keys_it_may_be_called_by_a_name_that_is_its_own(
    named: Service, jpeg: bytes, host: str
) -> None:
    assert named.predict_raw(jpeg, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "EVIL.example.", "127.0.0.1.evil.example"),
        *("mri.example.org.evil.example", "example.org", "1.2.3", "localhost.evil.example"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/predict"), ("GET", "/deliveries"), ("POST", "/models/a/1/activate")],
)
def test_without_keys_it_may_not_be_called_by_a_name_that_anybody_may_have(
    named: Service, jpeg: bytes, host: str, method: str, path: str
) -> None:
    """A page whose name comes to mean the service's address is to a browser a page of the service."""
    headers = {"Host": host, "Content-Type": "image/jpeg", "Sec-Fetch-Site": "same-origin"}
    answer = named.client.request(method, path, content=jpeg, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "unknown_host")
    assert "BRAIN_ALLOWED_HOSTS" in answer.json()["detail"]
    # What a monitor asks tells nothing of a patient.
    assert named.client.get("/health", headers=headers).status_code == 200


def test_with_keys_it_may_be_called_by_any_name(guarded: Service, jpeg: bytes) -> None:
    headers = sent("pacs") | {"Content-Type": "image/jpeg", "Host": "mri.example.org"}
    assert guarded.client.post("/predict", content=jpeg, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "listed", ["http://a.example", "a.example:80", "a.example,", "*.example", " "]
)
def test_host_names_are_names_alone(listed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAIN_ALLOWED_HOSTS", listed)
    with pytest.raises(SettingsError, match="ALLOWED_HOSTS"):
        Settings.from_environment()


def test_with_keys_the_key_alone_decides(guarded: Service, jpeg: bytes) -> None:
    headers = sent("pacs") | {"Content-Type": "image/jpeg", "Origin": "https://viewer.example"}
    assert guarded.client.post("/predict", content=jpeg, headers=headers).status_code == 200


def test_what_is_refused_is_counted_under_its_route(guarded: Service) -> None:
    routes = ["/deliveries", "/models/{name}/{version}/activate", "unmatched"]

    def refused(status: str) -> list[float]:
        sample = "brain_http_requests_total"
        return [guarded.metric(sample, route=route, status=status) for route in routes]

    before = refused("403") + refused("401")
    for headers in (sent("pacs"), {}):
        guarded.client.get("/deliveries", headers=headers)
        guarded.client.post("/models/a/1/activate", headers=headers)
    guarded.client.get("/nowhere")
    after = refused("403") + refused("401")
    assert [one - other for one, other in zip(after, before, strict=True)] == [1, 1, 0, 1, 1, 1]


def test_openapi_names_both_ways_to_send_a_key(guarded: Service) -> None:
    document = guarded.client.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert (schemes["bearer"]["scheme"], schemes["key"]["name"]) == ("bearer", "X-API-Key")
    secured = {
        path
        for path, methods in document["paths"].items()
        for operation in methods.values()
        if "security" in operation
    }
    assert secured == {
        "/predict",
        "/explain",
        "/models/{name}/{version}/activate",
        "/models/{name}/rollback",
        "/models/{name}/aliases/{alias}/{version}",
        "/dicom-web/studies",
        "/dicom-web/studies/{study}",
        "/deliveries",
        "/deliveries/retry",
    }


def test_command_makes_a_key_that_works(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "service.keygen", "ward-7", "predict", "admin"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    presented = finished.stderr.split()[0]
    assert presented.partition(".")[2] not in finished.stdout
    path = tmp_path / "keys.txt"
    path.write_text(finished.stdout, encoding="utf-8")
    key = Keyring.read(path).find(presented.encode())
    assert key == Key(
        "ward-7", frozenset({Role.PREDICT, Role.ADMIN}), sha256(presented.encode()).digest()
    )


def test_while_a_key_is_replaced_the_old_one_is_valid_beside_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    made = [make_key("pacs", [Role.PREDICT, Role.ADMIN]) for _ in range(3)]
    lines = [key.line() for _, key in made] + [make_key("ward", [Role.PREDICT])[1].line()]
    path.write_text("\n".join([*lines[:2], lines[3]]), encoding="utf-8")
    keys = Keyring.read(path)
    assert [keys.find(presented.encode()) for presented, _ in made] == [
        made[0][1],
        made[1][1],
        None,
    ]
    path.write_text("\n".join(lines[1:]), encoding="utf-8")
    keys = Keyring.read(path)
    assert [keys.find(presented.encode()) for presented, _ in made] == [
        None,
        made[1][1],
        made[2][1],
    ]


def test_a_name_has_the_same_roles_on_all_of_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    made = [make_key("pacs", roles) for roles in ([Role.PREDICT], [Role.PREDICT, Role.ADMIN])]
    path.write_text("\n".join(key.line() for _, key in made), encoding="utf-8")
    with pytest.raises(SettingsError, match=r"line 2: this name has other roles further up$"):
        Keyring.read(path)


def test_it_takes_as_many_comparisons_whether_there_is_such_a_key_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = [make_key(name, [Role.PREDICT]) for name in ("pacs", "pacs", "ward")]
    keys = Keyring(key for _, key in made)
    compared: list[bytes] = []

    def counting(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return compare_digest(one, other)

    monkeypatch.setattr("service.keys.compare_digest", counting)
    counts = []
    for presented in (*(presented for presented, _ in made), "pacs.0", "ward.0", "nobody.0"):
        compared.clear()
        keys.find(presented.encode())
        counts.append(len(compared))
    assert counts == [2] * 6


HASH = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    "content",
    [
        "",
        f"pacs predict {HASH}\npacs predict {HASH}",
        "# nobody yet\n",
        f"pacs predict {HASH} more",
        f"pacs everything {HASH}",
        f"Pacs predict {HASH}",
        "pacs predict sha256:12",
        "pacs predict pacs.the-key-itself",
        f"pacs predict {HASH}\npacs admin {HASH}",
        None,
    ],
)
def test_unusable_file_of_keys_refuses_to_start_and_repeats_none_of_it(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "keys.txt"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError, match="BRAIN_API_KEYS_FILE") as raised:
        Keyring.read(path)
    assert "the-key-itself" not in str(raised.value)


@pytest.mark.parametrize("separator", ["\v", "\f", "\x1c", "\x85", "\u2028"], ids=ascii)
def test_a_key_behind_a_comment_is_none(tmp_path: Path, separator: str) -> None:
    """No editor shows a new line there, which ``str.splitlines`` would make."""
    (presented, old), (_, new) = MADE["pacs"], MADE["operator"]
    path = tmp_path / "keys.txt"
    path.write_text(f"# old:{separator}{old.line()}\n{new.line()}\n", encoding="utf-8")
    assert Keyring.read(path).find(presented.encode()) is None


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=ascii)
def test_lines_end_as_editors_end_them(tmp_path: Path, end: str) -> None:
    path = tmp_path / "keys.txt"
    lines = [key.line() for _, key in MADE.values()]
    path.write_bytes(end.join(["# keys", *lines, ""]).encode())
    keys = Keyring.read(path)
    assert all(keys.find(presented.encode()) == key for presented, key in MADE.values())


def test_a_hash_may_be_in_capitals(tmp_path: Path) -> None:
    """As Windows PowerShell's Get-FileHash writes it."""
    presented, key = MADE["pacs"]
    path = tmp_path / "keys.txt"
    path.write_text(f"pacs predict sha256:{key.digest.hex().upper()}", encoding="utf-8")
    found = Keyring.read(path).find(presented.encode())
    assert found is not None
    assert found.digest == key.digest


def test_a_file_of_keys_by_an_editor_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    presented, key = MADE["pacs"]
    path.write_text(key.line() + "\n", encoding="utf-8-sig")
    assert Keyring.read(path).find(presented.encode()) == key
    path.write_text(key.line() + "\n", encoding="utf-16")
    with pytest.raises(SettingsError, match="not UTF-8"):
        Keyring.read(path)


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "192.0.2.1", "example.org"])
def test_another_address_needs_keys_or_a_word(host: str, keys_file: Path) -> None:
    with pytest.raises(ValueError, match="BRAIN_ALLOW_ANONYMOUS"):
        Settings(host=host)
    assert Settings(host=host, allow_anonymous=True).host == host
    assert Settings(host=host, api_keys_file=keys_file).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_neither(host: str) -> None:
    assert Settings(host=host).host == host


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"BRAIN_HOST": EVERYWHERE}, "BRAIN_ALLOW_ANONYMOUS=true"),
        ({"BRAIN_API_KEYS_FILE": "no-such-file"}, "BRAIN_API_KEYS_FILE"),
        (
            {"BRAIN_HOST": "no such host", "BRAIN_ALLOW_ANONYMOUS": "true"},
            "BRAIN_HOST: no such host",
        ),
    ],
    ids=["no-keys", "no-file", "no-address"],
)
def test_it_does_not_start_and_says_why(variables: dict[str, str], named: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        env=environment_with(**variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert finished.returncode == 2
    assert named in finished.stderr
    assert "Traceback" not in finished.stderr
