"""From trained weights to the two files that serve: a SavedModel and a full-integer LiteRT model.

Both take preprocessed slices, uint8 (N, height, width), and give the outputs of :func:`served`:
normalisation, softmax and sigmoid are inside.
"""

import shutil
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from contract.preprocessing import DEFAULT_SPEC
from training.errors import ExportRefused, RunError
from training.explain import class_maps, grad_cam, gradient_maps
from training.fidelity import AGREEMENT_FILE, LITERT_FILE, SAVED_MODEL, agreement, strayed
from training.files import read_json, write_json
from training.images import ImageSet
from training.inputs import INPUTS, SCALE
from training.model import (
    EMBEDDING,
    FEATURES,
    LOGITS,
    MASK_LOGITS,
    NETWORK,
    build,
    classifying_head,
    set_weights,
)
from training.recipe import Recipe
from training.run import ARTIFACTS, Run
from training.splits import Split
from training.truth import allowed

CALIBRATION_SLICES: Final = (100, 200, 300, 600)
"""Numbers of slices that are tried. More of them widen the activation ranges, which saves outliers
and costs resolution everywhere else; which is better differs from model to model."""
BATCH: Final = 32
ORIGIN_FILE: Final = "origin.json"
"""Beside the artifacts: sha256 of the weights that they were made of."""


Outputs = dict[str, NDArray[np.float32]]
Predictor = Callable[[NDArray[np.uint8]], Outputs]
"""Slices, uint8 (N, H, W), to outputs by name, float32 (N, ...)."""


def trained_model(run: Run) -> keras.Model:
    """The run's best model at the input size that serves; see :func:`training.model.build`.

    Raises:
        RunError: the run has no weights, or they are damaged or of another model.
    """
    recipe = run.config.recipe
    model = build(recipe, recipe.served_resolution, pretrained=False)
    set_weights(model, run.load_best(), run.path)
    return model


def served(model: keras.Model, raw: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """What a version answers, from the network's outputs for scaled slices.

    Returns:
        ``probabilities`` and ``logits`` (N, classes), ``embedding`` (N, d) and, with a mask head,
        ``mask``: the probability of tumour in each cell, (N, height / 2, width / 2); without one,
        ``cam``: each class's activation map, (N, h, w, classes), whose mean over the cells is the
        logit where the head is linear, and which is Grad-CAM elsewhere.
    """
    outputs = {
        "probabilities": tf.nn.softmax(raw[LOGITS]),
        "logits": raw[LOGITS],
        "embedding": raw[EMBEDDING],
    }
    if MASK_LOGITS in raw:
        outputs["mask"] = tf.sigmoid(raw[MASK_LOGITS])
    elif recipe.head.linear:
        outputs["cam"] = class_maps(model, raw)
    else:
        outputs["cam"] = gradient_maps(model, raw, recipe)
    return outputs


def _sized(scaled: Any, recipe: Recipe) -> Any:
    size = (recipe.served_resolution, recipe.served_resolution)
    if size == (DEFAULT_SPEC.height, DEFAULT_SPEC.width):
        return scaled
    return tf.image.resize(scaled[..., None], size)[..., 0]


class _Served(tf.Module):
    """What a SavedModel holds: each variable once, where Keras's own exporter writes two copies."""

    def __init__(self, model: keras.Model, recipe: Recipe, batch: int | None, dtype: Any) -> None:
        super().__init__()
        self.weights = [variable.value for variable in model.weights]
        shape = (batch, DEFAULT_SPEC.height, DEFAULT_SPEC.width)
        spec = [tf.TensorSpec(shape, dtype, name="slices")]

        # Of none of these does the way depend on a tensor's value: AutoGraph would read all of Keras
        # for nothing.
        function = partial(tf.function, autograph=False)

        def forward(slices: Any) -> Any:
            # A converter that quantises sees the network from the scaled slice on.
            is_pixels = dtype == tf.uint8
            scaled = model.get_layer(SCALE)(tf.cast(slices, tf.float32)) if is_pixels else slices
            return model.get_layer(NETWORK)(_sized(scaled, recipe), training=False)

        explains = recipe.mask is None and not recipe.head.linear and dtype == tf.uint8
        # Two signatures call it: it is traced, written and loaded once.
        raw = function(forward, input_signature=spec) if explains else forward

        def serve(slices: Any) -> dict[str, Any]:
            return served(model, raw(slices), recipe)

        self.functions = {"serving_default": function(serve, input_signature=spec)}
        if explains:
            head = classifying_head(model)

            def explain(slices: Any) -> dict[str, Any]:
                return {"heatmap": grad_cam(head, raw(slices)[FEATURES], recipe)}

            self.functions["explain"] = function(explain, input_signature=spec)

    def save(self, path: Path) -> None:
        """Writes it with its signatures; raises RunError where it cannot be, as on a full disk."""
        # Nobody differentiates what is served, and writing how to takes as long as all else.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        try:
            tf.saved_model.save(self, str(path), signatures=self.functions, options=options)
        except tf.errors.OpError as error:
            # What is not of writing, as a GPU whose memory is full, names no file.
            if str(path) not in error.message:
                raise
            # Between the file's name and that of the operation.
            reason = error.message.rpartition("; ")[2].partition(" [Op:")[0]
            raise RunError(f"{path} cannot be written: {reason}") from error


def write_saved_model(model: keras.Model, recipe: Recipe, path: Path) -> None:
    """Writes the float model.

    Its signature ``serving_default`` gives the outputs of :func:`served`. Where the head is not
    linear, ``explain`` gives ``heatmap`` for slices; see :func:`training.explain.grad_cam`.
    """
    _Served(model, recipe, None, tf.uint8).save(path)


def write_float_litert(model: keras.Model, recipe: Recipe, path: Path) -> None:
    """Writes a LiteRT file that computes in float32, from pixels as the 8-bit one does."""
    with tempfile.TemporaryDirectory() as folder:
        _Served(model, recipe, 1, tf.uint8).save(Path(folder))
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        path.write_bytes(converter.convert())


def write_litert(
    model: keras.Model, recipe: Recipe, calibration: NDArray[np.uint8], path: Path
) -> None:
    """Quantises weights and activations to 8 bits and writes the LiteRT file.

    The converter sees the network from the scaled slice on. Its range is exactly that of the
    pixels, so the quantised input is the pixel itself: no rescaling runs, and nothing is rounded.

    Args:
        model: see :func:`training.model.build`.
        recipe: the model's.
        calibration: training slices, uint8 (N, H, W), from which activation ranges are read.
        path: the file to write.

    Raises:
        ExportRefused: the quantised input is not the pixel value.
    """
    height, width = DEFAULT_SPEC.height, DEFAULT_SPEC.width
    way = INPUTS[recipe.preprocessing]

    def representative() -> Any:
        # The full ramp pins the input's range whatever the slices hold.
        ramp = np.resize(np.arange(256, dtype=np.uint8), (height, width))
        for pixels in [*calibration, ramp]:
            yield [((pixels[None] - way.zero) * way.scale).astype(np.float32)]

    with tempfile.TemporaryDirectory() as folder:
        _Served(model, recipe, 1, tf.float32).save(Path(folder))
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = representative
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.float32
        with warnings.catch_warnings():
            # The converter warns whenever integer input is asked for, statistics or not.
            warnings.filterwarnings("ignore", "Statistics for quantized inputs", UserWarning)
            path.write_bytes(converter.convert())
    scale, zero = Interpreter(model_path=str(path)).get_input_details()[0]["quantization"]
    if zero != way.zero or not np.isclose(scale, way.scale, rtol=1e-6):
        raise ExportRefused(f"the input is quantised with scale {scale} and zero point {zero}")


def keras_predictor(model: keras.Model, recipe: Recipe) -> Predictor:
    """Runs a trained model as its SavedModel would, without writing one."""
    return in_batches(_Served(model, recipe, None, tf.uint8).functions["serving_default"])


def saved_model_predictor(path: Path) -> Predictor:
    """Runs a SavedModel in batches."""
    return in_batches(tf.saved_model.load(str(path)).signatures["serving_default"])


def in_batches(signature: Any) -> Predictor:
    """Runs a signature of a SavedModel in batches."""

    def predict(slices: NDArray[np.uint8]) -> Outputs:
        batches = [
            signature(slices=tf.constant(slices[start : start + BATCH]))
            for start in range(0, len(slices), BATCH)
        ]
        return {name: np.concatenate([b[name].numpy() for b in batches]) for name in batches[0]}

    return predict


def litert_predictor(path: Path) -> Predictor:
    """Runs a LiteRT file, slice by slice."""
    runner = Interpreter(model_path=str(path), num_threads=2).get_signature_runner()

    def predict(slices: NDArray[np.uint8]) -> Outputs:
        rows = [runner(slices=pixels[None]) for pixels in slices]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    return predict


def calibration_slices(
    images: ImageSet, train: NDArray[np.intp], recipe: Recipe, count: int
) -> NDArray[np.uint8]:
    """Training slices for quantisation: as many of each class, drawn with the recipe's seed."""
    rng = np.random.default_rng(recipe.seed)
    labels = images.labels[train]
    present = np.unique(labels)
    each = count // len(present)
    chosen = [rng.permutation(train[labels == label])[:each] for label in present]
    slices: NDArray[np.uint8] = images.slices[np.concatenate(chosen)]
    return slices


def convert(run: Run, images: ImageSet, parts: Split) -> Path:
    """Writes both artifacts of a finished run, and how they agree on validation, once for its weights.

    Of several calibrations the one that agrees best with the float model on validation is kept.

    Returns:
        The folder with ``saved_model/``, ``model.int8.tflite``, ``origin.json`` and ``agreement.json``.

    Raises:
        RunError: the run has not finished.
    """
    run.require_finished()
    target = run.path / ARTIFACTS
    if (target / AGREEMENT_FILE).is_file() and made_of(run) is not False:
        return target
    model = trained_model(run)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    recipe = run.config.recipe
    write_saved_model(model, recipe, target / SAVED_MODEL)
    slices = images.slices[parts.validation]
    truth = allowed(images.labels[parts.validation], recipe.classes, recipe.tumor_classes)
    reference = saved_model_predictor(target / SAVED_MODEL)(slices)
    tried: list[dict[str, float]] = []
    calibrated = 0
    for count in CALIBRATION_SLICES:
        candidate = target / f"{count}.tflite"
        calibration = calibration_slices(images, parts.train, recipe, count)
        if tried and len(calibration) == calibrated:
            # There are no more slices to calibrate with.
            break
        calibrated = len(calibration)
        write_litert(model, recipe, calibration, candidate)
        found = agreement(reference, litert_predictor(candidate)(slices), truth)
        tried.append({"calibration_slices": float(count), **found})
    result = min(tried, key=strayed)
    (target / f"{result['calibration_slices']:.0f}.tflite").rename(target / LITERT_FILE)
    for count in CALIBRATION_SLICES:
        (target / f"{count}.tflite").unlink(missing_ok=True)
    write_json(target / ORIGIN_FILE, {"weights": run.weights_digest()})
    # Written last: its presence says that the folder is complete.
    write_json(target / AGREEMENT_FILE, result)
    return target


def made_of(run: Run) -> bool | None:
    """Whether a run's artifacts are of its weights; None where they are older than that record."""
    path = run.path / ARTIFACTS / ORIGIN_FILE
    if not path.is_file():
        return None
    return read_json(path).get("weights") == run.weights_digest()
