"""Functions for a sandbox that do what decoders do on damaged input, and worse."""

import ctypes
import errno
import itertools
import json
import os
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from contract import codec

_calls = itertools.count(1)


def act(message: bytes) -> bytes:
    """Does what the message says; :data:`FAULTS` has what goes wrong."""
    word = message[:20].decode("ascii", "replace")
    if word in FAULTS:
        FAULTS[word]()
    match word:
        case "count":
            return str(next(_calls)).encode()
        case "environment":
            return json.dumps(dict(os.environ)).encode()
        case "files":
            return json.dumps(_open_files()).encode()
        case "attempts":
            return json.dumps(
                {name: _errno_of(attempt) for name, attempt in ATTEMPTS.items()}
            ).encode()
        case "limit":
            return json.dumps(resource.getrlimit(resource.RLIMIT_AS)).encode()
        case "print":
            print("on standard output", flush=True)  # noqa: T201
            os.write(1, b"and once more")
            sys.stderr.write("on standard error")
    return message[::-1]


def decode(message: bytes) -> bytes:
    """The real decoders, but for a stream with a comment that names a fault: see :func:`commanded`."""
    for word, fault in FAULTS.items():
        if _comment(word) in message:
            fault()
    return codec.decode(message)


def commanded(stream: bytes, fault: str) -> bytes:
    """A JPEG or JPEG-LS stream with such a comment."""
    return stream[:2] + _comment(fault) + stream[2:]


def _comment(fault: str) -> bytes:
    text = f"fault: {fault}".encode()
    return b"\xff\xfe" + (len(text) + 2).to_bytes(2) + text


def _spin_in_c() -> None:
    # A library that never comes back to the interpreter.
    ctypes.CDLL(None).pause()


def _fill_in_python() -> None:
    pages = []
    while True:
        pages.append(bytearray(2**24))


def _fill_in_c() -> None:
    allocate = ctypes.CDLL(None).malloc
    allocate.restype = ctypes.c_void_p
    for _ in range(4096):
        page = allocate(ctypes.c_size_t(2**24))
        if not page:
            os.abort()
        ctypes.memset(page, 1, 2**24)


def _raise() -> None:
    raise ValueError("PLANTED^JANE")


def _write_everywhere() -> None:
    """What a decoder with an overrun may do before it crashes."""
    for number in _open_files():
        with suppress(OSError):
            os.write(number, b"\x01" * 64)
    os.abort()


def _open_files() -> list[int]:
    """Without opening one to look."""
    found = []
    for number in range(1024):
        with suppress(OSError):
            os.fstat(number)
            found.append(number)
    return found


def _errno_of(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def _fork() -> None:
    if os.geteuid() == 0:
        # The limit is not for root, which the service in its container is not either.
        os.setuid(65534)
    if os.fork() == 0:
        os._exit(0)


ATTEMPTS: dict[str, Callable[[], object]] = {
    "read": lambda: os.open(__file__, os.O_RDONLY),
    "write": lambda: os.open("/dev/shm/brain-taken-over", os.O_WRONLY | os.O_CREAT),  # noqa: S108
    "connect": socket.socket,
    "fork": _fork,
}
"""What a decoder that an image has taken over may try."""

FAULTS = {
    "abort": os.abort,
    "segfault": lambda: ctypes.string_at(1),
    "exit": lambda: os._exit(0),
    "exit-oddly": lambda: os._exit(77),
    "hang": _spin_in_c,
    "memory": _fill_in_python,
    "memory-c": _fill_in_c,
    "raise": _raise,
    "leave": lambda: sys.exit(3),
    "kill-parent": lambda: os.kill(os.getppid(), 9),
    "stop-parent": lambda: os.kill(os.getppid(), 19),
    "write": _write_everywhere,
}


def start_time(pid: int) -> str | None:
    """Tells a process from a later one of the same number; None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
