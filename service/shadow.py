"""A second version beside the active one: it predicts the same slices, and only its disagreement shows.

It takes what is left over: one slice at a time, at the lowest priority, and only while the active
version has nothing to do. What it has no time for is dropped and counted.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from queue import Empty, Full, Queue
from threading import Thread, get_native_id
from time import sleep
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.answer import Outputs, Rules
from contract.errors import ContractError
from contract.store import ModelStore
from contract.version import StoredVersion
from service.answers import Answer
from service.ending import Endings
from service.errors import (
    Failure,
    OtherPreprocessing,
    RuntimeUnusable,
    SameVersion,
    ServiceError,
)
from service.jobs import Job
from service.metrics import Metrics
from service.operation import adjusted
from service.patience import call_within
from service.runtimes import Runtime
from service.settings import Settings
from service.storage import unreadable

logger = logging.getLogger("service.shadow")

WAITING_SLICES: Final = 64
"""So many may wait, 50 kB each; beyond them slices are dropped."""

IDLE_SECONDS: Final = 0.002
"""How long it waits before it asks again whether the active version has nothing to do."""

LOWEST_PRIORITY: Final = 19
"""The nice value of its thread (sched(7))."""

CLOSE_SECONDS: Final = 1.0


class Waiting(NamedTuple):
    """A slice that the active version has answered: its input, outputs and rules."""

    pixels: NDArray[np.uint8]
    outputs: Outputs
    rules: Rules


class ShadowState(NamedTuple):
    """What became of the shadow version that is configured.

    Attributes:
        selector: how the setting names it.
        name: of its model.
        version: its number, once it was loaded.
        failure: why it compares nothing; without either it is being loaded.
    """

    selector: str
    name: str
    version: int | None
    failure: Failure | None


class Shadow:
    """The shadow version and its thread.

    Args:
        stored: the version.
        rules: its own.
        runtime: what runs it; called in the shadow's thread only.
        metrics: counts agreement.
        is_idle: whether the active version has nothing to do; any thread.

    Attributes:
        version: its number.
    """

    def __init__(
        self,
        stored: StoredVersion,
        rules: Rules,
        runtime: Runtime,
        metrics: Metrics,
        is_idle: Callable[[], bool],
    ) -> None:
        self.version = stored.manifest.version
        self._stored = stored
        self._rules = rules
        self._runtime = runtime
        self._metrics = metrics
        self._is_idle = is_idle
        self._queue: Queue[Waiting | None] = Queue(WAITING_SLICES)
        self._closing = False
        self._thread = Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, jobs: Iterable[Job], stored: StoredVersion, rules: Rules) -> None:
        """Takes what fits of slices that have been answered; never blocks. Any thread.

        Args:
            jobs: the slices; those without outputs are left out.
            stored: the version that answered them.
            rules: its own.
        """
        if self._incomparable(stored) is not None:
            return
        for job in jobs:
            if job.pixels is None or not isinstance(job.outcome, Outputs):
                continue
            try:
                self._queue.put_nowait(Waiting(job.pixels, job.outcome, rules))
            except Full:
                self._metrics.shadow_dropped.inc()

    def problem(self, active: StoredVersion | None) -> Failure | None:
        """Why it compares nothing, if it does not; any thread.

        Args:
            active: the version that serves; None while there is none.
        """
        if not self._thread.is_alive():
            return RuntimeUnusable("its thread has ended; the log says why")
        return None if active is None else self._incomparable(active)

    def _incomparable(self, active: StoredVersion) -> Failure | None:
        if active.manifest_digest == self._stored.manifest_digest:
            return SameVersion("it is the version that serves: it waits for another one to serve")
        # Another preprocessing gives other pixels.
        if active.preprocess != self._stored.preprocess:
            return OtherPreprocessing(
                "its preprocessing is not that of the version that serves: it waits for one of the same"
            )
        return None

    def close(self) -> None:
        """Ends the thread; what waits is forgotten."""
        self._closing = True
        with suppress(Empty):
            while True:
                self._queue.get_nowait()
        self._queue.put(None)
        self._thread.join(CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._runtime.close()

    def _run(self) -> None:
        if hasattr(os, "setpriority"):
            # Of this thread alone, on Linux: LiteRT predicts in the thread that calls it.
            os.setpriority(os.PRIO_PROCESS, get_native_id(), LOWEST_PRIORITY)
        while (waiting := self._queue.get()) is not None and not self._closing:
            while not self._is_idle() and not self._closing:
                sleep(IDLE_SECONDS)
            try:
                self._compare(waiting)
            except Exception:
                self._metrics.shadow_failures.inc()
                logger.exception("the shadow version failed on a slice")
            except BaseException:
                logger.exception("the thread of the shadow version ended")
                return

    def _compare(self, waiting: Waiting) -> None:
        outputs = self._runtime.predict(waiting.pixels[None])
        theirs = Answer.of(waiting.outputs, None, waiting.rules)
        ours = Answer.of(outputs, None, self._rules)
        self._metrics.observe_shadow(theirs, ours)


class ShadowSlot:
    """The place of the shadow version, if there is to be one: loaded once, and ended with the service.

    Args:
        settings: which version, and how it is loaded.
        metrics: counts agreement, and is told of the version.
        store: where it is.
        open_runtime: loads a verified version.
        endings: where it ends.
        is_idle: as of :class:`Shadow`.

    Attributes:
        shadow: what runs; None before it was loaded, or if it could not be.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        store: ModelStore,
        open_runtime: Callable[[Settings, StoredVersion], Runtime],
        endings: Endings,
        is_idle: Callable[[], bool],
    ) -> None:
        self.shadow: Shadow | None = None
        self._settings = settings
        self._metrics = metrics
        self._store = store
        self._open_runtime = open_runtime
        self._endings = endings
        self._is_idle = is_idle
        self._failure: Failure | None = None

    async def load(self) -> None:
        """Starts the version, if there is to be one; that it cannot be loaded fails nothing else."""
        selector = self._settings.shadow_version
        if not selector:
            return
        seconds = self._settings.load_timeout_ms / 1000
        try:
            self.shadow = await call_within(seconds, self._end, partial(self._open, selector))
        except (ServiceError, ContractError) as error:
            failure: Failure = error
        except TimeoutError:
            failure = RuntimeUnusable(f"it was not loaded and warmed up within {seconds:g} s")
        except OSError as error:
            failure = unreadable(error)
        except Exception:
            logger.exception("loading the shadow version failed")
            failure = RuntimeUnusable("loading failed; the log says why")
        else:
            return
        self._failure = failure
        fields = {"selector": selector, "code": failure.code, "reason": failure.detail}
        logger.error("no shadow version runs", extra={"fields": fields})

    def state(self, active: StoredVersion | None) -> ShadowState | None:
        """What became of it; None if there is to be none.

        Args:
            active: the version that serves; None while there is none.
        """
        selector, name = self._settings.shadow_version, self._settings.model
        if not selector:
            return None
        if self.shadow is None:
            return ShadowState(selector, name, None, self._failure)
        return ShadowState(selector, name, self.shadow.version, self.shadow.problem(active))

    def close(self) -> None:
        """Has it end."""
        if self.shadow is not None:
            self._end(self.shadow)
            self.shadow = None

    def _open(self, selector: str) -> Shadow:
        name = self._settings.model
        stored = self._store.load(name, self._store.resolve(name, selector))
        rules = adjusted(Rules.read(stored), self._settings)
        # One thread of its own, so that its priority is the lowest throughout.
        modest = self._settings.model_copy(update={"interpreters": 1, "max_batch_size": 1})
        runtime = self._open_runtime(modest, stored)
        number = str(stored.manifest.version)
        self._metrics.shadow_info.info({"version": number, "manifest": stored.manifest_digest})
        logger.info("shadow version loaded", extra={"fields": {"version": number}})
        return Shadow(stored, rules, runtime, self._metrics, self._is_idle)

    def _end(self, shadow: Shadow) -> None:
        self._endings.begin(asyncio.to_thread(shadow.close))
