"""One device, all of a machine's GPUs, or several machines (``tf.distribute``)."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

from training.callbacks import require_finite
from training.cluster import START_TIMEOUT_S, await_workers, cluster
from training.errors import StrategyError


class StrategyName(StrEnum):
    """How a run is spread.

    ``mirrored`` shares each batch among this machine's GPUs, or has one replica where there is none;
    ``multiworker`` among the processes that the environment variable ``TF_CONFIG`` lists, all of which
    run the same command on the same data and read the same run's folder.
    """

    NONE = "none"
    MIRRORED = "mirrored"
    MULTIWORKER = "multiworker"


_LOST: Final = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)
"""What is raised where another worker no longer answers."""
_function: Final = partial(tf.function, autograph=False)
"""Of a function in which nothing depends on a tensor's value: AutoGraph would read all of Keras."""


class Strategy:
    """A run's share of the work.

    Args:
        name: which.
        start_timeout_s: how long ``multiworker`` waits for all workers to be there.

    Attributes:
        chief: whether this process writes the run's folder.
        shared: whether other processes share the run.

    Raises:
        StrategyError: ``multiworker`` without a usable ``TF_CONFIG``, or a worker did not come.
    """

    def __init__(self, name: StrategyName, start_timeout_s: float = START_TIMEOUT_S) -> None:
        self._strategy: Any = None
        self._compiled: Any = None
        self._traced: tuple[Any, Any] = (None, None)
        self.chief = True
        self.shared = name is StrategyName.MULTIWORKER
        if name is StrategyName.MIRRORED:
            self._strategy = tf.distribute.MirroredStrategy()
        elif name is StrategyName.MULTIWORKER:
            found = cluster()
            self.chief = found.place == 0
            await_workers(found, start_timeout_s)
            with self._watched():
                self._strategy = tf.distribute.MultiWorkerMirroredStrategy()
        # Once: what is defined anew for each call is traced anew for each.
        self._meet = _function(
            lambda: self._strategy.reduce(
                "SUM", self._strategy.run(lambda: tf.constant(1.0)), axis=None
            )
        )

    @property
    def replicas(self) -> int:
        """Devices that share a batch."""
        return self._strategy.num_replicas_in_sync if self._strategy else 1

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Where variables are made, and used, that all replicas have.

        Raises:
            StrategyError: another worker was lost.
        """
        with (
            self._watched(),
            self._strategy.scope() if self._strategy else contextlib.nullcontext(),
        ):
            yield

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except _LOST as error:
            if not self.shared:
                raise
            raise StrategyError(
                "a worker was lost; start all of them again, with fit --resume if an epoch was done"
            ) from error

    def gathered(self, content: bytes) -> list[bytes]:
        """What each worker comes here with, all of it of one length; this one's alone if it is alone.

        Raises:
            StrategyError: another worker was lost.
        """
        if not self.shared:
            return [content]
        row = tf.constant(np.frombuffer(content, np.uint8)[None], tf.int32)

        gather = _function(
            lambda: self._strategy.gather(self._strategy.run(lambda: tf.identity(row)), axis=0)
        )
        with self._watched():
            rows = gather().numpy()
        return [bytes(found.astype(np.uint8)) for found in rows]

    def wait(self) -> None:
        """Returns when every process has come here, so that what the chief wrote can be read."""
        if self._strategy is not None:
            self._meet()

    def fit(
        self,
        model: keras.Model,
        batches: tf.data.Dataset,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> dict[str, float]:
        """Trains one epoch on batches in their order; its loss and metrics."""
        if self._strategy is None:
            history = model.fit(
                batches, callbacks=list(callbacks), shuffle=False, verbose=2
            ).history
            return {name: values[-1] for name, values in history.items()}

        def after(number: int, found: Any) -> None:
            # Of workers, one that ended on its own would leave the others waiting: they all end below.
            logs = {} if self.shared else {"loss": self._own(found["loss"])}
            for callback in callbacks:
                callback.on_train_batch_end(number, logs)

        self._build(model, batches)
        logs = self._pass(model, batches, self._steps(model)[0], after)
        require_finite(logs["loss"], len(batches))
        return logs

    def evaluate(self, model: keras.Model, batches: tf.data.Dataset) -> dict[str, float]:
        """Loss and metrics of a pass without training."""
        if self._strategy is None:
            found: dict[str, float] = model.evaluate(batches, return_dict=True, verbose=2)
            return found
        return self._pass(model, batches, self._steps(model)[1], lambda *_: None)

    def _build(self, model: keras.Model, batches: tf.data.Dataset) -> None:
        """Makes the metrics, as Keras's own fit does: several replicas cannot while they are traced."""
        if self._compiled is not model.optimizer:
            model._symbolic_build(data_batch=next(iter(batches)))  # noqa: SLF001

    def _steps(self, model: keras.Model) -> tuple[Any, Any]:
        """A step of training and one of validation, traced once for each compilation."""
        if self._compiled is not model.optimizer:
            self._compiled = model.optimizer
            run = self._strategy.run
            self._traced = (
                _function(lambda data: run(model.train_step, args=(data,))),
                _function(lambda data: run(model.test_step, args=(data,))),
            )
        return self._traced

    def _pass(
        self,
        model: keras.Model,
        batches: tf.data.Dataset,
        step: Any,
        after: Callable[[int, Any], None],
    ) -> dict[str, float]:
        """All batches, of which each worker takes its rows.

        Keras's own ``fit`` (3.15) takes means over the replicas of nested batches and of scalars, both
        of which a strategy of several workers refuses.
        """
        options = tf.data.Options()
        # There are no files by which the data could be split.
        options.experimental_distribute.auto_shard_policy = (
            tf.data.experimental.AutoShardPolicy.DATA
        )
        whole = batches.map(tf.autograph.experimental.do_not_convert(self._filled)).with_options(
            options
        )
        shared = self._strategy.experimental_distribute_dataset(whole)
        model.reset_metrics()
        for number, data in enumerate(shared):
            after(number, step(data))
        logs = {name: float(value) for name, value in model.get_metrics_result().items()}
        print(" - ".join(f"{name}: {value:.4f}" for name, value in logs.items()), flush=True)
        return logs

    def _own(self, value: Any) -> float:
        """A figure of this process's first replica."""
        return float(self._strategy.experimental_local_results(value)[0])

    def _filled(self, *batch: Any) -> Any:
        """A batch with a row for each replica, since a convolution refuses none.

        Replicas take equal shares, rounded up, until the rows are at an end. Where that leaves one
        without, the batch begins again with its first rows.
        """
        rows = tf.shape(tf.nest.flatten(batch)[0])[0]
        share = -(-rows // self.replicas)
        wanted = tf.where(share * (self.replicas - 1) < rows, rows, share * self.replicas)
        return tf.nest.map_structure(lambda part: tf.gather(part, tf.range(wanted) % rows), batch)
