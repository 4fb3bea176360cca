"""The end of the service: step by step, whatever becomes of each."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

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
