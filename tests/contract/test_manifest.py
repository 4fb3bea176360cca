from typing import Any

import pytest
from pydantic import ValidationError

from contract.manifest import SCHEMA_VERSION, Manifest
from tests.contract.versions import manifest_fields

CHANGES: dict[str, dict[str, Any]] = {
    "unknown-field": {"colour": "grey"},
    "newer-schema": {"schema_version": SCHEMA_VERSION + 1},
    "version-zero": {"version": 0},
    "name-with-slash": {"name": "a/b"},
    "name-that-climbs": {"name": ".."},
    "name-in-capitals": {"name": "Brain"},
    "name-with-newline": {"name": "brain\n"},
    "classes-repeat": {"classes": ["glioma", "glioma", "notumor", "pituitary"]},
    "one-class": {"classes": ["glioma"], "tumor_classes": ["glioma"]},
    "tumor-class-unknown": {"tumor_classes": ["sarcoma"]},
    "every-class-a-tumor": {"tumor_classes": ["glioma", "meningioma", "notumor", "pituitary"]},
    "no-tumor-class": {"tumor_classes": []},
    "threshold-zero": {"tumor_threshold": 0.0},
    "threshold-one": {"tumor_threshold": 1.0},
    "no-probabilities": {"outputs": {"logits": {"dtype": "float32", "shape": [None, 4]}}},
    "probabilities-of-three": {
        "outputs": {"probabilities": {"dtype": "float32", "shape": [None, 3]}}
    },
    "input-of-another-size": {"input": {"dtype": "uint8", "shape": [None, 256, 256]}},
    "no-artifact": {"artifacts": {}},
    "unknown-runtime": {"artifacts": {"onnx": "model.onnx"}},
    "metric-not-a-number": {"metrics": {"accuracy": float("nan")}},
    "metric-infinite": {"metrics": {"accuracy": float("inf")}},
}
PATHS = {
    "absolute": "/etc/passwd",
    "climbs": "../2/model.tflite",
    "climbs-inside": "a/../../b",
    "backslash": "a\\b",
    "empty": "",
    "dot": ".",
    "trailing-slash": "saved_model/",
    "leading-dot": "./model.tflite",
    "double-slash": "a//b",
}


def test_a_manifest_survives_its_file() -> None:
    manifest = Manifest.model_validate(manifest_fields())
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


def test_a_manifest_is_frozen() -> None:
    manifest = Manifest.model_validate(manifest_fields())
    with pytest.raises(ValidationError):
        manifest.version = 2  # type: ignore[misc]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_is_inconsistent_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Manifest.model_validate(manifest_fields() | change)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("field", ["artifact", "file"])
def test_paths_stay_inside_the_version(field: str, path: str) -> None:
    entry = {"path": path, "sha256": "0" * 64, "size_bytes": 1}
    change = {"artifacts": {"litert": path}} if field == "artifact" else {"files": [entry]}
    with pytest.raises(ValidationError):
        Manifest.model_validate(manifest_fields() | change)


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64])
def test_a_digest_is_a_sha256_in_hex(digest: str) -> None:
    entry = {"path": "model.tflite", "sha256": digest, "size_bytes": 1}
    with pytest.raises(ValidationError):
        Manifest.model_validate(manifest_fields() | {"files": [entry]})
