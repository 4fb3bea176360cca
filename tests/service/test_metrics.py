"""/metrics: what is counted, under which names, and that no client chooses a label."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.catalogue import CODES
from service.metrics import Metrics
from service.release import RELEASE
from tests.support.service import FakeRuntimes, Service, serving, settings_for


@pytest.fixture
def fresh(model_store: Path) -> Iterator[Service]:
    with serving(settings_for(model_store), FakeRuntimes()) as service:
        yield service


def samples(service: Service) -> dict[str, float]:
    """Name and labels to value, as a scrape reads them."""
    text = service.client.get("/metrics").text
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_requests_images_and_errors_are_counted(fresh: Service, jpeg: bytes) -> None:
    fresh.predict(jpeg, jpeg)
    fresh.predict(jpeg, b"junk")
    fresh.predict_raw(b"junk")
    fresh.client.get("/nowhere")
    fresh.client.get("/openapi.json")
    fresh.client.get("/static/app.css")
    fresh.client.get("/static/nothing.css")
    fresh.client.get("/predict")
    found = samples(fresh)
    for name, value in {
        "brain_http_requests_total[('route', '/predict'), ('status', '200')]": 2,
        "brain_http_requests_total[('route', '/predict'), ('status', '415')]": 1,
        "brain_http_requests_total[('route', '/predict'), ('status', '405')]": 1,
        "brain_http_requests_total[('route', 'unmatched'), ('status', '404')]": 1,
        "brain_http_requests_total[('route', '/openapi.json'), ('status', '200')]": 1,
        "brain_http_requests_total[('route', '/static/'), ('status', '200')]": 1,
        "brain_http_requests_total[('route', '/static/'), ('status', '404')]": 1,
        "brain_errors_total[('code', 'unsupported_media_type')]": 2,
        "brain_errors_total[('code', 'not_found')]": 2,
        "brain_errors_total[('code', 'method_not_allowed')]": 1,
        "brain_http_request_duration_seconds_count[('route', '/predict')]": 4,
        "brain_decode_duration_seconds_count[]": 5,
        "brain_queue_duration_seconds_count[]": 5,
        "brain_batch_images_sum[]": 3,
        "brain_queue_depth_images[]": 0,
        "brain_ready[]": 1,
        "brain_runtime_restarts_total[]": 0,
        "brain_worker_restarts_total[]": 0,
        "brain_workers[]": 0,
    }.items():
        assert (name, found.get(name)) == (name, value)
    labels = [value for name, value in found.items() if name.startswith("brain_predictions_total")]
    assert (len(labels), sum(labels)) == (4, 3)
    batches = found["brain_batch_images_count[]"]
    assert 2 <= batches <= 3
    assert found["brain_inference_duration_seconds_count[]"] == batches


def test_every_error_code_is_there_before_its_first_error(fresh: Service) -> None:
    """Prometheus sees no increase in a counter that comes with its first value."""
    found = samples(fresh)
    assert "spool_full" in CODES
    assert {found.get(f"brain_errors_total[('code', '{code}')]") for code in CODES} == {0.0}


def test_model_build_and_process_are_described(fresh: Service) -> None:
    text = fresh.client.get("/metrics").text
    digest = fresh.state.registry.engine().stored.manifest_digest
    assert re.search(rf'brain_model_info{{.*manifest="{digest}".*runtime="litert".*}} 1.0', text)
    assert re.search(rf'brain_build_info{{.*version="{re.escape(RELEASE)}".*}} 1.0', text)
    assert "process_resident_memory_bytes" in text


def test_labels_do_not_come_from_clients(fresh: Service, jpeg: bytes) -> None:
    planted = "Mustermann"
    fresh.client.get(f"/{planted}")
    fresh.client.get(f"/static/{planted}.js")
    fresh.client.post(f"/models/{planted}/{planted}/activate")
    fresh.client.request(planted, "/predict")
    fresh.client.post("/predict", files=[(planted, (planted, jpeg))])
    assert planted not in fresh.client.get("/metrics").text


def test_openmetrics_where_it_is_asked_for(fresh: Service) -> None:
    accept = "application/openmetrics-text; version=1.0.0"
    response = fresh.client.get("/metrics", headers={"Accept": accept})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (PROMETHEUS, "application/openmetrics-text; version=1.0.0"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0"),
        ("text/plain, application/openmetrics-text;q=0", "text/plain; version=0.0.4"),
        ("text/plain, application/openmetrics-text;q=0.9", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;q=0, */*", "text/plain; version=0.0.4"),
        ("text/plain;version=1.0.0", "text/plain; version=1.0.0"),
        ("*/*", "text/plain; version=0.0.4"),
    ],
)
def test_the_form_is_the_one_that_is_wanted_most(accept: str, media: str) -> None:
    assert Metrics().render(accept)[1].startswith(media)


@pytest.mark.parametrize(
    "accept",
    ["application/openmetrics-text; version=zzz", "text/plain;version=1.", "application/; q=1"],
)
def test_what_is_no_version_or_range_gets_the_default(accept: str) -> None:
    assert Metrics().render(accept)[1] == Metrics().render("")[1]


def test_names_follow_the_conventions(fresh: Service) -> None:
    families = list(text_string_to_metric_families(fresh.client.get("/metrics").text))
    ours = [family for family in families if not family.name.startswith("process_")]
    assert ours
    for family in ours:
        assert family.name.startswith("brain_")
        assert family.documentation
        suffixes = ("_total", "_created") if family.type == "counter" else ("",)
        assert all(sample.name.endswith(suffixes) for sample in family.samples)
        assert not re.search("_ms$|_millis", family.name)
