"""Answers that OpenAPI shows as examples: those of version 4 of the default model to real slices.

A test asks the service for the same, and compares what does not depend on the machine.
"""

from typing import Any, Final

REQUEST_ID: Final = "ef4bb2bf305ec583876848c9c90fa6fb"

_MODEL: Final = {"name": "brain-tumor", "version": 4, "runtime": "litert", "device": "cpu"}

_MODEL_BEFORE: Final = _MODEL | {"version": 3}

_TUMOR_CLASSES: Final = ["glioma", "meningioma", "pituitary"]

_HEAD: Final = {"request_id": REQUEST_ID, "model": _MODEL, "tumor_classes": _TUMOR_CLASSES}

_PREDICTION: Final[dict[str, Any]] = {
    "input": "Te-gl_0014.jpg",
    "label": "glioma",
    "probability": 0.996448,
    "probabilities": {
        "glioma": 0.996448,
        "meningioma": 0.000907,
        "notumor": 0.002129,
        "pituitary": 0.000516,
    },
    "tumor_probability": 0.997871,
    "decision": "tumor",
    "prediction_set": ["glioma"],
    "in_distribution": True,
    "region": {
        "source": "mask",
        "box": [158, 193, 238, 272],
        "score": 0.9223,
        "area_pixels": 4732,
    },
}

_FAILED: Final = {
    "input": "cut-off.jpg",
    "error": {
        "status": 422,
        "code": "truncated_image",
        "detail": "the image ends before its pixels do",
    },
}

_STUDY: Final = "2.25.211420317390164853092347081219530871402"
_SERIES: Final = "2.25.71930275184620438571209348571023985712"
_INSTANCE: Final = "2.25.160238457120394857120394857120394857123"

_FROM_DICOM: Final[dict[str, Any]] = _PREDICTION | {
    "input": None,
    # Its pixels are 0.4492 mm wide.
    "region": _PREDICTION["region"] | {"area_mm2": 954.85},
    "dicom": {
        "sop_instance_uid": _INSTANCE,
        "study_instance_uid": _STUDY,
        "series_instance_uid": _SERIES,
        "frame": 1,
    },
}

_SUMMARY: Final = {
    "study_instance_uid": _STUDY,
    "series_instance_uid": _SERIES,
    "slices": 1,
    "failed": 0,
    "unfamiliar": 0,
    "tumor_probability": 0.997871,
    "decision": "tumor",
    "most_suspicious": 0,
    "window": [0],
    "suspicious": [0],
}

_TIMING: Final = {"decode": 1.5, "queue": 0.04, "inference": 3.2, "total": 6.1}

_PACS: Final = {
    "destination": "ok",
    "spool": "ok",
    "series_waiting": 1,
    "instances_waiting": 180,
    "series_dead": 0,
    "objects_waiting": 0,
    "objects_dead": 1,
    "oldest_seconds": 0.0,
    "spool_bytes": 94371840,
    "spool_waiting_bytes": 94371840,
    "spool_max_bytes": 4294967296,
    "requests_refused": 0,
    "requests_turned_away": 0,
}

_UID: Final = {"vr": "UI", "Value": [_INSTANCE]}

_OPERATING_POINT: Final = {
    "tumor_threshold": 0.556107,
    "refer_low": 0.556107,
    "refer_high": 0.672505,
    "sensitivity": 0.980798,
}

EXAMPLES: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("/predict", "post"): {
        "two files, one of them damaged": {
            **_HEAD,
            "predictions": [_PREDICTION, _FAILED],
            "timing_ms": _TIMING,
        },
        "one raw DICOM object": {
            **_HEAD,
            "predictions": [_FROM_DICOM],
            "series": [_SUMMARY],
            "timing_ms": _TIMING,
        },
    },
    ("/explain", "post"): {
        "numbers; of the grid a corner": {
            **_HEAD,
            "explanation": {
                **_PREDICTION,
                "heatmap": {
                    "source": "mask",
                    "box": [106.0, 80.0, 400.35, 450.0],
                    "values": [[0.0, 0.012, 0.4], [0.02, 0.871, 0.95]],
                },
            },
            "timing_ms": _TIMING,
        }
    },
    **{
        (path, "get"): {
            "beside a PACS": {
                "status": "ready",
                "model": _MODEL,
                "uptime_seconds": 86400.5,
                "queue_depth": 0,
                "operating_point": _OPERATING_POINT,
                "pacs": _PACS,
            }
        }
        for path in ("/health", "/health/ready")
    },
    ("/health/live", "get"): {"alive": {"status": "alive"}},
    ("/models", "get"): {
        "one version": {
            "models": [
                {
                    "name": "brain-tumor",
                    "versions": [
                        {
                            "version": 4,
                            "active": True,
                            "aliases": ["stable"],
                            "created": "2026-11-25T15:29:28+00:00",
                            "classes": ["glioma", "meningioma", "notumor", "pituitary"],
                            "tumor_classes": _TUMOR_CLASSES,
                            "runtimes": ["litert", "tensorflow"],
                            "metrics": {"testing.int8.accuracy": 0.9253218884120171},
                        }
                    ],
                }
            ],
            "follows": None,
            "shadow": None,
        }
    },
    ("/models/{name}/{version}/activate", "post"): {
        "after version 3": {"model": _MODEL, "previous": _MODEL_BEFORE}
    },
    ("/models/{name}/rollback", "post"): {
        "back to version 3": {"model": _MODEL_BEFORE, "previous": _MODEL}
    },
    ("/models/{name}/aliases/{alias}/{version}", "put"): {
        "stable": {"alias": "stable", "version": 4, "previous": 3}
    },
    ("/deliveries", "get"): {
        "a report that the PACS refuses": {
            **_PACS,
            "refused": [
                {
                    "kind": "SR",
                    "object": "c1ca81c1e02db976f6bb3d6c4be0f6f2e7f1d8a2a1d1c7b8a90e6b1f0f6f7a3d",
                    "reason": "refused_0122",
                    "attempts": 1,
                    "created": 1795620600.25,
                    "request_id": REQUEST_ID,
                }
            ],
            "set_aside": [],
        }
    },
    ("/deliveries/retry", "post"): {"one report": {"series": 0, "objects": 1}},
}
"""By path and method, what a 200 may say; each by a title."""

STORED: Final = {
    "00081190": {"vr": "UR"},
    "00081199": {
        "vr": "SQ",
        "Value": [
            {
                "00081150": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.4"]},
                "00081155": _UID,
                "00081190": {"vr": "UR"},
            }
        ],
    },
}
"""Of STOW-RS: one instance, which is stored."""
