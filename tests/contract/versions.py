"""Model versions for the tests of the manifest and the store."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from contract.manifest import Manifest
from contract.preprocessing import DEFAULT_SPEC, probe_digest
from contract.store import ModelStore

NAME = "brain-tumor"
FILES = {
    "model.int8.tflite": b"TFL3 not a real model",
    "saved_model/saved_model.pb": b"not a real graph",
    "saved_model/variables/variables.index": b"",
    "report/metrics.json": b'{"accuracy": 0.99}\n',
}


SPACE_ARRAYS = {"means": np.zeros((2, 3), np.float32), "whitening": np.eye(3, 2, dtype=np.float32)}
"""Of training embeddings with 3 features."""


def npz(**arrays: Any) -> bytes:
    """Content of a file of arrays."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def manifest_fields(version: int = 1, name: str = NAME) -> dict[str, Any]:
    """The fields of a manifest that is in order."""
    return {
        "name": name,
        "version": version,
        "created": "2026-11-22T05:30:00Z",
        "classes": ["glioma", "meningioma", "notumor", "pituitary"],
        "tumor_classes": ["glioma", "meningioma", "pituitary"],
        "tumor_threshold": 0.5,
        "input": {"dtype": "uint8", "shape": [None, DEFAULT_SPEC.height, DEFAULT_SPEC.width]},
        "outputs": {"probabilities": {"dtype": "float32", "shape": [None, 4]}},
        "preprocess": {
            "parameters": DEFAULT_SPEC.model_dump(),
            "digest": DEFAULT_SPEC.digest,
            "probe_digest": probe_digest(DEFAULT_SPEC),
        },
        "artifacts": {"litert": "model.int8.tflite", "tensorflow": "saved_model"},
        "metrics": {"accuracy": 0.99},
        "provenance": {
            "recipe": "efficientnet_lite0",
            "recipe_digest": "0" * 64,
            "weights": "imagenet",
            "protocol": "clean",
            "seed": 1,
            "data": [{"name": "nickparvar", "images": 7023, "digest": "0" * 64}],
            "counts": {"train": 5000, "validation": 700, "test": 1311},
            "packages": {"numpy": "2.4.6"},
        },
    }


def answer_fields(features: int = 3) -> dict[str, Any]:
    """The fields by which a manifest has every record of schema 2."""
    shapes = {
        "probabilities": [None, 4],
        "logits": [None, 4],
        "mask": [None, 112, 112],
        "embedding": [None, features],
    }
    return {
        "outputs": {name: {"dtype": "float32", "shape": shape} for name, shape in shapes.items()},
        "answer": {
            "temperature": 1.5,
            "tumor": {"mask_cells": 50, "bias": 0.1, "class_weight": 0.4, "mask_weight": 0.6},
            "conformal": {"coverage": 0.95, "threshold": 0.1},
            "operating_point": {"sensitivity": 0.98, "refer_low": 0.3, "refer_high": 0.6},
            "region": {"threshold": 0.5, "min_cells": 12, "min_tumor_probability": 0.3},
            "ood": {"file": "ood.npz", "threshold": 30.0},
        },
        "reference": {
            "class_shares": {"glioma": 0.3, "meningioma": 0.2, "notumor": 0.3, "pituitary": 0.2},
            "mean_confidence": 0.9,
            "out_of_distribution_rate": 0.01,
            "embedding_distance_mean": 20.0,
            "embedding_distance_std": 4.0,
        },
    }


def fill(folder: Path, files: Mapping[str, bytes] = FILES) -> None:
    """Writes the files of a version."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def publish(
    store: ModelStore,
    version: int = 1,
    name: str = NAME,
    files: Mapping[str, bytes] | None = None,
    **changes: Any,
) -> Path:
    """Publishes a version with every file that it should have, and more."""
    with store.staging(name) as staged:
        fill(staged, {**FILES, **(files or {})})
        fields = manifest_fields(version, name) | changes
        return store.publish(staged, Manifest.model_validate(fields))
