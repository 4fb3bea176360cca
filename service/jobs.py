"""One input on its way through decoding and inference, and the request it belongs to."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from contract.preprocessing import DicomReference, PreprocessSpec
from service.errors import Failure


@dataclass(frozen=True, slots=True)
class Upload:
    """One file as the client sent it.

    Attributes:
        name: the client's file name; goes back to the client and nowhere else, least of all into a
            log, since it may name a patient.
        data: the whole file.
    """

    name: str | None = field(repr=False)
    data: bytes = field(repr=False)


class Group:
    """The inputs of one request; its future is done when the last of them is settled.

    Args:
        size: number of inputs.
        on_settle: called once for each input, even if the request no longer waits for it.
        loop: the event loop, to which all methods belong.
    """

    __slots__ = ("_on_settle", "_pending", "done")

    def __init__(
        self, size: int, on_settle: Callable[[], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._pending = size
        self._on_settle = on_settle
        self.done: asyncio.Future[None] = loop.create_future()

    def settle(self) -> None:
        """Counts one input as settled."""
        self._on_settle()
        self._pending -= 1
        if self._pending == 0:
            self.finish()

    def finish(self) -> None:
        """Wakes the request, whether all is settled or its deadline has passed."""
        if not self.done.done():
            self.done.set_result(None)


@dataclass(slots=True, eq=False)
class Job:
    """One input.

    Worker threads fill it in, one after the other; the event loop reads it once it is delivered.

    Attributes:
        upload: what the client sent.
        spec: preprocessing of the version that will predict it.
        deadline: monotonic seconds after which nobody waits for it.
        group: its request.
        pixels: uint8 (height, width), once decoded.
        dicom: its place in a study, for DICOM input.
        outcome: float32 (classes,), or why there is none.
        delivered: the event loop has counted it; a hung runtime may settle a job twice.
        queue_seconds: time spent waiting for a decoding thread and for the runtime.
        waiting_since: monotonic seconds since when it has been waiting.
    """

    upload: Upload
    spec: PreprocessSpec
    deadline: float
    group: Group
    pixels: NDArray[np.uint8] | None = None
    dicom: DicomReference | None = None
    outcome: NDArray[np.float32] | Failure | None = None
    delivered: bool = False
    decode_seconds: float = 0.0
    queue_seconds: float = 0.0
    inference_seconds: float = 0.0
    waiting_since: float = field(default_factory=monotonic)

    def expired(self) -> bool:
        """Whether its deadline has passed."""
        return monotonic() > self.deadline

    def stop_waiting(self, now: float) -> None:
        """Adds the time since it began to wait to the time in queues."""
        self.queue_seconds += now - self.waiting_since
