"""Functions for a sandbox that do what decoders do on damaged input, and worse."""

import ctypes
import itertools
import json
import os
import sys
from pathlib import Path

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
            return json.dumps(sorted(os.listdir("/proc/self/fd"))).encode()  # noqa: PTH208
        case "print":
            print("on standard output", flush=True)  # noqa: T201
            os.write(1, b"and once more")
            sys.stderr.write("on standard error")
    return message[::-1]


def decode(message: bytes) -> bytes:
    """The real decoders, but for a stream with a comment that names a fault: see :func:`commanded`."""
    from contract import codec

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
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            os.write(int(number), b"\x01" * 64)
        except OSError:
            continue
    os.abort()


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
