"""From a version in the store to an engine that predicts: verified, opened and warmed up aside."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from weakref import ReferenceType, ref

from contract.answer import Rules
from contract.errors import ContractError
from contract.version import StoredVersion
from service.batching import Batcher
from service.choices import Device
from service.crew import Crew
from service.engine import Engine
from service.errors import OtherClasses, RuntimeUnusable, ServiceError
from service.forks import Forks
from service.jobs import Job
from service.kinds import Kinds
from service.metrics import Metrics
from service.operation import adjusted
from service.patience import call_within
from service.pipeline import Pipeline
from service.runtimes import Runtime
from service.runtimes.base import served_shapes
from service.settings import Settings
from service.storage import unreadable
from service.worker import Order

logger = logging.getLogger("service.loader")

Open = Callable[[Settings, StoredVersion], Runtime]


class Loader:
    """Makes engines. Event loop only.

    Args:
        settings: how a version is loaded, and how its engine works.
        metrics: counts what engines do.
        pipeline: decodes, and takes what processes leave to threads.
        forks: where processes come from.
        open_runtime: loads a verified version.
        delivered: gets each batch that an engine is done with, and that engine. Any thread.
        late: gets an engine that nobody waits for any more.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        pipeline: Pipeline,
        forks: Forks,
        open_runtime: Open,
        delivered: Callable[[ReferenceType[Engine], Sequence[Job]], None],
        late: Callable[[Engine], None],
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._pipeline = pipeline
        self._forks = forks
        self._open_runtime = open_runtime
        self._delivered = delivered
        self._late = late

    async def load(self, read: Callable[[], StoredVersion], kinds: Kinds | None) -> Engine:
        """An engine within the time that it may take; one that comes later is closed again.

        Args:
            read: gives the version, verified.
            kinds: that it has to tell apart; None if it may have any.

        Raises:
            StoreError: the version is damaged, or the store cannot be read.
            OtherClasses: it tells others apart.
            RuntimeUnusable: it cannot be loaded, or not in time.
        """
        seconds = self._settings.load_timeout_ms / 1000
        try:
            engine = await call_within(seconds, self._late, partial(self._open, read, kinds))
        except TimeoutError:
            raise RuntimeUnusable(
                f"this version was not loaded and warmed up within {seconds:g} s"
            ) from None
        engine.crew = self._crew(engine)
        return engine

    def _open(self, read: Callable[[], StoredVersion], kinds: Kinds | None) -> Engine:
        try:
            stored = read()
            if kinds is not None and kinds != Kinds.of(stored.manifest):
                raise OtherClasses(
                    "it has other classes than the version that serves: it waits for an activation by "
                    "hand, or for the next start with BRAIN_MODEL_VERSION=latest"
                )
            rules = adjusted(Rules.read(stored), self._settings)
            runtime = self._open_runtime(self._settings, stored)
            engine = Engine(stored, rules, runtime)
            engine.batcher = Batcher(
                runtime.lanes,
                runtime.batch_sizes[-1],
                self._settings.max_wait_ms / 1000,
                # Or the two would hold each other, and their memory, until the collector comes.
                partial(self._delivered, ref(engine)),
                self._metrics.observe_batch,
                self._pipeline.decoder.decode if runtime.whole else None,
                runtime.solo,
            )
            return engine
        except (ServiceError, ContractError):
            raise
        except OSError as error:
            raise unreadable(error) from error
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
            runtime.file,
            order,
            pipeline.settle,
            partial(pipeline.by_threads, batcher),
            batcher.submit,
            self._metrics,
        )
