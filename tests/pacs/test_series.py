"""From instances to results: chunks become series, each has one result, and a crash loses nothing."""

import io
import json
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from service.pacs.prediction import STEP
from tests.support.dicom import encoded
from tests.support.pacs import (
    Instance,
    Pacs,
    one_set_aside,
    report,
    reported,
    send,
    series,
    serve,
    settled,
    sops,
    stow,
)
from tests.support.results import enhanced
from tests.support.service import (
    add_version,
    wait_until,
)


def test_chunks_of_a_series_give_one_result(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    sent = series(STEP + 4)
    with serve(model_store, tmp_path, destination, series_quiet_ms=1500) as service:
        for at in range(0, len(sent), 4):
            send(service, sent[at : at + 4])
        wait_until(lambda: settled(service))
        wait_until(lambda: service.metric("brain_series_total", outcome="reported") == 1)
    (found,) = destination.of_kind("SR")
    assert found.StudyInstanceUID == sent[0].study
    assert reported(found) == sops(sent)


def test_series_that_arrive_mixed_are_told_apart(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    first = series(3)
    second, third = series(2, study=first[0].study), series(1)
    mixed = [first[0], second[0], third[0], first[1], second[1], first[2]]
    with serve(model_store, tmp_path, destination) as service:
        send(service, mixed)
        wait_until(lambda: settled(service))
    found = {frozenset(reported(item)) for item in destination.of_kind("SR")}
    assert found == {frozenset(sops(one)) for one in (first, second, third)}


def test_late_slices_give_a_result_of_the_whole_series(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    sent = series(3)
    with serve(model_store, tmp_path, destination) as service:
        send(service, sent[:2])
        wait_until(lambda: settled(service))
        send(service, sent[2:])
        wait_until(lambda: settled(service))
    found = [reported(item) for item in destination.of_kind("SR")]
    assert found == [sops(sent[:2]), sops(sent)]


def test_slices_that_are_later_than_the_keeping_give_a_result_of_their_own(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.pacs.analysis.EXPIRE_SECONDS", 0.05)
    sent = series(3)
    with serve(model_store, tmp_path, destination, series_keep_seconds=0) as service:
        send(service, sent[:2])
        wait_until(lambda: settled(service) and report(service)["spool_bytes"] == 0)
        send(service, sent[2:])
        wait_until(lambda: settled(service))
    found = [reported(item) for item in destination.of_kind("SR")]
    assert found == [sops(sent[:2]), sops(sent[2:])]


def test_another_model_gives_another_result(
    store_copy: Path, tmp_path: Path, destination: Pacs
) -> None:
    sent = series(2)
    for _ in range(2):
        with serve(store_copy, tmp_path, destination) as service:
            send(service, sent)
            wait_until(lambda: settled(service))
        add_version(store_copy)
    assert len(destination.of_kind("SR")) == 2


def test_a_slice_that_cannot_be_read_does_not_cost_the_others_their_result(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    sent = series(3)
    cut = sent[1].data[: len(sent[1].data) // 2]
    with serve(model_store, tmp_path, destination) as service:
        assert stow(service.client, [sent[0].data, cut, sent[2].data]).status_code == 200
        wait_until(lambda: settled(service))
        wait_until(lambda: service.metric("brain_errors_total", code="truncated_image") == 1)
        (found,) = destination.of_kind("SR")
        assert {sent[0].sop, sent[2].sop} <= reported(found)
        assert sent[1].sop not in reported(found)
        # It may come again, and better.
        send(service, sent[1:2])
        wait_until(lambda: settled(service))
    assert len(destination.of_kind("SR")) == 2
    assert reported(destination.of_kind("SR")[1]) == sops(sent)


def test_a_series_without_a_suitable_slice_has_no_result(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    sent = series(2)
    with serve(model_store, tmp_path, destination) as service:
        stow(service.client, [item.data[: len(item.data) // 2] for item in sent])
        wait_until(lambda: settled(service))
        send(service, series(2, attributes={"BodyPartExamined": "KNEE"}))
        wait_until(lambda: settled(service))
        wait_until(lambda: service.metric("brain_series_total", outcome="unsuitable") == 2)
        wait_until(lambda: service.metric("brain_errors_total", code="truncated_image") == 2)
        wait_until(lambda: service.metric("brain_errors_total", code="not_head") == 2)
        # A better copy of it is another matter.
        send(service, sent)
        wait_until(lambda: settled(service))
    assert len(destination.of_kind("SR")) == 1


def test_a_series_of_several_patients_is_set_aside(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    first, second = series(2)
    dataset = dcmread(io.BytesIO(second.data))
    dataset.PatientID = "another"
    with serve(model_store, tmp_path, destination) as service:
        assert stow(service.client, [first.data, encoded(dataset)]).status_code == 200
        aside = one_set_aside(service)
        assert aside["reason"] == "unidentified_source"
    assert not destination.requests


def test_the_frames_of_each_object_count_by_themselves(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    """All of them together are more than a request may have."""
    study, uid, sent = generate_uid(), generate_uid(), []
    for _ in range(3):
        dataset = dcmread(io.BytesIO(enhanced(legacy=False)))
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, uid
        dataset.SOPInstanceUID = generate_uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        sent.append(Instance(encoded(dataset), dataset.SOPInstanceUID, uid, study))
    frames = int(dataset.NumberOfFrames)
    log, limit = tmp_path / "audit.log", 2 * frames
    with serve(model_store, tmp_path, destination, max_frames=limit, audit_log=log) as service:
        send(service, sent)
        wait_until(lambda: settled(service))
        assert service.metric("brain_errors_total", code="too_many_frames") == 0
    (found,) = destination.of_kind("SR")
    # Of outputs that are made up, none is like the training data.
    assert found.get("CompletionFlagDescription") in {
        None,
        f"{3 * frames} of {3 * frames} slices cannot be judged",
    }
    assert log.read_text("utf-8").count('"action":"analyse"') == 3 * frames


def test_a_series_may_have_more_images_than_a_request_has_slices(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    sent = series(3)
    with serve(model_store, tmp_path, destination, max_frames=2) as service:
        send(service, sent)
        wait_until(lambda: settled(service))
    (found,) = destination.of_kind("SR")
    # Of outputs that are made up, none is like the training data.
    assert found.get("CompletionFlagDescription") in {None, "3 of 3 slices cannot be judged"}


def test_slices_of_a_series_that_is_set_aside_are_in_the_audit_log(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:

    log = tmp_path / "audit.log"
    first, second = series(2)
    other = dcmread(io.BytesIO(second.data))
    other.PatientID = "another"
    with serve(model_store, tmp_path, destination, audit_log=log) as service:
        assert stow(service.client, [first.data, encoded(other)]).status_code == 200
        wait_until(lambda: report(service)["series_dead"] == 1)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["action"] for line in lines if line["action"] == "analyse"] == ["analyse"] * 2
