"""Trains a run: phase after phase, epoch after epoch.

Every epoch is its own call of ``Model.fit`` on a data set seeded by its number, and ends with
everything saved that the next one depends on: a run that was killed and resumed goes through the
same batches and ends with the same weights as one that was not.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.augmentation import augment, dataset
from training.callbacks import AverageWeights, RaiseOnNaN
from training.effect import unused_names
from training.errors import DivergedError, RunError, TrainingError
from training.examples import Examples, training_examples, validation_examples
from training.images import ImageSet
from training.losses import UNKNOWN, AllowedClasses, MaskLoss, accuracy
from training.model import LOGITS, MASK_LOGITS, build, require_layers, set_weights, unfreeze
from training.prepare import start
from training.progress import Progress, lowered_rate, next_phase, note
from training.recipe import Phase, Recipe
from training.run import SHARED, Run, RunConfig
from training.splits import Split
from training.strategy import Strategy, StrategyName


def begin(path: Path, config: RunConfig, resume: bool, strategy: Strategy) -> Run:
    """Begins a run, or goes on with it, when all workers are about to train the same one.

    Args:
        path: the run's folder, which the first worker writes.
        config: what this worker would train.
        resume: go on with the run in the folder.
        strategy: over which devices.

    Raises:
        RunError: the folder holds a run that is not to be resumed, or another run; or the workers have
            other recipes or data, or do not see the same folder.
    """
    failure: TrainingError | None = None
    run = Run(path, config)
    if strategy.chief:
        try:
            run = start(path, config, resume)
        except TrainingError as error:
            # Told to the others first, who would wait for this one.
            failure = error
    ours = config.digests()
    whole = b"".join(ours[name] for name in SHARED)
    workers = strategy.gathered(b"\0" * len(whole) if failure else whole)
    if failure is not None:
        raise failure
    size = len(whole) // len(SHARED)
    differ = [
        name
        for place, name in enumerate(SHARED)
        if len({digests[place * size : (place + 1) * size] for digests in workers}) > 1
    ]
    if differ:
        raise RunError(
            f"the workers do not train the same run: they differ in {', '.join(differ)}, or the first "
            "of them could not begin; nothing was trained"
        )
    if len(workers) > 1 and len(set(strategy.gathered(_seen(path)))) > 1:
        raise RunError(f"the workers do not see the same folder at {path}; nothing was trained")
    return run


def _seen(path: Path) -> bytes:
    """sha256 of what a run's folder says that is to be done."""
    found = hashlib.sha256()
    for name in ("run.json", "history.json"):
        file = path / name
        found.update(file.read_bytes() if file.is_file() else b"none")
    return found.digest()


def train(
    run: Run,
    images: ImageSet,
    alike: NDArray[np.intp],
    parts: Split,
    strategy: Strategy | None = None,
) -> None:
    """Runs the phases that are not done yet; the result is in the run's folder.

    Args:
        run: the folder.
        images: what was read.
        alike: near-duplicate group of each image, (N,), persons apart.
        parts: who trains and who validates.
        strategy: over which devices; one if None.

    Raises:
        RecipeError: a phase names layers that the backbone lacks.
        DivergedError: a figure is no number; what the epochs before it gave stays.
        RunError: what is to be gone on with is damaged, or of another model.
        PretrainedWeightsError: a new run's weights cannot be had.
        StrategyError: a worker was lost.
    """
    strategy = strategy or Strategy(StrategyName.NONE)
    if strategy.chief:
        for line in remarks(run.config, images):
            print(f"WARNING: {line}", flush=True)
    if strategy.replicas > 1:
        print(f"{strategy.replicas} replicas share each batch", flush=True)
    with strategy.scope():
        examples = training_examples(images, alike, parts, run.config.recipe)
        _train(run, examples, validation_examples(images, parts, run.config.recipe), strategy)


def remarks(config: RunConfig, images: ImageSet) -> list[str]:
    """What is allowed and hardly meant, a line each."""
    sources = {file.source for file in images.files}
    lines = [
        f"the recipe's {key} names {', '.join(names)}, and no --data folder is called so"
        for key, names in unused_names(config.recipe, sources).items()
    ]
    if config.never_shown:
        lines.append(
            f"no training image shows {', '.join(config.never_shown)}: what the model says of it "
            "means nothing"
        )
    return lines


def _train(run: Run, examples: Examples, checked: Examples, strategy: Strategy) -> None:
    recipe = run.config.recipe
    keras.utils.set_random_seed(recipe.seed)
    loaded = run.load_progress()
    progress, saved = loaded or (Progress(), None)
    with _precision(recipe):
        # What is gone on with has all its weights: where they came from may be gone.
        model = build(recipe, pretrained=loaded is None)
        fitted = trainable_outputs(model, recipe)
    # Those of a later phase too: hours may lie before it.
    require_layers(model, recipe)
    print(f"training on {examples.describe()}", flush=True)
    arrays = _tensors(examples)
    steps = math.ceil(examples.epoch_size / recipe.batch_size)
    while not progress.finished:
        phase = recipe.phases[progress.phase]
        unfreeze(model, recipe, phase)
        if saved is not None:
            _assign(model.variables, saved[: len(model.variables)], run)
        compile_for(fitted, recipe, phase, steps)
        average = AverageWeights(fitted, recipe.average_momentum)
        if saved is not None and progress.epoch:
            _assign(_state(model, fitted, average), saved, run)
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
            logs = strategy.fit(fitted, batches, [RaiseOnNaN(), average])
            with average.applied():
                found = strategy.evaluate(fitted, validation)
                logs |= {f"val_{name}": value for name, value in found.items()}
                # Keras names an output's metrics after it as soon as there are two.
                logs = {_plain(name): value for name, value in logs.items()}
                _require_numbers(logs, progress.total_epochs + 1)
                better = note(progress, recipe, phase, logs)
                # Every worker reads its variables, which may take them all; one writes.
                weights = model.get_weights()
            _lower_rate(fitted.optimizer, progress, phase, logs["val_loss"])
            state = [variable.numpy() for variable in _state(model, fitted, average)]
            if strategy.chief:
                run.save_weights(weights, better)
                run.save_progress(progress, state)
            strategy.wait()
        next_phase(progress, recipe)
        if not progress.finished:
            # Saved with the progress: the next epoch may overwrite their file before it is booked.
            set_weights(model, run.load_restart(), run.path)
        state = [variable.numpy() for variable in model.variables]
        if strategy.chief:
            run.save_progress(progress, state)
    print(
        f"best epoch {progress.best_epoch} by validation {recipe.checkpoint_monitor}: "
        f"loss {progress.best_loss:.4f}, accuracy {progress.best_accuracy:.4f}"
    )


@contextmanager
def _precision(recipe: Recipe) -> Iterator[None]:
    """Layers that are made inside compute in the recipe's precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _lower_rate(optimizer: Any, progress: Progress, phase: Phase, loss: float) -> None:
    if phase.plateau is not None:
        rate = float(optimizer.learning_rate.numpy())
        lowered = lowered_rate(progress, phase.plateau, rate, loss)
        if lowered != rate:
            print(f"learning rate {lowered:.2g}", flush=True)
            optimizer.learning_rate.assign(lowered)


def _plain(name: str) -> str:
    """``accuracy`` for ``logits_accuracy``, and ``class_loss`` for ``logits_loss``."""
    prefix, found, metric = name.rpartition(f"{LOGITS}_")
    if not found or prefix.endswith("mask_"):
        return name
    return f"{prefix}class_loss" if metric == "loss" else f"{prefix}{metric}"


def trainable_outputs(model: keras.Model, recipe: Recipe) -> keras.Model:
    """The model's outputs that have a loss."""
    names = [LOGITS] if recipe.mask is None else [LOGITS, MASK_LOGITS]
    outputs = model(model.input)
    return keras.Model(model.input, {name: outputs[name] for name in names})


def _tensors(examples: Examples) -> dict[str, Any]:
    """What a batch is gathered from; masks in a row of their own, the last of them for unknown."""
    arrays = {"slices": examples.slices, "allowed": examples.allowed}
    if examples.masks is not None:
        arrays |= {"masks": examples.masks, "known": examples.known}
    # Where batches are made of them, whether or not there is a GPU.
    with tf.device("CPU"):
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
    plain = tf.autograph.experimental.do_not_convert(load)
    return whole.batch(recipe.batch_size).map(plain).prefetch(1)


def compile_for(model: keras.Model, recipe: Recipe, phase: Phase, steps: int) -> None:
    """Gives a model the phase's optimiser, and the recipe's losses.

    Args:
        model: see :func:`trainable_outputs`.
        recipe: the model's.
        phase: of the recipe.
        steps: an epoch's.
    """
    rate = _learning_rate(phase, steps)
    if recipe.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(rate, weight_decay=phase.weight_decay)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    else:
        optimizer = keras.optimizers.Adam(rate)
    # Compiled anew in each phase: Keras fixes what is trainable when it compiles.
    losses: dict[str, Any] = {LOGITS: AllowedClasses(recipe.label_smoothing)}
    metrics: dict[str, Any] = {LOGITS: [accuracy]}
    if recipe.mask is not None:
        losses[MASK_LOGITS] = MaskLoss(recipe.mask)
    # Keras would use XLA on a GPU, which compiles each size of a batch for longer than an epoch takes.
    model.compile(optimizer, losses, metrics=metrics, jit_compile=False)
    # Half precision wraps it in another one, which scales the loss.
    model.optimizer.build(model.trainable_variables)


def _learning_rate(phase: Phase, steps: int) -> Any:
    if phase.schedule != "cosine":
        return phase.learning_rate
    warmup = round(phase.warmup_epochs * steps)
    return keras.optimizers.schedules.CosineDecay(
        phase.learning_rate if not warmup else 0.0,
        max(1, phase.epochs * steps - warmup),
        warmup_target=phase.learning_rate if warmup else None,
        warmup_steps=warmup,
    )


def _state(model: keras.Model, fitted: keras.Model, average: AverageWeights) -> list[Any]:
    """Everything the next epoch depends on; the model's own variables come first."""
    return [*model.variables, *fitted.optimizer.variables, *average.variables]


def _assign(variables: Sequence[Any], saved: Sequence[np.ndarray], run: Run) -> None:
    try:
        for variable, value in zip(variables, saved, strict=True):
            variable.assign(value)
    except ValueError as error:
        raise RunError(
            f"{run.path / 'progress.npz'} is of another model than this release builds: {error}"
        ) from error


def _require_numbers(logs: dict[str, float], epoch: int) -> None:
    """Raises DivergedError before an epoch is saved whose figures choose nothing."""
    for name, value in logs.items():
        if not math.isfinite(value):
            raise DivergedError(f"{name} is {value} after epoch {epoch}; lower the learning rate")
