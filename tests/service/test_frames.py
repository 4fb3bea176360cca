"""Multi-frame objects over HTTP: one entry for each frame, each with its place."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from service.schemas import PredictAnswer
from tests.contract.samples import RANGE, encode, grey_slice, mr_frames, mr_object
from tests.support.service import FakeRuntimes, Service, serving, settings_for

MAX_FRAMES = 12
GREY = grey_slice()


@pytest.fixture(scope="module")
def narrow(model_store: Path) -> Iterator[Service]:
    """A service whose queue is shorter than the objects it gets."""
    settings = settings_for(model_store, queue_size=3, max_frames=MAX_FRAMES)
    with serving(settings, FakeRuntimes()) as service:
        yield service
        assert service.state.pipeline.depth == 0


def frames(count: int) -> bytes:
    return mr_frames([GREY] * count, attributes=RANGE)


def test_each_frame_has_an_entry(service: Service, jpeg: bytes) -> None:
    turned = [GREY, GREY[::-1].copy(), GREY[:, ::-1].copy()]
    response = service.predict(jpeg, mr_frames(turned, attributes=RANGE), jpeg)
    answer = PredictAnswer.model_validate_json(response.content)
    assert [entry.input for entry in answer.predictions] == [
        "0.jpg",
        "1.jpg",
        "1.jpg",
        "1.jpg",
        "2.jpg",
    ]
    places = [entry.dicom and entry.dicom.frame for entry in answer.predictions]
    assert places == [None, 1, 2, 3, None]
    entries = response.json()["predictions"]
    for frame, pixels in enumerate(turned, start=1):
        alone = service.predict_raw(mr_object(pixels, attributes=RANGE)).json()["predictions"][0]
        assert entries[frame]["probabilities"] == alone["probabilities"]


def test_object_with_more_frames_than_the_queue_has_room(narrow: Service) -> None:
    entries = narrow.predict_raw(frames(MAX_FRAMES)).json()["predictions"]
    assert [entry["dicom"]["frame"] for entry in entries] == list(range(1, MAX_FRAMES + 1))


@pytest.mark.parametrize("counts", [[MAX_FRAMES + 1], [10**6]], ids=str)
def test_object_with_too_many_frames(narrow: Service, counts: list[int]) -> None:
    data = mr_object(GREY, attributes={"NumberOfFrames": counts[0]})
    response = narrow.predict_raw(data)
    assert (response.status_code, response.json()["code"]) == (413, "too_many_frames")
    assert len(response.json()["errors"]) == 1


def test_frames_are_counted_over_the_whole_request(narrow: Service) -> None:
    entries = narrow.predict(frames(8), frames(8)).json()["predictions"]
    refused = [entry for entry in entries if "error" in entry]
    assert len(entries) == 9
    assert [entry["error"]["code"] for entry in refused] == ["too_many_frames"]


def test_a_damaged_frame_has_an_error_and_its_place(service: Service) -> None:
    streams = [encode(GREY, "JPEG2000", no_jp2=True)] * 3
    attributes = {**RANGE, "PixelData": encapsulate([streams[0], streams[1][:60], streams[2]])}
    data = mr_frames([GREY] * 3, JPEG2000Lossless, attributes=attributes)
    answer = PredictAnswer.model_validate_json(service.predict_raw(data).content)
    assert [hasattr(entry, "error") for entry in answer.predictions] == [False, True, False]
    assert [entry.dicom and entry.dicom.frame for entry in answer.predictions] == [1, 2, 3]
