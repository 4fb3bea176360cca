"""The end of the service, or of a part of it: step by step, whatever becomes of each."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

logger = logging.getLogger("service")

Step = Callable[[], Awaitable[None] | None]


async def end_all(*steps: Step) -> None:
    """Takes one step after the other; one that fails is logged, and costs no other its turn."""
    for step in steps:
        try:
            pending = step()
            if pending is not None:
                await pending
        except Exception:
            logger.exception("a part of the service could not be ended")


async def cancel_all(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Returns once none of them runs.

    Raises:
        ExceptionGroup: of what some of them had failed with.
    """
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if failures:
        raise ExceptionGroup("tasks had failed", failures)


class Endings:
    """What ends beside the service's work, in tasks that nobody else waits for. Event loop only."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, ending: Coroutine[Any, Any, None]) -> None:
        """Has something end in a task of its own."""
        task = asyncio.get_running_loop().create_task(ending)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait(self, seconds: float) -> None:
        """Returns once all have ended, or do not in that time."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
