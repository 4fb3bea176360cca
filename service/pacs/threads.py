"""Threads of the spool's own: where its disk stalls, nobody else waits for them.

Those of :func:`asyncio.to_thread` have predictions to answer, and the process cannot end before them.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Threads:
    """Some threads, which do not keep the process from ending.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        for _ in range(count):
            Thread(target=self._run, name="spool", daemon=True).start()

    async def run(
        self,
        function: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """What a function returns that is called in one of them. Event loop only."""
        return await asyncio.wrap_future(self.submit(function, *args, **kwargs))

    def submit(
        self,
        function: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Future[Result]:
        """Has a function called in one of them. Any thread."""
        future: Future[Result] = Future()
        self._work.put((future, partial(function, *args, **kwargs)))
        return future

    def close(self) -> None:
        """Ends them after what was asked for before."""
        for _ in range(self._count):
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, call = work
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - it belongs to the caller
                future.set_exception(error)
            # Nothing of it stays in memory while the thread waits.
            del work, future, call
