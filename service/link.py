"""The connection to a worker (:mod:`service.worker`): what it is given, and its replies."""

import asyncio
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import cast

from contract.answer import Outputs
from service.jobs import Job
from service.worker import LENGTH, START, TASK, Meaning, Predicted, Verdict

Reply = Verdict | Meaning


class Link(asyncio.Protocol):
    """The service's end of the connection to one worker; event loop only.

    Attributes:
        jobs: what it has in hand, in its order.
        ready: done once it has loaded its model.
        pid: its process id, then.
        gone: done once it has ended.
        silent: looks in a row at which it had something in hand, and no reply had come since the last.
    """

    def __init__(self, order: bytes, deliver: Callable[["Link", Sequence[Reply]], None]) -> None:
        loop = asyncio.get_running_loop()
        self.jobs: deque[Job] = deque()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.pid: int | None = None
        self.silent = 0
        self._order = order
        self._deliver = deliver
        self._received = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the connection."""
        self._transport = cast("asyncio.Transport", transport)

    def begin(self, seconds: float) -> None:
        """Says what to work with, and for how long somebody waits for it to be ready.

        Not as soon as the connection is made: uvloop (0.23) waits for ever for a connection that is
        lost in that very moment, as one to a process that is just being killed.
        """
        self._transport.write(START.pack(seconds, len(self._order)) + self._order)

    def give(self, job: Job) -> None:
        """Hands it a slice: its file, or what the model said of it."""
        self.jobs.append(job)
        is_predicted, data = False, job.upload.data
        if isinstance(job.outcome, Outputs):
            predicted = Predicted(job.outcome, job.geometry, job.coloured)
            is_predicted, data = True, pickle.dumps(predicted, pickle.HIGHEST_PROTOCOL)
        self._transport.writelines([TASK.pack(is_predicted, job.deadline, len(data)), data])

    def data_received(self, data: bytes) -> None:
        """Takes replies, or a part of one."""
        received = self._received
        received += data
        replies = []
        start = 0
        while len(received) - start >= LENGTH.size:
            (size,) = LENGTH.unpack_from(received, start)
            if not self.ready.done():
                self.pid = size
                self.ready.set_result(None)
                start += LENGTH.size
                continue
            end = start + LENGTH.size + size
            if len(received) < end:
                break
            with memoryview(received)[start + LENGTH.size : end] as reply:
                replies.append(pickle.loads(reply))  # noqa: S301 - of this project's worker
            start = end
        del received[:start]
        if replies:
            self.silent = 0
            self._deliver(self, replies)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The worker has ended."""
        if not self.gone.done():
            self.gone.set_result(None)

    def dismiss(self) -> None:
        """Ends it, whatever it does; one that is not ready ends by itself, as it has no connection."""
        if self.pid is not None and not self.gone.done():
            with suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)
        self._transport.abort()
