"""What administrators do, fail to do and are not let do leaves a trace, whatever else is refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.keys import Role, make_key
from tests.support.keys import write_keys
from tests.support.pacs import Pacs, pacs, pacs_settings
from tests.support.service import MODEL, FakeRuntimes, Service, newest, serving, wait_until

MADE = {
    "modest": make_key("modest", [Role.PREDICT]),
    "alice": make_key("alice", [Role.PREDICT, Role.ADMIN]),
}
HEADERS = {name: {"X-API-Key": presented} for name, (presented, _) in MADE.items()}


@pytest.fixture
def destination() -> Iterator[Pacs]:
    with pacs() as running:
        yield running


@pytest.fixture
def guarded(store_copy: Path, tmp_path: Path, destination: Pacs) -> Iterator[Service]:
    keys = write_keys(tmp_path / "keys", *(key for _, key in MADE.values()))
    settings = pacs_settings(
        store_copy,
        tmp_path,
        destination.url,
        api_keys_file=keys,
        audit_log=tmp_path / "audit.log",
    )
    with serving(settings, FakeRuntimes()) as service:
        yield service


def audited(service: Service) -> list[dict[str, Any]]:
    path = service.state.settings.audit_log
    assert path is not None
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_what_administrators_do_is_recorded_whatever_comes_of_it(guarded: Service) -> None:
    version = newest(guarded.state.settings.model_store)
    asked = [
        ("POST", f"/models/{MODEL}/{version}/activate", f"{MODEL}/{version}"),
        ("POST", f"/models/{MODEL}/99/activate", "version_not_found"),
        ("POST", f"/models/{MODEL}/rollback", "no_earlier_version"),
        ("PUT", f"/models/{MODEL}/aliases/stable/{version}", f"stable={MODEL}/{version}"),
        ("PUT", f"/models/{MODEL}/aliases/12/{version}", "invalid_alias"),
        ("POST", "/deliveries/retry", "series=0,objects=0"),
    ]
    actions = ["activate", "activate", "rollback", "alias", "alias", "retry"]
    for name in ("alice", "modest"):
        for method, path, _ in asked:
            guarded.client.request(method, path, headers=HEADERS[name])
    # Whoever is not known has no name, and could fill the log.
    for method, path, _ in asked:
        assert guarded.client.request(method, path).status_code == 401
    wait_until(lambda: len(audited(guarded)) >= 2 * len(asked))
    found = [(line["who"], line["action"], line["result"]) for line in audited(guarded)]
    assert found == [
        *(("alice", action, result) for action, (_, _, result) in zip(actions, asked, strict=True)),
        *(("modest", action, "forbidden") for action in actions),
    ]
    outcomes = [line["outcome"] for line in audited(guarded)]
    assert outcomes == ["done", "failed", "failed", "done", "failed", "done"] + ["denied"] * 6
    targets = [
        f"{MODEL}/{version}",
        f"{MODEL}/99",
        MODEL,
        f"stable={MODEL}/{version}",
        f"12={MODEL}/{version}",
        None,
    ]
    assert [line["target"] for line in audited(guarded)] == targets * 2


def test_what_is_no_name_is_not_recorded(guarded: Service) -> None:
    """Anything may stand in an address."""
    paths = [
        ("POST", "/models/Doe^Jane/1/activate"),
        ("POST", f"/models/{MODEL}/Doe^Jane/activate"),
        ("POST", f"/models/{MODEL}/19700101123/activate"),
        ("POST", "/models/Doe^Jane/rollback"),
        ("PUT", f"/models/{MODEL}/aliases/Doe^Jane/1"),
    ]
    for method, path in paths:
        answer = guarded.client.request(method, path, headers=HEADERS["alice"])
        assert 400 <= answer.status_code < 500
    wait_until(lambda: len(audited(guarded)) >= len(paths))
    lines = audited(guarded)
    assert [line["target"] for line in lines] == [None] * len(paths)
    assert "Jane" not in json.dumps(lines)
    assert "1970" not in json.dumps([line | {"time": None} for line in lines])


def test_nobody_fills_the_log_by_asking_too_often(
    store_copy: Path, tmp_path: Path, destination: Pacs
) -> None:
    keys = write_keys(tmp_path / "keys", *(key for _, key in MADE.values()))
    limits = {"api_keys_file": keys, "audit_log": tmp_path / "audit.log", "rate_per_second": 0.02}
    settings = pacs_settings(store_copy, tmp_path, destination.url, **limits)
    path = f"/models/{MODEL}/1/activate"
    with serving(settings, FakeRuntimes()) as service:
        assert [service.client.post(path).status_code for _ in range(3)] == [401, 429, 429]
        asked = [service.client.post(path, headers=HEADERS["modest"]) for _ in range(3)]
        assert [answer.status_code for answer in asked] == [403, 429, 429]
        wait_until(lambda: audited(service) != [])
    # The lines that were still to be written are, once it has stopped.
    assert [line["result"] for line in audited(service)] == ["forbidden"]


def test_a_flood_of_refusals_hides_none_that_tells_who(
    guarded: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.pacing.REFUSALS_PER_SECOND", 1)
    monkeypatch.setattr("service.pacing.MAX_PAUSE_SECONDS", 0)
    caplog.set_level("INFO", "service.request")

    def logged() -> list[tuple[str, int]]:
        fields = [record.fields for record in caplog.records if record.name == "service.request"]  # type: ignore[attr-defined]
        return [(entry["route"], entry["status"]) for entry in fields if entry["status"] >= 400]

    for _ in range(5):
        assert guarded.predict_raw(b"x").status_code == 401
    # Of those without a key it is the first on such an address.
    path = f"/models/{MODEL}/1/activate"
    assert guarded.client.post(path).status_code == 401
    for _ in range(2):
        assert guarded.client.post(path, headers=HEADERS["modest"]).status_code == 403
        answer = guarded.predict_raw(b"x", "text/plain", headers=HEADERS["modest"])
        assert answer.status_code == 415
    wait_until(lambda: len(logged()) >= 6)
    assert [status for _, status in logged()] == [401, 401, 403, 415, 403, 415]
