"""The version that serves: loaded, verified and warmed up aside, then swapped in."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from time import monotonic
from typing import Final, NamedTuple
from weakref import ReferenceType

from contract.errors import ContractError
from contract.sandbox import GRACE_SECONDS, START_SECONDS
from contract.store import ModelStore
from contract.version import StoredVersion
from service.ending import Endings
from service.engine import Engine
from service.errors import (
    ActivationRefused,
    Failure,
    ModelLoading,
    ModelUnavailable,
    OtherVersionServes,
    RuntimeLost,
    RuntimeUnusable,
    ServiceError,
    Unavailable,
)
from service.forks import Forks
from service.history import History
from service.jobs import Job
from service.kinds import Kinds
from service.loader import Loader, Open
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.rebuilding import rebuild_seconds
from service.runtimes import open_runtime
from service.settings import Settings
from service.shadow import ShadowSlot, ShadowState
from service.storage import StoreCalls

logger = logging.getLogger("service.registry")

WATCH_SECONDS: Final = 0.25
"""How often the inference thread is looked at."""

CLOSE_SECONDS: Final = 1.0
"""How long the last engine may take to end; requests have had their time to drain before."""


class Change(NamedTuple):
    """What serves now, and what did before, if anything."""

    active: Engine
    previous: Engine | None


class Registry:
    """Holds the active engine, or why there is none.

    Args:
        settings: which version to load and how.
        metrics: is told of the active version.
        pipeline: where batches go, and what processes leave to threads.
        open_runtime: loads a verified version; another one in tests of faults.

    Attributes:
        store: where the versions are.
        store_calls: how it is asked.
        active: the version that answers; None if there is none.
        failure: why there is none.
        refused: why a version did not serve when that was last tried, by name and number.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        pipeline: Pipeline,
        open_runtime: Open = open_runtime,
    ) -> None:
        self.store = ModelStore(settings.model_store)
        self.store_calls = StoreCalls()
        self.active: Engine | None = None
        self.failure: Unavailable = ModelLoading("the model is being loaded and warmed up")
        self.refused: dict[tuple[str, int], ActivationRefused] = {}
        self._settings = settings
        self._metrics = metrics
        self._pipeline = pipeline
        self._forks = Forks()
        self._changing = asyncio.Lock()
        self._history = History()
        # Of what serves, or did before it was lost.
        self._kinds: Kinds | None = None
        self._endings = Endings()
        self._shadow = ShadowSlot(
            settings, metrics, self.store, open_runtime, self._endings, self._is_idle
        )
        self._loader = Loader(
            settings,
            metrics,
            pipeline,
            self._forks,
            open_runtime,
            self._delivered,
            partial(self._retire, patience_seconds=CLOSE_SECONDS),
        )

    def engine(self) -> Engine:
        """The active engine.

        Raises:
            Unavailable: why there is none.
        """
        if self.active is None:
            # Raised as it is, it would keep the frames of every request that it was raised for.
            raise self.failure.with_traceback(None)
        return self.active

    @property
    def model(self) -> str:
        """Name of the configured model."""
        return self._settings.model

    @property
    def kinds(self) -> Kinds | None:
        """What the active version tells apart; None while there is none."""
        return None if self.active is None else self._kinds

    async def load(self) -> None:
        """Loads the configured version; a failure is kept for /health instead of raised."""
        async with self._changing:
            try:
                engine = await self._build(self._settings.model, self._settings.model_version)
            except (ServiceError, ContractError) as failure:
                self._go_down(failure)
            except Exception:
                logger.exception("loading failed")
                self._go_down(RuntimeUnusable("loading failed; the log says why"))
            else:
                self._swap(engine)
        await self._shadow.load()

    async def activate(self, name: str, selector: str, *, alike: bool = False) -> Change:
        """Makes a version the active one, once it has been verified and warmed up.

        Args:
            name: of the model.
            selector: a number, an alias or ``latest``.
            alike: whether a version with other classes than those that clients get now is refused.

        Raises:
            StoreError: there is no such version.
            ActivationRefused: it must not serve; the active one is still active.
        """
        async with self._changing:
            number = await self.store_calls.ask(partial(self.store.resolve, name, selector))
            engine = await self._build_beside(name, number, self._kinds if alike else None)
            return Change(engine, self._swap(engine))

    async def rollback(self, name: str) -> Change:
        """Makes the version of a model active that served before the one that does now.

        The next call goes one further back. A version that has been deleted is passed over. What has
        served is remembered until the service ends.

        Raises:
            NoEarlierVersion: the model does not serve, or nothing of it did before.
            OtherVersionServes: what served at the call no longer does, as an activation that was under
                way has ended. Going back from there may lead to the very version that was to be left.
            ActivationRefused: the earlier version must not serve; the active one is still active.
        """
        left = self._history.last
        async with self._changing:
            if self._history.last != left:
                raise OtherVersionServes(
                    "another version began to serve while this waited; ask again to go back from it"
                )
            versions = await self.store_calls.ask(partial(self.store.described, name))
            place, number = self._history.before(name, versions)
            engine = await self._build_beside(name, number)
            self._history.forget_from(place)
            return Change(engine, self._swap(engine))

    async def set_alias(self, name: str, alias: str, selector: str) -> tuple[int, int | None]:
        """Points an alias at a version; which one is active stays as it is.

        Returns:
            The version's number, and that of the version that it pointed at before.

        Raises:
            StoreError: there is no such version, or the store cannot be changed.
        """
        async with self._changing:
            number = await self.store_calls.ask(partial(self.store.resolve, name, selector))
            before = await self.store_calls.ask(partial(self.store.set_alias, name, alias, number))
        fields = {"name": name, "alias": alias, "version": number}
        logger.info("alias moved", extra={"fields": fields})
        return number, before

    def shadow_state(self) -> ShadowState | None:
        """What became of the shadow version; None if there is to be none."""
        return self._shadow.state(None if self.active is None else self.active.stored)

    def compare(self, jobs: Iterable[Job], engine: Engine) -> None:
        """Offers slices that an engine has answered to the shadow version, if there is one."""
        shadow = self._shadow.shadow
        if shadow is not None:
            shadow.offer(jobs, engine.stored, engine.rules)

    async def watch(self) -> None:
        """Replaces an engine whose thread died or hangs; runs until cancelled."""
        timeout_seconds = self._settings.batch_timeout_ms / 1000
        # A decoder that is late costs its own slice alone, so this is beyond all that it may take; and
        # a slice may wait for another one of its file.
        call_seconds = self._settings.decoder_timeout_ms / 1000 + GRACE_SECONDS
        decode_seconds = timeout_seconds + START_SECONDS + 2 * call_seconds
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            engine = self.active
            problem = engine and engine.batcher.problem(timeout_seconds, decode_seconds)
            if engine and problem:
                try:
                    await self._replace(engine, problem)
                except Exception:
                    logger.exception("replacing a runtime failed")

    async def close(self) -> None:
        """Ends the threads of every engine; requests have been answered by now."""
        # All at once, so that one that cannot be ended holds up no other.
        self._shadow.close()
        if self.active is not None:
            self._retire(self.active, CLOSE_SECONDS)
            self.active = None
        await self._endings.wait(2 * CLOSE_SECONDS)
        self._forks.close()

    async def _replace(self, lost: Engine, problem: str) -> None:
        failure = RuntimeLost(f"{problem}; a new runtime is being built")
        self._go_down(failure)
        # Its thread may hang for good, so nothing here waits for it.
        lost.abandon(failure)
        attempt = 0
        while self.active is None:
            await asyncio.sleep(rebuild_seconds(attempt))
            attempt += 1
            if self.active is None:
                try:
                    await self._rebuild(lost)
                except Exception:
                    logger.exception("building a new runtime failed")

    async def _rebuild(self, lost: Engine) -> None:
        """Waits for no activation, whose version may take minutes to load: nothing serves meanwhile."""
        name, version = lost.identity["name"], lost.identity["version"]
        try:
            if lost.runtime.file is None:
                # Of a SavedModel, which is a folder, nothing that was verified is in memory.
                engine = await self._build(name, str(version))
            else:
                engine = await self._load(name, version, lambda: lost.stored)
        except (ServiceError, ContractError) as failure:
            if self.active is None:
                self._go_down(failure)
            return
        if self.active is None:
            self._metrics.runtime_restarts.inc()
            self._swap(engine)
        else:
            # An activation was quicker.
            self._retire(engine, CLOSE_SECONDS)

    async def _build_beside(self, name: str, number: int, kinds: Kinds | None = None) -> Engine:
        """A version that may take the place of the active one, which goes on meanwhile."""
        try:
            engine = await self._build(name, str(number), kinds)
        except (ServiceError, ContractError) as failure:
            fields = {"name": name, "version": number, "code": failure.code}
            fields["reason"] = failure.detail
            logger.warning("activation refused", extra={"fields": fields})
            self._metrics.activations.labels("refused").inc()
            raise ActivationRefused(failure) from failure
        self._metrics.activations.labels("activated").inc()
        return engine

    async def _build(self, name: str, selector: str, kinds: Kinds | None = None) -> Engine:
        number = await self.store_calls.ask(partial(self.store.resolve, name, selector))
        return await self._load(name, number, partial(self.store.load, name, number), kinds)

    async def _load(
        self,
        name: str,
        number: int,
        read: Callable[[], StoredVersion],
        kinds: Kinds | None = None,
    ) -> Engine:
        start = monotonic()
        try:
            engine = await self._loader.load(read, kinds)
        except (ServiceError, ContractError) as failure:
            # Not what was raised, which keeps all that it was raised among: files in memory, too.
            self.refused[name, number] = ActivationRefused(failure)
            raise
        self.refused.pop((name, number), None)
        seconds = round(monotonic() - start, 3)
        logger.info("model loaded", extra={"fields": {**engine.identity, "seconds": seconds}})
        return engine

    def _delivered(self, reference: ReferenceType[Engine], jobs: Sequence[Job]) -> None:
        """Hands a batch to those who wait for it. Any thread."""
        engine = reference()
        crew = None if engine is None else engine.crew
        self._pipeline.deliver(jobs, None if crew is None else crew.answer)

    def _is_idle(self) -> bool:
        engine = self.active
        return engine is not None and engine.batcher.idle

    def _swap(self, engine: Engine) -> Engine | None:
        """Lets an engine answer; gives the one that did before, which ends with what it has in hand."""
        previous, self.active = self.active, engine
        self._history.note((engine.identity["name"], engine.identity["version"]))
        identity = {key: str(value) for key, value in engine.identity.items()}
        self._metrics.model.info(identity | {"manifest": engine.stored.manifest_digest})
        self._kinds = Kinds.of(engine.stored.manifest)
        rules = engine.rules
        self._metrics.refer_to(engine.stored.manifest, rules.ood_threshold, rules.temperature)
        if previous is not None:
            # By then its last batch must have ended, and nobody waits for it any more.
            patience_ms = self._settings.deadline_ms + self._settings.batch_timeout_ms
            self._retire(previous, patience_ms / 1000)
        return previous

    def _go_down(self, failure: Failure) -> None:
        self.active = None
        self.failure = failure if isinstance(failure, Unavailable) else ModelUnavailable(failure)
        # Absolute, as most stores that are not there were meant from another working directory.
        store = str(self.store.root.absolute())
        fields = {"code": failure.code, "reason": failure.detail, "store": store}
        logger.error("no model serves", extra={"fields": fields})

    def _retire(self, engine: Engine, patience_seconds: float) -> None:
        self._endings.begin(engine.close(patience_seconds))
