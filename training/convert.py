"""From trained weights to the two files that serve: a SavedModel and a full-integer LiteRT model.

Both take preprocessed slices, uint8 (N, height, width), and give ``probabilities``, float32
(N, classes): normalisation and softmax are inside.
"""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from contract.preprocessing import DEFAULT_SPEC
from training.backbones import LITE_INPUT_MEAN, LITE_INPUT_SCALE
from training.datasets import ImageSet, one_hot
from training.errors import ExportRefused
from training.fidelity import AGREEMENT_FILE, LITERT_FILE, SAVED_MODEL, agreement, strayed
from training.model import CLASSIFIER, build
from training.recipe import Recipe
from training.run import Run
from training.splits import Split

CALIBRATION_SLICES: Final = (100, 200, 300, 600)
"""Numbers of slices that are tried. More of them widen the activation ranges, which saves outliers and
costs resolution everywhere else; which is better differs from model to model."""
BATCH: Final = 32


Predictor = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Slices, uint8 (N, H, W), to probabilities, float32 (N, classes)."""


def trained_model(run: Run) -> keras.Model:
    """The run's best model at the input size that serves; grey levels to logits."""
    model = build(run.config.recipe, DEFAULT_SPEC.height, pretrained=False)
    model.set_weights(run.load_best())
    return model


class _Served(tf.Module):
    """What the SavedModel holds: each variable once, where Keras's own exporter writes two copies."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.weights = [variable.value for variable in model.weights]
        shape = (None, DEFAULT_SPEC.height, DEFAULT_SPEC.width)

        def serve(slices: Any) -> dict[str, Any]:
            logits = model(tf.cast(slices, tf.float32), training=False)
            return {"probabilities": tf.nn.softmax(logits)}

        self.serve = tf.function(
            serve, input_signature=[tf.TensorSpec(shape, tf.uint8, name="slices")]
        )


def write_saved_model(model: keras.Model, path: Path) -> None:
    """Writes the float model with the signature ``serving_default``."""
    served = _Served(model)
    tf.saved_model.save(served, str(path), signatures={"serving_default": served.serve})


def write_litert(
    model: keras.Model, backbone_name: str, calibration: NDArray[np.uint8], path: Path
) -> None:
    """Quantises weights and activations to 8 bits and writes the LiteRT file.

    The converter sees the network from the normalised slice on. Its range is exactly that of the
    pixels, so the quantised input is the pixel itself: no rescaling runs, and nothing is rounded.

    Args:
        model: grey levels to logits.
        backbone_name: its layer that holds the backbone.
        calibration: training slices, uint8 (N, H, W), from which activation ranges are read.
        path: the file to write.

    Raises:
        ExportRefused: the quantised input is not the pixel value.
    """
    height, width = DEFAULT_SPEC.height, DEFAULT_SPEC.width
    normalised = keras.Input(batch_shape=(1, height, width), name="slices")
    features = model.get_layer(backbone_name)(keras.ops.expand_dims(normalised, -1))
    logits = model.get_layer(CLASSIFIER)(model.get_layer("pool")(features))
    network = keras.Model(normalised, keras.layers.Softmax(name="probabilities")(logits))

    def representative() -> Any:
        # The full ramp pins the input's range whatever the slices hold.
        ramp = np.resize(np.arange(256, dtype=np.uint8), (height, width))
        for pixels in [*calibration, ramp]:
            yield [(pixels[None].astype(np.float32) - LITE_INPUT_MEAN) / LITE_INPUT_SCALE]

    converter = tf.lite.TFLiteConverter.from_keras_model(network)
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
    if zero != LITE_INPUT_MEAN or not np.isclose(scale, 1 / LITE_INPUT_SCALE, rtol=1e-6):
        raise ExportRefused(f"the input is quantised with scale {scale} and zero point {zero}")


def saved_model_predictor(path: Path) -> Predictor:
    """Runs a SavedModel in batches."""
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]

    def predict(slices: NDArray[np.uint8]) -> NDArray[np.float32]:
        batches = (
            signature(slices=tf.constant(slices[start : start + BATCH]))["probabilities"].numpy()
            for start in range(0, len(slices), BATCH)
        )
        return np.concatenate(list(batches))

    return predict


def litert_predictor(path: Path) -> Predictor:
    """Runs a LiteRT file, slice by slice."""
    interpreter = Interpreter(model_path=str(path), num_threads=2)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]

    def predict(slices: NDArray[np.uint8]) -> NDArray[np.float32]:
        rows = []
        for pixels in slices:
            interpreter.set_tensor(source, pixels[None])
            interpreter.invoke()
            rows.append(interpreter.get_tensor(target)[0])
        return np.stack(rows).astype(np.float32)

    return predict


def calibration_slices(
    images: ImageSet, train: NDArray[np.intp], recipe: Recipe, count: int
) -> NDArray[np.uint8]:
    """Training slices for quantisation: as many of each class, drawn with the recipe's seed."""
    rng = np.random.default_rng(recipe.seed)
    labels = images.labels[train]
    each = count // len(recipe.classes)
    chosen = [rng.permutation(train[labels == label])[:each] for label in recipe.classes]
    slices: NDArray[np.uint8] = images.slices[np.concatenate(chosen)]
    return slices


def convert(run: Run, images: ImageSet, parts: Split) -> Path:
    """Writes both artifacts of a finished run, and how they agree on validation, once.

    Of several calibrations the one that agrees best with the float model on validation is kept.

    Returns:
        The folder with ``saved_model/``, ``model.int8.tflite`` and ``agreement.json``.

    Raises:
        RunError: the run has not finished.
    """
    run.require_finished()
    target = run.path / "artifacts"
    if (target / AGREEMENT_FILE).is_file():
        return target
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    model = trained_model(run)
    write_saved_model(model, target / SAVED_MODEL)
    recipe = run.config.recipe
    slices = images.slices[parts.validation]
    truth = one_hot(images.labels[parts.validation], recipe.classes).argmax(1)
    reference = saved_model_predictor(target / SAVED_MODEL)(slices)
    tried: list[dict[str, float]] = []
    for count in CALIBRATION_SLICES:
        candidate = target / f"{count}.tflite"
        calibration = calibration_slices(images, parts.train, recipe, count)
        write_litert(model, recipe.backbone, calibration, candidate)
        found = agreement(reference, litert_predictor(candidate)(slices), truth)
        tried.append({"calibration_slices": float(count), **found})
    result = min(tried, key=strayed)
    (target / f"{result['calibration_slices']:.0f}.tflite").rename(target / LITERT_FILE)
    for count in CALIBRATION_SLICES:
        (target / f"{count}.tflite").unlink(missing_ok=True)
    # Written last: its presence says that the folder is complete.
    (target / AGREEMENT_FILE).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return target
