"""Multi-frame objects over HTTP: one entry for each frame, each with its place."""

import asyncio
import weakref
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from contract.decoding import open_source
from contract.source import Source
from service import decoding
from service.jobs import Upload
from service.schemas import PredictAnswer
from tests.contract.samples import RANGE, encode, grey_slice, mr_frames, mr_object
from tests.support.service import (
    PATIENCE_SECONDS,
    FakeRuntimes,
    Service,
    codes,
    serving,
    settings_for,
    wait_until,
)

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


def test_an_object_with_too_many_frames_is_missed_in_its_own_series_alone(narrow: Service) -> None:
    other = mr_frames([GREY] * (MAX_FRAMES - 1), attributes=RANGE | {"SeriesInstanceUID": "1.2.3"})
    series = narrow.predict(frames(MAX_FRAMES - 1), other).json()["series"]
    assert len(series) == 1
    assert series[0]["failed"] == 0


@pytest.mark.parametrize("excess", [1, 3])
def test_pictures_are_counted_as_frames(narrow: Service, jpeg: bytes, excess: int) -> None:
    found = codes(narrow.predict(*[jpeg] * (MAX_FRAMES + excess)))
    assert found == [None] * MAX_FRAMES + ["too_many_frames"] * excess


def test_a_damaged_frame_has_an_error_and_its_place(service: Service) -> None:
    streams = [encode(GREY, "JPEG2000", no_jp2=True)] * 3
    attributes = {**RANGE, "PixelData": encapsulate([streams[0], streams[1][:60], streams[2]])}
    data = mr_frames([GREY] * 3, JPEG2000Lossless, attributes=attributes)
    answer = PredictAnswer.model_validate_json(service.predict_raw(data).content)
    assert [hasattr(entry, "error") for entry in answer.predictions] == [False, True, False]
    assert [entry.dicom and entry.dicom.frame for entry in answer.predictions] == [1, 2, 3]


def deflated(frames: int, **attributes: Any) -> bytes:
    """An object that is 1 MiB a frame, and a few kB as a file."""
    blank = np.zeros((512, 1024), np.uint16)
    syntax = DeflatedExplicitVRLittleEndian
    return mr_frames([blank] * frames, syntax, attributes={**RANGE, **attributes})


def test_what_deflated_objects_hold_is_counted(model_store: Path) -> None:
    limits = {"max_buffered_bytes": 5 * 2**20, "max_body_bytes": 2**20}
    with serving(settings_for(model_store, **limits), FakeRuntimes()) as service:
        answer = service.predict(*[deflated(2)] * 6)
        assert sorted(map(str, codes(answer))) == ["None"] * 4 + ["unpacked_too_large"] * 4
        assert service.state.buffers.used == 0
        # One slice is let go at once.
        assert codes(service.predict(*[deflated(1)] * 6)) == [None] * 6
        whole = service.predict(deflated(6))
        assert (whole.status_code, whole.json()["code"]) == (413, "unpacked_too_large")
        # What another request holds is given back some time.
        with service.state.buffers.claim() as other:
            other.add(4 * 2**20)
            meanwhile = service.predict(deflated(2))
        assert (meanwhile.status_code, meanwhile.json()["code"]) == (503, "queue_full")
        assert "retry-after" in meanwhile.headers


def test_an_opened_file_is_let_go_before_the_answer(
    model_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[weakref.ref[Source]] = []

    def noted(*arguments: Any, **options: Any) -> Source:
        source = open_source(*arguments, **options)
        opened.append(weakref.ref(source))
        return source

    monkeypatch.setattr(decoding, "open_source", noted)
    streams = [encode(GREY, "JPEG2000", no_jp2=True)[:60]] * 2
    attributes = {**RANGE, "PixelData": encapsulate(streams)}
    damaged = mr_frames([GREY] * 2, JPEG2000Lossless, attributes=attributes)
    files = [deflated(3), damaged, deflated(1)[:-100], deflated(2, PhotometricInterpretation="X")]
    with serving(settings_for(model_store), FakeRuntimes()) as service:
        pipeline, engine = service.state.pipeline, service.state.registry.engine()
        with service.state.buffers.claim() as claim:
            uploads = [Upload(None, data) for data in files]
            end = monotonic() + PATIENCE_SECONDS
            slices = pipeline.predict(engine, uploads, engine.rules, end, claim)
            jobs = asyncio.run_coroutine_threadsafe(slices, pipeline._loop).result(PATIENCE_SECONDS)
        failures = [job.outcome for job in jobs if isinstance(job.outcome, Exception)]
        assert (len(jobs), len(failures)) == (8, 5)
        # A traceback would hold all that was in hand when it was raised.
        assert [(error.__traceback__, error.__context__) for error in failures] == [
            (None, None)
        ] * 5
        assert len(opened) == 3
        wait_until(lambda: not any(source() for source in opened))
