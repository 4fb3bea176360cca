"""What is sent again: the same image, a corrected one, or another one of the same UID."""

import io
from pathlib import Path

import pytest
from pydicom import dcmread

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
from tests.support.service import (
    wait_until,
)


def test_the_same_series_again_gives_nothing_new(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    sent = series(3)
    with serve(model_store, tmp_path, destination) as service:
        for again in (sent, sent, sent[:1], sent[::-1]):
            send(service, again)
            wait_until(lambda: settled(service))
        wait_until(lambda: service.metric("brain_series_total", outcome="known") == 3)
    # Nor after a restart, with the kept instances gone.
    with serve(model_store, tmp_path, destination, series_keep_seconds=0) as service:
        send(service, sent[:2])
        wait_until(lambda: settled(service))
        wait_until(lambda: service.metric("brain_series_total", outcome="known") == 1)
    assert len(destination.of_kind("SR")) == 1
    assert len(destination.stored) == len(destination.objects)


def changed(instance: Instance) -> bytes:
    """Another image under its UID, and at its place."""
    dataset = dcmread(io.BytesIO(instance.data))
    dataset.PixelData = dataset.PixelData[::-1]
    return encoded(dataset)


@pytest.mark.parametrize("apart", [False, True], ids=["one request", "two requests"])
def test_different_images_of_one_uid_are_set_aside(
    model_store: Path, tmp_path: Path, destination: Pacs, apart: bool
) -> None:
    """The last one must not stand for all."""
    first, second = series(2)
    files = [first.data, second.data, changed(second)]
    with serve(model_store, tmp_path, destination, series_quiet_ms=1500) as service:
        for sent in [files[:2], files[2:]] if apart else [files]:
            assert stow(service.client, sent).status_code == 200
        aside = one_set_aside(service)
        assert (aside["reason"], aside["instances"]) == ("unidentified_source", 3)
    assert not destination.requests


def test_a_changed_image_gives_a_result_of_its_own(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    """As a corrected one comes, after the result of the old one."""
    sent = series(2)
    corrected = [sent[0].data, changed(sent[1])]
    with serve(model_store, tmp_path, destination) as service:
        send(service, sent)
        wait_until(lambda: settled(service))
        for files in (corrected[1:], corrected):
            assert stow(service.client, files).status_code == 200
            wait_until(lambda: settled(service))
        wait_until(lambda: service.metric("brain_series_total", outcome="reported") == 2)
        wait_until(lambda: service.metric("brain_series_total", outcome="known") == 1)
    old, new = destination.of_kind("SR")
    assert reported(old) == reported(new) == sops(sent)
    assert len(destination.stored) == len(destination.objects), "none in the place of another"


def corrected(instance: Instance) -> bytes:
    """The same image with another name and from another archive."""
    dataset = dcmread(io.BytesIO(instance.data))
    dataset.PatientName = "Corrected^Name"
    dataset.file_meta.SourceApplicationEntityTitle = "GATEWAY2"
    return encoded(dataset)


def test_a_name_that_is_corrected_before_the_analysis_is_that_of_the_result(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    sent = series(2)
    with serve(model_store, tmp_path, destination, series_quiet_ms=1500) as service:
        send(service, sent)
        assert stow(service.client, [corrected(item) for item in sent]).status_code == 200
        wait_until(lambda: settled(service))
        assert report(service)["series_dead"] == 0
    (found,) = destination.of_kind("SR")
    assert found.PatientName == "Corrected^Name"
    assert reported(found) == sops(sent)


def test_a_series_that_comes_through_another_archive_gives_nothing_new(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    sent = series(2)
    others = []
    for item in sent:
        dataset = dcmread(io.BytesIO(item.data))
        dataset.file_meta.ImplementationVersionName = "OTHER_1"
        others.append(encoded(dataset))
    with serve(model_store, tmp_path, destination) as service:
        send(service, sent)
        wait_until(lambda: settled(service))
        assert stow(service.client, others).status_code == 200
        # Counted once its folder is gone, after which it is settled.
        wait_until(lambda: service.metric("brain_series_total", outcome="known") == 1)
    assert len(destination.of_kind("SR")) == 1


def test_a_series_that_was_set_aside_is_mended_by_sending_it_again(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    sent = series(2)
    with serve(model_store, tmp_path, destination) as service:
        files = [*(item.data for item in sent), changed(sent[1])]
        assert stow(service.client, files).status_code == 200
        wait_until(lambda: report(service)["series_dead"] == 1)
        send(service, sent)
        wait_until(lambda: settled(service))
        assert report(service)["series_dead"] == 0
    (found,) = destination.of_kind("SR")
    assert reported(found) == sops(sent)
