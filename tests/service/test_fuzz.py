"""Thousands of odd and damaged requests: each gets an answer that OpenAPI describes, none makes the
service fail, and none makes it wait.

They are the same ones each time, but for those that Hypothesis makes: some of what it tries are
constants of the modules that happen to be loaded.
"""

import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.schemas import Problem
from service.settings import Settings
from tests.contract.samples import mr_object
from tests.support.pacs import form as stow_form
from tests.support.pacs import pacs, pacs_settings
from tests.support.service import FakeRuntimes, Service, serving

MUTATIONS = 2000
EXAMPLES = 300
TIMEOUT_MS = 200
NO_FAILURE = {503, 504}
"""Documented refusals of a service that is busy; any other 5xx is a fault."""

BOUNDARY = "0123456789abcdef"
WORDS = [
    b"\r\n",
    b"--",
    b"\0",
    b'"',
    b";",
    b":",
    b"=",
    b"%",
    b"\xff",
    b"\r\n\r\n",
    BOUNDARY.encode(),
]

CONTROL = bytes(range(32)) + b"\x7f"
"""What the client that sends the headers refuses to send."""

PROFILE = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def target(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("fuzz")
    times = {"body_timeout_ms": TIMEOUT_MS, "header_timeout_ms": TIMEOUT_MS}
    with pacs() as destination:
        limits = pacs_settings(model_store, folder, destination.url, **times)
        yield from fuzzed(limits)


def fuzzed(limits: Settings) -> Iterator[Service]:
    with serving(limits, FakeRuntimes()) as running:
        yield running
        assert running.client.get("/health").status_code == 200
        assert running.metric("brain_errors_total", code="internal_error") == 0


class Document(dict[str, Any]):
    """OpenAPI's; short where Hypothesis prints what a test that fails was given."""

    def __repr__(self) -> str:
        return "Document()"


@pytest.fixture(scope="module")
def document(target: Service) -> Document:
    return Document(target.client.get("/openapi.json").json())


def seeded(name: str) -> Random:
    return Random(name)  # noqa: S311 - the same each time


def mutate(data: bytes, chance: Random) -> bytes:
    """One to four changes: bytes flipped, removed, repeated, cut off, or a telling word put in."""
    content = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(content) + 1)
        end = min(len(content), start + chance.choice((1, 2, 8, 64)))
        match chance.randrange(6):
            case 0:
                content[start:end] = chance.randbytes(end - start)
            case 1:
                del content[start:end]
            case 2:
                content[start:start] = content[start:end] * chance.randint(1, 20)
            case 3:
                content[start:start] = chance.choice(WORDS)
            case 4:
                content[start:end] = chance.choice(WORDS)
            case _ if chance.random() < 0.2:
                del content[start:]
    return bytes(content)


def form(image: bytes) -> bytes:
    part = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode()
    return (part + image[:300] + b"\r\n") * 2 + f"--{BOUNDARY}--\r\n".encode()


def check(response: httpx.Response, documented: set[str]) -> None:
    status = response.status_code
    assert status < 500 or status in NO_FAILURE, response.text
    assert str(status) in documented, response.text
    if status == 409 and response.headers["content-type"] == "application/dicom+json":
        assert "00081198" in response.json() or "0008119A" in response.json()
    elif status >= 400:
        assert response.headers["content-type"] == "application/problem+json"
        problem = Problem.model_validate_json(response.content)
        assert (problem.status, bool(problem.code)) == (status, True)


def test_damaged_forms(target: Service, document: Document, jpeg: bytes) -> None:
    chance, seen = seeded("forms"), Counter[int]()
    documented = set(document["paths"]["/predict"]["post"]["responses"])
    whole = form(jpeg)
    for _ in range(MUTATIONS):
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        response = target.client.post("/predict", content=mutate(whole, chance), headers=headers)
        check(response, documented)
        seen[response.status_code] += 1
    # The changes reach every layer: the form as such, and the images in a sound one.
    assert seen.keys() >= {400, 415, 422}


def test_damaged_media_types(target: Service, document: Document, jpeg: bytes) -> None:
    chance = seeded("media")
    documented = set(document["paths"]["/predict"]["post"]["responses"])
    sound = f"multipart/form-data; boundary={BOUNDARY}".encode()
    for _ in range(MUTATIONS // 2):
        value = mutate(sound, chance).translate(None, CONTROL).strip()
        response = target.client.post(
            "/predict", content=form(jpeg), headers=[(b"Content-Type", value)]
        )
        check(response, documented | {"200"})


def test_damaged_http(target: Service, jpeg: bytes) -> None:
    """Over a bare socket: an answer or the connection's end comes in time, and no 5xx."""
    chance, seen = seeded("http"), Counter[bytes]()
    body = form(jpeg)
    head = (
        "POST /predict HTTP/1.1\r\nHost: test\r\nAccept: */*\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    for _ in range(MUTATIONS // 2):
        with socket.create_connection(target.address, 5) as connection:
            connection.sendall(mutate(head, chance) + body)
            connection.shutdown(socket.SHUT_WR)
            status = connection.recv(12)[9:]
        assert status[:1] in {b"", b"2", b"4"} or status in {b"503", b"504"}
        seen[status] += 1
    assert seen.keys() >= {b"400", b"404", b"415"}


def test_damaged_stow(target: Service, document: Document) -> None:
    chance, seen = seeded("stow"), Counter[int]()
    documented = set(document["paths"]["/dicom-web/studies"]["post"]["responses"])
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    instance = mr_object(pixels, attributes={"StudyInstanceUID": "1.2.3.4"})
    content_type, whole = stow_form([instance, instance])
    for _ in range(MUTATIONS // 4):
        body = mutate(whole, chance)
        headers = {"Content-Type": content_type}
        response = target.client.post("/dicom-web/studies", content=body, headers=headers)
        check(response, documented)
        seen[response.status_code] += 1
    assert seen.keys() >= {200, 202, 400}


def odd_bodies() -> st.SearchStrategy[bytes]:
    starts = [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"\0" * 128 + b"DICM", b"{", b"--"]
    return st.builds(bytes.__add__, st.sampled_from(starts), st.binary(max_size=400))


def header_values() -> st.SearchStrategy[str]:
    return st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60)


@PROFILE
@given(data=st.data())
def test_whatever_openapi_allows_and_more(
    target: Service, document: Document, data: st.DataObject
) -> None:
    template = path = data.draw(st.sampled_from(sorted(document["paths"])))
    method, operation = next(iter(document["paths"][path].items()))
    for parameter in operation.get("parameters", []):
        value = data.draw(st.text(min_size=1, max_size=40) | st.sampled_from(["..", "latest", "1"]))
        path = path.replace(f"{{{parameter['name']}}}", quote(value, safe="", errors="ignore"))
    media = sorted(operation.get("requestBody", {}).get("content", {"text/plain": None}))
    response = target.client.request(
        method,
        path,
        params=data.draw(st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=2)),
        content=data.draw(odd_bodies()),
        headers={
            "Content-Type": data.draw(st.sampled_from(media) | header_values()),
            "Accept": data.draw(header_values()),
            "Authorization": data.draw(header_values()),
            "X-Request-ID": data.draw(header_values()),
        },
    )
    # What a parameter holds may make another address of it: the client resolves "..".
    others = {"307", "404", "405"} if "{" in template else {"404"}
    check(response, set(operation["responses"]) | others)


@PROFILE
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]),
    path=st.text(max_size=40) | st.sampled_from(["predict", "models", "health", "static/", "docs"]),
    body=odd_bodies(),
)
def test_any_method_anywhere(target: Service, method: str, path: str, body: bytes) -> None:
    address = httpx.URL(target.url, raw_path=f"/{quote(path, errors='ignore')}".encode())
    response = target.client.request(method, address, content=body)
    assert response.status_code < 500
    if response.status_code >= 400 and method != "HEAD":
        assert Problem.model_validate_json(response.content).status == response.status_code
