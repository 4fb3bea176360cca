"""Runs a function that cannot be trusted with its input in a process of its own.

Decoders in C and C++ may crash on a damaged image, spin for minutes, or eat all memory. Here that
costs the image its result and nothing else: each call is a fork of a warm child
(:mod:`contract.zygote`), with a deadline and a limit of memory, and nothing of it is left in the memory
of the next call.

That is for decoders that fail. One that an image has taken over can open no file and no connection and
start no process (as root: it can), but still is this user on this machine: it may send signals to the
service, and make system calls that need none of these. What keeps it in is the container or the unit
that the service runs in.
"""

import atexit
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from socket import socket, socketpair
from typing import Final

from contract.errors import (
    DecoderCrashed,
    DecoderOutOfMemory,
    DecoderTimedOut,
    DecoderUnavailable,
    UndecodableImage,
)
from contract.zygote import ANSWER, REQUEST, Outcome, receive

START_SECONDS: Final = 30.0
"""How long a child may take to start; it takes a fifth of a second where nothing else runs."""

GRACE_SECONDS: Final = 10.0
"""How long after a call's deadline its child may take to say so; beyond it, the child is replaced."""

DEFAULT_MEMORY_BYTES: Final = 2**30
"""What a call may allocate: the largest frame that is accepted needs a third of it."""

_KEPT: Final = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
"""The part of the environment that a child gets; the rest may hold secrets."""

_ROOT: Final = Path(__file__).resolve().parents[1]


class Sandbox:
    """A function in processes of its own: as many as threads call it at a time, kept warm.

    The first call starts a child, which takes a while; :meth:`close` ends them, and a later call starts
    one anew. A child ends by itself when this process does.

    Args:
        target: ``module:function``, bytes to bytes.
        memory_bytes: what a call may allocate.
        opens: the function is trusted to open files, such as modules that it imports late.
    """

    def __init__(
        self, target: str, memory_bytes: int = DEFAULT_MEMORY_BYTES, *, opens: bool = False
    ) -> None:
        self._target = target
        self._opens = opens
        self._memory_bytes = memory_bytes
        self._idle: list[_Child] = []
        self._generation = 0
        self._lock = threading.Lock()

    def call(self, message: bytes, longest_answer: int, seconds: float) -> bytes:
        """Calls the function. Any thread.

        Args:
            message: its argument.
            longest_answer: bytes that it may return.
            seconds: wall-clock time that it may take.

        Raises:
            UndecodableImage: it raised an exception, or returned more than it may.
            DecoderCrashed, DecoderTimedOut, DecoderOutOfMemory: so it did.
            DecoderUnavailable: no process could be started, for it or for this call.
        """
        child, generation = self._take()
        kept = False
        try:
            outcome, answer = child.call(message, longest_answer, seconds, self._memory_bytes)
            kept = True
        except TimeoutError:
            raise DecoderTimedOut("decoding took too long") from None
        except (EOFError, OSError):
            raise DecoderCrashed("the decoder crashed on the image") from None
        finally:
            self._give_back(child, generation if kept else -1)
        match outcome:
            case Outcome.ANSWERED:
                return answer
            case Outcome.CRASHED:
                raise DecoderCrashed("the decoder crashed on the image")
            case Outcome.TIMED_OUT:
                raise DecoderTimedOut("decoding took too long")
            case Outcome.OUT_OF_MEMORY:
                raise DecoderOutOfMemory("decoding takes more memory than it may")
            case Outcome.UNAVAILABLE:
                raise DecoderUnavailable("no process or no memory for the decoder")
        raise UndecodableImage("the compressed pixels are damaged and cannot be decoded")

    def start(self) -> None:
        """Starts a child unless one waits, so that the next call need not. Any thread; it blocks.

        Raises:
            DecoderUnavailable: no process could be started.
        """
        self._give_back(*self._take())

    def close(self) -> None:
        """Ends the children, those that are busy as soon as they are not."""
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for child in idle:
            child.close()

    @property
    def children(self) -> list[int]:
        """Process ids of the idle children."""
        with self._lock:
            return [child.pid for child in self._idle]

    def _take(self) -> tuple["_Child", int]:
        with self._lock:
            generation = self._generation
            while self._idle:
                child = self._idle.pop()
                if child.alive:
                    return child, generation
                child.close()
        return _Child(self._target, self._opens), generation

    def _give_back(self, child: "_Child", generation: int) -> None:
        with self._lock:
            if generation == self._generation:
                self._idle.append(child)
                return
        child.close()


class _Child:
    """One process and the socket to it."""

    def __init__(self, target: str, opens: bool) -> None:
        try:
            self._socket, other = socketpair()
        except OSError:
            raise DecoderUnavailable("no connection to a process for the decoder") from None
        try:
            self._process = start_child(
                ["contract.zygote", target, *(["opens"] if opens else [])], other
            )
        except OSError:
            self._socket.close()
            raise DecoderUnavailable("no process could be started for the decoder") from None
        finally:
            other.close()
        try:
            self._socket.settimeout(START_SECONDS)
            receive(self._socket, ANSWER.size)
        except (EOFError, OSError):
            self.close()
            raise DecoderUnavailable("the decoder's process did not start") from None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def call(
        self, message: bytes, longest_answer: int, seconds: float, memory_bytes: int
    ) -> tuple[Outcome, bytes]:
        """Sends a request and waits for its answer."""
        self._socket.settimeout(seconds + GRACE_SECONDS)
        head = REQUEST.pack(seconds, memory_bytes, longest_answer, len(message))
        self._socket.sendall(head + message)
        outcome, size = ANSWER.unpack(receive(self._socket, ANSWER.size))
        return Outcome(outcome), receive(self._socket, size)

    def close(self) -> None:
        """Ends it, and whatever it may have forked."""
        self._socket.close()
        # Its group has no other member than its own forks.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def start_child(
    arguments: Sequence[str], connection: socket, *, logs: bool = False, **variables: str
) -> "subprocess.Popen[bytes]":
    """Starts a module of this project in a process of its own, without this one's environment.

    Args:
        arguments: the module, and what it is told.
        connection: its standard input; what it prints is nobody's.
        logs: its standard error is this process' own.
        variables: that it gets beside the harmless part of this process' environment.

    Raises:
        OSError: no process can be started.
    """
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return subprocess.Popen(  # noqa: S603 - this interpreter, with arguments of this project
        [sys.executable, "-P", "-m", *arguments],
        stdin=connection.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=None if logs else subprocess.DEVNULL,
        cwd=_ROOT,
        env=environment | {"PYTHONPATH": str(_ROOT)} | variables,
        # Ctrl-C at a terminal is for the service, which ends its children when it has drained.
        start_new_session=True,
    )


DECODERS: Final = Sandbox("contract.codec:decode")
"""GDCM; shared by the whole process."""

atexit.register(DECODERS.close)
