"""Processes that work on slices: they answer as threads do, and nothing waits for one that broke."""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import socket
from threading import Event
from time import monotonic, sleep
from typing import Any

import httpx
import pytest
from pydicom.uid import (
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from bench.processes import descendants
from contract.sealing import SealedFile
from service import crew
from service.choices import LogLevel
from service.errors import DeadlineExceeded
from service.forks import Forks
from service.jobs import Job, Upload
from service.settings import Settings
from tests.contract.samples import (
    DATA,
    RANGE,
    grey_slice,
    mr_frames,
    mr_object,
    planted_and_damaged,
)
from tests.support.broken_worker import Command
from tests.support.crew import (
    WORKERS,
    crew_of,
    expire_in_hand,
    manned,
    replace_engine,
    stopped,
    swap_under_load,
    workers_of,
)
from tests.support.inputs import in_colour
from tests.support.service import (
    MODEL,
    PATIENCE_SECONDS,
    Service,
    add_version,
    codes,
    entries,
    newest,
    process,
    serving,
    settings_for,
    wait_until,
)


@contextmanager
def thread_jobs(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Job]]:
    """Notes the jobs that the engine's own threads get."""
    batcher = service.state.registry.engine().batcher
    submit = batcher.submit
    jobs: list[Job] = []

    def noted(job: Job) -> None:
        jobs.append(job)
        submit(job)

    with monkeypatch.context() as patched:
        patched.setattr(batcher, "submit", noted)
        patched.setattr(crew_of(service), "_others", noted)
        yield jobs


@pytest.mark.parametrize("mask", ["none", "rle", "png"])
def test_workers_answer_as_threads_do(
    model_store: Path,
    service: Service,
    slices: Sequence[Path],
    mask: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = [path.read_bytes() for path in slices]
    images.append(in_colour(images[0]))
    images += [images[0][:9000], b"junk", b"", b"\x89PNG\r\n\x1a\nnothing else"]
    expected = service.predict(*images, params={"mask": mask})
    with manned(model_store) as other, thread_jobs(other, monkeypatch) as by_threads:
        answer = other.predict(*images, params={"mask": mask})
        assert entries(answer) == entries(expected)
        pictures = len(slices) + 3
        # The first one was alone in the service when it came.
        assert len(by_threads) == len(images) - pictures + 1
        assert other.metric("brain_batch_images_count") == len(slices) + 1
        assert other.metric("brain_batch_images_sum") == len(slices) + 1
        assert other.metric("brain_predictions_total", label="notumor") > 0
        assert other.state.pipeline.depth == 0
    assert entries(answer)[len(slices)]["in_distribution"] is False
    assert codes(answer)[-4:] == [
        "truncated_image",
        "unsupported_media_type",
        "unsupported_media_type",
        "undecodable_image",
    ]


def test_workers_answer_objects_as_threads_do(
    model_store: Path, service: Service, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey = grey_slice()
    real = [path.read_bytes() for path in sorted((DATA / "dicom").glob("*.dcm"))]
    for_workers = [
        *real,
        *(mr_object(grey, syntax) for syntax in (ExplicitVRBigEndian, RLELossless)),
        mr_object(grey, attributes={"Modality": "CT"}),
        real[0][:4000],
        real[0][:200] + b"\xff" * 2000,
    ]
    frames = mr_frames([grey, grey[::-1], grey], attributes=RANGE)
    for_threads = [frames, mr_object(grey, JPEGLSLossless), mr_object(grey, JPEG2000Lossless)]
    images = [jpeg, *for_workers, *for_threads, *for_workers]
    expected = service.predict(*images)
    with manned(model_store) as other, thread_jobs(other, monkeypatch) as by_threads:
        answer = other.predict(*images)
        assert entries(answer) == entries(expected)
        assert answer.json()["series"] == expected.json()["series"]
        # The first image, which was alone when it came, two objects, and the three slices of the third.
        assert len(by_threads) == 6
        assert other.state.pipeline.depth == 0
    assert "not_mr" in codes(answer)
    assert {entry.get("dicom", {}).get("frame") for entry in entries(answer)} == {None, 1, 2, 3}


def test_no_word_of_a_patient_leaves_a_worker(
    model_store: Path,
    jpeg: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with (
        manned(model_store, log_level=LogLevel.DEBUG) as service,
        thread_jobs(service, monkeypatch) as by_threads,
    ):
        answer = service.predict(jpeg, *planted_and_damaged())
        assert len(by_threads) == 1
    assert codes(answer)[:2] == [None, None]
    assert codes(answer)[2] == "truncated_image"
    told = "".join([answer.text, *capfd.readouterr()])
    assert "PLANTED" not in told
    assert "JANE" not in told


def test_other_work_stays_with_the_threads(
    model_store: Path, jpeg: bytes, dicom: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with manned(model_store) as service, thread_jobs(service, monkeypatch) as by_threads:
        # Of whole objects more is wanted than an answer.
        as_objects = {"accept": "multipart/related; type=application/dicom"}
        assert service.predict(dicom, dicom, dicom, headers=as_objects).status_code == 200
        assert len(by_threads) == 3
        # An operating point of its own, whose rules the workers do not have.
        moved = service.predict(jpeg, jpeg, params={"tumor_threshold": "0.9"})
        assert moved.status_code == 200
        assert len(by_threads) == 5
        assert service.predict_raw(jpeg).status_code == 200
        assert len(by_threads) == 6


def test_limits_hold_in_workers_too(model_store: Path, jpeg: bytes) -> None:
    with manned(model_store, max_pixels=1000) as service:
        assert codes(service.predict(jpeg, jpeg, jpeg)) == ["too_many_pixels"] * 3


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("command", [Command.HANG, Command.CRASH])
def test_a_worker_that_ends_costs_one_picture(
    model_store: Path, jpeg: bytes, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    with manned(model_store, batch_timeout_ms=1000.0) as service:
        before = workers_of(service)
        answer = service.predict(jpeg, jpeg, command.on(jpeg), *[jpeg] * 12)
        assert answer.status_code == 200
        assert codes(answer) == [None, None, "runtime_lost", *[None] * 12]
        wait_until(lambda: crew_of(service).size == WORKERS)
        assert service.metric("brain_worker_restarts_total") == 1
        assert service.metric("brain_workers") == WORKERS
        assert len(set(before) & set(workers_of(service))) == WORKERS - 1
        # By itself: what hangs, but runs, has its own limit of time.
        assert "a worker ended; another one takes its place" in caplog.text
        assert service.client.get("/health/ready").status_code == 200
        assert service.metric("brain_runtime_restarts_total") == 0


@pytest.mark.usefixtures("broken")
def test_when_all_workers_end_the_threads_take_over(model_store: Path, jpeg: bytes) -> None:
    with manned(model_store) as service:
        answer = service.predict(jpeg, *[Command.CRASH.on(jpeg)] * WORKERS, *[jpeg] * 12)
        assert codes(answer) == [None, *["runtime_lost"] * WORKERS, *[None] * 12]
        wait_until(lambda: crew_of(service).size == WORKERS)
        assert service.state.pipeline.depth == 0


@pytest.mark.usefixtures("broken")
def test_a_worker_whose_model_fails_again_and_again_is_replaced(
    model_store: Path, jpeg: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with manned(model_store) as service:
        answer = service.predict(jpeg, *[Command.RAISE.on(jpeg)] * 6)
        assert codes(answer) == [None, *["inference_failed"] * 6]
        assert "secret" not in answer.text
        wait_until(lambda: service.metric("brain_worker_restarts_total") >= 1)
        wait_until(lambda: crew_of(service).size == WORKERS)
        assert codes(service.predict(*[jpeg] * 8)) == [None] * 8
    assert "secret of the runtime" in capfd.readouterr().err


def test_what_has_expired_is_not_begun(model_store: Path, jpeg: bytes) -> None:
    with manned(model_store, deadline_ms=400.0) as service:
        expire_in_hand(service, jpeg, lambda: service.metric("brain_batch_images_count"))


def test_what_expires_before_it_is_handed_out_is_counted_once(
    model_store: Path, jpeg: bytes
) -> None:
    with manned(model_store) as service:
        pipeline, engine = service.state.pipeline, service.state.registry.engine()
        uploads = [Upload(None, jpeg)] * 900
        with service.state.buffers.claim() as claim:
            late = pipeline.predict(
                engine, uploads, engine.rules, monotonic() - 1, claim, answers_only=True
            )
            jobs = asyncio.run_coroutine_threadsafe(late, pipeline._loop).result(PATIENCE_SECONDS)
        assert [type(job.outcome) for job in jobs] == [DeadlineExceeded] * len(uploads)
        wait_until(lambda: pipeline.depth == 0)
        assert engine._jobs == 0
        assert codes(service.predict(*[jpeg] * 8)) == [None] * 8


def test_the_process_that_forks_is_replaced_as_well(model_store: Path, jpeg: bytes) -> None:
    with manned(model_store) as service:
        forks, first = service.state.registry._forks.pid, workers_of(service)[0]
        assert forks is not None
        os.kill(forks, signal.SIGKILL)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: service.metric("brain_worker_restarts_total") == 1)
        wait_until(lambda: crew_of(service).size == WORKERS)
        assert service.state.registry._forks.pid != forks
        assert codes(service.predict(*[jpeg] * 8)) == [None] * 8


def _empty(model: Path) -> None:
    """As a copy over it does for a moment."""
    os.truncate(model, 0)


def _replace(model: Path) -> None:
    """By one that answers otherwise."""
    content = bytearray(model.read_bytes())
    weights = slice(len(content) // 2, len(content) // 2 + 20_000)
    content[weights] = bytes((value + 60) % 256 for value in content[weights])
    model.with_name("aside").write_bytes(content)
    model.with_name("aside").replace(model)


def _delete(model: Path) -> None:
    shutil.rmtree(model.parent)


@pytest.mark.parametrize("change", [_empty, _replace, _delete])
def test_what_is_loaded_serves_on_whatever_becomes_of_its_files(
    store_copy: Path, jpeg: bytes, change: Callable[[Path], None]
) -> None:
    """In threads and in workers, those too that take the place of others."""
    model = store_copy / MODEL / str(newest(store_copy)) / "model.int8.tflite"
    with process(store_copy, BRAIN_WORKERS="2", BRAIN_INTERPRETERS="2") as (child, port):
        url = f"http://127.0.0.1:{port}"

        def restarted(times: int) -> bool:
            metrics = httpx.get(f"{url}/metrics").text
            return f"restarts_total {times}.0" in metrics and "brain_workers 2.0" in metrics

        def probabilities() -> list[Any]:
            files = [("files", jpeg)] * 8
            answer = httpx.post(f"{url}/predict", files=files, timeout=PATIENCE_SECONDS)
            return [entry.get("probabilities") for entry in entries(answer)]

        wait_until(lambda: restarted(0))
        before = probabilities()
        change(model)
        # It starts the process that forks them.
        (forks,) = [pid for pid in descendants(child.pid) if descendants(pid)]
        workers = descendants(forks)
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        wait_until(lambda: restarted(len(workers)))
        assert probabilities() == before
        assert child.poll() is None


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands still is noticed a second after its slice's time, which is one as well."""
    monkeypatch.setattr(crew, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(crew, "GRACE_SECONDS", 1.0)


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("ends", [True, False], ids=["ends", "cannot be ended"])
def test_workers_that_stand_still_are_replaced(
    model_store: Path,
    jpeg: bytes,
    ends: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Their own time does not run then. In the kernel, as for a file system that hangs, none ends."""
    kill = os.kill
    if not ends:
        monkeypatch.setattr(os, "kill", lambda *_: None)
    with manned(model_store, batch_timeout_ms=1000.0) as service:
        before = workers_of(service)
        try:
            for pid in before:
                kill(pid, signal.SIGSTOP)
            answer = service.predict(*[jpeg] * 12)
            assert sorted(map(str, codes(answer))) == ["None"] * 10 + ["runtime_lost"] * WORKERS
            wait_until(lambda: crew_of(service).size == WORKERS)
            assert service.metric("brain_worker_restarts_total") == WORKERS
            assert caplog.text.count("a worker does not answer; another one takes its place") == 2
            assert service.state.pipeline.depth == 0
            assert codes(service.predict(*[jpeg] * 8)) == [None] * 8
            if ends:
                wait_until(lambda: not {*before} & {*workers_of(service)})
        finally:
            for pid in before:
                with suppress(ProcessLookupError):
                    kill(pid, signal.SIGKILL)


@pytest.mark.usefixtures("quickly")
def test_workers_that_always_have_something_in_hand_stay(model_store: Path, jpeg: bytes) -> None:
    with manned(model_store, batch_timeout_ms=2000.0) as service, ThreadPoolExecutor(8) as clients:
        end = monotonic() + 5.0

        def post() -> None:
            while monotonic() < end:
                assert codes(service.predict(*[jpeg] * 4)) == [None] * 4

        for posted in [clients.submit(post) for _ in range(8)]:
            posted.result()
        assert service.metric("brain_worker_restarts_total") == 0


@pytest.mark.usefixtures("quickly")
def test_a_pause_of_the_machine_ends_no_worker(model_store: Path, jpeg: bytes) -> None:
    with manned(model_store, batch_timeout_ms=1000.0) as service, ThreadPoolExecutor(1) as client:
        before = workers_of(service)
        with stopped(service):
            answer = client.submit(service.predict, *[jpeg] * 12)
            wait_until(lambda: sum(len(worker.jobs) for worker in crew_of(service)._workers) > 2)
            paused = Event()

            def pause() -> None:
                paused.set()
                sleep(3.0)

            service.state.pipeline._loop.call_soon_threadsafe(pause)
            assert paused.wait(PATIENCE_SECONDS)
            sleep(2.8)
        assert codes(answer.result()) == [None] * 12
        assert workers_of(service) == before
        assert service.metric("brain_worker_restarts_total") == 0


def test_the_process_that_forks_is_replaced_where_it_stands_still(
    model_store: Path,
    jpeg: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(crew, "HIRE_SECONDS", 2.0)
    with manned(model_store) as service:
        forks, first = service.state.registry._forks.pid, workers_of(service)[0]
        assert forks is not None
        os.kill(forks, signal.SIGSTOP)
        try:
            os.kill(first, signal.SIGKILL)
            wait_until(lambda: "a worker is not ready in time" in caplog.text)
            assert codes(service.predict(*[jpeg] * 8)) == [None] * 8
            wait_until(lambda: crew_of(service).size == WORKERS)
            assert service.state.registry._forks.pid != forks
            assert not _runs(forks)
        finally:
            with suppress(ProcessLookupError):
                os.kill(forks, signal.SIGKILL)


def test_workers_that_take_long_to_start_come_all_the_same(
    model_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "HIRE_SECONDS", 1.5)
    monkeypatch.setattr(Forks.__init__, "__defaults__", ("tests.support.slow_worker",))
    with manned(model_store) as service:
        assert len(workers_of(service)) == WORKERS


def test_of_two_processes_that_fork_only_the_one_that_stands_still_is_doubted() -> None:
    forks = Forks()
    try:
        connection, first = forks.connect()
        connection.close()
        forks.doubt(first)
        connection, second = forks.connect()
        connection.close()
        assert second != first
        forks.doubt(first)
        connection, third = forks.connect()
        connection.close()
        assert third == second
    finally:
        forks.close()


def test_a_signal_to_stop_leaves_them_to_finish(model_store: Path, jpeg: bytes) -> None:
    """As a supervisor sends it to every process of a service."""
    with manned(model_store) as service:
        before = workers_of(service)
        for pid in before:
            os.kill(pid, signal.SIGTERM)
        assert codes(service.predict(*[jpeg] * 8)) == [None] * 8
        assert workers_of(service) == before
        assert service.metric("brain_worker_restarts_total") == 0


def test_without_workers_the_threads_serve(
    model_store: Path,
    jpeg: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: object) -> socket:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(Forks, "connect", refuse)
    with serving(settings_for(model_store, workers=WORKERS)) as service:
        wait_until(lambda: "no worker can be started" in caplog.text)
        assert codes(service.predict(*[jpeg] * 8)) == [None] * 8
        assert crew_of(service).size == 0


@pytest.mark.usefixtures("broken")
def test_swaps_under_load_lose_nothing(store_copy: Path, jpeg: bytes) -> None:
    versions = [newest(store_copy), add_version(store_copy)]
    with manned(store_copy, model_version=str(versions[0])) as service:
        swap_under_load(service, versions, jpeg)


def test_an_engine_that_is_replaced_leaves_no_picture_waiting(
    model_store: Path, jpeg: bytes
) -> None:
    with manned(model_store) as service:
        replace_engine(service, jpeg)


def test_a_place_stays_open_whatever_hiring_fails_for(
    model_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with manned(model_store) as service:
        forks = service.state.registry._forks
        connect, tried = forks.connect, []

        def refused_once(model: SealedFile) -> tuple[socket, int]:
            tried.append(True)
            if len(tried) == 1:
                raise RuntimeError("can't start new thread")
            return connect(model)

        monkeypatch.setattr(forks, "connect", refused_once)
        os.kill(workers_of(service)[0], signal.SIGKILL)
        wait_until(lambda: len(tried) == 2)
        wait_until(lambda: crew_of(service).size == WORKERS)


def test_none_is_left_behind(model_store: Path) -> None:
    """Not even by a service that is killed."""
    with process(model_store, BRAIN_WORKERS="2", BRAIN_LOG_LEVEL="error") as (child, _):
        wait_until(lambda: len(descendants(child.pid)) == 1 + WORKERS)
        tree = descendants(child.pid)
        child.kill()
        child.wait(PATIENCE_SECONDS)
        wait_until(lambda: not any(_runs(pid) for pid in tree))


def _runs(pid: int) -> bool:
    """Whether a worker, or the process that forks them, has that id."""
    try:
        return b"service.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"interpreters": 1}, 0),
        ({"interpreters": 2}, 2),
        ({"interpreters": 32}, 8),
        ({"interpreters": 2, "workers": 0}, 0),
        ({"interpreters": 1, "workers": 3}, 3),
        ({"interpreters": 2, "workers": 2, "shadow_version": "1"}, 0),
    ],
    ids=str,
)
def test_how_many_there_are(model_store: Path, changes: dict[str, Any], size: int) -> None:
    assert Settings(model_store=model_store, **changes).crew_size == size
