"""A function for a sandbox whose process gets no other one the first time, as at a limit of them."""

import errno
import os
from collections.abc import Callable
from typing import Any


def act(message: bytes) -> bytes:
    """The message backwards."""
    return message[::-1]


def _refuse() -> Any:
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


_forks: list[Callable[[], int]] = [os.fork, _refuse]


def _fork() -> int:
    return (_forks.pop() if len(_forks) > 1 else _forks[0])()


os.fork = _fork
