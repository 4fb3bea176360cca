"""/health in every state of the service, and what it says of an unusable store."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.schemas import Health
from tests.support.service import (
    MODEL,
    ROOT,
    FakeRuntimes,
    Service,
    edit_manifest,
    newest,
    serving,
    settings_for,
    wait_until,
)


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
def test_ready(service: Service, path: str) -> None:
    response = service.client.get(path)
    assert response.status_code == 200
    report = Health.model_validate_json(response.content)
    assert report.status == "ready"
    assert report.model is not None
    assert (report.model.name, report.model.runtime, report.model.device) == (
        MODEL,
        "litert",
        "cpu",
    )
    assert report.uptime_seconds > 0
    assert report.queue_depth == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (0.556107, 0.556107, 0.672505, 0.980798)),
        ({"tumor_threshold": 0.4}, (0.4, 0.4, 0.672505, None)),
        ({"temperature": 2.0}, (0.556107, 0.556107, 0.672505, None)),
        ({"refer_low": 0.3, "refer_high": 0.9}, (0.556107, 0.3, 0.9, 0.980798)),
        ({"model_version": "1"}, (0.5, None, None, None)),
    ],
    ids=["its own", "threshold", "temperature", "band", "without a band"],
)
def test_operating_point_is_the_one_in_use(
    runtimes: FakeRuntimes, changes: Any, expected: tuple[float | None, ...]
) -> None:
    """The sensitivity is only that of the version's own threshold and calibration."""
    settings = settings_for(ROOT / "model_store", **{"model_version": "4", **changes})
    with serving(settings, runtimes) as service:
        point = Health.model_validate(service.client.get("/health").json()).operating_point
    assert point is not None
    found = (point.tumor_threshold, point.refer_low, point.refer_high, point.sensitivity)
    assert [value is None for value in found] == [value is None for value in expected]
    numbers = [value for value in found if value is not None]
    assert numbers == pytest.approx([value for value in expected if value is not None], abs=1e-6)


def test_live(service: Service) -> None:
    response = service.client.get("/health/live")
    assert (response.status_code, response.json()) == (200, {"status": "alive"})


def test_not_ready_while_the_model_loads(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    runtimes.gate.clear()
    with serving(settings_for(model_store), runtimes, ready=False) as service:
        report = service.client.get("/health/ready")
        assert (report.status_code, report.json()["status"]) == (503, "starting")
        assert service.client.get("/health/live").status_code == 200
        refused = service.predict(jpeg)
        assert (refused.status_code, refused.json()["code"]) == (503, "model_loading")
        assert int(refused.headers["retry-after"]) > 0
        runtimes.gate.set()
        wait_until(lambda: service.client.get("/health/ready").status_code == 200)
        assert service.predict(jpeg).status_code == 200


def test_a_model_that_is_loaded_while_the_service_stops_makes_it_no_readier(
    model_store: Path, runtimes: FakeRuntimes
) -> None:
    """The metric says what /health does."""
    runtimes.gate.clear()
    with serving(settings_for(model_store), runtimes, ready=False) as service:
        assert "\nbrain_ready 0.0\n" in service.client.get("/metrics").text
        service.state.drain()
        runtimes.gate.set()
        wait_until(lambda: service.state.registry.active)
        assert service.client.get("/health/ready").json()["status"] == "draining"
        assert "\nbrain_ready 0.0\n" in service.client.get("/metrics").text


def corrupt_artifact(store: Path) -> None:
    path = next((store / MODEL / str(newest(store))).glob("*.tflite"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove_artifact(store: Path) -> None:
    next((store / MODEL / str(newest(store))).glob("*.tflite")).unlink()


def truncate_manifest(store: Path) -> None:
    path = store / MODEL / str(newest(store)) / "manifest.json"
    path.write_bytes(path.read_bytes()[:100])


def remove_manifest(store: Path) -> None:
    (store / MODEL / str(newest(store)) / "manifest.json").unlink()


def claim_newer_schema(store: Path) -> None:
    edit_manifest(store, newest(store), {"schema_version": 99})


def change_preprocessing(store: Path) -> None:
    path = store / MODEL / str(newest(store)) / "manifest.json"
    preprocess = json.loads(path.read_text(encoding="utf-8"))["preprocess"]
    edit_manifest(store, newest(store), {"preprocess": preprocess | {"probe_digest": "0" * 64}})


def remove_store(store: Path) -> None:
    shutil.rmtree(store)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (corrupt_artifact, "corrupt_version"),
        (remove_artifact, "incomplete_version"),
        (truncate_manifest, "corrupt_version"),
        (remove_manifest, "incomplete_version"),
        (claim_newer_schema, "newer_schema"),
        (change_preprocessing, "preprocess_mismatch"),
        (remove_store, "version_not_found"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_unusable_store_is_reported_and_survived(
    store_copy: Path, jpeg: bytes, damage: Callable[[Path], None], code: str
) -> None:
    damage(store_copy)
    with serving(settings_for(store_copy), ready=False) as service:
        wait_until(lambda: service.client.get("/health").json()["status"] == "unavailable")
        response = service.client.get("/health")
        assert response.status_code == 503
        report = Health.model_validate_json(response.content)
        assert (report.code, report.model) == (code, None)
        assert report.reason
        refused = service.predict(jpeg)
        assert (refused.status_code, refused.json()["code"]) == (503, code)
        assert int(refused.headers["retry-after"]) > 0
        assert service.client.get("/health/live").status_code == 200
        assert "\nbrain_ready 0.0\n" in service.client.get("/metrics").text


def test_store_without_a_folder_is_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "none"
    # As by default: from another working directory it is not there.
    monkeypatch.chdir(tmp_path)
    with serving(settings_for(Path("none")), ready=False) as service:
        wait_until(lambda: service.client.get("/health").json()["status"] == "unavailable")
        reason = "the folder of the model store does not exist"
        assert service.client.get("/health").json()["reason"] == reason
    [record] = [record for record in caplog.records if record.message == "no model serves"]
    assert vars(record)["fields"] == {
        "code": "version_not_found",
        "reason": reason,
        "store": str(store),
    }


def test_version_that_verifies_but_does_not_load(model_store: Path, runtimes: FakeRuntimes) -> None:
    runtimes.error = ValueError("secret path /etc")
    with serving(settings_for(model_store), runtimes, ready=False) as service:
        wait_until(lambda: service.client.get("/health").json()["status"] == "unavailable")
        report = service.client.get("/health").json()
        assert report["code"] == "runtime_unusable"
        assert "secret" not in report["reason"]


GETS = {
    *("/", "/docs", "/openapi.json", "/static/docs.js", "/metrics", "/models", "/deliveries"),
    *("/health", "/health/live", "/health/ready"),
}


@pytest.mark.parametrize("path", sorted(GETS))
def test_probes_without_a_body(service: Service, path: str) -> None:
    """Whatever answers GET; without a PACS /deliveries has nothing to say."""
    expected, found = service.client.get(path), service.client.head(path)
    assert (found.status_code, found.content) == (501 if path == "/deliveries" else 200, b"")
    assert found.headers["Content-Type"] == expected.headers["Content-Type"]
    assert "head" not in service.client.get("/openapi.json").json()["paths"].get(path, {})
    refused = service.client.delete(path)
    assert refused.status_code == 405
    assert path.startswith("/static/") or {*refused.headers["Allow"].split(", ")} == {"GET", "HEAD"}


def test_every_route_that_is_read_is_probed(service: Service) -> None:
    paths = service.client.get("/openapi.json").json()["paths"]
    assert {path for path, methods in paths.items() if "get" in methods} <= GETS
