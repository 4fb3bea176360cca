"""A version that predicts, from its warm-up until its last job is settled."""

import asyncio
import ctypes
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TypedDict

from contract.answer import Rules
from contract.version import StoredVersion
from service.batching import Batcher
from service.crew import Crew
from service.errors import Failure, RuntimeLost
from service.runtimes import Runtime

logger = logging.getLogger("service.engine")


class ModelIdentity(TypedDict):
    """The active version, as answers name it."""

    name: str
    version: int
    runtime: str
    device: str


class Engine:
    """A version that predicts.

    Attributes:
        stored: the verified version.
        rules: how its outputs become answers, here.
        runtime: what runs it.
        batcher: its queue and threads; set as soon as it is made, since it delivers to this.
        crew: its processes, if it has any.
        identity: how answers name it.
    """

    batcher: Batcher

    def __init__(self, stored: StoredVersion, rules: Rules, runtime: Runtime) -> None:
        self.stored = stored
        self.rules = rules
        self.runtime = runtime
        self.crew: Crew | None = None
        self.identity: ModelIdentity = {
            "name": stored.manifest.name,
            "version": stored.manifest.version,
            "runtime": runtime.name,
            "device": runtime.device,
        }
        self._jobs = 0
        self._holds = 0
        self._settled = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def label(self) -> str:
        """Its name and version, as the audit log has them."""
        return f"{self.identity['name']}/{self.identity['version']}"

    def acquire(self, jobs: int) -> None:
        """Counts jobs that will need the batcher. Event loop only."""
        self._jobs += jobs
        self._idle.clear()

    def release(self) -> None:
        """Counts one of them as settled. Event loop only."""
        self._jobs -= 1
        self._settled += 1
        self._note_idle()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps it from being closed between jobs that follow each other. Event loop only."""
        self._holds += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._holds -= 1
            self._note_idle()

    def _note_idle(self) -> None:
        if self._jobs == 0 and self._holds == 0:
            self._idle.set()

    async def close(self, patience_seconds: float) -> None:
        """Waits for its jobs, then ends its threads; jobs that take too long are given up.

        Args:
            patience_seconds: in which one job must be settled, as long as there are any.
        """
        hangs = False
        while not hangs and not self._idle.is_set():
            settled = self._settled
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_seconds):
                    await self._idle.wait()
            # A long series has jobs again and again, and between them none.
            hangs = self._jobs > 0 and self._settled == settled
        if hangs:
            logger.error("jobs of a retired version hang")
            self.abandon(RuntimeLost("the runtime hangs"))
        else:
            if self.crew is not None:
                self.crew.close()
            await asyncio.to_thread(self._end)

    def _end(self) -> None:
        """Ends the threads, and gives the memory of the model back to the system."""
        self.batcher.close()
        self.runtime.close()
        # The C library keeps what is freed, and the next version takes other pieces of it: after 40
        # swaps the service had 333 MB instead of 160. Only glibc has the function.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)

    def abandon(self, failure: Failure) -> None:
        """Fails everything that was submitted; nobody waits for its threads or processes."""
        self.batcher.abandon(failure)
        if self.crew is not None:
            self.crew.abandon(failure)
