"""What OpenAPI says beyond the answers' models: bodies, problems and examples."""

import inspect
import re
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from contract.errors import ContractError
from service.answers import MaskForm
from service.errors import RateExceeded, ServiceError, Unavailable
from service.examples import EXAMPLES, REQUEST_ID, STORED
from service.explanation import SOURCE_HEADER, VERSION_HEADER, Source
from service.problems import MEDIA_TYPE
from service.schemas import Problem
from service.uploads import FIELD, RAW_MEDIA

TITLE: Final = "Brain MRI inference"

DESCRIPTION: Final = """\
Classifies brain MRI slices: JPEG, PNG, DICOM with one or many frames, or a zip file of them. A
research tool, not a medical device.

Errors are problem details (RFC 9457) with a stable `code` and the request's id, which is also in the
header `X-Request-ID` of every answer. It is the request's own `X-Request-ID` where that is a UUID, 32
hex digits or a W3C `traceparent`; any other could name a patient, and is neither kept nor logged.
Without one, it is the trace-id of the header `traceparent`."""

Responses = dict[int | str, dict[str, Any]]

_SCHEMA_PATH: Final = "#/components/schemas/{model}"

_REASONS: Final = {
    400: ("The request is malformed, or did not arrive in time.", "malformed_multipart"),
    401: ("There are API keys here, and the request has none that is valid.", "unauthenticated"),
    403: (
        "The API key is for something else. Without keys: another site's page asks, or a strange host.",
        "forbidden",
    ),
    404: ("There is no such version.", "version_not_found"),
    406: (
        "No form of the answer is accepted: DICOM objects are made of DICOM alone.",
        "no_dicom_source",
    ),
    409: ("That version must not serve; the one that did still does.", "corrupt_version"),
    413: ("Body, files, slices or pixels are over the limit.", "body_too_large"),
    415: ("The body or its content is of no accepted type.", "unsupported_media_type"),
    422: (
        "No input could be read: damaged, truncated, no MR image of a head, an unusable zip file.",
        "truncated_image",
    ),
    429: ("The client asks too often; `Retry-After` says when to return.", "rate_exceeded"),
    500: ("The service failed; its log says why.", "internal_error"),
    503: (
        "Queue full, no model ready, or draining; `Retry-After` says when to return.",
        "queue_full",
    ),
    504: ("The deadline passed before the prediction.", "deadline_exceeded"),
}

_WAITS: Final = {429, 503}
"""Of these statuses, those that say when to try again."""

_PLACES: Final = {
    "name": ("Of a model.", "brain-tumor"),
    "version": ("A version number, an alias or `latest`.", "latest"),
    "alias": ("A lower-case word other than `latest`, such as `stable`.", "stable"),
    "study": ("Study Instance UID of everything in the body.", "1.2.3"),
}
"""What stands in the addresses of routes, and an example of it."""

_FORMATS: Final = {"integer": "int64", "number": "double"}

_SHARE: Final = {"type": "number", "minimum": 0, "maximum": 1}
_ADMIN: Final = "Of this request alone; needs the role `admin`, where there are API keys."

PREDICT_PARAMETERS: Final[list[dict[str, Any]]] = [
    {
        "name": "mask",
        "in": "query",
        "description": "Whether and how a region's mask is written.",
        "schema": {"type": "string", "enum": [*MaskForm], "default": MaskForm.NONE},
    },
    {
        "name": "tumor_threshold",
        "in": "query",
        "description": "Tumour probability from which the decision is `tumor`, unless it is `refer`. "
        "Alone it only widens the band that is referred: to have `tumor` from it on, give the same "
        f"number as `refer_low` and `refer_high`. {_ADMIN}",
        "schema": _SHARE,
    },
    *(
        {
            "name": name,
            "in": "query",
            "description": f"The {word} end of the band that is referred. {_ADMIN}",
            "schema": _SHARE,
        }
        for name, word in (("refer_low", "lower"), ("refer_high", "upper"))
    ),
]
"""What may stand in the address of a prediction."""

PREDICT_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": f"One or many files in the multipart field `{FIELD}`, or one raw file. A zip "
        "file stands for the files in it, and a multi-frame DICOM object for its frames. "
        "What it is shows in its content, whatever the headers say.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {
                            "type": "array",
                            "items": {
                                "type": "string",
                                "format": "binary",
                                "contentMediaType": "application/octet-stream",
                            },
                        }
                    },
                }
            },
            **{
                media.decode(): {"schema": {"type": "string", "format": "binary"}}
                for media in RAW_MEDIA
            },
        },
    }
}
"""The body of /predict, which the service reads itself (:mod:`service.uploads`)."""

EXPLAIN_PARAMETERS: Final[list[dict[str, Any]]] = [
    *PREDICT_PARAMETERS,
    {
        "name": "frame",
        "in": "query",
        "description": "Of a file with many: its number, from 1. Default: the one with the highest "
        "tumour probability.",
        "schema": {"type": "integer", "minimum": 1},
    },
]

EXPLAIN_BODY: Final[dict[str, Any]] = {
    "requestBody": PREDICT_BODY["requestBody"]
    | {
        "description": f"One file in the multipart field `{FIELD}`, or raw; of a zip file, the one "
        "file in it."
    }
}
"""The body of /explain: that of /predict, with a single file."""

PICTURE: Final[dict[str, Any]] = {"image/png": {"schema": {"type": "string", "format": "binary"}}}

EXPLAIN_HEADERS: Final[dict[str, Any]] = {
    SOURCE_HEADER: {
        "description": "What the heat map is made of: with `mask` the tumour probability of each cell; "
        "with `cam` and `explain` relative to its own highest value, and no probability.",
        "required": True,
        "schema": {"type": "string", "enum": [*Source]},
    },
    VERSION_HEADER: {
        "description": "The version of the model that the heat map is of.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
}

EXPOSITION: Final[dict[str, Any]] = {"text/plain": {"schema": {"type": "string"}}}
"""What Prometheus reads. OpenMetrics, for who asks for it, is not here: generated clients ask for all
that is."""

STORE_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "DICOM PS3.18, section 10.5: DICOM files, one in each part.",
        "content": {
            # First, as generators make a method of the first: a body of parts they cannot write.
            "application/dicom": {"schema": {"type": "string", "format": "binary"}},
            'multipart/related; type="application/dicom"': {
                "schema": {"type": "string", "format": "binary"}
            },
        },
    }
}
"""The body of a STOW-RS request, which the service reads itself (:mod:`service.pacs.receiver`)."""

_DATASET: Final = {"application/dicom+json": {"schema": {"type": "object"}}}

_STORED: Final = {"application/dicom+json": {"schema": {"type": "object"}, "example": STORED}}

STORE_ANSWERS: Final[Responses] = {
    200: {"description": "All instances are stored: on the disk.", "content": _STORED},
    202: {
        "description": "Some are stored; `00081198` and `0008119A` say which are not, and why.",
        "content": _DATASET,
    },
    409: {"description": "None is stored; the dataset says why.", "content": _DATASET},
}
"""Answers with the response dataset of PS3.18, table I.2-1, in the DICOM JSON model."""

SECURITY_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}

AUTHENTICATED: Final[dict[str, Any]] = {"security": [{"bearer": []}, {"key": []}, {}]}
"""Of a route that needs a key where the service has keys, and none where it has none."""

OBJECTS: Final[dict[str, Any]] = {
    'multipart/related; type="application/dicom"': {
        "schema": {
            "type": "string",
            "format": "binary",
            "description": "The results as DICOM objects, in explicit VR little endian: of each series "
            "a structured report (TID 1500), a Secondary Capture and, where the model gives a region, "
            "segmentations.",
        }
    }
}
"""The other form of an answer, for inputs that are DICOM."""


def problems(*reasons: int | type[ServiceError] | type[ContractError]) -> Responses:
    """The problems that a route answers with.

    Args:
        reasons: a status for what is common, an error for what is particular to the route. Of several
            with one status the first is the example.
    """
    answers: Responses = {}
    for reason in reasons:
        if isinstance(reason, int):
            status, (text, code), waits = reason, _REASONS[reason], reason in _WAITS
        else:
            status, code, text = reason.status, reason.code, inspect.getdoc(reason) or ""
            waits = issubclass(reason, Unavailable | RateExceeded)
        if status in answers:
            answers[status]["description"] += f" {text}"
            continue
        example = {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": text,
            "code": code,
            "request_id": REQUEST_ID,
        }
        schema = {"$ref": _SCHEMA_PATH.format(model="Problem")}
        answers[status] = {
            "description": text,
            "content": {MEDIA_TYPE: {"schema": schema, "example": example}},
        }
        if waits:
            answers[status]["headers"] = {
                "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}
            }
    return answers


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, made once: FastAPI's, and the schema of problems."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        _, definitions = models_json_schema([(Problem, "serialization")], ref_template=_SCHEMA_PATH)
        document.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
        document["components"]["securitySchemes"] = SECURITY_SCHEMES
        # Relative to the document, as a proxy may have put a prefix before all addresses.
        document["servers"] = [{"url": "."}]
        for (path, method), answers in EXAMPLES.items():
            content = document["paths"][path][method]["responses"]["200"]["content"]
            # Not through FastAPI, which drops every null from examples.
            content["application/json"]["examples"] = {
                title: {"value": answer} for title, answer in answers.items()
            }
        for path, operations in document["paths"].items():
            for operation in operations.values():
                operation.setdefault("parameters", []).extend(_parameters(path))
        _prepare_for_clients(document)
        app.openapi_schema = document
    return app.openapi_schema


def _prepare_for_clients(node: Any) -> None:
    """Has generated clients read every number, and answers of later releases.

    Without a format, integers and numbers have 32 bits in Go and Java: not enough for the bytes of a
    spool and the seconds of a clock. Where ``additionalProperties`` is false, a field that is added
    breaks clients that are in use; where it is absent, some generators take it for false. The models
    themselves stay strict, and tests hold answers to them.
    """
    if isinstance(node, list):
        for item in node:
            _prepare_for_clients(item)
    elif isinstance(node, dict):
        kind = node.get("type")
        if isinstance(kind, str) and kind in _FORMATS:
            node["format"] = _FORMATS[kind]
        if node.get("additionalProperties") is False:
            node["additionalProperties"] = True
        for key, value in node.items():
            if key not in {"example", "examples"}:
                _prepare_for_clients(value)


def _parameters(path: str) -> list[dict[str, Any]]:
    """The parameters in an address; the routes take them out of it themselves."""
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PLACES[name][0],
            "schema": {"type": "string", "minLength": 1},
            "example": _PLACES[name][1],
        }
        for name in re.findall(r"{(\w+)}", path)
    ]
