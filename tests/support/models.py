"""Tiny real models whose answers a test can see coming: a bright patch is a tumour.

``python -m tests.support.models FOLDER`` writes a store of them, in a process of its own, since
TensorFlow is slow to import and warns a lot. The versions:

1. two heads: every output of the contract, every record in its manifest;
2. two heads, all of LiteRT's outputs quantised;
3. classes and ``cam``, without a mask;
4. classes alone, and a SavedModel with a signature ``explain``.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from contract.manifest import Manifest
from contract.preprocessing import DEFAULT_SPEC, preprocess
from contract.store import ModelStore
from tests.contract.versions import manifest_fields

NAME: Final = "bright-patch"
TWO_HEADS, QUANTISED, MAPS, EXPLAINED = 1, 2, 3, 4
CLASSES: Final = ("glioma", "meningioma", "notumor", "pituitary")
SIDE: Final = DEFAULT_SPEC.height
CELLS: Final = SIDE // 2
BRIGHT: Final = 0.8
"""Share of full brightness at which a cell is as likely tumour as not."""
FEATURES: Final = 16
SHAPES: Final[dict[str, list[int | None]]] = {
    "probabilities": [None, 4],
    "logits": [None, 4],
    "mask": [None, CELLS, CELLS],
    "embedding": [None, FEATURES],
    "cam": [None, 28, 28, 4],
}


def head(
    rows: int = 300,
    columns: int = 260,
    patch: tuple[int, int, int] | None = (170, 120, 22),
) -> NDArray[np.uint8]:
    """A grey head on black; a bright disc in it at column, row and radius is its tumour."""
    y, x = np.mgrid[0:rows, 0:columns]
    inside = ((y - 0.5 * rows) / (0.42 * rows)) ** 2 + (
        (x - 0.5 * columns) / (0.38 * columns)
    ) ** 2 < 1
    pixels = np.where(inside, 100, 0).astype(np.uint8)
    # A few bright pixels at the skull, so that the head is grey with and without a tumour.
    pixels[int(0.1 * rows) : int(0.1 * rows) + 4, columns // 2 - 40 : columns // 2 + 40] = 250
    pixels[int(0.9 * rows) - 4 : int(0.9 * rows), columns // 2 - 40 : columns // 2 + 40] = 250
    if patch is not None:
        column, row, radius = patch
        pixels[(y - row) ** 2 + (x - column) ** 2 < radius**2] = 250
    return pixels


def embedding(inputs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the models embed, computed without them: brightness in 4 x 4 fields."""
    fields = inputs.reshape(len(inputs), 4, SIDE // 4, 4, SIDE // 4) / 255.0
    return np.asarray(fields.mean(axis=(2, 4)).reshape(len(inputs), FEATURES), np.float32)


def _manifest(version: int, outputs: tuple[str, ...], **more: Any) -> Manifest:
    fields = manifest_fields(version, NAME) | {
        "outputs": {name: {"dtype": "float32", "shape": SHAPES[name]} for name in outputs},
        "artifacts": {"litert": "model.tflite", "tensorflow": "saved_model"},
        "metrics": {},
    }
    return Manifest.model_validate(fields | more)


RECORDS: Final[dict[str, Any]] = {
    "answer": {
        "temperature": 1.0,
        "tumor": {"mask_cells": 400, "bias": 0.0, "class_weight": 0.5, "mask_weight": 0.5},
        "conformal": {"coverage": 0.95, "threshold": 0.2},
        "operating_point": {"sensitivity": 0.98, "refer_low": 0.4, "refer_high": 0.6},
        "region": {"threshold": 0.5, "min_cells": 200, "min_tumor_probability": 0.4},
        "ood": {"file": "ood.npz", "threshold": 0.6},
    },
    "reference": {
        "class_shares": dict.fromkeys(CLASSES, 0.25),
        "mean_confidence": 0.8,
        "out_of_distribution_rate": 0.01,
        "embedding_distance_mean": 0.2,
        "embedding_distance_std": 0.1,
    },
}


def main(folder: Path) -> None:
    """Writes the store."""
    import tensorflow as tf

    store = ModelStore(folder)

    def network(slices: Any) -> dict[str, Any]:
        grey = tf.cast(slices, tf.float32)[..., None] / 255.0
        mask = tf.sigmoid(30.0 * (tf.nn.avg_pool2d(grey, 2, 2, "VALID") - BRIGHT))
        # Percent of the input that is bright; the skull's part is about 1.
        percent = 100.0 * tf.reduce_mean(mask, axis=[1, 2, 3])
        columns = [2.0 * (percent - 2.0), 0.2 * percent, 2.0 * (2.0 - percent), -0.2 * percent]
        logits = tf.stack(columns, axis=1)
        fields = tf.nn.avg_pool2d(grey, SIDE // 4, SIDE // 4, "VALID")
        coarse = tf.nn.avg_pool2d(mask, 4, 4, "VALID")
        return {
            "probabilities": tf.nn.softmax(logits),
            "logits": logits,
            "mask": tf.reshape(mask, [-1, CELLS, CELLS]),
            "embedding": tf.reshape(fields, [-1, FEATURES]),
            "cam": tf.concat([coarse, 0.1 * coarse, -coarse, -0.1 * coarse], axis=3),
        }

    def save(path: Path, outputs: tuple[str, ...], explained: bool = False) -> None:
        def serve(slices: Any) -> dict[str, Any]:
            given = network(slices)
            return {name: given[name] for name in outputs}

        def explain(slices: Any) -> dict[str, Any]:
            return {"heatmap": network(slices)["mask"]}

        def signature(function: Callable[[Any], dict[str, Any]]) -> Any:
            shape = tf.TensorSpec([None, SIDE, SIDE], tf.uint8, name="slices")
            return tf.function(function, input_signature=[shape])

        module = tf.Module()
        module.serve, module.explain = signature(serve), signature(explain)
        signatures = {"serving_default": module.serve}
        if explained:
            signatures["explain"] = module.explain
        tf.saved_model.save(module, str(path), signatures)

    def convert(path: Path, quantised: bool = False) -> bytes:
        converter = tf.lite.TFLiteConverter.from_saved_model(
            str(path), signature_keys=["serving_default"]
        )
        if quantised:
            batch = np.stack([preprocess(head()), preprocess(head(patch=None))])
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([image[None]] for image in batch)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8
            converter.inference_output_type = tf.uint8
        content: bytes = converter.convert()
        return content

    heads = ("probabilities", "logits", "mask", "embedding")
    forms: dict[int, tuple[tuple[str, ...], dict[str, Any]]] = {
        TWO_HEADS: (heads, RECORDS),
        QUANTISED: (heads, RECORDS),
        MAPS: (("probabilities", "cam"), {}),
        EXPLAINED: (("probabilities",), {}),
    }
    for version, (outputs, records) in forms.items():
        with store.staging(NAME) as staged:
            save(staged / "saved_model", outputs, explained=version == EXPLAINED)
            (staged / "model.tflite").write_bytes(
                convert(staged / "saved_model", quantised=version == QUANTISED)
            )
            if records:
                known = np.stack([preprocess(head()), preprocess(head(patch=None))])
                np.savez(
                    staged / "ood.npz",
                    means=embedding(known).mean(axis=0, keepdims=True),
                    whitening=np.eye(FEATURES, dtype=np.float32),
                )
            store.publish(staged, _manifest(version, outputs, **records))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
