"""Every answer tells browsers and caches what they may do with it."""

import pytest

from service.headers import protected
from tests.support.service import Service

PAGES = {"/", "/docs"}
FILES = {"/static/docs.js", "/static/vendor/swagger-ui/swagger-ui.css", "/static/nowhere.js"}
ANSWERS = {"/health", "/metrics", "/models", "/openapi.json", "/nowhere", "/predict"}


@pytest.mark.parametrize("path", sorted(PAGES | FILES | ANSWERS))
def test_every_answer_is_protected(service: Service, path: str) -> None:
    headers = service.client.get(path).headers
    assert headers.get_list("x-content-type-options") == ["nosniff"]
    assert headers.get_list("referrer-policy") == ["no-referrer"]
    assert headers["cross-origin-resource-policy"] == "same-origin"
    (policy,) = headers.get_list("content-security-policy")
    assert "frame-ancestors 'none'" in policy
    assert policy.startswith(f"default-src '{'self' if path in PAGES else 'none'}'")
    assert headers["cache-control"] == ("no-cache" if path in FILES else "no-store")


def test_predictions_and_refusals_are_kept_by_no_cache(service: Service, jpeg: bytes) -> None:
    for image, status in ((jpeg, 200), (jpeg[:500], 422)):
        response = service.predict_raw(image)
        assert response.status_code == status
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"


def test_what_a_route_chose_stays() -> None:
    own = (b"cache-control", b"private")
    assert protected([own], "/").count(own) == 1
    assert [name for name, _ in protected([own], "/")].count(b"cache-control") == 1
