"""Trains a run: phase after phase, epoch after epoch.

Every epoch is its own call of ``Model.fit`` on a data set seeded by its number, and ends with
everything saved that the next one depends on: a run that was killed and resumed goes through the
same batches and ends with the same weights as one that was not.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.augmentation import augment, dataset
from training.datasets import ImageSet
from training.errors import DivergedError
from training.examples import Examples, training_examples, validation_examples
from training.losses import UNKNOWN, AllowedClasses, MaskLoss, accuracy
from training.model import LOGITS, MASK_LOGITS, build, unfreeze
from training.recipe import Phase, Recipe
from training.run import Progress, Run
from training.splits import Split


class RaiseOnNaN(keras.callbacks.Callback):
    """Ends training where Keras's own TerminateOnNaN would only stop quietly."""

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Raises DivergedError when the loss so far is not finite."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss} at batch {batch}; lower the learning rate")


class AverageWeights(keras.callbacks.Callback):
    """Keeps an exponential average of the trainable weights, which validates better than the last.

    The average starts fast, (1 + n) / (10 + n) after n batches, and ends at ``momentum``.
    """

    def __init__(self, model: keras.Model, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.sources = model.trainable_variables
        self.averages = [tf.Variable(source.value, trainable=False) for source in self.sources]
        self.batches = tf.Variable(0.0, trainable=False)
        self._step = tf.function(self._update)

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """Moves the averages one step."""
        self._step()

    def _update(self) -> None:
        self.batches.assign_add(1.0)
        momentum = tf.minimum(self.momentum, (1.0 + self.batches) / (10.0 + self.batches))
        for average, source in zip(self.averages, self.sources, strict=True):
            average.assign(momentum * average + (1.0 - momentum) * source.value)

    @property
    def variables(self) -> list[Any]:
        """The averages' whole state."""
        return [*self.averages, self.batches]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the averages into the model, and the model's own weights back afterwards."""
        own = [source.numpy() for source in self.sources]
        for source, average in zip(self.sources, self.averages, strict=True):
            source.assign(average)
        try:
            yield
        finally:
            for source, value in zip(self.sources, own, strict=True):
                source.assign(value)


def train(run: Run, images: ImageSet, groups: NDArray[np.intp], parts: Split) -> None:
    """Runs the phases that are not done yet; the result is in the run's folder."""
    recipe = run.config.recipe
    keras.utils.set_random_seed(recipe.seed)
    model = build(recipe)
    fitted = _fitted(model, recipe)
    loaded = run.load_progress()
    progress, saved = loaded or (Progress(), None)
    examples = training_examples(images, groups, parts, recipe)
    print(f"training on {examples.describe()}", flush=True)
    arrays = _tensors(examples)
    checked = validation_examples(images, parts, recipe)
    steps = math.ceil(examples.epoch_size / recipe.batch_size)
    while not progress.finished:
        phase = recipe.phases[progress.phase]
        unfreeze(model, recipe, phase)
        if saved is not None:
            _assign(model.variables, saved)
        if progress.phase and not progress.epoch:
            model.set_weights(run.load_best())
        _compile(fitted, recipe, phase, steps)
        average = AverageWeights(fitted, recipe.average_momentum)
        if saved is not None and progress.epoch:
            _assign(_state(model, fitted, average), saved)
        saved = None
        validation = _validation(checked, phase, recipe)
        while progress.epoch < phase.epochs and progress.waited < recipe.early_stopping_patience:
            rng = np.random.default_rng((recipe.seed, progress.total_epochs))
            batches = dataset(
                arrays,
                examples.draw(rng),
                recipe.batch_size,
                partial(_changed, recipe=recipe, resolution=phase.resolution),
                (recipe.seed, progress.total_epochs),
            )
            print(f"phase {phase.name}, epoch {progress.epoch + 1} of {phase.epochs}", flush=True)
            # The data set is in its order already.
            result = fitted.fit(
                batches, callbacks=[RaiseOnNaN(), average], shuffle=False, verbose=2
            ).history
            logs = {name: values[-1] for name, values in result.items()}
            with average.applied():
                found = fitted.evaluate(validation, return_dict=True, verbose=2)
                logs |= {f"val_{name}": value for name, value in found.items()}
                # Keras names an output's metrics after it as soon as there are two.
                logs = {_plain(name): value for name, value in logs.items()}
                better = _note(progress, phase, logs)
                if better:
                    run.save_best(model.get_weights())
            run.save_progress(progress, _state(model, fitted, average))
        _next_phase(progress, recipe)
        run.save_progress(progress, model.variables)
    print(f"best validation loss {progress.best_loss:.4f} in epoch {progress.best_epoch}")


def _plain(name: str) -> str:
    """``accuracy`` for ``logits_accuracy``, and ``class_loss`` for ``logits_loss``."""
    prefix, found, metric = name.rpartition(f"{LOGITS}_")
    if not found or prefix.endswith("mask_"):
        return name
    return f"{prefix}class_loss" if metric == "loss" else f"{prefix}{metric}"


def _fitted(model: keras.Model, recipe: Recipe) -> keras.Model:
    """The model's outputs that have a loss."""
    names = [LOGITS] if recipe.mask is None else [LOGITS, MASK_LOGITS]
    outputs = model(model.input)
    return keras.Model(model.input, {name: outputs[name] for name in names})


def _tensors(examples: Examples) -> dict[str, Any]:
    """What a batch is gathered from; masks in a row of their own, the last of them for unknown."""
    arrays = {"slices": examples.slices, "allowed": examples.allowed}
    if examples.masks is not None:
        arrays |= {"masks": examples.masks, "known": examples.known}
    return {name: tf.constant(array) for name, array in arrays.items()}


def _changed(rows: dict[str, Any], seed: Any, *, recipe: Recipe, resolution: int) -> Any:
    """A batch as the model is fitted on it."""
    warp = partial(augment, settings=recipe.augmentation, resolution=resolution)
    if "masks" not in rows:
        return warp(rows["slices"], seed), {LOGITS: rows["allowed"]}
    slices, masks = warp(rows["slices"], seed, masks=rows["masks"])
    return slices, {LOGITS: rows["allowed"], MASK_LOGITS: _cells(masks, rows["known"])}


def _cells(masks: Any, known: Any) -> Any:
    """Masks at the resolution of the mask head; :data:`UNKNOWN` where there is none."""
    cells = tf.nn.avg_pool2d(masks[..., None], 2, 2, "VALID")[..., 0]
    return tf.where(known[:, None, None], cells, UNKNOWN)


def _validation(examples: Examples, phase: Phase, recipe: Recipe) -> tf.data.Dataset:
    """Validation images, unchanged but for the phase's size: another size is another task."""
    size = (phase.resolution, phase.resolution)

    def scaled(images: Any) -> Any:
        return tf.image.resize(tf.cast(images, tf.float32)[..., None], size)[..., 0]

    def load(rows: dict[str, Any]) -> Any:
        targets = {LOGITS: rows["allowed"]}
        if "masks" in rows:
            targets[MASK_LOGITS] = _cells(scaled(rows["masks"]) / 255.0, rows["known"])
        return scaled(rows["slices"]), targets

    whole = tf.data.Dataset.from_tensor_slices(_tensors(examples))
    return whole.batch(recipe.batch_size).map(load).prefetch(1)


def _compile(model: keras.Model, recipe: Recipe, phase: Phase, steps: int) -> None:
    warmup = round(phase.warmup_epochs * steps)
    schedule: Any = keras.optimizers.schedules.CosineDecay(
        phase.learning_rate if not warmup else 0.0,
        max(1, phase.epochs * steps - warmup),
        warmup_target=phase.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=phase.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    # Compiled anew in each phase: Keras fixes what is trainable when it compiles.
    losses: dict[str, Any] = {LOGITS: AllowedClasses(recipe.label_smoothing)}
    metrics: dict[str, Any] = {LOGITS: [accuracy]}
    if recipe.mask is not None:
        losses[MASK_LOGITS] = MaskLoss(recipe.mask)
    model.compile(optimizer, losses, metrics=metrics)
    optimizer.build(model.trainable_variables)


def _state(model: keras.Model, fitted: keras.Model, average: AverageWeights) -> list[Any]:
    """Everything the next epoch depends on; the model's own variables come first."""
    return [*model.variables, *fitted.optimizer.variables, *average.variables]


def _assign(variables: Sequence[Any], saved: Sequence[np.ndarray]) -> None:
    for variable, value in zip(variables, saved[: len(variables)], strict=True):
        variable.assign(value)


def _note(progress: Progress, phase: Phase, logs: dict[str, float]) -> bool:
    """Books an epoch; whether it is the best so far."""
    progress.epoch += 1
    progress.total_epochs += 1
    progress.waited += 1
    progress.history.append({"epoch": progress.total_epochs, "phase": phase.name, **logs})
    if logs["val_loss"] >= progress.best_loss:
        return False
    progress.best_loss, progress.best_epoch = logs["val_loss"], progress.total_epochs
    progress.waited = 0
    return True


def _next_phase(progress: Progress, recipe: Recipe) -> None:
    size = recipe.phases[progress.phase].resolution
    progress.phase, progress.epoch, progress.waited = progress.phase + 1, 0, 0
    progress.finished = progress.phase == len(recipe.phases)
    if not progress.finished and recipe.phases[progress.phase].resolution != size:
        # Losses at two sizes do not compare: the new size must find its own best.
        progress.best_loss = float("inf")
