"""The child of :mod:`contract.sandbox`: ``python -m contract.zygote MODULE:FUNCTION``.

It loads the function once, and then answers each request from a fork of itself that ends with its
answer. So it is warm, it never touches a request's content itself, and nothing that a request does to
memory, not even to such as it should not have written to, is left when the next one comes. A fork can
open nothing, unless ``opens`` follows: what the function imports must have been imported by its module.
"""

import importlib
import mmap
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from functools import partial
from pathlib import Path
from socket import socket
from typing import Final

REQUEST: Final = struct.Struct("<dQQQ")
"""Seconds, bytes of memory, longest answer, length of the request that follows."""

ANSWER: Final = struct.Struct("<BQ")
"""An :class:`Outcome`, and the length of the answer that follows."""

_LENGTH: Final = struct.Struct("<Q")


class Outcome(IntEnum):
    """How a request ended."""

    READY = 0
    ANSWERED = 1
    REFUSED = 2
    CRASHED = 3
    TIMED_OUT = 4
    OUT_OF_MEMORY = 5
    UNAVAILABLE = 6


_ENDS: Final = {
    int(outcome): outcome for outcome in (Outcome.ANSWERED, Outcome.REFUSED, Outcome.OUT_OF_MEMORY)
}
"""Exit statuses of a fork; a library that ends the process has another one. That there is no fork only
this process itself says: an image that has taken one over would be tried for ever."""

_NEEDS_NONE: Final = (
    resource.RLIMIT_CORE,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_NOFILE,
    resource.RLIMIT_NPROC,
)
"""What a request's function has no use for: it opens, writes and starts nothing, as one that an image
has taken over would. The last one does not hold root."""

Function = Callable[[bytes], bytes]


_PIECE_BYTES: Final = 2**16


def receive(connection: socket, size: int) -> bytes:
    """Exactly so many bytes.

    Raises:
        EOFError: the other side has ended.
        MemoryError: there is none for them; they have been read all the same.
    """
    try:
        data = bytearray(size)
    except MemoryError:
        while size:
            passed = connection.recv(min(size, _PIECE_BYTES))
            if not passed:
                raise EOFError from None
            size -= len(passed)
        raise
    view = memoryview(data)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return bytes(data)


def silence(*numbers: int) -> None:
    """Makes file descriptors of this process lead nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in numbers:
        os.dup2(null, number)
    os.close(null)


def main(target: str, opens: bool) -> None:
    """Answers requests on standard input, a socket, until the other side closes it."""
    module, name = target.split(":")
    function: Function = getattr(importlib.import_module(module), name)
    if not opens:
        function = partial(_confined, function)
    with socket(fileno=os.dup(0)) as connection:
        # What libraries print must not get into an answer, nor anywhere else.
        silence(0, 1, 2)
        # A supervisor may tell all processes to stop; this one is there until the other side is not.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        connection.sendall(ANSWER.pack(Outcome.READY, 0))
        with suppress(EOFError, ConnectionError):
            while True:
                seconds, memory, limit, size = REQUEST.unpack(receive(connection, REQUEST.size))
                try:
                    message = receive(connection, size)
                    outcome, answer = _answer(function, message, seconds, memory, limit, connection)
                except (OSError, MemoryError):
                    # No memory to map, or no process to have: nobody has looked at the message.
                    outcome, answer = Outcome.UNAVAILABLE, b""
                connection.sendall(ANSWER.pack(outcome, len(answer)) + answer)


def _confined(function: Function, message: bytes) -> bytes:
    """Of a function that opens, writes and starts nothing, the answer."""
    for needless in _NEEDS_NONE:
        resource.setrlimit(needless, (0, 0))
    return function(message)


def _answer(
    function: Function, message: bytes, seconds: float, memory: int, limit: int, connection: socket
) -> tuple[Outcome, bytes]:
    with mmap.mmap(-1, _LENGTH.size + limit) as shared:
        child = os.fork()
        if child == 0:
            connection.close()
            _work(function, message, seconds, memory, limit, shared)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            timed_out = os.WTERMSIG(status) == signal.SIGALRM
            return (Outcome.TIMED_OUT if timed_out else Outcome.CRASHED), b""
        outcome = _ENDS.get(os.WEXITSTATUS(status), Outcome.CRASHED)
        if outcome is not Outcome.ANSWERED:
            return outcome, b""
        (size,) = _LENGTH.unpack_from(shared)
        return outcome, shared[_LENGTH.size : _LENGTH.size + min(size, limit)]


def _work(
    function: Function, message: bytes, seconds: float, memory: int, limit: int, shared: mmap.mmap
) -> None:
    """Computes one answer, and ends the process."""
    outcome = Outcome.CRASHED
    try:
        # The signal's default action ends the process wherever it is, inside a library too.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        _limit_memory(_address_space() + memory)
        # What fails from here on fails on the message.
        outcome = Outcome.REFUSED
        answer = function(message)
        if len(answer) <= limit:
            _LENGTH.pack_into(shared, 0, len(answer))
            shared[_LENGTH.size : _LENGTH.size + len(answer)] = answer
            outcome = Outcome.ANSWERED
    except MemoryError:
        outcome = Outcome.OUT_OF_MEMORY
    except BaseException:  # noqa: BLE001, S110 - whatever it is, it goes no further than this process
        pass
    finally:
        os._exit(outcome)


def _limit_memory(size: int) -> None:
    """Lets this process map so many bytes, or as many as it is let where these are fewer."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        size = min(size, hard)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _address_space() -> int:
    """Bytes that this process has mapped, where the system says so."""
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        return pages * mmap.PAGESIZE
    return 0


if __name__ == "__main__":
    main(sys.argv[1], opens=sys.argv[2:] == ["opens"])
