"""Calls to the model store from the event loop: its disk may be slow, or hang for good."""

import asyncio
import logging
import math
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from contract.errors import StoreError
from service.patience import OneAtATime, Result

logger = logging.getLogger("service.storage")

STORE_SECONDS: Final = 30.0
"""How long the store may take to say what is in it; a network's file system may hang for good."""

SILENT: Final = "the model store does not answer"


class StoreCalls:
    """What reads the store, or changes it, but loads nothing; one call at a time. Event loop only."""

    def __init__(self) -> None:
        self._turns = OneAtATime(STORE_SECONDS)
        self._listing = asyncio.Lock()
        self._listed: Any = None
        self._listed_since = -math.inf

    async def ask(self, function: Callable[[], Result]) -> Result:
        """Calls a function of the store.

        Raises:
            StoreError: the store says so, cannot be read, or does not answer.
            RuntimeUnusable: the system gives no thread to ask in.
        """
        try:
            return await self._turns(function)
        except TimeoutError:
            raise StoreError(SILENT) from None
        except OSError as error:
            raise unreadable(error) from error

    async def listing(self, function: Callable[[], Result]) -> Result:
        """Like :meth:`ask`, for a listing, which goes to all who asked before it began.

        So a change waits for one listing at most, however many ask. Who asks later may know of a change
        that it does not show.
        """
        asked = monotonic()
        try:
            async with asyncio.timeout(STORE_SECONDS), self._listing:
                if self._listed_since < asked:
                    began = monotonic()
                    self._listed = await self.ask(function)
                    self._listed_since = began
                listed: Result = self._listed
                return listed
        except TimeoutError:
            raise StoreError(SILENT) from None


def unreadable(error: OSError) -> StoreError:
    """What an error of the store's disk is to a client; the log says more."""
    logger.error("the model store cannot be read", exc_info=error)
    return StoreError("the model store cannot be read; the log says why")
