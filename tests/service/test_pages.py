"""OpenAPI and what browsers load: complete, and nothing from elsewhere."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

from scripts.mr_study import write_study
from service.pacs.schemas import LISTED, Deliveries, Retried
from service.schemas import (
    Activation,
    Alias,
    ExplainAnswer,
    Health,
    Liveness,
    ModelList,
    PredictAnswer,
    Problem,
    Schema,
)
from tests.support.service import ROOT, Service, serving, settings_for

SLICE = ROOT / "tests/data/slices/glioma/Te-gl_0014.jpg"

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
        *("200", "400", "401", "403", "406", "413", "415", "422", "429", "500", "503", "504")
    }
    for status, response in operation["responses"].items():
        content = response["content"]
        if status == "200":
            assert content["application/json"]["schema"]["$ref"].endswith("/PredictAnswer")
            assert content["application/json"]["examples"]
        else:
            assert content["application/problem+json"]["schema"]["$ref"].endswith("/Problem")
            assert content["application/problem+json"]["example"]["code"]


def shown(document: dict[str, Any], path: str, method: str) -> list[Any]:
    """The examples of a route's 200."""
    content = document["paths"][path][method]["responses"]["200"]["content"]["application/json"]
    return [example["value"] for example in content["examples"].values()]


ANSWERS: dict[tuple[str, str], type[Schema]] = {
    ("/predict", "post"): PredictAnswer,
    ("/explain", "post"): ExplainAnswer,
    ("/health", "get"): Health,
    ("/health/ready", "get"): Health,
    ("/health/live", "get"): Liveness,
    ("/models", "get"): ModelList,
    ("/models/{name}/{version}/activate", "post"): Activation,
    ("/models/{name}/rollback", "post"): Activation,
    ("/models/{name}/aliases/{alias}/{version}", "put"): Alias,
    ("/deliveries", "get"): Deliveries,
    ("/deliveries/retry", "post"): Retried,
}


@pytest.mark.parametrize(("path", "method"), ANSWERS)
def test_every_answer_in_json_has_a_valid_example(
    document: dict[str, Any], path: str, method: str
) -> None:
    for example in shown(document, path, method):
        ANSWERS[path, method].model_validate_json(json.dumps(example))
    for status, response in document["paths"][path][method]["responses"].items():
        if "application/problem+json" in response.get("content", {}):
            problem = response["content"]["application/problem+json"]["example"]
            assert Problem.model_validate(problem).status == int(status)
            assert re.fullmatch("[0-9a-f]{32}", problem["request_id"])


def test_lists_that_end_somewhere_say_where(document: dict[str, Any]) -> None:
    listed = document["components"]["schemas"]["Deliveries"]["properties"]
    for name, number in (("refused", "objects_dead"), ("set_aside", "series_dead")):
        assert listed[name]["maxItems"] == LISTED
        assert f"newest {LISTED}" in listed[name]["description"]
        assert f"`{number}`" in listed[name]["description"]
    text = (ROOT / "docs" / "pacs.md").read_text(encoding="utf-8")
    assert f"the newest {LISTED} of each kind (`objects_dead` and `series_dead` count all" in text


def test_no_answer_in_json_lacks_an_example(document: dict[str, Any]) -> None:
    assert ANSWERS.keys() == {
        (path, method)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if "application/json" in operation["responses"]["200"].get("content", {})
    }


def test_operations_have_names_that_make_methods(document: dict[str, Any]) -> None:
    names = [
        operation["operationId"]
        for operations in document["paths"].values()
        for operation in operations.values()
    ]
    assert len({*names}) == len(names)
    assert {"predict", "explain", "health", "list_models", "store"} <= {*names}
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+){0,2}", name) for name in names)


def test_examples_are_what_the_default_model_answers(
    document: dict[str, Any], tmp_path: Path
) -> None:
    """But for ids, times, and numbers, which another processor may compute a little otherwise."""
    image = SLICE.read_bytes()
    (dicom,) = write_study(tmp_path, {"axial": [SLICE]})
    files = [("files", (SLICE.name, image)), ("files", ("cut-off.jpg", image[:3000]))]
    with serving(settings_for(ROOT / "model_store", model_version="4")) as service:
        post = service.client.post
        two = post("/predict", files=files).json()
        one = post(
            "/predict", content=dicom.read_bytes(), headers={"Content-Type": "application/dicom"}
        ).json()
        numbers = post("/explain", files=files[:1], headers={"Accept": "application/json"}).json()
        (model,) = service.client.get("/models").json()["models"]
    assert words(shown(document, "/predict", "post")) == words([two, one])
    assert words(shown(document, "/explain", "post")) == words([numbers])
    (described,) = shown(document, "/models", "get")[0]["models"][0]["versions"]
    (four,) = [version for version in model["versions"] if version["version"] == 4]
    assert described["metrics"].items() <= four["metrics"].items()
    same: dict[str, Any] = {"aliases": [], "metrics": {}}
    assert words(described | same) == words(four | same)


def words(answer: Any, name: str = "") -> Any:
    """An answer with the type alone of what is a number or an id."""
    if isinstance(answer, dict):
        return {key: words(value, key) for key, value in answer.items()}
    if isinstance(answer, list):
        numbers = any(isinstance(item, int | float | list) for item in answer)
        return "numbers" if numbers else [words(item) for item in answer]
    is_word = isinstance(answer, str | bool | None) and not name.endswith(("_id", "_uid"))
    return answer if is_word else type(answer).__name__


@pytest.mark.parametrize("path", ["/", "/static/docs.js"])
def test_files_are_sent_whole(service: Service, path: str) -> None:
    """Ranges may be ignored (RFC 9110, 14.2), and a refusal of one would be no problem with a code."""
    whole = service.client.get(path)
    assert whole.headers["accept-ranges"] == "none"
    for asked in ("bytes=0-5", "bytes=9-2", "bytes=99999999-", "items=0-5", "abc"):
        response = service.client.get(path, headers={"Range": asked})
        assert (response.status_code, response.content) == (200, whole.content)
        response = service.client.head(path, headers={"Range": asked})
        assert (response.status_code, response.content) == (200, b"")
    unchanged = service.client.get(path, headers={"If-None-Match": whole.headers["etag"]})
    assert unchanged.status_code == (304 if path.startswith("/static/") else 200)


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

    answer = service.client.get("/metrics")
    assert {answer.headers["content-type"].partition(";")[0]} == forms("get", "/metrics")
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
