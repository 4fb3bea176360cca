"""How much memory Python takes for something."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Peak:
    """The most that was held at a time.

    Attributes:
        size: in bytes; 0 until it is over.
    """

    size: int = 0


@contextmanager
def traced() -> Iterator[Peak]:
    """Traces what is allocated within."""
    peak = Peak()
    tracemalloc.start()
    try:
        yield peak
        _, peak.size = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
