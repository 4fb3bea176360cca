"""A real worker that breaks on command: ``python -m tests.support.broken_worker``.

The command is what a picture's file ends with; no decoder reads so far.
"""

import os
import signal
from enum import Enum
from typing import Never

from service import worker


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
        predict = self._interpreter.predict
        if data.endswith(Command.RAISE.value):
            self._interpreter.predict = _raise  # type: ignore[method-assign, assignment]
        try:
            return super().work(data, deadline)
        finally:
            self._interpreter.predict = predict  # type: ignore[method-assign]


def _raise(_: object) -> Never:
    raise ValueError("secret of the runtime")


if __name__ == "__main__":
    worker.Bench = BrokenBench  # type: ignore[misc]
    worker.main()
