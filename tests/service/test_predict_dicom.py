"""POST /predict with the results as DICOM objects, over real HTTP with the shipped model."""

import asyncio
import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from threading import Event
from time import monotonic
from typing import cast

import httpx
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from contract.policy import DEFAULT_POLICY
from contract.preprocessing import DEFAULT_SPEC
from service.dicom.answer import MAX_SERIES, ResultWriter
from service.dicom.findings import DISCLAIMER
from service.dicom.results import MadeObject
from service.dicom.series import PredictedSeries
from service.dicom.uids import UUID_ROOT
from service.errors import DeadlineExceeded, ServiceError
from service.jobs import Group, Job, Upload
from tests.support.dicom import encoded
from tests.support.masks import run_length_mask
from tests.support.models import NAME, TWO_HEADS, head
from tests.support.results import (
    AXIAL,
    MODEL,
    SAGITTAL,
    SMALL,
    complaints,
    enhanced,
    finding,
    needs_tools,
    series_of,
    shifted,
)
from tests.support.service import (
    PATIENCE_SECONDS,
    ROOT,
    RULES,
    Service,
    serving,
    settings_for,
    wait_until,
)

RELATED = 'multipart/related; type="application/dicom"'


def ask(service: Service, *files: bytes, accept: str = RELATED) -> httpx.Response:
    """Posts files and asks for an answer in a form."""
    return service.predict(*files, headers={"Accept": accept})


def objects(response: httpx.Response) -> list[Dataset]:
    """The objects of an answer, taken apart by Python's own MIME parser."""
    assert response.status_code == 200, response.text
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    message = message_from_bytes(head + response.content)
    assert message.get_content_type() == "multipart/related"
    assert message.get_param("type") == "application/dicom"
    parts = message.get_payload()
    assert isinstance(parts, list)
    files: list[Dataset] = []
    for part in parts:
        assert isinstance(part, Message)
        assert part.get_content_type() == "application/dicom"
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        files.append(dcmread(io.BytesIO(payload)))
    return files


@needs_tools
def test_results_of_an_object(service: Service, tmp_path: Path) -> None:
    source = dcmread(SAGITTAL)
    made = objects(ask(service, SAGITTAL.read_bytes()))
    assert [item.Modality for item in made][:2] == ["SR", "OT"]
    for item in made:
        assert item.StudyInstanceUID == source.StudyInstanceUID
        assert item.PatientID == source.PatientID
        assert item.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert DISCLAIMER in item.SeriesDescription
        assert complaints(item, tmp_path) == []


def test_results_say_what_json_says(service: Service) -> None:
    data = AXIAL.read_bytes()
    entry = service.predict_raw(data, "application/dicom").json()["predictions"][0]
    response = service.predict_raw(data, "application/dicom", headers={"Accept": RELATED})
    report = objects(response)[0]
    values = _numbers(report)
    assert values["Probability"] == pytest.approx(100 * entry["tumor_probability"], abs=1e-4)


def with_disc() -> Dataset:
    """A real object with a bright disc, which the tiny model sees, in the place of its pixels."""
    source = dcmread(SAGITTAL)
    pixels = head().astype(np.uint16)
    source.Rows, source.Columns = pixels.shape
    source.BitsAllocated, source.BitsStored, source.HighBit = 16, 16, 15
    source.PixelRepresentation = 0
    source.WindowCenter, source.WindowWidth = 128, 256
    source.PixelData = pixels.tobytes()
    return source


def test_the_segmentation_is_the_region_of_the_answer(two_heads: Service) -> None:
    source = with_disc()
    data = encoded(source)
    entry = two_heads.predict(data, params={"mask": "rle"}).json()["predictions"][0]
    expected = run_length_mask(entry["region"]["mask"])
    made = {item.Modality: item for item in objects(ask(two_heads, data))}
    assert made.keys() == {"SR", "OT", "SEG"}
    np.testing.assert_array_equal(made["SEG"].pixel_array.squeeze().astype(bool), expected)
    area = float(np.count_nonzero(expected)) * source.PixelSpacing[0] * source.PixelSpacing[1]
    assert entry["region"]["area_mm2"] == pytest.approx(area, abs=0.01)


def test_what_cannot_be_judged_is_no_finding_in_the_archive(tiny_store: Path) -> None:
    """No segmentation of it, and no class of tumour: neither would mean anything."""
    settings = settings_for(
        tiny_store, model=NAME, model_version=str(TWO_HEADS), ood_threshold=1e-4
    )
    data = encoded(with_disc())
    with serving(settings) as service:
        entry = service.predict(data).json()["predictions"][0]
        assert entry["in_distribution"] is False
        made = {item.Modality: item for item in objects(ask(service, data))}
    assert made.keys() == {"SR", "OT"}
    assert [name for name in _numbers(made["SR"]) if name.startswith("Prob")] == ["Probability"]


def test_a_damaged_uid_is_refused_and_not_logged(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    planted = "1.2.826.0.1.8675309"
    source = dcmread(SAGITTAL)
    source.StudyInstanceUID = planted
    # A number of so many bytes cannot be read.
    data = encoded(source).replace(b"\x20\x00\x0d\x00UI", b"\x20\x00\x0d\x00FD")
    response = ask(service, data)
    assert (response.status_code, response.json()["code"]) == (422, "unidentified_source")
    assert planted not in caplog.text
    assert ask(service, data, accept=f"{RELATED}, application/json;q=0.1").status_code == 200


def _items(report: Dataset) -> Iterator[Dataset]:
    """The content of a report, from its beginning to its end."""
    stack = [report]
    while stack:
        item = stack.pop()
        stack.extend(reversed(item.get("ContentSequence", [])))
        yield item


def _numbers(report: Dataset) -> dict[str, float]:
    """Name and value of each measurement, the last of each name."""
    return {
        item.ConceptNameCodeSequence[0].CodeMeaning: float(
            item.MeasuredValueSequence[0].NumericValue
        )
        for item in _items(report)
        if item.get("ValueType") == "NUM"
    }


def _decision(report: Dataset) -> str:
    """On the series, whose group of measurements comes first."""
    return next(
        str(item.ConceptCodeSequence[0].CodeMeaning)
        for item in _items(report)
        if item.get("ValueType") == "CODE"
        and item.ConceptNameCodeSequence[0].CodeMeaning == "Neoplasm of brain"
    )


def test_another_operating_point_gives_other_objects(service: Service) -> None:
    data = SAGITTAL.read_bytes()
    usual = objects(ask(service, data))
    moved = objects(
        service.client.post(
            "/predict?tumor_threshold=0.125",
            files=[("files", ("a.dcm", data))],
            headers={"Accept": RELATED},
        )
    )
    assert not {item.SOPInstanceUID for item in usual} & {item.SOPInstanceUID for item in moved}
    assert "tumor_threshold=0.125" in {
        item.value for item in moved[0].iterall() if item.keyword == "TextValue"
    }


def test_images_of_a_series_give_one_report(service: Service) -> None:
    made = objects(ask(service, *shifted()))
    assert [item.Modality for item in made].count("SR") == 1
    assert _numbers(made[0])["Pixel Data Rows"] == 256


def test_several_series_give_a_report_each(service: Service) -> None:
    made = objects(ask(service, AXIAL.read_bytes(), SAGITTAL.read_bytes()))
    assert [item.Modality for item in made].count("SR") == 2
    assert len({item.StudyInstanceUID for item in made}) == 2


def test_frames_of_an_object_are_slices_of_one_series(service: Service) -> None:
    made = objects(ask(service, enhanced(legacy=False)))
    assert [item.Modality for item in made].count("SR") == 1
    (image,) = {item.ReferencedSOPInstanceUID for item in made[1].SourceImageSequence}
    assert image == dcmread(io.BytesIO(enhanced(legacy=False))).SOPInstanceUID


def test_series_sent_twice_gives_the_same_uids(service: Service) -> None:
    first, second = (
        [item.SOPInstanceUID for item in objects(ask(service, *shifted()))] for _ in range(2)
    )
    assert first == second


def test_image_sent_twice_counts_once(service: Service) -> None:
    data = SAGITTAL.read_bytes()
    once, twice = (objects(ask(service, *[data] * count)) for count in (1, 2))
    assert [item.SOPInstanceUID for item in once] == [item.SOPInstanceUID for item in twice]


def test_of_an_image_that_was_sent_twice_the_newest_counts(service: Service) -> None:
    """A corrected name, in another transfer syntax, is no other image."""
    dataset = dcmread(SAGITTAL)
    dataset.PatientName = "Corrected^Name"
    dataset.compress(RLELossless, generate_instance_uid=False)
    made = objects(ask(service, SAGITTAL.read_bytes(), encoded(dataset)))
    assert {str(item.PatientName) for item in made} == {"Corrected^Name"}
    alone = objects(ask(service, encoded(dataset)))
    assert [item.SOPInstanceUID for item in made] == [item.SOPInstanceUID for item in alone]


def test_image_that_fails_makes_the_report_partial(service: Service) -> None:
    data = SAGITTAL.read_bytes()
    report = objects(ask(service, data, data[:-5000]))[0]
    assert report.CompletionFlag == "PARTIAL"
    assert report.CompletionFlagDescription == "1 images not analyzed"


def test_results_that_lack_images_never_say_that_nothing_was_detected(two_heads: Service) -> None:
    """The picture with the decision is another object then."""
    source = with_disc()
    source.PixelData = head(patch=None).astype(np.uint16).tobytes()
    healthy = encoded(source)
    source.SOPInstanceUID = f"{source.SOPInstanceUID}.1"
    damaged = encoded(source)[:-5000]
    source.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    localizer = encoded(source)
    whole, same, partial = (
        {item.Modality: item for item in objects(ask(two_heads, *files))}
        for files in ([healthy], [healthy, localizer], [healthy, damaged])
    )
    assert [_decision(made["SR"]) for made in (whole, same)] == ["Not detected"] * 2
    assert same["SR"].CompletionFlag == "COMPLETE"
    assert _decision(partial["SR"]) == "Indeterminate"
    assert whole["OT"].SOPInstanceUID == same["OT"].SOPInstanceUID
    assert whole["OT"].SOPInstanceUID != partial["OT"].SOPInstanceUID


def test_a_changed_image_under_its_old_uid_gives_other_objects(two_heads: Service) -> None:
    """An archive that has the old ones would not take the new ones in their place."""
    source = with_disc()
    before = encoded(source)
    source.PixelData = head(patch=None).astype(np.uint16).tobytes()
    old, new = (
        {item.Modality: item for item in objects(ask(two_heads, data))}
        for data in (before, encoded(source))
    )
    for modality in ("SR", "OT"):
        assert old[modality].SOPInstanceUID != new[modality].SOPInstanceUID
        assert old[modality].SeriesInstanceUID == new[modality].SeriesInstanceUID


def test_if_every_image_fails_the_problem_is_the_answer(service: Service) -> None:
    response = ask(service, SAGITTAL.read_bytes()[:-5000])
    assert response.status_code == 422
    assert response.json()["code"] == "truncated_image"


def test_picture_has_no_dicom_results(service: Service, jpeg: bytes) -> None:
    for files in ([jpeg], [SAGITTAL.read_bytes(), jpeg]):
        response = ask(service, *files)
        assert response.status_code == 406
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["code"] == "no_dicom_source"


def zipped(**files: bytes) -> bytes:
    """An archive of files by name."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def modalities(response: httpx.Response) -> list[str]:
    return sorted(item.Modality for item in objects(response) if item.Modality != "SEG")


def test_what_is_no_dicom_in_an_archive_is_left_out(service: Service, jpeg: bytes) -> None:
    """The medium of a patient has a text and a picture beside its slices."""
    medium = zipped(README=b"How to read this medium", PREVIEW=jpeg, IM1=SAGITTAL.read_bytes())
    assert modalities(ask(service, medium)) == ["OT", "SR"]
    assert modalities(ask(service, medium, AXIAL.read_bytes())) == ["OT", "OT", "SR", "SR"]
    both = f"{RELATED}, application/json;q=0.5"
    assert modalities(ask(service, medium, accept=both)) == ["OT", "SR"]
    (report,) = (item for item in objects(ask(service, medium)) if item.Modality == "SR")
    assert report.CompletionFlag == "COMPLETE"


def test_what_may_be_a_slice_in_an_archive_is_missed(service: Service) -> None:
    broken_off = zipped(IM1=SAGITTAL.read_bytes(), IM2=bytes(128))
    (report,) = (item for item in objects(ask(service, broken_off)) if item.Modality == "SR")
    assert report.CompletionFlag == "PARTIAL"


def test_an_archive_without_a_slice_has_no_dicom_results(service: Service, jpeg: bytes) -> None:
    both = f"{RELATED}, application/json;q=0.5"
    response = ask(service, zipped(README=b"text", PREVIEW=jpeg))
    assert (response.status_code, response.json()["code"]) == (406, "no_dicom_source")
    for files in ([zipped(PREVIEW=jpeg, IM1=b"text")], [SAGITTAL.read_bytes(), jpeg]):
        response = ask(service, *files, accept=both)
        assert response.headers["content-type"] == "application/json"
        assert len(response.json()["predictions"]) == 2
    refused = zipped(PREVIEW=jpeg, IM1=SAGITTAL.read_bytes()[:-5000])
    response = ask(service, refused)
    assert (response.status_code, response.json()["code"]) == (422, "truncated_image")
    response = ask(service, refused, accept=both)
    assert [entry.get("error", {}).get("code") for entry in response.json()["predictions"]] == [
        None,
        "truncated_image",
    ]
    response = ask(service, b"PK\x05\x06 cut off")
    assert (response.status_code, response.json()["code"]) == (422, "damaged_zip")


def test_picture_is_answered_in_json_where_that_will_do(service: Service, jpeg: bytes) -> None:
    response = ask(service, jpeg, accept=f"{RELATED}, application/json;q=0.5")
    assert response.headers["content-type"] == "application/json"


def test_image_that_results_cannot_refer_to(service: Service) -> None:
    dataset = dcmread(SAGITTAL)
    del dataset.StudyInstanceUID
    response = ask(service, encoded(dataset))
    assert response.status_code == 422
    assert response.json()["code"] == "unidentified_source"
    response = ask(service, encoded(dataset), accept=f"{RELATED}, application/json;q=0.5")
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("placed", [True, False], ids=["places", "no places"])
def test_different_slices_of_one_identifier_cannot_be_referred_to(
    service: Service, placed: bool
) -> None:
    files = []
    for number, data in enumerate(shifted()[:2]):
        dataset = dcmread(io.BytesIO(data))
        dataset.SOPInstanceUID = "1.2.3"
        if not placed:
            for keyword in ("ImagePositionPatient", "InstanceNumber"):
                dataset.pop(keyword, None)
            dataset.PixelData = dataset.PixelData[::-1] if number else dataset.PixelData
        files.append(encoded(dataset))
    response = ask(service, *files)
    assert (response.status_code, response.json()["code"]) == (422, "unidentified_source")
    response = ask(service, *files, accept=f"{RELATED}, application/json;q=0.5")
    assert response.json()["series"][0]["slices"] == 2


def test_unknown_form_is_refused_before_anything_is_predicted(
    service: Service, dicom: bytes
) -> None:
    response = ask(service, dicom, accept="text/html")
    assert response.status_code == 406
    assert response.json()["code"] == "not_acceptable"


def test_json_stays_the_answer_to_whoever_takes_anything(service: Service, dicom: bytes) -> None:
    response = ask(service, dicom, accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert response.headers["content-type"] == "application/json"


def test_many_series_are_too_many(service: Service) -> None:
    files = []
    for number in range(MAX_SERIES + 1):
        dataset = dcmread(SMALL)
        dataset.SeriesInstanceUID = f"1.2.3.{number + 1}"
        files.append(encoded(dataset))
    response = ask(service, *files)
    assert response.status_code == 413
    assert response.json()["code"] == "too_many_series"


def test_deadline_holds_for_the_objects_too(model_store: Path) -> None:
    with serving(settings_for(model_store, deadline_ms=2000)) as service, occupied(service):
        response = ask(service, SAGITTAL.read_bytes())
        assert response.status_code == 504
        assert response.json()["code"] == "deadline_exceeded"


def test_the_start_of_the_process_takes_nothing_from_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[float] = []
    made = [MadeObject("SR", "1.2", "1.3", b"report")]
    header = dcmread(SAGITTAL, stop_before_pixels=True)
    job = Job(Upload(None, SAGITTAL.read_bytes()), DEFAULT_SPEC, RULES, 0.0, cast("Group", None))
    one = PredictedSeries((header,), series_of([finding(header)]), (job,))

    async def write() -> bytes:
        deadline = monotonic() + 1

        def start() -> None:
            wait_until(lambda: monotonic() > deadline)
            started.append(monotonic())

        monkeypatch.setattr(writer._workshop, "start", start)
        monkeypatch.setattr(writer, "make", lambda *_: made)
        answers = await asyncio.gather(*(writer.write([one], MODEL, deadline) for _ in range(2)))
        # Only the first ones wait for it.
        with pytest.raises(DeadlineExceeded):
            await writer.write([one], MODEL, deadline)
        return b"".join(answer.content for answer in answers)

    writer = ResultWriter(UUID_ROOT, DEFAULT_POLICY, 2)
    assert asyncio.run(write()).count(b"report") == 2
    assert (len(started), writer._pending) == (1, 0)
    writer.close()


def test_a_start_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[OSError | None] = [OSError("too many open files"), None]

    def start() -> None:
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome

    async def warm_up() -> None:
        with pytest.raises(OSError, match="too many"):
            await writer.warm_up()
        for _ in range(2):
            await writer.warm_up()

    writer = ResultWriter(UUID_ROOT, DEFAULT_POLICY, 2)
    monkeypatch.setattr(writer._workshop, "start", start)
    asyncio.run(warm_up())
    assert outcomes == []
    writer.close()


def test_without_a_pacs_the_process_starts_with_the_first_request(
    model_store: Path, dicom: bytes
) -> None:
    with serving(settings_for(model_store)) as service:
        service.predict(dicom)
        assert service.state.results._workshop.processes == []
        assert len(objects(ask(service, SAGITTAL.read_bytes()))) >= 2
        assert len(service.state.results._workshop.processes) == 1


def test_few_requests_wait_for_their_objects(model_store: Path) -> None:
    with serving(settings_for(model_store, queue_size=1)) as service:
        results = service.state.results
        with ThreadPoolExecutor() as threads, occupied(service):
            first = threads.submit(ask, service, SAGITTAL.read_bytes())
            wait_until(lambda: results._pending == 1)
            refused = ask(service, SAGITTAL.read_bytes())
            assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
        assert len(objects(first.result())) >= 2
        assert results._pending == 0


@contextmanager
def occupied(service: Service) -> Iterator[None]:
    """The thread that makes objects is busy with something else."""
    gate = Event()
    service.state.results._thread.submit(gate.wait, PATIENCE_SECONDS)
    try:
        yield
    finally:
        gate.set()


def test_failure_names_the_place_in_the_log_and_no_patient(
    caplog: pytest.LogCaptureFixture,
) -> None:
    header = dcmread(SAGITTAL, stop_before_pixels=True)
    header.PatientName = "Zuckertort^Hermione"
    said = finding(header)
    broken = series_of([replace(said, probabilities={})])
    job = Job(Upload(None, SAGITTAL.read_bytes()), DEFAULT_SPEC, RULES, 0.0, cast("Group", None))

    async def write() -> None:
        await writer.write([PredictedSeries((header,), broken, (job,))], MODEL, monotonic() + 60)

    writer = ResultWriter(UUID_ROOT, DEFAULT_POLICY, 1)
    with pytest.raises(ServiceError) as failed:
        asyncio.run(write())
    writer.close()
    assert failed.value.code == "internal_error"
    assert "KeyError" in caplog.text
    assert "capture.py" in caplog.text
    assert "Zuckertort" not in caplog.text


def test_start_imports_neither_highdicom_nor_pydicom() -> None:
    script = "import sys, service.app; print({'highdicom', 'pydicom'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
