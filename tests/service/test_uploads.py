"""Bodies that are malformed, too large, too slow or of the wrong kind, and their statuses."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from types import SimpleNamespace

import httpx
import pytest

from service.uploads import MAX_PART_HEADERS, MIN_BYTES_PER_SECOND
from tests.support.connections import everything, problem
from tests.support.service import (
    PATIENCE_SECONDS,
    FakeRuntimes,
    Service,
    occupied,
    read_status,
    serving,
    settings_for,
    wait_until,
)

MAX_BODY_BYTES = 200_000
MAX_FILES = 3
BODY_TIMEOUT_MS = 300.0

BOUNDARY = "limit"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


@pytest.fixture(scope="module")
def small(model_store: Path) -> Iterator[Service]:
    """A service with low limits."""
    settings = settings_for(
        model_store,
        max_body_bytes=MAX_BODY_BYTES,
        max_files=MAX_FILES,
        max_pixels=300 * 300,
        body_timeout_ms=BODY_TIMEOUT_MS,
    )
    with serving(settings, FakeRuntimes()) as service:
        yield service


@pytest.fixture
def service_of_short_patience(model_store: Path) -> Iterator[Service]:
    with serving(
        settings_for(model_store, body_timeout_ms=BODY_TIMEOUT_MS), FakeRuntimes()
    ) as service:
        yield service


def part(name: str = "files", content: bytes = b"x", file_name: str | None = "a.jpg") -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"'
    if file_name is not None:
        disposition += f'; filename="{file_name}"'
    return f"--{BOUNDARY}\r\n{disposition}\r\n\r\n".encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def refusal(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    content = response.json()
    assert content["status"] == response.status_code
    assert content["request_id"] == response.headers["x-request-id"]
    return response.status_code, content["code"]


@pytest.mark.parametrize(
    ("media", "body", "status", "code"),
    [
        pytest.param("text/plain", b"x", 415, "unsupported_request_media_type", id="text"),
        pytest.param("", b"x", 415, "unsupported_media_type", id="no media type"),
        pytest.param("image/jpeg", b"", 400, "no_input", id="empty raw body"),
        pytest.param(FORM, END, 400, "no_input", id="form without parts"),
        pytest.param(FORM, b"", 400, "no_input", id="empty form"),
        pytest.param(FORM, b"junk", 400, "malformed_multipart", id="no multipart"),
        pytest.param(FORM, part(), 400, "malformed_multipart", id="no last boundary"),
        pytest.param(FORM, part("file") + END, 400, "unexpected_field", id="other field"),
        pytest.param(
            FORM,
            f"--{BOUNDARY}\r\n\r\nx\r\n".encode() + END,
            400,
            "unexpected_field",
            id="part without headers",
        ),
        pytest.param(
            FORM,
            part().replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: Base64\r\n\r\n") + END,
            400,
            "malformed_multipart",
            id="base64",
        ),
        pytest.param("multipart/form-data", part() + END, 400, "malformed_multipart", id="no name"),
        pytest.param(
            f"multipart/form-data; boundary={'b' * 300}",
            part() + END,
            400,
            "malformed_multipart",
            id="endless boundary",
        ),
        pytest.param(
            FORM, part() * (MAX_FILES + 1) + END, 413, "too_many_files", id="too many files"
        ),
        pytest.param(
            FORM, part(content=bytes(MAX_BODY_BYTES)) + END, 413, "body_too_large", id="large form"
        ),
        pytest.param(
            "image/jpeg", bytes(MAX_BODY_BYTES + 1), 413, "body_too_large", id="large raw body"
        ),
    ],
)
def test_bad_body_is_refused(
    small: Service, media: str, body: bytes, status: int, code: str
) -> None:
    headers = {"Content-Type": media} if media else {}
    assert refusal(small.client.post("/predict", content=body, headers=headers)) == (status, code)


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ('filename="schädel.jpg"', "schädel.jpg"),
        ("filename*=utf-8''sch%C3%A4del.jpg", "schädel.jpg"),
        ("filename=a.jpg; filename*=UTF-8'de'sch%C3%A4del.jpg", "schädel.jpg"),
        ("filename*=ISO-8859-1''sch%E4del.jpg", "schädel.jpg"),
        # As HttpClient of .NET sends it.
        (
            "filename=\"=?utf-8?B?c2Now6RkZWwuanBn?=\"; filename*=utf-8''sch%C3%A4del.jpg",
            "schädel.jpg",
        ),
        ("filename=\"a;filename*=utf-8''b.jpg\"", "a;filename*=utf-8''b.jpg"),
        ("filename=a.jpg; filename*=unicode_escape''%5Cud800", "a.jpg"),
        ("filename=a.jpg; filename*=b.jpg", "a.jpg"),
        ("filename*=utf-8''a%FF%ZZ.jpg", "a\N{REPLACEMENT CHARACTER}%ZZ.jpg"),
        ("filename*0=a; filename*=b", None),
        ("size=1", None),
    ],
)
def test_a_file_is_called_as_its_client_calls_it(
    small: Service, slices: list[Path], parameters: str, name: str | None
) -> None:
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=files; {parameters}\r\n\r\n"
    body = head.encode() + _thumbnail(slices[0]) + b"\r\n" + END
    answer = small.client.post("/predict", content=body, headers={"Content-Type": FORM})
    assert [entry["input"] for entry in answer.json()["predictions"]] == [name]


@pytest.mark.parametrize(
    "media",
    [
        "",
        "image/jpg",
        "application/x-zip-compressed",
        "application/octet-stream",
        "IMAGE/JPEG; a=b",
    ],
)
def test_what_a_raw_body_is_shows_in_its_content(
    small: Service, slices: list[Path], media: str
) -> None:
    headers = {"Content-Type": media} if media else {}
    body = _thumbnail(slices[0])
    assert small.client.post("/predict", content=body, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/predict", "/explain"])
@pytest.mark.parametrize(
    ("coding", "accepted"),
    [
        (["gzip"], False),
        (["identity, br"], False),
        (["identity", "gzip"], False),
        (["Identity"], True),
        ([""], True),
    ],
    ids=str,
)
def test_a_compressed_body_is_refused_and_the_answer_says_so(
    small: Service, slices: list[Path], path: str, coding: list[str], accepted: bool
) -> None:
    """RFC 9110, 12.5.3."""
    headers = [("Content-Type", "image/jpeg"), *(("Content-Encoding", line) for line in coding)]
    body = _thumbnail(slices[0])
    response = small.client.post(path, content=body, headers=headers)
    if accepted:
        assert response.status_code != 415
        return
    assert refusal(response) == (415, "unsupported_request_media_type")
    assert "Content-Encoding" in response.json()["detail"]
    assert response.headers["accept-encoding"] == "identity"


def test_an_empty_file_is_called_so(small: Service) -> None:
    response = small.client.post(
        "/predict", content=part(content=b"") + END, headers={"Content-Type": FORM}
    )
    assert refusal(response) == (415, "unsupported_media_type")
    assert response.json()["detail"] == "the file is empty"


def test_a_part_may_have_many_headers_and_no_more(small: Service, slices: list[Path]) -> None:
    begin, _, rest = (part(content=_thumbnail(slices[0])) + END).partition(b"\r\n")
    for others, accepted in ((MAX_PART_HEADERS - 1, True), (MAX_PART_HEADERS, False)):
        more = b"".join(b"X-%d: a\r\n" % number for number in range(others))
        body = begin + b"\r\n" + more + rest
        response = small.client.post("/predict", content=body, headers={"Content-Type": FORM})
        if accepted:
            assert response.status_code == 200
        else:
            assert refusal(response) == (400, "malformed_multipart")


def test_body_without_a_length_is_counted_as_it_comes(small: Service) -> None:
    chunks = iter([bytes(MAX_BODY_BYTES // 2)] * 3)
    headers = {"Content-Type": "image/jpeg"}
    response = small.client.post("/predict", content=chunks, headers=headers)
    assert "content-length" not in response.request.headers
    assert refusal(response) == (413, "body_too_large")


def test_as_many_files_as_allowed_are_answered(small: Service, slices: list[Path]) -> None:
    thumbnails = [_thumbnail(path) for path in slices[:MAX_FILES]]
    assert len(small.predict(*thumbnails).json()["predictions"]) == MAX_FILES


@pytest.mark.parametrize("large", [False, True])
def test_only_small_bodies_are_put_together_on_the_event_loop(
    small: Service, slices: list[Path], monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """Of 250 MB that takes it 200 ms, in which nobody would have an answer."""
    asked: list[object] = []

    async def to_thread(function: Callable[..., object], *arguments: object) -> object:
        asked.append(function.__name__)
        return await asyncio.to_thread(function, *arguments)

    thumbnail = _thumbnail(slices[0])
    monkeypatch.setattr("service.uploads.MOST_JOINED_AT_ONCE", len(thumbnail) - large)
    monkeypatch.setattr(
        "service.uploads.asyncio", SimpleNamespace(to_thread=to_thread, timeout=asyncio.timeout)
    )
    answers = [small.predict_raw(thumbnail), small.predict(thumbnail, thumbnail)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert asked == ["join"] * 3 * large


def test_image_over_the_pixel_limit(small: Service, jpeg: bytes) -> None:
    assert refusal(small.predict(jpeg)) == (413, "too_many_pixels")


def test_field_without_a_file_name_is_an_image_too(small: Service, slices: list[Path]) -> None:
    body = part(content=_thumbnail(slices[0]), file_name=None) + END
    response = small.client.post("/predict", content=body, headers={"Content-Type": FORM})
    assert response.json()["predictions"][0]["input"] is None


def test_form_in_tiny_pieces_reads_the_same(small: Service, slices: list[Path]) -> None:
    body = part(content=_thumbnail(slices[0])) + END
    pieces = (body[start : start + 7] for start in range(0, len(body), 7))
    response = small.client.post("/predict", content=pieces, headers={"Content-Type": FORM})
    assert response.status_code == 200


def large(length: int) -> bytes:
    """The head of a request that brings so many bytes."""
    head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
    return f"{head}Content-Length: {length}\r\nConnection: close\r\n\r\n".encode()


def test_body_that_does_not_arrive_is_given_up(small: Service) -> None:
    with _connection(small) as connection:
        connection.sendall(large(9) + b"\xff")
        assert problem(everything(connection)) == (400, "body_timeout")


def test_body_that_is_slow_but_comes_has_its_time(service_of_short_patience: Service) -> None:
    piece = bytes(MIN_BYTES_PER_SECOND // 4)
    with _connection(service_of_short_patience) as connection:
        connection.sendall(large(10 * len(piece)))
        for _ in range(10):
            sleep(BODY_TIMEOUT_MS / 3000)
            connection.sendall(piece)
        assert problem(everything(connection)) == (415, "unsupported_media_type")


def test_body_that_stops_has_no_time_for_what_came_before(
    service_of_short_patience: Service,
) -> None:
    piece = bytes(20 * MIN_BYTES_PER_SECOND)
    with _connection(service_of_short_patience) as connection:
        connection.sendall(large(len(piece) + 1) + piece)
        start = monotonic()
        assert problem(everything(connection)) == (400, "body_timeout")
    assert monotonic() - start < 10


def test_client_that_leaves_early_is_no_error(small: Service) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 9\r\n\r\n"
    sample = "brain_http_requests_total"
    before = small.metric(sample, route="/predict", status="499")
    with _connection(small) as connection:
        connection.sendall(head + b"\xff")
    wait_until(lambda: small.metric(sample, route="/predict", status="499") == before + 1)
    assert small.metric("brain_errors_total", code="internal_error") == 0


def _connection(service: Service) -> socket.socket:
    port = httpx.URL(service.url).port
    assert port is not None
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def _thumbnail(path: Path) -> bytes:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.open(path).convert("L").resize((128, 128)).save(out, "JPEG")
    return out.getvalue()


def _unsent(service: Service, length: str) -> bytes:
    head = (
        f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {length}"
    )
    with socket.create_connection(service.address, PATIENCE_SECONDS) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n")
        return connection.recv(100)


def test_what_says_it_is_too_large_is_refused_before_it_comes(model_store: Path) -> None:
    with serving(settings_for(model_store, max_body_bytes=1000), FakeRuntimes()) as service:
        for zeros in (0, 5000):
            assert _unsent(service, zeros * "0" + "1001").startswith(b"HTTP/1.1 413 ")


def test_the_zeros_before_a_length_are_no_failure_of_the_service(
    small: Service, jpeg: bytes
) -> None:
    """RFC 9110, section 8.6, allows any number; Python's ``int`` takes 4300 digits."""
    length = 5000 * "0" + "9"
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}"
    with _connection(small) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n" + jpeg[:9])
        assert problem(everything(connection)) == (422, "truncated_image")


def test_a_full_queue_refuses_before_the_body_comes(model_store: Path, jpeg: bytes) -> None:
    runtimes = FakeRuntimes()
    with (
        serving(settings_for(model_store, queue_size=1), runtimes) as service,
        occupied(service, runtimes, jpeg) as (accepted, _),
    ):
        assert _unsent(service, "1000").startswith(b"HTTP/1.1 503 ")
        runtimes.last.gate.set()
        assert read_status(accepted) == 200
