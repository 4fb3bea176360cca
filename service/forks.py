"""The process that forks workers (:mod:`service.worker`), as the service sees it."""

from contextlib import suppress
from socket import send_fds, socket, socketpair
from subprocess import Popen, TimeoutExpired
from threading import Lock
from typing import Final

from contract.sandbox import start_child
from contract.sealing import SealedFile

KILL_SECONDS: Final = 1.0
"""How long it may take to end."""


class Forks:
    """The process that forks workers: started with the first of them, and anew if it ended.

    Args:
        module: what it runs.
    """

    def __init__(self, module: str = "service.worker") -> None:
        self._module = module
        self._lock = Lock()
        self._process: Popen[bytes] | None = None
        self._control: socket | None = None
        self._closed = False
        self._doubted: int | None = None

    def connect(self, model: SealedFile | None = None) -> tuple[socket, int]:
        """A connection to a new worker, and the id of the process that it comes from. Any thread.

        Args:
            model: what it is to predict with; None where it does not.

        Raises:
            OSError: there can be none, or any more.
        """
        with self._lock:
            if self._closed:
                raise OSError("the service ends")
            control = self._control
            process = self._process
            if (
                control is None
                or process is None
                or process.poll() is not None
                or process.pid == self._doubted
            ):
                control, process = self._start()
            handed = [] if model is None else [model.descriptor]
            ours, theirs = socketpair()
            with theirs:
                try:
                    send_fds(control, [b"w"], [theirs.fileno(), *handed])
                except OSError:
                    ours.close()
                    raise
            return ours, process.pid

    def doubt(self, pid: int) -> None:
        """Has the next worker come from another process: this one may stand still. Any thread."""
        self._doubted = pid

    @property
    def pid(self) -> int | None:
        """Its process id, while there is one. Any thread."""
        with self._lock:
            return None if self._process is None else self._process.pid

    def close(self) -> None:
        """Ends it; workers go on until their connections are closed. Any thread."""
        with self._lock:
            self._closed = True
            self._stop()

    def _start(self) -> tuple[socket, Popen[bytes]]:
        self._stop()
        self._doubted = None
        self._control, other = socketpair()
        with other:
            # One slice is one core's work.
            self._process = start_child([self._module], other, logs=True, OPENBLAS_NUM_THREADS="1")
        return self._control, self._process

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            with suppress(TimeoutExpired):
                self._process.wait(KILL_SECONDS)
            self._process = None
