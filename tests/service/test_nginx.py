"""The service behind a real nginx, as ``deploy/nginx`` sets it up."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import pytest
from pydicom.uid import generate_uid

from scripts.error_table import PAGE as ERRORS
from service.addresses import counted
from service.schemas import Problem
from service.server import KEEP_ALIVE_SECONDS
from service.settings import Settings
from tests.support.browser import FAST, Browser, needs_browser, opened
from tests.support.nginx import CONFIGURATION, Nginx, needs_nginx, nginx
from tests.support.pacs import STORED, pacs, series, stow, values
from tests.support.service import (
    FakeRuntimes,
    newest,
    process,
    serving,
    settings_for,
    wait_until,
)

MODEL = "brain-tumor"
MAX_BODY_BYTES = 4_000_000
LOOPBACK = "127.0.0.1"

NAMES_A_PATIENT = "Mueller"
"""In a query, a header or an address."""

REQUEST_ID = "f034d653fe9943c1cf229188d3e5507c"

LOGGED_ID = "5d0e7b1c2f4a4c3e9a8b7c6d5e4f3a2b"

SOON_SECONDS = 5.0
"""Where nobody listens, this is known at once; the machine may be busy."""


class Beside:
    """A service in a process of its own, and nginx in front of it."""

    def __init__(self, front: Nginx, port: int) -> None:
        self.front = front
        self.direct = f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def beside(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    folder = tmp_path_factory.mktemp("beside")
    with pacs() as destination:
        variables = {
            "BRAIN_TRUSTED_PROXIES": LOOPBACK,
            "BRAIN_MAX_BODY_BYTES": str(MAX_BODY_BYTES),
            "BRAIN_DICOMWEB_URL": destination.url,
            "BRAIN_SPOOL": str(folder / "spool"),
            "BRAIN_LOG_LEVEL": "error",
            "BRAIN_WORKERS": "0",
        }
        with (
            process(model_store, **variables) as (_, port),
            nginx(folder / "nginx", port) as front,
        ):
            yield Beside(front, port)


def seconds(directive: str) -> list[int]:
    """Its values, in the order of the file."""
    found = re.findall(rf"^\s*{directive} (\d+)s;", CONFIGURATION.read_text("utf-8"), re.MULTILINE)
    return [int(value) for value in found]


def test_its_times_fit_the_service_s_defaults() -> None:
    settings = Settings()
    # nginx is the first to close an idle connection, with time to spare for a busy machine.
    assert seconds("keepalive_timeout") == [KEEP_ALIVE_SECONDS - 10]
    [send], [body], reads = map(
        seconds, ("proxy_send_timeout", "client_body_timeout", "proxy_read_timeout")
    )
    assert min(send, body) * 1000 > settings.body_timeout_ms
    assert reads[0] * 1000 > settings.deadline_ms + settings.batch_timeout_ms
    assert reads[1] * 1000 > settings.load_timeout_ms


def test_nothing_is_heard_in_clear() -> None:
    listening = re.findall(r"^\s*listen (.*);", CONFIGURATION.read_text("utf-8"), re.MULTILINE)
    assert listening
    assert all(line.endswith(" ssl") for line in listening)


def told(answer: httpx.Response) -> tuple[int, Any, Any]:
    """What an answer says of its images."""
    content = answer.json()
    return answer.status_code, content["model"], content["predictions"]


@needs_nginx
def test_images_get_the_same_answers_as_without_it(
    beside: Beside, slices: Sequence[Path], dicom: bytes
) -> None:
    files = [("files", (path.name, path.read_bytes())) for path in slices]
    files.append(("files", ("a.dcm", dicom)))
    with beside.front.client() as client:
        answer = client.post("/predict?mask=rle", files=files)
    assert answer.status_code == 200
    assert told(answer) == told(httpx.post(f"{beside.direct}/predict?mask=rle", files=files))


@needs_nginx
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/health"), ("GET", "/static/app.js"), ("POST", "/predict")],
)
def test_headers_come_through_once_and_ids_both_ways(
    beside: Beside, jpeg: bytes, method: str, path: str
) -> None:
    headers = {"X-Request-ID": REQUEST_ID, "Content-Type": "image/jpeg"}
    request: dict[str, Any] = {"content": jpeg if method == "POST" else b"", "headers": headers}
    with beside.front.client() as client:
        answer = client.request(method, path, **request)
    direct = httpx.request(method, f"{beside.direct}{path}", **request)
    assert (answer.status_code, direct.status_code) == (200, 200)
    assert answer.headers["x-request-id"] == REQUEST_ID
    names = [name.lower() for name, _ in answer.headers.raw]
    assert len(names) == len(set(names))
    # Who serves and for how long is nginx's to say; answers to images differ by their times.
    own = {"date", "content-length"}
    assert {name: answer.headers.get(name) for name in set(direct.headers) - own} == {
        name: direct.headers[name] for name in set(direct.headers) - own
    }
    assert {name.decode() for name in names} - set(direct.headers) == {
        *("server", "connection", "strict-transport-security")
    }
    assert answer.headers["server"] == "nginx"


@needs_nginx
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_that_is_too_large_is_refused_by_the_service(beside: Beside, chunked: bool) -> None:
    body = bytes(5 * MAX_BODY_BYTES)
    headers = {"Content-Type": "image/jpeg"}
    for _ in range(5):
        content = iter([body[:MAX_BODY_BYTES]] * 5) if chunked else body
        # After an answer before the end of a body nginx closes a connection that it has said it keeps.
        with beside.front.client() as client:
            answer = client.post("/predict", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@needs_nginx
def test_nothing_of_a_patient_is_written_to_its_disk(
    beside: Beside, slices: Sequence[Path]
) -> None:
    written = beside.front.written()
    files = [("files", (path.name, path.read_bytes())) for path in 8 * list(slices)]
    assert sum(len(file[1][1]) for file in files) > 500_000
    with beside.front.client() as client:
        assert client.post("/predict", files=files).status_code == 200
    # A large answer, whose client takes its time to read it.
    path = "/static/vendor/swagger-ui/swagger-ui-bundle.js"
    with beside.front.connected() as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        head = connection.recv(1000)
        sleep(0.5)
        size = len(head)
        while piece := connection.recv(1 << 16):
            size += len(piece)
    assert size > 1_000_000
    assert beside.front.written() == written


@needs_nginx
def test_a_series_comes_through(beside: Beside) -> None:
    instances = series(3)
    with beside.front.client() as client:
        answer = stow(client, [instance.data for instance in instances], instances[0].study)
    assert answer.status_code == 200
    assert values(answer, STORED, "00081155") == [instance.sop for instance in instances]


@needs_nginx
def test_its_log_names_no_patient(beside: Beside, jpeg: bytes) -> None:
    study = generate_uid()
    headers = {"Content-Type": "image/jpeg", "Referer": f"https://ris.example/{NAMES_A_PATIENT}"}
    headers |= {"User-Agent": NAMES_A_PATIENT, "X-Request-ID": LOGGED_ID}
    paths = ["/predict", f"/dicom-web/studies/{study}", f"/{NAMES_A_PATIENT}", "/models"]
    with beside.front.client() as client:
        for path in paths:
            client.post(f"{path}?name={NAMES_A_PATIENT}", content=jpeg, headers=headers)
    # A line is written when its answer is out.
    wait_until(lambda: beside.front.log().count(LOGGED_ID) == len(paths))
    log = beside.front.log()
    assert NAMES_A_PATIENT not in log
    assert study not in log
    for route in ("/predict", "/dicom-web", "other", "/models"):
        assert f" POST {route} " in log


@needs_nginx
def test_a_version_is_activated_through_it(beside: Beside, model_store: Path) -> None:
    path = f"/models/{MODEL}/{newest(model_store)}/activate"
    with beside.front.client() as client:
        assert client.post(path).status_code == 200
        # By a page of its own, which the service knows by the name that it is called by.
        assert client.post(path, headers={"Origin": beside.front.url}).status_code == 200
        refused = client.post(path, headers={"Origin": "https://evil.example"})
        assert (refused.status_code, refused.json()["code"]) == (403, "other_site")


@needs_nginx
def test_what_administrators_do_can_be_limited_to_a_network(
    beside: Beside, tmp_path: Path, jpeg: bytes
) -> None:
    changes = {"# allow": "allow", "# deny": "deny"}
    port = int(beside.direct.rpartition(":")[2])
    with nginx(tmp_path / "nginx", port, changes) as limited, limited.client() as client:
        for path in (f"/models/{MODEL}/latest/activate", "/models/../models/a/1/activate"):
            assert client.post(path).status_code == 403
        for path in ("/metrics", "/deliveries", "/models%2Fa"):
            assert client.get(path).status_code == 403
        assert client.get("/models").status_code == 200
        headers = {"Content-Type": "image/jpeg"}
        assert client.post("/predict", content=jpeg, headers=headers).status_code == 200


def ask(
    front: Nginx | str, jpeg: bytes, source: str, forwarded: str | None = None
) -> httpx.Response:
    """Posts an image from an address of this machine, to nginx or to the service itself."""
    headers = {"Content-Type": "image/jpeg"}
    if forwarded is not None:
        headers["X-Forwarded-For"] = forwarded
    if isinstance(front, Nginx):
        client = front.client(source)
    else:
        client = httpx.Client(
            base_url=front, transport=httpx.HTTPTransport(local_address=source), timeout=30
        )
    with client:
        return client.post("/predict", content=jpeg, headers=headers)


@needs_nginx
def test_each_client_has_a_rate_of_its_own_and_none_gets_out_of_it(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes, tmp_path: Path
) -> None:
    settings = settings_for(model_store, rate_per_second=0.02, trusted_proxies=LOOPBACK)
    with (
        serving(settings, runtimes) as service,
        nginx(tmp_path / "nginx", service.address[1]) as front,
    ):
        for source in ("127.0.0.2", "127.0.0.3"):
            assert [ask(front, jpeg, source).status_code for _ in range(2)] == [200, 429]
        forged = ask(front, jpeg, "127.0.0.2", "192.0.2.1")
        assert (forged.status_code, forged.json()["code"]) == (429, "rate_exceeded")
        assert 1 <= int(forged.headers["retry-after"]) <= 50
        # Past nginx, from an address that is no proxy's.
        aside = [
            ask(service.url, jpeg, "127.0.0.4", f"192.0.2.{number}").status_code
            for number in range(2)
        ]
        assert aside == [200, 429]


@needs_nginx
def test_a_connection_is_kept_and_nginx_is_the_first_to_close_it(
    model_store: Path,
    jpeg: bytes,
    runtimes: FakeRuntimes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both times are 1/20 of the real ones, so that requests come just when it is closed."""
    monkeypatch.setattr("service.server.KEEP_ALIVE_SECONDS", KEEP_ALIVE_SECONDS / 20)
    changes = {"keepalive_timeout 20s;": "keepalive_timeout 1s;"}
    with (
        serving(settings_for(model_store), runtimes) as service,
        nginx(tmp_path / "nginx", service.address[1], changes) as front,
    ):
        wait_until(lambda: not service.connections)
        for _ in range(3):
            assert ask(front, jpeg, LOOPBACK).status_code == 200
        assert len(service.connections) == 1
        end = monotonic() + KEEP_ALIVE_SECONDS / 20
        wait_until(lambda: not service.connections)
        assert monotonic() < end - 0.1
        for pause in (0.98, 1.0, 1.02, 1.5):
            sleep(pause)
            assert ask(front, jpeg, LOOPBACK).status_code == 200


def beginning(jpeg: bytes) -> bytes:
    """Of a prediction that never comes to its end."""
    head = "POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\n"
    return f"{head}Content-Length: {len(jpeg)}\r\n\r\n".encode() + jpeg[:1000]


@needs_nginx
def test_a_body_that_does_not_come_is_given_up_by_the_service(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes, tmp_path: Path
) -> None:
    """It gets what has come, and not the whole of it or nothing."""
    with (
        serving(settings_for(model_store, body_timeout_ms=500), runtimes) as service,
        nginx(tmp_path / "nginx", service.address[1]) as front,
        front.connected() as connection,
    ):
        connection.sendall(beginning(jpeg))
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"body_timeout" in answer


def assert_is_a_problem(answer: httpx.Response, code: str, front: Nginx) -> None:
    """What nginx answers itself, generated clients read as any problem; its log has the id."""
    problem = Problem.model_validate_json(answer.content)
    assert (problem.status, problem.code) == (answer.status_code, code)
    assert re.fullmatch("[0-9a-f]{32}", problem.request_id)
    assert answer.headers.get_list("x-request-id") == [problem.request_id]
    wait_until(lambda: problem.request_id in front.log())
    assert f"| `{code}` | {answer.status_code} |" in ERRORS.read_text("utf-8")


@needs_nginx
def test_no_address_takes_all_connections_to_the_service(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes, tmp_path: Path
) -> None:
    """For the service all of them are nginx's."""
    changes = {"limit_conn brain_mri_clients 64;": "limit_conn brain_mri_clients 2;"}
    with (
        serving(settings_for(model_store), runtimes) as service,
        nginx(tmp_path / "nginx", service.address[1], changes) as front,
        front.connected() as first,
        front.connected() as second,
    ):
        for connection in (first, second):
            connection.sendall(beginning(jpeg))
        wait_until(lambda: service.state.buffers.used >= 2)
        refused = ask(front, jpeg, LOOPBACK)
        assert refused.status_code == refused.json()["status"] == 503
        assert refused.headers["content-type"] == "application/problem+json"
        assert int(refused.headers["retry-after"]) > 0
        assert refused.headers["cache-control"] == "no-store"
        assert "strict-transport-security" in refused.headers
        assert_is_a_problem(refused, "too_many_at_once", front)
        assert ask(front, jpeg, "127.0.0.2").status_code == 200
        # The service's own refusals pass as they are.
        service.state.drain()
        own = ask(front, jpeg, "127.0.0.2")
        assert (own.status_code, own.json()["code"]) == (503, "draining")


@needs_nginx
@pytest.mark.parametrize(
    ("holder", "others"),
    [
        ("2001:db8::1", {"2001:db8::2:3": 503, "2001:db8:0:1::1": 200}),
        # A byte of it is a line feed.
        ("2001:db8:a::1", {"2001:db8:a::2": 503, "2001:db8:a:a::1": 200}),
        ("192.0.2.1", {"192.0.2.1": 503, "192.0.2.2": 200}),
        # As one of IPv4 is where a socket listens for both.
        (
            "::ffff:192.0.2.1",
            {
                "::ffff:192.0.2.1": 503,
                "192.0.2.1": 503,
                "::ffff:192.0.2.2": 200,
                "2001:db8::1": 200,
            },
        ),
        ("64:ff9b::192.0.2.10", {"192.0.2.10": 503, "64:ff9b::192.0.2.11": 200}),
        ("fd12:3456::1", {"fd12:3456::1": 503, "fd12:3456::2": 200}),
        ("fe80::1", {"fe80::1": 503, "fe80::2": 200}),
        ("::1", {"::1": 503, "::2": 200}),
    ],
    ids=["ipv6", "line feed", "ipv4", "mapped", "translated", "site", "link", "loopback"],
)
def test_nginx_counts_clients_as_the_service_does(
    model_store: Path,
    jpeg: bytes,
    runtimes: FakeRuntimes,
    tmp_path: Path,
    holder: str,
    others: dict[str, int],
) -> None:
    """Their addresses are told to it, as not every machine has them."""
    for other, status in others.items():
        assert (counted(other) == counted(holder)) == (status == 503)
    limit = "limit_conn brain_mri_clients"
    told = "set_real_ip_from 127.0.0.1; real_ip_header X-Test-Client;"
    with (
        serving(settings_for(model_store), runtimes) as service,
        nginx(
            tmp_path / "nginx", service.address[1], {f"{limit} 64;": f"{told} {limit} 1;"}
        ) as front,
        front.connected() as connection,
    ):
        line = f"X-Test-Client: {holder}\r\n\r\n".encode()
        connection.sendall(beginning(jpeg).replace(b"\r\n\r\n", b"\r\n" + line, 1))
        wait_until(lambda: service.state.buffers.used >= 1)
        with front.client() as client:
            headers = {"Content-Type": "image/jpeg"}
            found = {
                other: client.post(
                    "/predict", content=jpeg, headers=headers | {"X-Test-Client": other}
                ).status_code
                for other in others
            }
    assert found == others


@needs_nginx
def test_a_service_that_is_not_there_is_said_at_once(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes, tmp_path: Path
) -> None:
    with serving(settings_for(model_store), runtimes) as service:
        port = service.address[1]
        with nginx(tmp_path / "nginx", port) as front:
            assert ask(front, jpeg, LOOPBACK).status_code == 200
    with nginx(tmp_path / "again", port) as front, front.client() as client:
        started = monotonic()
        headers = {"Content-Type": "image/jpeg", "Referer": NAMES_A_PATIENT}
        path = f"/predict?name={NAMES_A_PATIENT}"
        answer = client.post(path, content=50 * jpeg, headers=headers)
        assert monotonic() - started < SOON_SECONDS
        assert answer.status_code == 502
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json()["title"] == "Bad Gateway"
        assert_is_a_problem(answer, "service_unreachable", front)
        # The page asks this, and takes it that nobody is there.
        assert client.get("/health/live").status_code == 502
        assert NAMES_A_PATIENT not in front.log()


@needs_nginx
@needs_browser
def test_the_page_says_that_the_service_is_not_there(
    shared_browser: Browser, model_store: Path, tmp_path: Path, slices: Sequence[Path]
) -> None:
    with (
        process(model_store, BRAIN_LOG_LEVEL="error", BRAIN_WORKERS="0") as (child, port),
        nginx(tmp_path / "nginx", port) as front,
    ):
        browser = opened(shared_browser, front.url)
        browser.run(FAST)
        browser.choose(slices[:2])
        browser.wait_for_answers()
        assert "No result" not in {row["decision"] for row in browser.rows()}
        child.terminate()
        child.wait()
        browser.choose(slices[2:5])
        browser.wait_for_answers()
        rows = browser.rows()[2:]
        assert {row["decision"] for row in rows} == {"No result"}
        assert all("Code 502" in row["remarks"] for row in rows)
        assert "The service does not answer for now. Try again in 5 s" in browser.text("#notice")
        # The log has each try.
        wait_until(lambda: front.log().count(" POST /predict 502 ") == 5)
