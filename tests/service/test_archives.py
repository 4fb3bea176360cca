"""Zip files: what is in them is answered, and what is wrong with them is named."""

import io
import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import ValidationError

from service.archives import Archive, is_zip
from service.buffers import Buffers
from service.errors import (
    DamagedZip,
    QueueFull,
    ServiceError,
    TooManyFiles,
    UnpackedTooLarge,
    ZipTooLarge,
)
from service.jobs import Upload
from service.schemas import PredictAnswer, Problem
from tests.contract.samples import RANGE, grey_slice, mr_object
from tests.contract.test_fuzz import mutations
from tests.support.memory import traced
from tests.support.service import (
    FakeRuntimes,
    Service,
    codes,
    serving,
    settings_for,
    wait_until,
)
from tests.support.threads import at_once

MAX_FILES = 6
MAX_BODY_BYTES = 3_000_000
GREY = grey_slice(48, 40)
SLICE = mr_object(GREY, attributes=RANGE)


@pytest.fixture(scope="module")
def small(model_store: Path) -> Iterator[Service]:
    settings = settings_for(
        model_store,
        max_files=MAX_FILES,
        max_body_bytes=MAX_BODY_BYTES,
        max_buffered_bytes=2 * MAX_BODY_BYTES,
    )
    with serving(settings, FakeRuntimes()) as service:
        yield service
        assert service.state.buffers.used == 0
        assert service.metric("brain_errors_total", code="internal_error") == 0


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, **options: Any) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method, **options) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def encrypted() -> bytes:
    """As every tool marks it: bit 0 of the flags, in both headers of a file."""
    data = bytearray(zipped({"a.dcm": SLICE}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def lying(size: int, content: bytes = SLICE) -> bytes:
    """States that its file unpacks to so many bytes."""
    data = bytearray(zipped({"a.dcm": content}))
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, size)
    return bytes(data)


def overlapping() -> bytes:
    """Every entry of the directory names the same packed file."""
    data = zipped({"a": bytes(range(256)) * 40}, zipfile.ZIP_STORED)
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry = data[start:end]
    closing = bytearray(data[end:])
    struct.pack_into("<HHI", closing, 8, 5, 5, 5 * len(entry))
    return data[:start] + 5 * entry + bytes(closing)


def test_raw_zip_is_a_request_of_its_files(small: Service, jpeg: bytes) -> None:
    data = zipped({"s/2.dcm": SLICE, "s/1.jpg": jpeg, "notes.txt": b"no image"})
    response = small.predict_raw(data, "application/zip")
    answer = PredictAnswer.model_validate_json(response.content)
    assert [entry.input for entry in answer.predictions] == ["s/2.dcm", "s/1.jpg", "notes.txt"]
    assert codes(response) == [None, None, "unsupported_media_type"]
    assert answer.series is not None


@pytest.mark.parametrize("media", ["application/octet-stream", "application/dicom", "image/png"])
def test_what_it_is_shows_in_its_content(small: Service, media: str) -> None:
    assert small.predict_raw(zipped({"a.dcm": SLICE}), media).status_code == 200


def test_zip_beside_other_files_stands_in_its_place(small: Service, jpeg: bytes) -> None:
    files = [
        ("files", ("a.jpg", jpeg)),
        ("files", ("study.zip", zipped({"x/1": SLICE, "x/2": SLICE}))),
        ("files", ("b.jpg", jpeg)),
    ]
    entries = small.client.post("/predict", files=files).json()["predictions"]
    names = [entry["input"] for entry in entries]
    assert names == ["a.jpg", "study.zip/x/1", "study.zip/x/2", "b.jpg"]


def test_prediction_is_that_of_the_file_itself(service: Service) -> None:
    alone = service.predict_raw(SLICE).json()["predictions"][0]
    packed = service.predict_raw(zipped({"a": SLICE})).json()["predictions"][0]
    assert packed["probabilities"] == alone["probabilities"]


@pytest.mark.parametrize("separator", ["/", "\\"])
def test_what_nobody_means_is_left_out(small: Service, separator: str) -> None:
    """Windows PowerShell 5.1 separates folders with the backslash (APPNOTE 6.3.10, 4.4.17, has "/")."""
    media = ("DICOMDIR", "VERSION", "LOCKFILE")
    systems = (".DS_Store", "__MACOSX/._1", "._1", ".gitkeep", "Icon\r", "Thumbs.db")
    names = ["study/", *(f"study/{name}" for name in (*media, *systems)), "study/link", "study/1"]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo(name.replace("/", separator))
            if name == "study/link":
                info.external_attr = 0o120777 << 16
            archive.writestr(info, SLICE if name == "study/1" else b"")
    entries = small.predict_raw(out.getvalue()).json()["predictions"]
    assert [entry["input"] for entry in entries] == [f"study{separator}1"]


def test_names_are_only_names(small: Service, tmp_path: Path) -> None:
    before = os.listdir(tmp_path)  # noqa: PTH208
    names = ["../../x", "/etc/x", str(tmp_path / "x"), "C:\\x", "a\nb"]
    entries = small.predict_raw(zipped(dict.fromkeys(names, SLICE))).json()["predictions"]
    assert [entry["input"] for entry in entries] == names
    assert os.listdir(tmp_path) == before  # noqa: PTH208


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        pytest.param(b"PK\x03\x04junk", 422, "damaged_zip", id="no archive"),
        pytest.param(zipped({"a": SLICE})[:-30], 422, "damaged_zip", id="cut off"),
        pytest.param(zipped({}), 422, "empty_zip", id="no files"),
        pytest.param(zipped({"DICOMDIR": b"x"}), 422, "empty_zip", id="nothing but a directory"),
        pytest.param(encrypted(), 422, "encrypted_zip", id="encrypted"),
        pytest.param(zipped({"a": SLICE}, zipfile.ZIP_LZMA), 422, "unsupported_zip", id="lzma"),
        pytest.param(zipped({"a": SLICE}, zipfile.ZIP_BZIP2), 422, "unsupported_zip", id="bzip2"),
        pytest.param(
            zipped({str(k): SLICE for k in range(MAX_FILES + 1)}), 413, "too_many_files", id="many"
        ),
        pytest.param(
            zipped({str(k): b"" for k in range(5000)}), 413, "too_many_files", id="very many"
        ),
        pytest.param(
            zipped({"a": bytes(MAX_BODY_BYTES + 1)}), 413, "zip_too_large", id="unpacks to too much"
        ),
        pytest.param(zipped({"a": bytes(2_000_000)}), 413, "zip_too_large", id="packed too well"),
        pytest.param(lying(2**31), 413, "zip_too_large", id="states too much"),
        pytest.param(zipped({1025 * "a": SLICE}), 422, "damaged_zip", id="name without end"),
        pytest.param(overlapping(), 422, "damaged_zip", id="overlapping"),
        pytest.param(zipped({"b.zip": zipped({"a": SLICE})}), 422, "nested_zip", id="nested"),
    ],
)
def test_unusable_zip_is_refused(small: Service, data: bytes, status: int, code: str) -> None:
    response = small.predict_raw(data, "application/zip")
    problem = Problem.model_validate_json(response.content)
    assert (response.status_code, problem.code) == (status, code)


def test_unusable_zip_leaves_the_files_beside_it(small: Service, jpeg: bytes) -> None:
    response = small.predict(jpeg, encrypted(), jpeg)
    assert codes(response) == [None, "encrypted_zip", None]


def test_damaged_file_in_a_zip_leaves_the_others(small: Service) -> None:
    data = zipped({"a": SLICE, "b": bytes(range(200)), "c": SLICE}, zipfile.ZIP_STORED)
    damaged = data.replace(bytes(range(200)), bytes(200))
    assert codes(small.predict_raw(damaged)) == [None, "damaged_zip", None]


def test_file_ends_where_its_size_says(small: Service) -> None:
    assert codes(small.predict_raw(lying(len(SLICE) - 100))) == ["damaged_zip"]


@pytest.mark.parametrize("stated", [0, 1000])
def test_no_more_is_unpacked_than_is_stated(stated: int) -> None:
    """The result alone would not show it: it is cut to the stated size either way."""
    data = lying(stated, bytes(2**24))
    archive = Archive.open(Upload(None, data), MAX_FILES, MAX_BODY_BYTES)
    with traced() as peak:
        (file,) = archive.read()
    assert peak.size < 2**18
    assert isinstance(file.failure, DamagedZip)


def test_limits_hold_over_all_zips_of_a_request(small: Service) -> None:
    three = zipped({str(k): SLICE for k in range(3)})
    assert len(small.predict(three, three).json()["predictions"]) == MAX_FILES
    assert codes(small.predict(three, three, SLICE))[-2:] == ["too_many_files", None]
    noise = np.random.default_rng(1).bytes(1_600_000)
    half = zipped({"a": noise + bytes(200_000)})
    found = codes(small.predict(half, zipped({"b": bytes(1_400_000), "c": noise[:20_000]})))
    assert found == ["unsupported_media_type", "zip_too_large"]


def test_directory_is_counted_before_it_is_parsed() -> None:
    data = zipped({str(k): b"" for k in range(20_000)})
    with traced() as peak, pytest.raises(TooManyFiles):
        Archive.open(Upload(None, data), 10, 10**6)
    assert peak.size < 100_000


@pytest.mark.parametrize("field", ["name", "comment"])
def test_directory_is_measured_before_it_is_read(field: str) -> None:
    """Each entry may have 64 KiB of a field, of which zipfile makes two or three times as much."""
    info = zipfile.ZipInfo("a" * 65_000 if field == "name" else "a")
    info.comment = b"c" * 65_000 * (field == "comment")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(info, SLICE)
    data = out.getvalue()
    start, end = data.index(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    entry, closing = data[start:end], bytearray(data[end:])
    struct.pack_into("<HHI", closing, 8, 20, 20, 20 * len(entry))
    data = data[:start] + 20 * entry + closing
    with traced() as peak, pytest.raises(ZipTooLarge):
        Archive.open(Upload(None, data), 20, 10**6)
    assert peak.size < 300_000


def test_series_in_a_zip(small: Service) -> None:
    content = small.predict_raw(zipped({f"{k}.dcm": SLICE for k in range(4)})).json()
    assert content["series"][0]["slices"] == 1, "four times the same instance"


def test_damage_gives_an_answer_and_never_a_fault(small: Service) -> None:
    data = zipped({"a.dcm": SLICE, "b.dcm": SLICE})
    random = np.random.default_rng(11)
    statuses = set()
    for damaged in mutations(data, random):
        if is_zip(damaged):
            statuses.add(small.predict_raw(damaged, "application/zip").status_code)
    assert statuses <= {200, 413, 415, 422}
    assert {200, 422} <= statuses


def test_archives_that_are_opened_never_unpack_to_more_than_they_state() -> None:
    data = zipped({"a.dcm": SLICE, "b.dcm": SLICE})
    random = np.random.default_rng(12)
    opened = 0
    for damaged in mutations(data, random):
        try:
            archive = Archive.open(Upload(None, damaged), MAX_FILES, MAX_BODY_BYTES)
        except ServiceError:
            continue
        opened += 1
        assert sum(len(file.data) for file in archive.read()) <= archive.size <= MAX_BODY_BYTES
    assert opened > 20


class TestMemory:
    def test_bodies_beyond_the_limit_are_refused(self, model_store: Path, jpeg: bytes) -> None:
        runtimes = FakeRuntimes()
        # Beside what it unpacks to, it leaves no room for another body.
        packed = zipped({"a.jpg": jpeg}, zipfile.ZIP_STORED)
        settings = settings_for(
            model_store, max_body_bytes=len(packed), max_buffered_bytes=2 * len(packed)
        )
        with serving(settings, runtimes) as service:
            runtimes.last.gate.clear()

            def second() -> httpx.Response:
                wait_until(lambda: service.state.buffers.used == len(packed) + len(jpeg))
                wait_until(runtimes.last.entered.is_set)
                answer = service.predict_raw(jpeg)
                runtimes.last.gate.set()
                return answer

            first, refused = at_once(lambda: service.predict_raw(packed), second)
            assert first.status_code == 200
            assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
            assert int(refused.headers["retry-after"]) > 0
            assert service.state.buffers.used == 0
            assert service.predict_raw(jpeg).status_code == 200

    def test_what_a_zip_unpacks_to_counts(self, model_store: Path) -> None:
        data = zipped({"a": SLICE + bytes(50_000)})
        settings = settings_for(model_store, max_body_bytes=100_000, max_buffered_bytes=200_000)
        with serving(settings, FakeRuntimes()) as service:
            assert len(data) < 10_000
            two = zipped({"a": SLICE + bytes(50_000), "b": np.random.default_rng(1).bytes(40_000)})
            with service.state.buffers.claim() as others:
                others.add(100_000)
                assert service.predict_raw(data).status_code == 200
                response = service.predict_raw(two)
                assert (response.status_code, response.json()["code"]) == (503, "queue_full")
            assert service.state.buffers.used == 0
            assert codes(service.predict_raw(two)) == [None, "unsupported_media_type"]

    def test_nobody_is_sent_away_for_what_never_has_room(self, model_store: Path) -> None:
        """As large a zip file as is accepted, which unpacks to as much, on an idle service."""
        packed = zipped({"a": SLICE, "b": bytes(MAX_BODY_BYTES)}, zipfile.ZIP_STORED)
        size = len(packed)
        for buffered in (size, 3 * size // 2, 2 * size):
            try:
                settings = settings_for(
                    model_store, max_body_bytes=size, max_buffered_bytes=buffered
                )
            except ValidationError:
                continue
            with serving(settings, FakeRuntimes()) as service:
                assert service.predict_raw(packed).status_code == 200
        assert settings.max_buffered_bytes == buffered


def test_what_a_thread_claims_after_the_end_of_its_request_is_not_counted() -> None:
    buffers = Buffers(100)
    with buffers.claim() as claim:
        claim.add(60)
        with pytest.raises(UnpackedTooLarge):
            claim.add(41)
        with buffers.claim() as other, pytest.raises(QueueFull):
            other.add(41)
        assert buffers.used == 60
    claim.add(70)
    assert buffers.used == 0
    with buffers.claim() as other:
        other.add(100)
        assert buffers.used == 100
