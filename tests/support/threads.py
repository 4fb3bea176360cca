"""Calls that are made at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

PATIENCE_SECONDS = 60.0


def at_once(*calls: Callable[[], Result]) -> list[Result]:
    """Makes calls in threads of their own; what they return, in order.

    Raises:
        TimeoutError: one takes too long; and whatever the first of them raises that does.
    """
    pool = ThreadPoolExecutor(len(calls))
    try:
        made = [pool.submit(call) for call in calls]
        return [call.result(PATIENCE_SECONDS) for call in made]
    finally:
        pool.shutdown(wait=False)
