"""Trains a recipe: read, audit, split, then phase after phase, epoch after epoch.

Every epoch is its own call of ``Model.fit`` on a data set seeded by its number, and ends with
everything saved that the next one depends on: a run that was killed and resumed goes through the
same batches and ends with the same weights as one that was not.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

from training.augmentation import augment, dataset
from training.datasets import ImageSet, find_images, read_images
from training.duplicates import audit
from training.errors import DatasetError, DivergedError
from training.model import build, unfreeze
from training.recipe import Phase, Recipe
from training.run import Progress, Run, RunConfig
from training.splits import Protocol, Split, split

SPLIT_PARTS: Final = ("train", "validation", "test")


class RaiseOnNaN(keras.callbacks.Callback):
    """Ends training where Keras's own TerminateOnNaN would only stop quietly."""

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Raises DivergedError when the loss so far is not finite."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss} at batch {batch}; lower the learning rate")


def fit(
    recipe: Recipe, roots: Sequence[Path], out: Path, protocol: Protocol, resume: bool
) -> Run:
    """Trains a recipe into a run's folder.

    Args:
        recipe: what to train.
        roots: data folders.
        out: the run's folder.
        protocol: how the data are split.
        resume: go on with the run in ``out``, if there is one.

    Returns:
        The finished run.

    Raises:
        TrainingError: one of its kinds; what was trained until then is kept.
    """
    images = read_images(find_images(roots))
    print(images.describe(), flush=True)
    unknown = set(images.labels) - set(recipe.classes)
    if unknown:
        raise DatasetError(f"{recipe.name} knows no class {', '.join(sorted(unknown))}")
    found = audit(images)
    parts = split(images, found, protocol, recipe.validation_share, recipe.seed)
    print(f"split ({protocol}): {parts.counts()}", flush=True)
    config = RunConfig(
        recipe=recipe,
        protocol=protocol,
        data=images.sources(),
        roots=tuple(root.resolve() for root in roots),
        splits={
            name: tuple(images.sha256[i] for i in getattr(parts, name)) for name in SPLIT_PARTS
        },
    )
    if resume and (out / "run.json").exists():
        run = Run.open(out)
        run.require_same(config)
    else:
        run = Run.create(out, config)
    train(run, images, parts)
    return run


def train(run: Run, images: ImageSet, parts: Split) -> None:
    """Runs the phases that are not done yet; the result is in the run's folder."""
    recipe = run.config.recipe
    keras.utils.set_random_seed(recipe.seed)
    model = build(recipe)
    loaded = run.load_progress()
    progress, saved = loaded if loaded else (Progress(), None)
    targets = one_hot(images.labels, recipe.classes)
    slices, labels = tf.constant(images.slices[parts.train]), tf.constant(targets[parts.train])
    validation = (
        tf.data.Dataset.from_tensor_slices(
            (images.slices[parts.validation], targets[parts.validation])
        )
        .batch(recipe.batch_size)
        .map(lambda x, y: (tf.cast(x, tf.float32), y))
    )
    steps = math.ceil(len(parts.train) / recipe.batch_size)
    while not progress.finished:
        phase = recipe.phases[progress.phase]
        _compile(model, recipe, phase, steps)
        if saved is not None and progress.epoch:
            _restore(model, saved)
        elif progress.phase:
            model.set_weights(run.load_best())
        saved = None
        while progress.epoch < phase.epochs and progress.waited < recipe.early_stopping_patience:
            rng = np.random.default_rng((recipe.seed, progress.total_epochs))
            batches = dataset(
                slices,
                labels,
                rng.permutation(len(parts.train)),
                recipe.batch_size,
                lambda x, key, size=phase.resolution: augment(x, recipe.augmentation, size, key),
                (recipe.seed, progress.total_epochs),
            )
            print(f"phase {phase.name}, epoch {progress.epoch + 1} of {phase.epochs}", flush=True)
            logs = model.fit(batches, validation_data=validation, callbacks=[RaiseOnNaN()]).history
            _note(run, progress, phase, model, {name: values[-1] for name, values in logs.items()})
        progress.phase, progress.epoch, progress.waited = progress.phase + 1, 0, 0
        progress.finished = progress.phase == len(recipe.phases)
        run.save_progress(progress, [])
    print(f"best validation loss {progress.best_loss:.4f} in epoch {progress.best_epoch}")


def one_hot(labels: Sequence[str] | np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Class names to float32 (N, classes)."""
    index = np.array([classes.index(str(label)) for label in labels])
    return np.eye(len(classes), dtype=np.float32)[index]


def _compile(model: keras.Model, recipe: Recipe, phase: Phase, steps: int) -> None:
    unfreeze(model, recipe, phase)
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
    model.compile(
        optimizer,
        keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=recipe.label_smoothing
        ),
        metrics=["accuracy"],
    )
    optimizer.build(model.trainable_variables)


def _state(model: keras.Model) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]


def _restore(model: keras.Model, saved: Sequence[np.ndarray]) -> None:
    for variable, value in zip(_state(model), saved, strict=True):
        variable.assign(value)


def _note(
    run: Run, progress: Progress, phase: Phase, model: keras.Model, logs: dict[str, float]
) -> None:
    """Books an epoch: keeps the best weights, then everything else, in this order."""
    progress.epoch += 1
    progress.total_epochs += 1
    progress.waited += 1
    if logs["val_loss"] < progress.best_loss:
        progress.best_loss, progress.best_epoch = logs["val_loss"], progress.total_epochs
        progress.waited = 0
        run.save_best(model.get_weights())
    progress.history.append({"epoch": progress.total_epochs, "phase": phase.name, **logs})
    run.save_progress(progress, _state(model))
