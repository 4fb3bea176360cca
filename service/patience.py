"""Calls that may never return."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")


async def call_within(
    seconds: float, late: Callable[[Result], object], function: Callable[[], Result]
) -> Result:
    """Calls a function in a thread of its own, and waits for it only so long.

    What hangs in a thread of :func:`asyncio.to_thread` would keep the process from ending; this one is
    a daemon.

    Args:
        seconds: how long.
        late: gets what the function returns when nobody waits for it any more, on the event loop.
        function: blocks.

    Raises:
        TimeoutError: it takes longer, and goes on.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def returned(result: Result) -> None:
        if future.done():
            late(result)
        else:
            future.set_result(result)

    def raised(error: BaseException) -> None:
        if not future.done():
            future.set_exception(error)

    def run() -> None:
        # Without a loop any more there is nobody to tell.
        with suppress(RuntimeError):
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - it belongs to the caller
                loop.call_soon_threadsafe(raised, error)
            else:
                loop.call_soon_threadsafe(returned, result)

    Thread(target=run, name="load", daemon=True).start()
    try:
        async with asyncio.timeout(seconds):
            return await future
    except BaseException:
        # It came in the very turn of the loop in which the patience ended, or the caller was cancelled.
        if future.done() and not future.cancelled() and future.exception() is None:
            late(future.result())
        raise
