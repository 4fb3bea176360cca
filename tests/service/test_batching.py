"""The batcher alone: what goes together, what is dropped, and that nothing is left behind."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.answer import Outputs
from contract.preprocessing import DEFAULT_SPEC
from service.batching import MAX_FAILURES, Batcher
from service.buffers import Buffers, Claim
from service.errors import DeadlineExceeded, Failure, InferenceFailed, RuntimeLost, ServiceError
from service.jobs import Group, Job, Upload
from tests.support.service import RULES, FakeRuntime, wait_until

MAX_BATCH_SIZE = 4
FAR = monotonic() + 3600


class Collector:
    """Receives what a batcher delivers."""

    def __init__(self) -> None:
        self.batches: list[list[Job]] = []
        self.observed: list[int] = []

    def deliver(self, jobs: Sequence[Job]) -> None:
        self.batches.append(list(jobs))

    def observe(self, images: int, seconds: float) -> None:
        assert seconds >= 0
        self.observed.append(images)

    @property
    def jobs(self) -> list[Job]:
        return [job for batch in self.batches for job in batch]


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime(max_batch_size=MAX_BATCH_SIZE)


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def batcher(runtime: FakeRuntime, collector: Collector) -> Iterator[Batcher]:
    running = Batcher([runtime], MAX_BATCH_SIZE, 0.0, collector.deliver, collector.observe)
    yield running
    runtime.gate.set()
    running.close()


def job(deadline: float = FAR) -> Job:
    loop = asyncio.new_event_loop()
    group = Group(lambda _: True, lambda: None, 1, 1, Claim(Buffers(0)), loop)
    made = Job(Upload(None, b""), DEFAULT_SPEC, RULES, deadline, group)
    loop.close()
    made.pixels = np.zeros((DEFAULT_SPEC.height, DEFAULT_SPEC.width), np.uint8)
    return made


def fill_behind_a_batch(batcher: Batcher, runtime: FakeRuntime, jobs: Sequence[Job]) -> None:
    """Submits jobs while the runtime is busy with another one, then lets it go on."""
    runtime.gate.clear()
    batcher.submit(job())
    assert runtime.entered.wait(10)
    for waiting in jobs:
        batcher.submit(waiting)
    runtime.gate.set()


def test_a_lone_image_does_not_wait(
    batcher: Batcher, runtime: FakeRuntime, collector: Collector
) -> None:
    batcher.submit(job())
    wait_until(lambda: collector.batches)
    assert runtime.batches == [1]
    assert isinstance(collector.jobs[0].outcome, Outputs)


@pytest.mark.parametrize(
    ("waiting", "sizes"), [(1, [1]), (3, [3]), (4, [4]), (5, [4, 1]), (9, [4, 4, 1])]
)
def test_whoever_waits_goes_together(
    batcher: Batcher, runtime: FakeRuntime, collector: Collector, waiting: int, sizes: list[int]
) -> None:
    jobs = [job() for _ in range(waiting)]
    fill_behind_a_batch(batcher, runtime, jobs)
    wait_until(lambda: len(collector.jobs) == waiting + 1)
    assert runtime.batches == [1, *sizes]
    assert collector.observed == [1, *sizes]
    assert collector.jobs[1:] == jobs


def test_a_batch_is_delivered_with_one_call(
    batcher: Batcher, runtime: FakeRuntime, collector: Collector
) -> None:
    fill_behind_a_batch(batcher, runtime, [job() for _ in range(4)])
    wait_until(lambda: len(collector.jobs) == 5)
    assert [len(batch) for batch in collector.batches] == [1, 4]


def test_an_incomplete_batch_waits_if_told_to(runtime: FakeRuntime, collector: Collector) -> None:
    patient = Batcher([runtime], MAX_BATCH_SIZE, 30.0, collector.deliver, collector.observe)
    start = monotonic()
    for _ in range(MAX_BATCH_SIZE):
        patient.submit(job())
    wait_until(lambda: collector.batches)
    assert runtime.batches == [MAX_BATCH_SIZE]
    assert monotonic() - start < 25
    patient.submit(job())
    patient.close()
    assert runtime.batches == [MAX_BATCH_SIZE, 1]


def test_the_wait_ends(runtime: FakeRuntime, collector: Collector) -> None:
    patient = Batcher([runtime], MAX_BATCH_SIZE, 0.05, collector.deliver, collector.observe)
    waiting = job()
    patient.submit(waiting)
    wait_until(lambda: collector.batches)
    assert waiting.queue_seconds >= 0.04
    patient.close()


def test_expired_work_is_dropped_before_inference(
    batcher: Batcher, runtime: FakeRuntime, collector: Collector
) -> None:
    expired, live = job(deadline=monotonic() - 1), job()
    fill_behind_a_batch(batcher, runtime, [expired, live])
    wait_until(lambda: len(collector.jobs) == 3)
    assert isinstance(expired.outcome, DeadlineExceeded)
    assert isinstance(live.outcome, Outputs)
    assert runtime.batches == [1, 1]


def test_a_runtime_that_raises_fails_its_batch_alone(
    batcher: Batcher, runtime: FakeRuntime, collector: Collector
) -> None:
    runtime.error = ValueError("no")
    bad, good = job(), job()
    batcher.submit(bad)
    wait_until(lambda: len(collector.jobs) == 1)
    runtime.error = None
    batcher.submit(good)
    wait_until(lambda: len(collector.jobs) == 2)
    assert isinstance(bad.outcome, InferenceFailed)
    assert isinstance(good.outcome, Outputs)
    assert batcher.problem(60, 60) is None


class WrongRuntime(FakeRuntime):
    """Answers with something other than a finite row for each image."""

    def __init__(self, **arrays: NDArray[np.float32]) -> None:
        super().__init__()
        self.arrays = arrays

    def predict(self, batch: NDArray[np.uint8]) -> Outputs:
        assert len(batch) == 1
        return replace(super().predict(batch), **self.arrays)


@pytest.mark.parametrize("name", ["probabilities", "mask"])
@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.zeros((2, 4), np.float32), id="too many rows"),
        pytest.param(np.zeros(4, np.float32), id="no rows"),
        pytest.param(np.full((1, 4), np.nan, np.float32), id="not a number"),
    ],
)
def test_a_runtime_that_answers_nonsense_fails(
    collector: Collector, name: str, array: NDArray[np.float32]
) -> None:
    nonsense = Batcher(
        [WrongRuntime(**{name: array})], 4, 0.0, collector.deliver, collector.observe
    )
    submitted = job()
    nonsense.submit(submitted)
    nonsense.close()
    assert isinstance(submitted.outcome, InferenceFailed)


def test_failures_in_a_row_are_a_problem(
    batcher: Batcher, runtime: FakeRuntime, collector: Collector
) -> None:
    runtime.error = ValueError("no")
    for _ in range(MAX_FAILURES):
        assert batcher.problem(60, 60) is None
        collector.batches.clear()
        batcher.submit(job())
        wait_until(lambda: collector.batches)
    assert batcher.problem(60, 60) == "the runtime fails on every batch"


def test_a_dead_thread_is_noticed_and_nothing_waits_for_it(
    batcher: Batcher, runtime: FakeRuntime, collector: Collector
) -> None:
    runtime.error = SystemExit()
    jobs = [job() for _ in range(5)]
    fill_behind_a_batch(batcher, runtime, jobs)
    wait_until(lambda: batcher.problem(60, 60) == "the inference thread died")
    late = job()
    batcher.submit(late)
    wait_until(lambda: len(collector.jobs) == 7)
    assert {type(settled.outcome) for settled in collector.jobs} == {RuntimeLost}


def test_a_hanging_batch_is_noticed_and_can_be_abandoned(
    batcher: Batcher, runtime: FakeRuntime, collector: Collector
) -> None:
    runtime.gate.clear()
    hanging, waiting = job(), job()
    batcher.submit(hanging)
    assert runtime.entered.wait(10)
    batcher.submit(waiting)
    wait_until(lambda: batcher.problem(0.05, 60) == "a batch takes longer than its limit")
    batcher.abandon(RuntimeLost("lost"))
    batcher.submit(job())
    assert len(collector.jobs) == 3
    assert {type(settled.outcome) for settled in collector.jobs} == {RuntimeLost}


def test_an_idle_thread_does_not_hang(batcher: Batcher, collector: Collector) -> None:
    batcher.submit(job())
    wait_until(lambda: collector.batches)
    assert batcher.problem(0.0, 0.0) is None


def test_close_predicts_what_was_submitted(runtime: FakeRuntime, collector: Collector) -> None:
    closing = Batcher([runtime], MAX_BATCH_SIZE, 0.0, collector.deliver, collector.observe)
    runtime.gate.clear()
    jobs = [job() for _ in range(11)]
    for submitted in jobs:
        closing.submit(submitted)
    closer = threading.Thread(target=closing.close)
    closer.start()
    runtime.gate.set()
    closer.join(10)
    assert not closer.is_alive()
    assert all(isinstance(submitted.outcome, Outputs) for submitted in jobs)


def test_what_comes_after_the_end_fails(runtime: FakeRuntime, collector: Collector) -> None:
    closed = Batcher([runtime], MAX_BATCH_SIZE, 0.0, collector.deliver, collector.observe)
    closed.close()
    late = job()
    closed.submit(late)
    assert collector.jobs == [late]
    assert isinstance(late.outcome, RuntimeLost)


def test_what_comes_just_before_the_end_is_not_left_behind(
    runtime: FakeRuntime, collector: Collector
) -> None:
    """Behind the mark that ends the thread, which is still at a batch."""
    closing = Batcher([runtime], MAX_BATCH_SIZE, 0.0, collector.deliver, collector.observe)
    runtime.gate.clear()
    first, late = job(), job()
    closing.submit(first)
    assert runtime.entered.wait(10)
    closer = threading.Thread(target=closing.close)
    closer.start()
    wait_until(lambda: not closing._queue.empty())
    closing.submit(late)
    runtime.gate.set()
    closer.join(10)
    assert collector.jobs == [first, late]
    assert isinstance(late.outcome, RuntimeLost)


class TestLanes:
    """Threads that take a slice from its file to its answer."""

    @pytest.fixture
    def runtimes(self) -> list[FakeRuntime]:
        return [FakeRuntime(whole=True), FakeRuntime(whole=True)]

    @pytest.fixture
    def lanes(self, runtimes: list[FakeRuntime], collector: Collector) -> Iterator[Batcher]:
        running = Batcher(runtimes, 1, 0.0, collector.deliver, collector.observe, decoded)
        yield running
        for runtime in runtimes:
            runtime.gate.set()
        running.close()

    def test_each_predicts_while_the_others_do(
        self, lanes: Batcher, runtimes: list[FakeRuntime], collector: Collector
    ) -> None:
        for runtime in runtimes:
            runtime.gate.clear()
        for _ in runtimes:
            lanes.submit(job())
        for runtime in runtimes:
            assert runtime.entered.wait(10)
        assert not lanes.idle
        for runtime in runtimes:
            runtime.gate.set()
        wait_until(lambda: len(collector.jobs) == 2)
        wait_until(lambda: lanes.idle)

    def test_a_job_is_decoded_and_answered(self, lanes: Batcher, collector: Collector) -> None:
        assert lanes.decodes
        submitted = job()
        submitted.pixels = None
        lanes.submit(submitted)
        wait_until(lambda: collector.jobs)
        assert submitted.answer is not None
        assert submitted.answer.label == "glioma"

    def test_a_job_that_is_alone_gets_all_cores(
        self, runtimes: list[FakeRuntime], collector: Collector
    ) -> None:
        solo = FakeRuntime(whole=True)
        running = Batcher(runtimes, 1, 0.0, collector.deliver, collector.observe, decoded, solo)
        solo.gate.clear()
        running.submit(job())
        assert solo.entered.wait(10)
        # While one thread is at it, the other predicts with its own, and so on its own core.
        running.submit(job())
        wait_until(lambda: len(collector.jobs) == 1)
        assert [len(solo.batches), *sorted(len(runtime.batches) for runtime in runtimes)] == [
            1,
            0,
            1,
        ]
        solo.gate.set()
        wait_until(lambda: running.idle)
        running.submit(job())
        wait_until(lambda: len(collector.jobs) == 3)
        assert len(solo.batches) == 2
        running.close()

    def test_a_job_beside_one_that_is_decoded_leaves_the_other_core_alone(
        self, runtimes: list[FakeRuntime], collector: Collector
    ) -> None:
        reached, go_on = threading.Event(), threading.Event()
        slow, solo = job(), FakeRuntime(whole=True)

        def decode(submitted: Job) -> Failure | None:
            if submitted is slow:
                reached.set()
                assert go_on.wait(10)
            return decoded(submitted)

        running = Batcher(runtimes, 1, 0.0, collector.deliver, collector.observe, decode, solo)
        running.submit(slow)
        assert reached.wait(10)
        running.submit(job())
        wait_until(lambda: len(collector.jobs) == 1)
        assert not solo.batches
        go_on.set()
        running.close()

    def test_a_solo_that_raises_fails_its_job_alone(
        self, runtimes: list[FakeRuntime], collector: Collector
    ) -> None:
        solo = FakeRuntime(whole=True)
        solo.error = ValueError()
        running = Batcher(runtimes, 1, 0.0, collector.deliver, collector.observe, decoded, solo)
        running.submit(job())
        wait_until(lambda: running.idle)
        solo.error = None
        running.submit(job())
        wait_until(lambda: len(collector.jobs) == 2)
        assert [type(settled.outcome) for settled in collector.jobs] == [InferenceFailed, Outputs]
        running.close()

    def test_what_cannot_be_decoded_is_not_predicted(
        self, lanes: Batcher, runtimes: list[FakeRuntime], collector: Collector
    ) -> None:
        unreadable = job()
        unreadable.upload = Upload(None, b"unreadable")
        lanes.submit(unreadable)
        wait_until(lambda: collector.jobs)
        assert isinstance(unreadable.outcome, ServiceError)
        assert unreadable.answer is None
        assert [runtime.batches for runtime in runtimes] == [[], []]

    @pytest.mark.parametrize("fault", ["dies", "hangs"])
    def test_one_that_fails_takes_nobody_with_it_unsettled(
        self, lanes: Batcher, runtimes: list[FakeRuntime], collector: Collector, fault: str
    ) -> None:
        for runtime in runtimes:
            runtime.gate.clear()
        jobs = [job() for _ in range(6)]
        for submitted in jobs:
            lanes.submit(submitted)
        for runtime in runtimes:
            assert runtime.entered.wait(10)
        if fault == "dies":
            runtimes[0].error = SystemExit()
            runtimes[0].gate.set()
            wait_until(lambda: lanes.problem(60, 60) == "the inference thread died")
        else:
            wait_until(lambda: lanes.problem(0.05, 60) == "a batch takes longer than its limit")
        lanes.abandon(RuntimeLost("lost"))
        assert {type(submitted.outcome) for submitted in jobs} == {RuntimeLost}
        assert {id(settled) for settled in collector.jobs} == {id(made) for made in jobs}


def abandon_at(
    running: Batcher, submitted: Job, reached: threading.Event, go_on: threading.Event
) -> None:
    """Abandons a batcher just when its thread has got so far with a job, and closes it."""
    running.submit(submitted)
    assert reached.wait(10)
    running.abandon(RuntimeLost("lost"))
    go_on.set()
    running.close()


def test_one_that_is_given_up_while_it_is_decoded_stays_so(
    runtime: FakeRuntime, collector: Collector
) -> None:
    """Its thread knows nothing of that, and writes what it found."""
    begun, go_on = threading.Event(), threading.Event()

    def decode_slowly(_: Job) -> None:
        begun.set()
        assert go_on.wait(10)

    running = Batcher([runtime], 1, 0.0, collector.deliver, collector.observe, decode_slowly)
    given_up = job()
    abandon_at(running, given_up, begun, go_on)
    assert [settled is given_up for settled in collector.jobs] == [True, True]
    assert isinstance(given_up.outcome, Outputs)
    answered = given_up.settled()
    assert isinstance(answered.outcome, RuntimeLost)
    assert answered.answer is None


def test_a_slice_that_hangs_while_it_is_decoded_is_noticed(
    runtime: FakeRuntime, collector: Collector
) -> None:
    go_on = threading.Event()

    def decode_slowly(_: Job) -> None:
        assert go_on.wait(10)

    running = Batcher([runtime], 1, 0.0, collector.deliver, collector.observe, decode_slowly)
    running.submit(job())
    wait_until(lambda: running.problem(60, 0.05) == "a slice takes longer to decode than its limit")
    assert running.problem(0.0, 60) is None
    go_on.set()
    wait_until(lambda: running.idle)
    assert running.problem(60, 0.0) is None
    running.close()


def test_what_is_being_answered_is_not_given_up(runtime: FakeRuntime, collector: Collector) -> None:
    """Its thread may still have it in hand, between handing it over and taking the next one."""
    delivering, go_on = threading.Event(), threading.Event()

    def deliver(jobs: Sequence[Job]) -> None:
        collector.deliver(jobs)
        for delivered in jobs:
            delivered.delivered = True
        delivering.set()
        assert go_on.wait(10)

    running = Batcher([runtime], 1, 0.0, deliver, collector.observe)
    answered = job()
    abandon_at(running, answered, delivering, go_on)
    assert isinstance(answered.settled().outcome, Outputs)
    assert collector.jobs == [answered]


def test_what_a_thread_has_taken_but_not_in_hand_is_given_up(
    runtime: FakeRuntime, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, go_on = threading.Event(), threading.Event()
    take = Batcher._take

    def take_slowly(self: Batcher, *arguments: Any) -> None:
        taken.set()
        assert go_on.wait(10)
        take(self, *arguments)

    monkeypatch.setattr(Batcher, "_take", take_slowly)
    running = Batcher([runtime], 1, 0.0, collector.deliver, collector.observe)
    given_up = job()
    abandon_at(running, given_up, taken, go_on)
    assert runtime.batches == []
    assert isinstance(given_up.settled().outcome, RuntimeLost)


def decoded(submitted: Job) -> Failure | None:
    if submitted.upload.data:
        return ServiceError()
    submitted.pixels = np.zeros((DEFAULT_SPEC.height, DEFAULT_SPEC.width), np.uint8)
    return None


def test_a_batch_that_works_ends_the_row_of_failures() -> None:
    runtime, collector = FakeRuntime(), Collector()
    batcher = Batcher([runtime], MAX_BATCH_SIZE, 0.0, collector.deliver, collector.observe)
    for number in range(2 * MAX_FAILURES):
        runtime.error = None if number % 2 else RuntimeError("out of memory")
        batcher.submit(job())
        wait_until(partial(_has, collector, number + 1))
        wait_until(lambda: batcher.idle)
        assert batcher.problem(60, 60) is None
    batcher.close()


def _has(collector: Collector, jobs: int) -> bool:
    return len(collector.jobs) == jobs
