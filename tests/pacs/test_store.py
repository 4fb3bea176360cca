"""``POST /dicom-web/studies``: what is stored and what is refused, and how the answer says so."""

import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import DataElement, Dataset, config, dcmread, filereader
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    UID,
    ComprehensiveSRStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

from contract.dicom_meta import inflate
from contract.dicom_size import MAX_ITEMS
from contract.policy import Checks
from contract.quiet import quieten
from service.dicom.making import MANUFACTURER
from service.pacs.identity import Reason, Refused, identify
from tests.contract.samples import mr_object
from tests.support.dicom import encoded
from tests.support.pacs import (
    AXIAL,
    FAILED,
    OTHER,
    REASON,
    SOP,
    SOP_CLASS,
    STORED,
    Instance,
    Pacs,
    form,
    pacs,
    pacs_settings,
    report,
    series,
    serve,
    settled,
    stow,
    values,
)
from tests.support.service import FakeRuntimes, Service, serving, settings_for, wait_until

TOO_LARGE = 600_000


@pytest.fixture(scope="module")
def pacs_there() -> Iterator[Pacs]:
    with pacs() as running:
        yield running


@pytest.fixture(scope="module")
def service(
    model_store: Path, pacs_there: Pacs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    settings = pacs_settings(
        model_store,
        tmp_path_factory.mktemp("pacs"),
        pacs_there.url,
        stow_max_instances=4,
        stow_max_instance_bytes=TOO_LARGE,
        stow_max_body_bytes=4_000_000,
        body_timeout_ms=1000,
    )
    with serving(settings, FakeRuntimes()) as running:
        yield running
        wait_until(lambda: settled(running))


def names(response: Any, sequence: str) -> list[str]:
    return values(response, sequence, SOP)


def test_stored_instances_are_referenced(service: Service) -> None:
    sent = series(3)
    response = stow(service.client, [item.data for item in sent])
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/dicom+json"
    assert names(response, STORED) == [item.sop for item in sent]
    assert len(set(values(response, STORED, SOP_CLASS))) == 1
    assert FAILED not in response.json()
    # The DICOM JSON model wants tags in ascending order (PS3.18, F.2.2), and it is one.
    assert list(response.json()) == sorted(response.json())
    assert Dataset.from_json(response.text).ReferencedSOPSequence[0].ReferencedSOPInstanceUID


def test_results_of_what_is_stored_arrive(service: Service, pacs_there: Pacs) -> None:
    sent = series(2)
    assert stow(service.client, [item.data for item in sent]).status_code == 200
    wait_until(
        lambda: any(item.StudyInstanceUID == sent[0].study for item in pacs_there.of_kind("SR"))
    )


def test_an_instance_alone_needs_no_multipart(service: Service) -> None:
    (sent,) = series(1)
    response = service.client.post(
        "/dicom-web/studies", content=sent.data, headers={"Content-Type": "application/dicom"}
    )
    assert response.status_code == 200
    assert names(response, STORED) == [sent.sop]


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/related; type=application/dicom; boundary={}",
        'Multipart/Related; boundary="{}"; type="APPLICATION/DICOM"; start="<a@b>"',
        "multipart/related; boundary={}",
    ],
    ids=["unquoted", "start and case", "without type"],
)
def test_ways_to_write_the_content_type(service: Service, content_type: str) -> None:
    (sent,) = series(1)
    made, body = form([sent.data])
    boundary = made.rpartition("=")[2]
    headers = {"Content-Type": content_type.format(boundary)}
    response = service.client.post("/dicom-web/studies", content=body, headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["application/dicom+xml", "application/dicom+json"], 200),
        (["application/dicom+json", "application/dicom+xml"], 200),
        (["application/dicom+xml", "text/html"], 406),
    ],
    ids=["second line", "first line", "neither"],
)
def test_what_is_accepted_may_stand_in_several_lines(
    service: Service, lines: list[str], status: int
) -> None:
    headers = [("Content-Type", "application/dicom"), *(("Accept", line) for line in lines)]
    content = series(1)[0].data
    response = service.client.post("/dicom-web/studies", content=content, headers=headers)
    assert response.request.headers.get_list("accept") == lines
    assert response.status_code == status


def test_a_study_in_the_address_keeps_others_out(service: Service) -> None:
    right, wrong = series(1)[0], series(1)[0]
    response = stow(service.client, [right.data, wrong.data], right.study)
    assert response.status_code == 202
    assert names(response, STORED) == [right.sop]
    assert names(response, FAILED) == [wrong.sop]
    assert values(response, FAILED, REASON) == [Reason.PROCESSING_FAILURE]
    assert stow(service.client, [wrong.data], right.study).status_code == 409


def with_letters(instance: Instance) -> bytes:
    """With a SOP instance UID that is none."""
    return instance.data.replace(instance.sop.encode(), b"x" * len(instance.sop))


def as_class(uid: str) -> bytes:
    return series(1, attributes={"SOPClassUID": uid})[0].data


@pytest.mark.parametrize(
    ("data", "reason", "named"),
    [
        (lambda: as_class(CTImageStorage), Reason.SOP_CLASS_NOT_SUPPORTED, True),
        (
            lambda: Path(str(get_testdata_file("reportsi.dcm"))).read_bytes(),
            Reason.SOP_CLASS_NOT_SUPPORTED,
            True,
        ),
        (
            lambda: series(1, attributes={"StudyInstanceUID": ""})[0].data,
            Reason.CANNOT_UNDERSTAND,
            True,
        ),
        (
            lambda: with_letters(series(1)[0]),
            Reason.CANNOT_UNDERSTAND,
            False,
        ),
        (lambda: series(1)[0].data[:100], Reason.CANNOT_UNDERSTAND, False),
        (lambda: series(1)[0].data[:400], Reason.CANNOT_UNDERSTAND, False),
        (lambda: b"", Reason.CANNOT_UNDERSTAND, False),
        (lambda: b"\xff\xd8\xff no DICOM", Reason.CANNOT_UNDERSTAND, False),
        (lambda: series(1)[0].data + bytes(TOO_LARGE), Reason.OUT_OF_RESOURCES, True),
    ],
    ids=[
        "CT",
        "SR",
        "no study",
        "malformed UID",
        "cut in the preamble",
        "cut in the header",
        "empty",
        "JPEG",
        "too large",
    ],
)
def test_what_cannot_be_stored_has_its_reason(
    service: Service, data: Any, reason: Reason, named: bool
) -> None:
    (good,) = series(1)
    response = stow(service.client, [data(), good.data])
    assert response.status_code == 202
    assert names(response, STORED) == [good.sop]
    assert values(response, FAILED if named else OTHER, REASON) == [reason]
    assert (OTHER if named else FAILED) not in response.json()
    alone = stow(service.client, [data()])
    assert alone.status_code == 409
    assert STORED not in alone.json()


def test_items_without_end_are_not_understood() -> None:
    data = series(1)[0].data
    at = data.index(b"\x20\x00\x0d\x00")
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * (MAX_ITEMS + 1)
    sequence = b"\x09\x00\x10\x10\xff\xff\xff\xff" + items
    with pytest.raises(Refused, match=Reason.CANNOT_UNDERSTAND.name):
        identify(data[:at] + sequence + b"\xfe\xff\xdd\xe0\0\0\0\0" + data[at:])


def test_nor_behind_a_later_element_of_an_item(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the UIDs nothing of the object is read, but an item is read to its end."""
    made: list[object] = []
    monkeypatch.setattr(filereader, "read_sequence_item", lambda *_: made.append(None))
    data = series(1)[0].data
    at = data.index(b"\x20\x00\x0d\x00")
    zeros = b"\x08\0\x40\x11" + struct.pack("<L", 8 * (MAX_ITEMS + 1)) + bytes(8 * (MAX_ITEMS + 1))
    # Taken for an item, the later element would hide the zeros in an element of its own.
    hiding = b"\x08\0\0\1" + struct.pack("<L", len(zeros) + 8)
    later = b"\x28\0\x10\0" + struct.pack("<L", len(hiding)) + hiding
    endless, end = b"\xff" * 4, bytes(4)
    item = b"\xfe\xff\0\xe0" + endless + later + zeros + b"\xfe\xff\x0d\xe0" + end
    sequence = b"\x08\0\x15\x11" + endless + item + b"\xfe\xff\xdd\xe0" + end
    with pytest.raises(Refused, match=Reason.CANNOT_UNDERSTAND.name):
        identify(data[:at] + sequence + data[at:])
    assert not made


@pytest.mark.parametrize("vr", [b"UN", b"SQ"], ids=bytes.decode)
def test_a_header_without_end_is_not_parsed(vr: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(filereader, "read_sequence_item", lambda *_: made.append(None))
    endless = b"\x02\0\x01\0" + vr + b"\0\0\xff\xff\xff\xff" + bytes(800_000)
    with pytest.raises(Refused, match=Reason.CANNOT_UNDERSTAND.name):
        identify(bytes(128) + b"DICM" + endless)
    data = series(1)[0].data
    with pytest.raises(Refused, match=Reason.CANNOT_UNDERSTAND.name):
        identify(data[:132] + endless + data[132:])
    assert not made


def test_what_was_deflated_twice_is_inflated_once() -> None:
    """Behind the header of what was inflated, pydicom would inflate again, and without a limit."""
    uid = DeflatedExplicitVRLittleEndian.encode()
    header = b"\x02\0\x10\0UI" + len(uid).to_bytes(2, "little") + uid
    data = mr_object(np.zeros((8, 8), np.uint8), attributes={"StudyInstanceUID": "1.2.3"})
    once = header + deflated(data[inflate(data, 1).meta.end :])
    assert identify(data[:132] + once).study == "1.2.3"
    with pytest.raises(Refused, match=Reason.CANNOT_UNDERSTAND.name):
        identify(data[:132] + header + deflated(once))


def deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


def test_a_syntax_of_two_values_is_none() -> None:
    data = mr_object(np.zeros((8, 8), np.uint8), attributes={"StudyInstanceUID": "1.2.3"})
    uid = b"1.2.840.10008.1.2.1\0"
    assert identify(data).study == "1.2.3"
    assert data.count(uid) == 1
    with pytest.raises(Refused, match=Reason.TRANSFER_SYNTAX_NOT_SUPPORTED.name):
        identify(data.replace(uid, b"1.2.840\\10008.1.2.1\0"))


def test_results_of_this_service_are_not_taken(model_store: Path, tmp_path: Path) -> None:
    """Whatever they say they are: what a PACS forwards must not go round in circles."""
    own = series(1, attributes={"Manufacturer": MANUFACTURER})[0]
    with (
        pacs() as there,
        serving(
            pacs_settings(model_store, tmp_path, there.url, dicom_checks=Checks.OFF), FakeRuntimes()
        ) as service,
    ):
        response = stow(service.client, [own.data])
        assert values(response, FAILED, REASON) == [Reason.SOP_CLASS_NOT_SUPPORTED]
        # What this setting is for.
        assert stow(service.client, [as_class(CTImageStorage)]).status_code == 200
        wait_until(lambda: there.of_kind("SR"))


def test_a_transfer_syntax_that_nothing_reads(service: Service) -> None:
    dataset = dcmread(AXIAL)
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    dataset.PixelData = encapsulate([b"no frame"])
    response = stow(service.client, [encoded(dataset)])
    assert values(response, FAILED, REASON) == [Reason.TRANSFER_SYNTAX_NOT_SUPPORTED]


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    ids=lambda u: u.name,
)
def test_instances_of_any_encoding_are_stored(service: Service, syntax: UID) -> None:
    attributes = {"StudyInstanceUID": generate_uid(), "SOPInstanceUID": generate_uid()}
    pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    data = mr_object(pixels, syntax, attributes=attributes)
    assert stow(service.client, [data]).status_code == 200


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        (
            {"Content-Type": "multipart/form-data; boundary=x"},
            b"x",
            415,
            "unsupported_request_media_type",
        ),
        (
            {"Content-Type": 'multipart/related; type="application/dicom+json"; boundary=x'},
            b"--x\r\n\r\n[]\r\n--x--",
            415,
            "unsupported_request_media_type",
        ),
        (
            {"Content-Type": 'multipart/related; type="application/dicom"; boundary=x'},
            b"--x\r\nContent-Type: text/plain\r\n\r\n[]\r\n--x--",
            415,
            "unsupported_request_media_type",
        ),
        ({}, b"x", 415, "unsupported_request_media_type"),
        (
            {"Content-Type": "application/dicom", "Content-Encoding": "gzip"},
            b"x",
            415,
            "unsupported_request_media_type",
        ),
        ({"Content-Type": "multipart/related"}, b"x", 400, "malformed_multipart"),
        (
            {"Content-Type": "multipart/related; boundary=x"},
            b"--x\r\n\r\nabc",
            400,
            "malformed_multipart",
        ),
        (
            {"Content-Type": "multipart/related; boundary=x"},
            b"--x\r\nContent-Transfer-Encoding: base64\r\n\r\nabc\r\n--x--",
            400,
            "malformed_multipart",
        ),
        ({"Content-Type": "multipart/related; boundary=x"}, b"--x--", 400, "no_input"),
        ({"Content-Type": "application/dicom"}, b"", 400, "no_input"),
        ({"Content-Type": "application/dicom"}, bytes(4_000_001), 413, "body_too_large"),
        (
            {"Content-Type": "multipart/related; boundary=x"},
            b"--x\r\n\r\n" + b"a\r\n--x\r\n\r\n" * 5 + b"\r\n--x--",
            413,
            "too_many_files",
        ),
        (
            {"Content-Type": "application/dicom", "Accept": "application/dicom+xml"},
            b"x",
            406,
            "not_acceptable",
        ),
        (
            {"Content-Type": "application/dicom", "Accept": "application/dicom+json;q=0"},
            b"x",
            406,
            "not_acceptable",
        ),
    ],
    ids=[
        "form",
        "metadata",
        "part of another type",
        "no type",
        "compressed",
        "no boundary",
        "cut off",
        "base64",
        "no part",
        "empty",
        "too large",
        "too many",
        "XML wanted",
        "no JSON wanted",
    ],
)
def test_malformed_requests_are_problems(
    service: Service, headers: dict[str, str], body: bytes, status: int, code: str
) -> None:
    response = service.client.post("/dicom-web/studies", content=body, headers=headers)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("zeros", [0, 5000])
def test_what_says_it_is_too_large_is_refused_before_it_comes(service: Service, zeros: int) -> None:
    head = b"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: application/dicom\r\n"
    with socket.create_connection(service.address, timeout=30) as client:
        client.sendall(head + b"Content-Length: " + zeros * b"0" + b"4000001\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("accept", ["*", "*;q=.2", "application/*", 'application/json;a="b,c"'])
def test_an_answer_in_json_is_what_a_client_takes(service: Service, accept: str) -> None:
    response = stow(service.client, [series(1)[0].data], headers={"Accept": accept})
    assert response.status_code == 200


def test_a_body_without_its_length_is_counted(service: Service) -> None:
    response = service.client.post(
        "/dicom-web/studies",
        content=(bytes(100_000) for _ in range(41)),
        headers={"Content-Type": "application/dicom"},
    )
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("study", ["x", "1.2.x", "1", "1." + "2" * 64])
def test_an_address_that_names_no_study(service: Service, study: str) -> None:
    assert stow(service.client, [series(1)[0].data], study).status_code == 400


def stop_half_way(service: Service) -> bytes:
    """Sends the beginning of a request, and returns that of the answer."""
    with socket.create_connection(service.address, timeout=30) as client:
        client.sendall(
            b"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
            b"Content-Type: application/dicom\r\n\r\nabc"
        )
        return client.recv(100)


def test_what_is_refused_leaves_nothing_behind(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    limits = dict.fromkeys(("stow_max_body_bytes", "stow_max_instance_bytes"), 1024**2)
    with serve(model_store, tmp_path, destination, body_timeout_ms=1000, **limits) as service:
        assert b" 400 " in stop_half_way(service)
        assert stow(service.client, [as_class(CTImageStorage)]).status_code == 409
        assert stow(service.client, [as_class(CTImageStorage)], "1.2.3").status_code == 409
        assert stow(service.client, [bytes(2 * 1024**2)]).status_code == 413
        service.client.post(
            "/dicom-web/studies",
            content=b"--x\r\n\r\n" + series(1)[0].data,
            headers={"Content-Type": "multipart/related; boundary=x"},
        )
        assert report(service)["spool_bytes"] == 0
        assert list((tmp_path / "spool" / "segments").iterdir()) == []
        now = report(service)
        assert now["series_waiting"] == 0
        # Not what could not be read: nobody can say whether it would be refused as a whole.
        assert (now["requests_refused"], now["requests_turned_away"]) == (3, 0)


def test_without_a_destination_it_says_so(model_store: Path, tmp_path: Path) -> None:
    settings = settings_for(model_store, spool=tmp_path / "spool")
    with serving(settings, FakeRuntimes()) as service:
        response = stow(service.client, [b"x"])
        assert (response.status_code, response.json()["code"]) == (501, "no_destination")
        assert service.client.get("/deliveries").status_code == 501
        assert "pacs" not in service.client.get("/health").json()
    assert not (tmp_path / "spool").exists()


def test_a_full_spool_says_when_to_return(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    destination.status = 503
    settings = pacs_settings(
        model_store,
        tmp_path,
        destination.url,
        spool_max_bytes=2 * 1024**2,
        stow_max_body_bytes=1024**2,
        stow_max_instance_bytes=1024**2,
        series_keep_seconds=0,
    )
    sent = series(8)
    with serving(settings, FakeRuntimes()) as service:
        assert stow(service.client, [item.data for item in sent[:4]]).status_code == 200
        full = stow(service.client, [item.data for item in sent[4:]])
        assert (full.status_code, full.json()["code"]) == (503, "spool_full")
        assert int(full.headers["retry-after"]) > 0
        now = report(service)
        assert (now["requests_refused"], now["requests_turned_away"]) == (0, 1)
        assert report(service)["spool_bytes"] <= 2 * 1024**2
        # The results of what it took make room for the rest.
        destination.status = 200
        wait_until(lambda: settled(service))
        assert stow(service.client, [item.data for item in sent[4:]]).status_code == 200
        wait_until(lambda: settled(service))
    # The second one is of the whole series only if the first half was still there; it made room.
    assert len(destination.of_kind("SR")) == 2


def test_draining_stores_nothing_new(service: Service) -> None:
    service.state.draining = True
    try:
        response = stow(service.client, [series(1)[0].data])
    finally:
        service.state.draining = False
    assert (response.status_code, response.json()["code"]) == (503, "draining")


@pytest.mark.parametrize("keyword", ["SeriesInstanceUID", "StudyInstanceUID"])
def test_a_uid_that_is_too_long_is_not_understood(keyword: str) -> None:

    quieten()
    dataset = dcmread(AXIAL)
    for length in (64, 65):
        uid = "1." + "2" * (length - 2)
        dataset[keyword] = DataElement(
            dataset[keyword].tag, "UI", uid, validation_mode=config.IGNORE
        )
        data = encoded(dataset)
        if length == 64:
            identify(data)
            continue
        with pytest.raises(Refused) as refused:
            identify(data)
        assert refused.value.reason is Reason.CANNOT_UNDERSTAND


def test_without_checks_only_images_are_taken() -> None:

    dataset = dcmread(AXIAL)
    dataset.SOPClassUID, dataset.Modality = CTImageStorage, "MR"
    data = encoded(dataset)
    assert identify(data, checks=Checks.OFF).sop_class == CTImageStorage
    assert identify(data, checks=Checks.LENIENT).sop_class == CTImageStorage
    dataset.SOPClassUID, dataset.Modality = ComprehensiveSRStorage, "SR"
    data = encoded(dataset)
    for checks in Checks:
        with pytest.raises(Refused) as refused:
            identify(data, checks=checks)
        assert refused.value.reason is Reason.SOP_CLASS_NOT_SUPPORTED
