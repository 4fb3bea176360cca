"""The process that makes DICOM objects: the same objects, and no harm to the service when it fails."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest
from pydicom import dcmread

from contract.errors import DecoderUnavailable
from service.dicom.headers import read_header
from service.dicom.task import Task
from service.dicom.workshop import Workshop
from service.errors import DeadlineExceeded, ServiceError
from tests.support.dicom import encoded
from tests.support.results import (
    CREATED,
    MODEL,
    SAGITTAL,
    finding,
    results,
    series_of,
    shifted,
)
from tests.support.service import PATIENCE_SECONDS


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    """One that has started."""
    shop = Workshop()
    yield shop
    shop.close()


def task_of(*files: bytes) -> Task:
    """A task on a series in which every slice stands out."""
    headers = [read_header(data) for data in files]
    return Task.of(headers, series_of([finding(one) for one in headers]), MODEL, created=CREATED)


def test_objects_are_those_that_this_process_makes(workshop: Workshop) -> None:
    headers = [read_header(data) for data in shifted()]
    here = results(headers, series_of([finding(header) for header in headers]))
    made = workshop.make(task_of(*shifted()), PATIENCE_SECONDS)
    assert [item.content for item in made] == [encoded(item) for item in here]
    assert [(item.modality, item.sop_class_uid, item.sop_instance_uid) for item in made] == [
        (item.Modality, item.SOPClassUID, item.SOPInstanceUID) for item in here
    ]


def test_a_time_zone_is_read_there_too(workshop: Workshop) -> None:
    """By a module that Python imports with the first one."""
    stated = dcmread(SAGITTAL)
    stated.TimezoneOffsetFromUTC = "+0530"
    task = task_of(encoded(stated))
    assert len(workshop.make(task, PATIENCE_SECONDS)) == 3


def test_started_before_it_is_the_one_that_works() -> None:
    shop = Workshop()
    try:
        shop.start()
        (pid,) = shop.processes
        shop.start()
        assert len(shop.make(task_of(SAGITTAL.read_bytes()), PATIENCE_SECONDS)) == 3
        assert shop.processes == [pid]
    finally:
        shop.close()


def test_a_start_that_fails_is_left_to_the_next_task(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError("no more processes")

    shop = Workshop()
    with monkeypatch.context() as patch:
        patch.setattr("contract.sandbox.start_child", refuse)
        shop.start()
        assert shop.processes == []
        with pytest.raises(DecoderUnavailable):
            shop.make(task_of(SAGITTAL.read_bytes()), PATIENCE_SECONDS)
    assert len(shop.make(task_of(SAGITTAL.read_bytes()), PATIENCE_SECONDS)) == 3
    shop.close()


def test_patient_of_any_script_gets_there(workshop: Workshop) -> None:
    header = read_header(SAGITTAL.read_bytes())
    header.SpecificCharacterSet = "ISO_IR 192"
    header.PatientName = "Yamada^Tarou=山田^太郎"
    task = Task.of([header], series_of([finding(header)]), MODEL, created=CREATED)
    for item in workshop.make(task, PATIENCE_SECONDS):
        assert "Yamada^Tarou=山田^太郎".encode() in item.content


def test_failure_is_logged_with_its_place_and_no_patient(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    header = read_header(SAGITTAL.read_bytes())
    header.PatientName = "Zuckertort^Hermione"
    broken = series_of([replace(finding(header), probabilities={})])
    with pytest.raises(ServiceError) as failed:
        workshop.make(Task.of([header], broken, MODEL), PATIENCE_SECONDS)
    assert (failed.value.status, failed.value.code) == (500, "internal_error")
    assert "KeyError" in caplog.text
    assert "capture.py" in caplog.text
    assert "Zuckertort" not in caplog.text
    assert len(workshop.make(task_of(SAGITTAL.read_bytes()), PATIENCE_SECONDS)) == 3


def test_deadline_ends_it(workshop: Workshop) -> None:
    with pytest.raises(DeadlineExceeded):
        workshop.make(task_of(*shifted()), 0.001)
    assert len(workshop.make(task_of(SAGITTAL.read_bytes()), PATIENCE_SECONDS)) == 3


def test_process_that_was_killed_is_replaced(workshop: Workshop) -> None:
    workshop.make(task_of(SAGITTAL.read_bytes()), PATIENCE_SECONDS)
    for pid in workshop.processes:
        os.kill(pid, signal.SIGKILL)
    # It may still be dying when it is asked, but not twice.
    try:
        made = workshop.make(task_of(SAGITTAL.read_bytes()), PATIENCE_SECONDS)
    except ServiceError:
        made = workshop.make(task_of(SAGITTAL.read_bytes()), PATIENCE_SECONDS)
    assert len(made) == 3
