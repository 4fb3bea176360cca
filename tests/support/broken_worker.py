"""A real worker that breaks on command: ``python -m tests.support.broken_worker``.

The command is what a picture's file ends with; no decoder reads so far. Of a slice that was predicted,
it is a value of the mask.
"""

import os
import pickle
import signal
from enum import Enum
from typing import Final, Never

import numpy as np

from service import worker

POISON: Final = np.float32(0.123)
"""Outputs with this in the mask's first cell end the worker that is to say what they mean."""


class Command(Enum):
    """What becomes of the worker."""

    HANG = b"hang"
    CRASH = b"crash"
    RAISE = b"raise"

    def on(self, picture: bytes) -> bytes:
        """The picture with the command."""
        return picture + self.value


class BrokenBench(worker.Bench):
    """Works as it should until it is told otherwise."""

    def work(self, data: bytes, deadline: float) -> worker.Verdict:
        """See :meth:`service.worker.Bench.work`."""
        while data.endswith(Command.HANG.value):
            pass
        if data.endswith(Command.CRASH.value):
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._interpreter is None:
            return super().work(data, deadline)
        predict = self._interpreter.predict
        if data.endswith(Command.RAISE.value):
            self._interpreter.predict = _raise  # type: ignore[method-assign, assignment]
        try:
            return super().work(data, deadline)
        finally:
            self._interpreter.predict = predict  # type: ignore[method-assign]

    def answer(self, data: bytes) -> worker.Meaning:
        """See :meth:`service.worker.Bench.answer`."""
        predicted: worker.Predicted = pickle.loads(data)  # noqa: S301 - of the service itself
        mask = predicted.outputs.mask
        if mask is not None and mask.flat[0] == POISON:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().answer(data)


def _raise(_: object) -> Never:
    raise ValueError("secret of the runtime")


if __name__ == "__main__":
    worker.Bench = BrokenBench  # type: ignore[misc]
    worker.main()
