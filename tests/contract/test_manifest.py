import json
from typing import Any

import pytest
from pydantic import ValidationError

from contract.manifest import SCHEMA_VERSION, Manifest
from tests.contract.versions import answer_fields, manifest_fields

CHANGES: dict[str, dict[str, Any]] = {
    "unknown-field": {"colour": "grey"},
    "newer-schema": {"schema_version": SCHEMA_VERSION + 1},
    "version-zero": {"version": 0},
    "version-that-the-store-overlooks": {"version": 1_000_000_000},
    "name-with-slash": {"name": "a/b"},
    "name-that-climbs": {"name": ".."},
    "name-in-capitals": {"name": "Brain"},
    "name-with-newline": {"name": "brain\n"},
    "classes-repeat": {"classes": ["glioma", "glioma", "notumor", "pituitary"]},
    "class-without-name": {"classes": ["glioma", "meningioma", "", "pituitary"]},
    "class-of-spaces": {"classes": ["glioma", "meningioma", " ", "pituitary"]},
    "class-of-two-lines": {"classes": ["glioma", "meningioma", "a\nb", "pituitary"]},
    "class-of-control-characters": {"classes": ["glioma", "meningioma", "a\x1b[2J", "pituitary"]},
    "class-that-turns-what-follows": {"classes": ["glioma", "meningioma", "a\u202eb", "pituitary"]},
    "class-of-joiners": {"classes": ["glioma", "meningioma", "\u200c\u200d", "pituitary"]},
    "class-that-ends-in-one": {"classes": ["glioma", "meningioma", "a\u200d", "pituitary"]},
    "class-too-long": {"classes": ["glioma", "meningioma", "a" * 65, "pituitary"]},
    "tumor-classes-repeat": {"tumor_classes": ["glioma", "glioma"]},
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
    "file-of-negative-size": {
        "files": [{"path": "model.tflite", "sha256": "0" * 64, "size_bytes": -1}]
    },
    "no-artifact": {"artifacts": {}},
    "unknown-runtime": {"artifacts": {"onnx": "model.onnx"}},
    "metric-not-a-number": {"metrics": {"accuracy": float("nan")}},
    "metric-infinite": {"metrics": {"accuracy": float("inf")}},
}
RECORD_CHANGES: dict[str, dict[str, Any]] = {
    "schema-1": {"schema_version": 1},
    "temperature-zero": {"answer.temperature": 0.0},
    "temperature-infinite": {"answer.temperature": float("inf")},
    "unknown-record": {"answer.colour": "grey"},
    "coverage-of-all": {"answer.conformal.coverage": 1.0},
    "coverage-of-none": {"answer.conformal.coverage": 0.0},
    "set-threshold-above-1": {"answer.conformal.threshold": 1.1},
    "band-upside-down": {"answer.operating_point.refer_low": 0.7},
    "no-cell": {"answer.region.min_cells": 0},
    "more-cells-than-there-are": {"answer.region.min_cells": 112 * 112 + 1},
    "more-evidence-than-there-is": {"answer.tumor.mask_cells": 112 * 112 + 1},
    "every-cell-a-region": {"answer.region.threshold": 0.0},
    "ood-file-that-climbs": {"answer.ood.file": "../ood.npz"},
    "ood-threshold-zero": {"answer.ood.threshold": 0.0},
    "no-logits": {"outputs.logits": None},
    "no-mask": {"outputs.mask": None},
    "no-mask-for-regions": {
        "answer.tumor": None,
        "answer.region.min_cells": 1,
        "outputs.mask": None,
    },
    "no-mask-for-evidence": {
        "answer.tumor.mask_cells": 1,
        "answer.region": None,
        "outputs.mask": None,
    },
    "no-embedding": {"outputs.embedding": None},
    "logits-of-three": {"outputs.logits.shape": [None, 3]},
    "logits-in-bytes": {"outputs.logits.dtype": "uint8"},
    "mask-with-channel": {"outputs.mask.shape": [None, 112, 112, 1]},
    "mask-of-open-size": {"outputs.mask.shape": [None, None, 112]},
    "mask-of-one-slice": {"outputs.mask.shape": [1, 112, 112]},
    "embedding-of-nothing": {"outputs.embedding.shape": [None, 0]},
    "maps-of-three": {"outputs.cam": {"dtype": "float32", "shape": [None, 7, 7, 3]}},
    "shares-of-other-classes": {"reference.class_shares": {"glioma": 1.0}},
    "share-above-1": {"reference.class_shares.glioma": 1.5},
    "negative-distance": {"reference.embedding_distance_mean": -1.0},
}
LIMITS: dict[str, dict[str, Any]] = {
    "set-of-all": {"answer.conformal.threshold": 0.0},
    "nothing-referred": {
        "answer.operating_point.refer_low": 0.5,
        "answer.operating_point.refer_high": 0.5,
    },
    "certain-cells": {"answer.region.threshold": 1.0},
    "every-cell": {"answer.region.min_cells": 112 * 112, "answer.tumor.mask_cells": 112 * 112},
    "maps": {"outputs.cam": {"dtype": "float32", "shape": [None, 7, 7, 4]}},
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


@pytest.mark.parametrize(
    "name",
    ["\u0628\u06cc\u200c\u062a\u0648\u0645\u0648\u0631", "\u0915\u094d\u200d\u0937", "no tumour"],
    ids=ascii,
)
def test_a_class_may_be_spelt_in_any_script(name: str) -> None:
    fields = manifest_fields() | {"classes": ["glioma", "meningioma", name, "pituitary"]}
    assert Manifest.model_validate(fields).classes[2] == name


@pytest.mark.parametrize(("sign", "named"), [("\x1b", "U\\+001B"), ("\u202e", r"U\+202E")])
def test_a_sign_that_no_class_may_have_is_named(sign: str, named: str) -> None:
    fields = manifest_fields() | {"classes": ["glioma", "meningioma", f"a{sign}b", "pituitary"]}
    with pytest.raises(ValidationError, match=named):
        Manifest.model_validate(fields)


def with_records(changes: dict[str, Any]) -> dict[str, Any]:
    """Manifest fields with every record, changed at dotted names; None removes one."""
    fields = manifest_fields() | answer_fields()
    for name, value in changes.items():
        *folders, last = name.split(".")
        place = fields
        for folder in folders:
            place = place[folder]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return fields


def test_records_make_it_schema_2_and_survive_the_file() -> None:
    manifest = Manifest.model_validate(with_records({}))
    assert manifest.schema_version == SCHEMA_VERSION == 2
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


def test_without_records_the_file_is_as_before() -> None:
    """So that a release that knows schema 1 alone reads it."""
    content = json.loads(Manifest.model_validate(manifest_fields()).model_dump_json())
    assert content["schema_version"] == 1
    assert not {"answer", "reference"} & set(content)


def test_an_input_that_is_not_square_has_its_rows_first() -> None:
    fields = manifest_fields()
    fields["preprocess"]["parameters"] |= {"height": 192, "width": 256}
    fields["input"]["shape"] = [None, 192, 256]
    assert Manifest.model_validate(fields).input.shape == (None, 192, 256)
    fields["input"]["shape"] = [None, 256, 192]
    with pytest.raises(ValidationError, match="input's shape"):
        Manifest.model_validate(fields)


@pytest.mark.parametrize("part", ["tumor", "conformal", "operating_point", "region", "ood"])
def test_every_part_of_an_answer_is_optional(part: str) -> None:
    manifest = Manifest.model_validate(with_records({f"answer.{part}": None}))
    assert manifest.answer is not None
    assert getattr(manifest.answer, part) is None


@pytest.mark.parametrize("change", RECORD_CHANGES.values(), ids=RECORD_CHANGES.keys())
def test_records_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Manifest.model_validate(with_records(change))


@pytest.mark.parametrize("change", LIMITS.values(), ids=LIMITS.keys())
def test_records_may_reach_their_limits(change: dict[str, Any]) -> None:
    Manifest.model_validate(with_records(change))


@pytest.mark.parametrize("record", ["answer", "reference"])
def test_one_record_is_enough_for_schema_2(record: str) -> None:
    other = {"answer": "reference", "reference": "answer"}[record]
    assert Manifest.model_validate(with_records({other: None})).schema_version == 2


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
