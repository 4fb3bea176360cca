"""Calls that may never return."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from traceback import clear_frames
from typing import TypeVar

from service.errors import RuntimeUnusable

logger = logging.getLogger("service.patience")

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
        RuntimeUnusable: the system gives no thread.
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
                # It holds the frames that it came through, and so a version that was just read.
                clear_frames(error.__traceback__)
                loop.call_soon_threadsafe(raised, error)
            else:
                loop.call_soon_threadsafe(returned, result)

    try:
        Thread(target=run, name="load", daemon=True).start()
    except RuntimeError as error:
        logger.exception("no thread can be started")
        raise RuntimeUnusable("the system gives no thread to load it in; try again") from error
    try:
        async with asyncio.timeout(seconds):
            return await future
    except BaseException:
        # It came in the very turn of the loop in which the patience ended, or the caller was cancelled.
        if future.done() and not future.cancelled() and future.exception() is None:
            late(future.result())
        raise


class OneAtATime:
    """Calls that may never return, one after the other, each in a thread of its own.

    One that hangs has the next ones wait in vain rather than hang in threads of their own; when it
    comes back after all, they have their turn again.

    Args:
        seconds: how long a call may take, its wait for its turn included.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._turn = asyncio.Lock()

    async def __call__(self, function: Callable[[], Result]) -> Result:
        """What the function returns.

        Raises:
            TimeoutError: it takes longer, or one before it does.
            RuntimeUnusable: the system gives no thread.
        """
        loop = asyncio.get_running_loop()
        began = Event()

        def called() -> Result:
            began.set()
            try:
                return function()
            finally:
                # Without a loop any more nobody waits for a turn.
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._turn.release)

        async with asyncio.timeout(self._seconds):
            await self._turn.acquire()
            try:
                return await call_within(self._seconds, lambda _: None, called)
            except RuntimeUnusable:
                if not began.is_set():
                    self._turn.release()
                raise
