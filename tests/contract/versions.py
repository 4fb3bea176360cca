"""Model versions for the tests of the manifest and the store."""

from pathlib import Path
from typing import Any

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


def fill(folder: Path) -> None:
    """Writes the files of a version."""
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def publish(store: ModelStore, version: int = 1, name: str = NAME, **changes: Any) -> Path:
    """Publishes a version with every file that it should have."""
    with store.staging(name) as staged:
        fill(staged)
        fields = manifest_fields(version, name) | changes
        return store.publish(staged, Manifest.model_validate(fields))
