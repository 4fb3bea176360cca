"""Decoders that crash, hang or eat memory: their slice gets an error, and nobody else notices."""

import threading
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from time import monotonic

import httpx
import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1

from contract.sandbox import DECODERS
from service.schemas import PredictAnswer
from tests.contract.samples import RANGE, extended, grey_slice, mr_frames, mr_object
from tests.contract.test_fuzz import mutations, with_stream
from tests.support.encoding import compress
from tests.support.faults import commanded, start_time
from tests.support.service import (
    PATIENCE_SECONDS,
    FakeRuntimes,
    Service,
    codes,
    serving,
    settings_for,
    wait_until,
)
from tests.support.threads import at_once

GREY = grey_slice(48, 40)
STREAM = compress(GREY, JPEGLosslessSV1, 8)
SOUND = mr_object(GREY, JPEGLosslessSV1, attributes=RANGE)
FAULTS = {
    "abort": "decoder_crashed",
    "segfault": "decoder_crashed",
    "kill-parent": "decoder_crashed",
    "hang": "decoder_timed_out",
    "memory": "decoder_out_of_memory",
    "raise": "undecodable_image",
}
HANG_SECONDS = 3.0
"""How long one that hangs may take; no sound image takes so long, unless the machine stands still."""


@pytest.fixture
def faulty(
    model_store: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Service]:
    """A service with the real decoders, which misbehave on command; a test may set their seconds."""
    DECODERS.close()
    monkeypatch.setattr(DECODERS, "_target", "tests.support.faults:decode")
    monkeypatch.setattr(DECODERS, "_memory_bytes", 2**27)
    timeout_ms = 1000 * getattr(request, "param", HANG_SECONDS)
    with serving(settings_for(model_store, decoder_timeout_ms=timeout_ms)) as service:
        yield service
    assert DECODERS.children == []


def failing(fault: str) -> bytes:
    data = encapsulate([commanded(STREAM, fault)])
    return mr_object(GREY, JPEGLosslessSV1, attributes={**RANGE, "PixelData": data})


@pytest.mark.parametrize(
    ("faulty", "fault"),
    [(HANG_SECONDS if fault == "hang" else PATIENCE_SECONDS, fault) for fault in FAULTS],
    indirect=["faulty"],
)
def test_fault_costs_its_own_slice_alone(faulty: Service, jpeg: bytes, fault: str) -> None:
    sound = faulty.predict_raw(SOUND)
    assert codes(sound) == [None]
    alone = sound.json()["predictions"][0]["probabilities"]
    response = faulty.predict(SOUND, failing(fault), jpeg, SOUND)
    assert codes(response) == [None, FAULTS[fault], None, None]
    PredictAnswer.model_validate_json(response.content)
    entries = response.json()["predictions"]
    assert entries[0]["probabilities"] == entries[3]["probabilities"] == alone
    refused = faulty.predict_raw(failing(fault))
    assert (refused.status_code, refused.json()["code"]) == (422, FAULTS[fault])
    again = faulty.predict_raw(SOUND).json()["predictions"][0]["probabilities"]
    assert again == alone
    assert faulty.metric("brain_errors_total", code="internal_error") == 0


def test_neighbours_do_not_wait_for_a_decoder_that_hangs(faulty: Service, jpeg: bytes) -> None:
    faulty.predict_raw(SOUND)

    def quick() -> httpx.Response:
        start = monotonic()
        answer = faulty.predict(jpeg)
        assert monotonic() - start < 10
        return answer

    hung, *others = at_once(partial(faulty.predict, failing("hang")), *[partial(quick)] * 8)
    assert hung.json()["code"] == "decoder_timed_out"
    assert {answer.status_code for answer in others} == {200}


def test_frames_after_a_crash_are_answered(faulty: Service) -> None:
    data = encapsulate([STREAM, commanded(STREAM, "abort"), STREAM, commanded(STREAM, "hang")])
    attributes = {**RANGE, "PixelData": data}
    response = faulty.predict_raw(mr_frames([GREY] * 4, JPEGLosslessSV1, attributes=attributes))
    assert codes(response) == [None, "decoder_crashed", None, "decoder_timed_out"]


def test_real_decoders_crash_on_damage_and_others_are_answered(
    model_store: Path, jpeg: bytes
) -> None:
    """GDCM ends its process on some of these: found by mutating, as an attacker would."""
    whole, stream = extended()
    random = np.random.default_rng(7)
    damaged = [
        with_stream(whole, stream, mutated) for mutated in islice(mutations(stream, random), 150)
    ]
    with serving(settings_for(model_store)) as service:
        expected = service.predict(jpeg, SOUND).json()["predictions"]
        files = [
            data for pair in zip(damaged, [SOUND] * len(damaged), strict=True) for data in pair
        ]
        entries = service.predict(*files).json()["predictions"]
        assert {entry["tumor_probability"] for entry in entries[1::2]} == {
            expected[1]["tumor_probability"]
        }
        found = {entry.get("error", {}).get("code") for entry in entries[::2]}
        assert {"decoder_crashed", "undecodable_image", None} <= found
        assert service.predict(jpeg).json()["predictions"][0]["label"] == expected[0]["label"]
        assert service.metric("brain_errors_total", code="internal_error") == 0


def test_processes_end_with_the_service(model_store: Path) -> None:
    with serving(settings_for(model_store)) as service:
        assert service.predict(SOUND).status_code == 200
        born = {pid: start_time(pid) for pid in DECODERS.children}
        assert born
    wait_until(lambda: all(start_time(pid) != born[pid] for pid in born))


def test_no_process_starts_before_one_is_needed(model_store: Path, jpeg: bytes) -> None:
    DECODERS.close()
    with serving(settings_for(model_store)) as service:
        assert service.predict(jpeg).status_code == 200
        assert DECODERS.children == []


def test_threads_that_cannot_be_started_are_tried_again(
    model_store: Path, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job meanwhile gives its place in the queue back."""
    usual = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("decode-"):
            raise RuntimeError("can't start new thread")
        usual(thread)

    with serving(settings_for(model_store, queue_size=2), FakeRuntimes()) as service:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            for _ in range(3):
                assert service.predict(jpeg).status_code == 500
        assert service.predict(jpeg).status_code == 200
