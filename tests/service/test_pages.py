"""OpenAPI and what browsers load: complete, and nothing from elsewhere."""

import re
from typing import Any
from urllib.parse import urljoin

import pytest

from tests.support.service import Service

PATHS = {
    "/predict",
    "/explain",
    "/health",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/models",
    "/models/{name}/{version}/activate",
    "/models/{name}/rollback",
    "/models/{name}/aliases/{alias}/{version}",
    "/dicom-web/studies",
    "/dicom-web/studies/{study}",
    "/deliveries",
    "/deliveries/retry",
}


@pytest.fixture
def document(service: Service) -> dict[str, Any]:
    content: dict[str, Any] = service.client.get("/openapi.json").json()
    return content


def references(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(references(value) for value in node))
    return set()


def test_every_route_is_described(document: dict[str, Any]) -> None:
    assert document["paths"].keys() == PATHS


def test_what_stands_in_an_address_is_described(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            described = {
                parameter["name"]
                for parameter in operation["parameters"]
                if parameter["in"] == "path" and parameter["required"] and parameter["description"]
            }
            assert described == set(re.findall(r"{(\w+)}", path))


def test_operations_are_where_the_document_is(document: dict[str, Any]) -> None:
    """A proxy may have put a prefix before both (OpenAPI 3.1.0, 4.8.5)."""
    assert [
        urljoin("https://mri.example/brain/openapi.json", server["url"])
        for server in document["servers"]
    ] == ["https://mri.example/brain/"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = references(document)
    assert "#/components/schemas/Problem" in found
    for reference in found:
        node: Any = document
        for key in reference.removeprefix("#/").split("/"):
            node = node[key]


def test_predict_describes_its_bodies_and_answers(document: dict[str, Any]) -> None:
    operation = document["paths"]["/predict"]["post"]
    assert operation["requestBody"]["content"].keys() == {
        "multipart/form-data",
        "image/jpeg",
        "image/png",
        "application/dicom",
        "application/zip",
        "application/octet-stream",
    }
    assert operation["responses"].keys() == {
        *("200", "400", "401", "403", "406", "408", "413", "415", "422", "429", "500", "503", "504")
    }
    for status, response in operation["responses"].items():
        content = response["content"]
        if status == "200":
            assert content["application/json"]["schema"]["$ref"].endswith("/PredictAnswer")
            assert content["application/json"]["examples"]
        else:
            assert content["application/problem+json"]["schema"]["$ref"].endswith("/Problem")
            assert content["application/problem+json"]["example"]["code"]


def test_examples_are_valid_answers(document: dict[str, Any]) -> None:
    from service.schemas import PredictAnswer, Problem

    responses = document["paths"]["/predict"]["post"]["responses"]
    for example in responses["200"]["content"]["application/json"]["examples"].values():
        PredictAnswer.model_validate(example["value"])
    for status in responses.keys() - {"200"}:
        problem = responses[status]["content"]["application/problem+json"]["example"]
        assert Problem.model_validate(problem).status == int(status)


@pytest.mark.parametrize(
    ("method", "path", "template"),
    [
        ("PUT", "/models/brain-tumor/aliases/latest/4", "/models/{name}/aliases/{alias}/{version}"),
        ("POST", "/models/brain-tumor/rollback", "/models/{name}/rollback"),
        ("POST", "/models/brain-tumor/%2e%2e/activate", "/models/{name}/{version}/activate"),
        ("GET", "/deliveries", "/deliveries"),
        ("POST", "/deliveries/retry", "/deliveries/retry"),
        ("POST", "/dicom-web/studies", "/dicom-web/studies"),
        ("POST", "/explain", "/explain"),
    ],
)
def test_problems_of_a_route_are_its_own(
    service: Service, document: dict[str, Any], method: str, path: str, template: str
) -> None:
    answer = service.client.request(method, path, headers={"Accept": "image/webp"})
    responses = document["paths"][template][method.lower()]["responses"]
    described = responses[str(answer.status_code)]["content"]["application/problem+json"]
    assert described["example"]["code"] == answer.json()["code"]


def test_forms_of_an_answer_are_those_that_it_has(
    service: Service, document: dict[str, Any]
) -> None:
    def forms(method: str, path: str) -> set[str]:
        responses = document["paths"][path][method]["responses"]
        return set(responses["200"]["content"])

    for accept in ("text/plain", "application/openmetrics-text"):
        answer = service.client.get("/metrics", headers={"Accept": accept})
        assert answer.headers["content-type"].partition(";")[0] in forms("get", "/metrics")
    assert len(forms("get", "/metrics")) == 2
    for path in ("/dicom-web/studies", "/dicom-web/studies/{study}"):
        assert forms("post", path) == {"application/dicom+json"}
    activation = document["paths"]["/models/{name}/{version}/activate"]["post"]
    assert "422" not in activation["responses"]


def test_docs_load_only_from_here(service: Service) -> None:
    page = service.client.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert loaded
    for path in loaded:
        assert "//" not in path
        response = service.client.get(f"/{path}")
        assert (path, response.status_code) == (path, 200)
        assert len(response.content) > 50
    assert "<script>" not in page.text


@pytest.mark.parametrize(
    "path",
    ["/nowhere", "/static/nowhere.js", "/static/../settings.py", "/static/%2e%2e/settings.py"],
)
def test_what_is_not_there_is_a_problem(service: Service, path: str) -> None:
    response = service.client.get(path)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/predict/"),
        ("POST", "/explain/"),
        ("POST", "/dicom-web/studies/"),
        ("GET", "/health/"),
        ("GET", "/static"),
    ],
)
def test_a_slash_too_many_leads_nowhere(
    service: Service, jpeg: bytes, method: str, path: str
) -> None:
    """A redirect would be to http, and the client would send its image and its key there in clear."""
    response = service.client.request(method, path, content=jpeg if method == "POST" else None)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert "location" not in response.headers


def test_wrong_method_is_a_problem(service: Service) -> None:
    response = service.client.get("/predict")
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
