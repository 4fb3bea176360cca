"""What clients that are generated from OpenAPI need of it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from service.catalogue import CODES
from service.schemas import Health
from tests.support.service import Service


@pytest.fixture(scope="module")
def document(service: Service) -> dict[str, Any]:
    content: dict[str, Any] = service.client.get("/openapi.json").json()
    return content


def nodes(node: object) -> Iterator[dict[str, Any]]:
    """Every object of a document, but those of examples."""
    if isinstance(node, dict):
        yield node
        for key, value in node.items():
            if key not in {"example", "examples"}:
                yield from nodes(value)
    elif isinstance(node, list):
        for item in node:
            yield from nodes(item)


def test_numbers_have_64_bits(document: dict[str, Any]) -> None:
    """Without a format they have 32 in Go and Java."""
    for kind, width in (("integer", "int64"), ("number", "double")):
        formats = [node.get("format") for node in nodes(document) if node.get("type") == kind]
        assert formats
        assert {*formats} == {width}


def test_fields_and_codes_may_be_added(document: dict[str, Any]) -> None:
    """As docs/client.md says; the models themselves are strict."""
    assert Health.model_config["extra"] == "forbid"
    schemas = document["components"]["schemas"].values()
    assert all(schema["additionalProperties"] is True for schema in schemas)
    code = document["components"]["schemas"]["Problem"]["properties"]["code"]
    assert "enum" not in code
    assert code["examples"] == [*CODES]


def test_a_form_has_no_least_number_of_files(document: dict[str, Any]) -> None:
    """With one, a generated Go client does not compile; the service refuses an empty form itself."""
    for path in ("/predict", "/explain"):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        assert "minItems" not in json.dumps(content["multipart/form-data"])


def test_a_single_instance_is_the_first_body_of_stow(document: dict[str, Any]) -> None:
    """Generators make a method of the first, and none of a body of parts."""
    for path in ("/dicom-web/studies", "/dicom-web/studies/{study}"):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        assert next(iter(content)) == "application/dicom"


def test_no_schema_is_called_like_its_own_field(document: dict[str, Any]) -> None:
    """Where a field has a type and the name of its class, mypy is lost in a generated Python client."""
    for name, schema in document["components"]["schemas"].items():
        field = schema.get("properties", {}).get(name.lower(), {})
        assert "$ref" not in json.dumps(field)
