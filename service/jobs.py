"""One slice on its way through decoding and inference, and the request it belongs to."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from contract.answer import Outputs, Rules
from contract.preprocessing import DicomReference, PreprocessSpec
from contract.region import Geometry
from contract.source import Source
from service.buffers import Claim
from service.errors import DeadlineExceeded, Failure

if TYPE_CHECKING:
    # It costs a quarter of a second, which the start need not wait for.
    from pydicom import Dataset

    from service.answers import Answer

TOO_LATE: Final = "the deadline passed before the image was predicted"


@dataclass(frozen=True, slots=True)
class Upload:
    """One file as the client sent it.

    Attributes:
        name: the client's file name; goes back to the client and nowhere else, least of all into a
            log, since it may name a patient.
        data: the whole file.
        failure: why it could not be taken out of its archive, if so.
        digest: of its content (:mod:`service.content`), where that is known already; ``data``
            may hold its beginning alone then.
        archived: whether it came in an archive, so that the client may not mean it.
    """

    name: str | None = field(repr=False)
    data: bytes = field(repr=False)
    failure: Failure | None = None
    digest: bytes | None = field(default=None, repr=False)
    archived: bool = False


class Group:
    """The slices of one request; its future is done when the last of them is settled.

    Only a share of them is in the service at a time, so that a series neither has to fit into the queue
    nor keeps everybody else out of it: each slice that is settled lets the next one in. All methods but
    :meth:`reserve` belong to the event loop.

    Args:
        start: lets a job in; False if there is no room for it now.
        on_settle: called once for each job that was let in, even if the request no longer waits for it.
        share: most jobs in the service at a time.
        max_frames: most slices, those of all files together.
        claim: of the request's memory; for what its files unpack to.
        loop: the event loop.
    """

    __slots__ = (
        "_active",
        "_files",
        "_lock",
        "_on_settle",
        "_room",
        "_share",
        "_start",
        "_waiting",
        "claim",
        "done",
    )

    def __init__(
        self,
        start: Callable[["Job"], bool],
        on_settle: Callable[[], None],
        share: int,
        max_frames: int,
        claim: Claim,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.claim = claim
        self.done: asyncio.Future[None] = loop.create_future()
        self._start = start
        self._on_settle = on_settle
        self._share = share
        self._room = max_frames
        self._lock = Lock()
        self._files: list[list[Job]] = []
        self._waiting: deque[Job] = deque()
        self._active = 0

    def release(self) -> list["Job"]:
        """All slices: the files in the order of the request, the frames of each in theirs.

        The group lets go of them: while it holds its slices and they hold it, the request's bytes stay
        in memory until the garbage collector happens to come by.
        """
        jobs = [job for file in self._files for job in file]
        self._files = []
        return jobs

    def begin(self, jobs: Sequence["Job"]) -> None:
        """Takes the first slice of each file, and lets a share of them in."""
        self._room -= len(jobs)
        self._files = [[job] for job in jobs]
        self._waiting.extend(jobs)
        self._feed()

    def reserve(self, frames: int) -> bool:
        """Counts the further frames of a file; False if that are too many. Any thread."""
        with self._lock:
            if frames > self._room:
                return False
            self._room -= frames
            return True

    def expand(self, first: "Job", source: Source) -> None:
        """Adds the further frames of a file, of which the first has been decoding since."""
        # What was given up meanwhile is opened anew by a thread that had it in hand.
        if self.done.done() or first.delivered:
            return
        more = [
            Job(
                first.upload,
                first.spec,
                first.rules,
                first.deadline,
                self,
                first.keep_header,
                first.answer_only,
                frame,
                source,
            )
            for frame in range(2, source.frames + 1)
        ]
        next(file for file in self._files if file[0] is first).extend(more)
        self._waiting.extendleft(reversed(more))
        self._feed()

    def settle(self) -> None:
        """Counts one slice as settled, and lets the next one in."""
        self._on_settle()
        self._active -= 1
        self._feed()
        if not self._active and not self._waiting:
            self.finish()

    def finish(self) -> None:
        """Wakes the request, whether all is settled or its deadline has passed."""
        for job in self._waiting:
            job.source = None
        self._waiting.clear()
        if not self.done.done():
            self.done.set_result(None)

    def abandon(self) -> None:
        """Nobody waits for it any more: what is not predicted yet never is, as if it were too late."""
        for file in self._files:
            for job in file:
                job.deadline = 0.0
        self.finish()

    def _feed(self) -> None:
        while self._waiting and self._active < self._share:
            # Counted first: it may be settled before it is known to have started.
            job = self._waiting.popleft()
            self._active += 1
            if not self._start(job):
                self._active -= 1
                self._waiting.appendleft(job)
                return


@dataclass(slots=True, eq=False)
class Job:
    """One slice.

    Worker threads fill it in, one after the other; the event loop reads it once it is delivered.

    Attributes:
        upload: the file that it is in.
        spec: preprocessing of the version that will predict it.
        rules: how that version's outputs become answers, for this request.
        deadline: monotonic seconds after which nobody waits for it.
        group: its request.
        keep_header: whether ``header`` is wanted.
        answer_only: whether nothing is wanted but outcome, answer and place, which any process can
            give.
        frame: its number in the file, from 1.
        source: the opened file, from when it is known to hold several slices until this one is settled.
        pixels: uint8 (height, width), once decoded.
        dicom: its place in a study, for DICOM input; also of a slice that cannot be decoded, if its
            header can.
        study: its Study Instance UID, likewise; None if that is missing or malformed.
        header: all attributes of its DICOM object but the pixels, if wanted; the frames share it.
        geometry: how its original image lies in ``pixels``, likewise.
        coloured: whether it is a picture in colour, likewise.
        outcome: the model's outputs for this slice alone, or why there are none.
        answer: what the outputs mean, once that has been asked.
        lost: why it was given up, though a thread may still have it in hand and write its outcome.
        delivered: the event loop has counted it; a hung runtime may settle a job twice.
        queue_seconds: time spent waiting for a decoding thread and for the runtime.
        waiting_since: monotonic seconds since when it has been waiting.
    """

    upload: Upload
    spec: PreprocessSpec
    rules: Rules
    deadline: float
    group: Group
    keep_header: bool = False
    answer_only: bool = False
    frame: int = 1
    source: Source | None = None
    pixels: NDArray[np.uint8] | None = None
    dicom: DicomReference | None = None
    study: str | None = None
    header: "Dataset | None" = None
    geometry: Geometry | None = None
    coloured: bool = False
    outcome: Outputs | Failure | None = None
    answer: "Answer | None" = None
    lost: Failure | None = None
    delivered: bool = False
    decode_seconds: float = 0.0
    queue_seconds: float = 0.0
    inference_seconds: float = 0.0
    waiting_since: float = field(default_factory=monotonic)

    def expired(self) -> bool:
        """Whether its deadline has passed."""
        return monotonic() > self.deadline

    def settled(self) -> "Job":
        """What became of it by now, whatever a thread writes that still has it in hand."""
        lost = self.lost
        if lost is None and not self.delivered:
            lost = DeadlineExceeded(TOO_LATE)
        return self if lost is None else replace(self, outcome=lost, answer=None)

    def stop_waiting(self, now: float) -> None:
        """Adds the time since it began to wait to the time in queues."""
        self.queue_seconds += now - self.waiting_since
