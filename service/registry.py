"""The version that serves: loaded, verified and warmed up aside, then swapped in."""

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple, Self

from contract.answer import Rules
from contract.errors import ContractError, StoreError
from contract.manifest import Manifest
from contract.sandbox import GRACE_SECONDS, START_SECONDS
from contract.store import ModelStore
from contract.version import StoredVersion
from service.batching import Batcher
from service.choices import Device
from service.crew import Crew, Forks
from service.engine import Engine
from service.errors import (
    ActivationRefused,
    Failure,
    ModelLoading,
    ModelUnavailable,
    NoEarlierVersion,
    OtherClasses,
    OtherVersionServes,
    RuntimeLost,
    RuntimeUnusable,
    ServiceError,
    Unavailable,
)
from service.jobs import Job
from service.metrics import Metrics
from service.operation import adjusted
from service.patience import OneAtATime, Result, call_within
from service.pipeline import Pipeline
from service.rebuilding import rebuild_seconds
from service.runtimes import Runtime, open_runtime
from service.runtimes.base import served_shapes
from service.settings import Settings
from service.shadow import Shadow, ShadowState
from service.worker import Order

logger = logging.getLogger("service.registry")

WATCH_SECONDS: Final = 0.25
"""How often the inference thread is looked at."""

STORE_SECONDS: Final = 30.0
"""How long the store may take to say what is in it; a network's file system may hang for good."""

SILENT: Final = "the model store does not answer"

CLOSE_SECONDS: Final = 1.0
"""How long the last engine may take to end; requests have had their time to drain before."""

MAX_SERVED: Final = 32
"""So many versions are remembered to roll back to; activations are rare."""

Open = Callable[[Settings, StoredVersion], Runtime]


class Kinds(NamedTuple):
    """What a version tells apart; in which order is nobody's business outside of it."""

    classes: frozenset[str]
    tumors: frozenset[str]

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """The kinds of a version."""
        return cls(frozenset(manifest.classes), frozenset(manifest.tumor_classes))


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
        self.active: Engine | None = None
        self.failure: Unavailable = ModelLoading("the model is being loaded and warmed up")
        self.refused: dict[tuple[str, int], Failure] = {}
        self._settings = settings
        self._metrics = metrics
        self._pipeline = pipeline
        self._forks = Forks()
        self._open = open_runtime
        self._changing = asyncio.Lock()
        self._store_calls = OneAtATime(STORE_SECONDS)
        self._listing = asyncio.Lock()
        self._listed: Any = None
        self._listed_since = -math.inf
        # In the order in which they served; the last one serves, or did before it was lost.
        self._served: list[tuple[str, int]] = []
        # Of what serves, or did before it was lost.
        self._kinds: Kinds | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._shadow: Shadow | None = None
        self._shadow_failure: Failure | None = None

    def engine(self) -> Engine:
        """The active engine.

        Raises:
            Unavailable: why there is none.
        """
        if self.active is None:
            raise self.failure
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
        if self._settings.shadow_version:
            await self._load_shadow(self._settings.shadow_version)

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
            number = await self.ask_store(partial(self.store.resolve, name, selector))
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
        left = self._served[-1:]
        async with self._changing:
            if self._served[-1:] != left:
                raise OtherVersionServes(
                    "another version began to serve while this waited; ask again to go back from it"
                )
            versions = await self.ask_store(partial(self.store.described, name))
            place = self._place_before(name, versions)
            engine = await self._build_beside(*self._served[place])
            del self._served[place:]
            return Change(engine, self._swap(engine))

    async def set_alias(self, name: str, alias: str, selector: str) -> tuple[int, int | None]:
        """Points an alias at a version; which one is active stays as it is.

        Returns:
            The version's number, and that of the version that it pointed at before.

        Raises:
            StoreError: there is no such version, or the store cannot be changed.
        """
        async with self._changing:
            number = await self.ask_store(partial(self.store.resolve, name, selector))
            before = await self.ask_store(partial(self.store.set_alias, name, alias, number))
        fields = {"name": name, "alias": alias, "version": number}
        logger.info("alias moved", extra={"fields": fields})
        return number, before

    async def ask_store(self, function: Callable[[], Result]) -> Result:
        """Calls what reads the store, or changes it, but loads nothing; one call at a time.

        Raises:
            StoreError: the store says so, cannot be read, or does not answer.
            RuntimeUnusable: the system gives no thread to ask in.
        """
        try:
            return await self._store_calls(function)
        except TimeoutError:
            raise StoreError(SILENT) from None
        except OSError as error:
            raise _unreadable(error) from error

    async def list_store(self, function: Callable[[], Result]) -> Result:
        """Like :meth:`ask_store`, for a listing, which goes to all who asked before it began.

        So a change waits for one listing at most, however many ask. Who asks later may know of a change
        that it does not show.
        """
        asked = monotonic()
        try:
            async with asyncio.timeout(STORE_SECONDS), self._listing:
                if self._listed_since < asked:
                    began = monotonic()
                    self._listed = await self.ask_store(function)
                    self._listed_since = began
                listed: Result = self._listed
                return listed
        except TimeoutError:
            raise StoreError(SILENT) from None

    def shadow_state(self) -> ShadowState | None:
        """What became of the shadow version; None if there is to be none."""
        selector, shadow = self._settings.shadow_version, self._shadow
        if not selector:
            return None
        if shadow is None:
            return ShadowState(selector, None, self._shadow_failure)
        spec = None if self.active is None else self.active.stored.preprocess
        return ShadowState(selector, shadow.version, shadow.problem(spec))

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
        if self._shadow is not None:
            self._end_shadow(self._shadow)
            self._shadow = None
        if self.active is not None:
            self._retire(self.active, CLOSE_SECONDS)
            self.active = None
        if self._retiring:
            await asyncio.wait(self._retiring, timeout=2 * CLOSE_SECONDS)
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
            engine = await self._build(name, str(version))
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

    def _place_before(self, name: str, versions: Sequence[int]) -> int:
        """Where in what has served the version is that a rollback goes to.

        Args:
            name: of the model.
            versions: that the store still has, with a manifest.
        """
        if not self._served or self._served[-1][0] != name:
            raise NoEarlierVersion("this model does not serve, so there is nothing to go back from")
        for place in range(len(self._served) - 2, -1, -1):
            # Without what is gone between them, the active version may come before itself.
            other = self._served[place] != self._served[-1]
            if other and self._served[place][0] == name and self._served[place][1] in versions:
                return place
        raise NoEarlierVersion(
            "no other version of this model that is in the store has served since the start"
        )

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
        start = monotonic()
        number = await self.ask_store(partial(self.store.resolve, name, selector))
        try:
            engine = await self._opened(name, number, kinds)
        except (ServiceError, ContractError) as failure:
            self.refused[name, number] = failure
            raise
        self.refused.pop((name, number), None)
        engine.crew = self._crew(engine)
        seconds = round(monotonic() - start, 3)
        logger.info("model loaded", extra={"fields": {**engine.identity, "seconds": seconds}})
        return engine

    async def _opened(self, name: str, number: int, kinds: Kinds | None) -> Engine:
        """An engine within the time that it may take; one that comes later is closed again."""
        seconds = self._settings.load_timeout_ms / 1000
        close = partial(self._retire, patience_seconds=CLOSE_SECONDS)
        try:
            return await call_within(
                seconds, close, partial(self._open_engine, name, number, kinds)
            )
        except TimeoutError:
            raise RuntimeUnusable(
                f"this version was not loaded and warmed up within {seconds:g} s"
            ) from None

    def _open_engine(self, name: str, number: int, kinds: Kinds | None) -> Engine:
        try:
            stored = self.store.load(name, number)
            if kinds is not None and kinds != Kinds.of(stored.manifest):
                raise OtherClasses(
                    "it has other classes than the version that serves: it waits for an activation by "
                    "hand, or for the next start with BRAIN_MODEL_VERSION=latest"
                )
            rules = adjusted(Rules.read(stored.manifest, stored.path), self._settings)
            runtime = self._open(self._settings, stored)
            engine = Engine(stored, rules, runtime)
            engine.batcher = Batcher(
                runtime.lanes,
                runtime.batch_sizes[-1],
                self._settings.max_wait_ms / 1000,
                partial(self._delivered, engine),
                self._metrics.observe_batch,
                self._pipeline.decoder.decode if runtime.whole else None,
                runtime.solo,
            )
            return engine
        except (ServiceError, ContractError):
            raise
        except OSError as error:
            raise _unreadable(error) from error
        except Exception as error:
            logger.exception("the runtime failed to load a version")
            raise RuntimeUnusable(
                "the runtime failed to load this version; the log says why"
            ) from error

    def _crew(self, engine: Engine) -> Crew | None:
        """The processes of an engine; they get ready while its threads serve already."""
        size, runtime = self._settings.crew_size, engine.runtime
        # What predicts in batches on this processor has its cores busy without them.
        if not size or (runtime.file is None and runtime.device == Device.CPU):
            return None
        batcher, pipeline = engine.batcher, self._pipeline
        order = Order(
            runtime.file,
            served_shapes(engine.stored.manifest),
            engine.stored.preprocess,
            engine.rules,
            self._settings.policy,
            self._settings.batch_timeout_ms / 1000,
            self._settings.log_level,
        )
        return Crew(
            size,
            self._forks,
            order,
            pipeline.settle,
            partial(pipeline.by_threads, batcher),
            batcher.submit,
            self._metrics,
        )

    def _delivered(self, engine: Engine, jobs: Sequence[Job]) -> None:
        """Hands a batch to those who wait for it, and then to the shadow. Any thread."""
        crew = engine.crew
        self._pipeline.deliver(jobs, None if crew is None else crew.answer)
        shadow = self._shadow
        if shadow is not None:
            shadow.offer(jobs, engine.rules)

    async def _load_shadow(self, selector: str) -> None:
        """Starts the shadow version; that it cannot be loaded is nobody's failure but its own."""
        seconds = self._settings.load_timeout_ms / 1000
        try:
            build = partial(self._build_shadow, selector)
            self._shadow = await call_within(seconds, self._end_shadow, build)
        except (ServiceError, ContractError) as error:
            failure: Failure = error
        except TimeoutError:
            failure = RuntimeUnusable(f"it was not loaded and warmed up within {seconds:g} s")
        except OSError as error:
            failure = _unreadable(error)
        except Exception:
            logger.exception("loading the shadow version failed")
            failure = RuntimeUnusable("loading failed; the log says why")
        else:
            return
        self._shadow_failure = failure
        fields = {"selector": selector, "code": failure.code, "reason": failure.detail}
        logger.error("no shadow version runs", extra={"fields": fields})

    def _build_shadow(self, selector: str) -> Shadow:
        name = self._settings.model
        stored = self.store.load(name, self.store.resolve(name, selector))
        rules = adjusted(Rules.read(stored.manifest, stored.path), self._settings)
        # One thread of its own, so that its priority is the lowest throughout.
        modest = self._settings.model_copy(update={"interpreters": 1, "max_batch_size": 1})
        runtime = self._open(modest, stored)
        number = str(stored.manifest.version)
        self._metrics.shadow_info.info({"version": number, "manifest": stored.manifest_digest})
        logger.info("shadow version loaded", extra={"fields": {"version": number}})
        return Shadow(stored, rules, runtime, self._metrics, self._is_idle)

    def _is_idle(self) -> bool:
        engine = self.active
        return engine is not None and engine.batcher.idle

    def _swap(self, engine: Engine) -> Engine | None:
        """Lets an engine answer; gives the one that did before, which ends with what it has in hand."""
        previous, self.active = self.active, engine
        key = (engine.identity["name"], engine.identity["version"])
        if self._served[-1:] != [key]:
            self._served = [*self._served[1 - MAX_SERVED :], key]
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
        self._end(engine.close(patience_seconds))

    def _end_shadow(self, shadow: Shadow) -> None:
        self._end(asyncio.to_thread(shadow.close))

    def _end(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(ending)
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


def _unreadable(error: OSError) -> StoreError:
    logger.error("the model store cannot be read", exc_info=error)
    return StoreError("the model store cannot be read; the log says why")
