"""BRAIN_WATCH: a version that comes into the store takes over by itself, or stays where it is."""

import json
import logging
import shutil
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.store import ModelStore
from service.settings import Settings, SettingsError
from tests.support.service import (
    MODEL,
    FakeRuntimes,
    Service,
    add_version,
    edit_manifest,
    newest,
    process,
    serving,
    settings_for,
    wait_until,
)

INTERVAL_MS = 20.0


@pytest.fixture
def watched(store_copy: Path, runtimes: FakeRuntimes) -> Iterator[Service]:
    """A service that follows the newest version of ``store_copy``."""
    settings = settings_for(store_copy, watch=True, watch_interval_ms=INTERVAL_MS)
    with serving(settings, runtimes) as service:
        yield service


def active(service: Service) -> int | None:
    model = service.client.get("/health").json()["model"]
    return model and int(model["version"])


def described(service: Service, number: int) -> dict[str, Any]:
    (model,) = service.client.get("/models").json()["models"]
    (version,) = (version for version in model["versions"] if version["version"] == number)
    return dict(version)


def looks(service: Service, store: Path, count: int = 4) -> None:
    """Waits until the store has been looked at a few more times."""
    seen = []
    following = service.state.registry.store
    ask = following.resolve

    def counted(name: str, selector: str) -> int:
        seen.append(selector)
        return ask(name, selector)

    following.resolve = counted  # type: ignore[method-assign]
    wait_until(lambda: len(seen) >= count)
    following.resolve = ask  # type: ignore[method-assign]
    assert following.root == store


def test_each_swap_and_each_that_was_refused_is_in_the_audit_log(
    store_copy: Path, tmp_path: Path, runtimes: FakeRuntimes
) -> None:
    """As nobody asked for it, it has no name and no request."""
    log = tmp_path / "audit.log"
    settings = settings_for(store_copy, watch=True, watch_interval_ms=INTERVAL_MS, audit_log=log)
    with serving(settings, runtimes) as service:
        swapped = add_version(store_copy)
        wait_until(lambda: active(service) == swapped)
        refused = add_version(store_copy, schema_version=99)
        wait_until(lambda: "refused" in described(service, refused))
        looks(service, store_copy)
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    members = ("action", "who", "request_id", "target", "result", "outcome")
    assert [[line[member] for member in members] for line in lines] == [
        ["follow", None, None, f"{MODEL}/latest", f"{MODEL}/{swapped}", "done"],
        ["follow", None, None, f"{MODEL}/latest", "newer_schema", "failed"],
    ]


def test_a_published_version_takes_over_under_load_and_nothing_is_lost(
    store_copy: Path, jpeg: bytes
) -> None:
    """The whole service as a process; the version is published as training does it."""
    first = newest(store_copy)
    answers: list[tuple[int, int]] = []
    stop = threading.Event()
    variables = {
        "BRAIN_WATCH": "true",
        "BRAIN_WATCH_INTERVAL_MS": "50",
        "BRAIN_LOG_LEVEL": "error",
    }
    with process(store_copy, **variables) as (_, port):
        url = f"http://127.0.0.1:{port}"

        def ask() -> None:
            with httpx.Client(base_url=url) as client:
                headers = {"Content-Type": "image/jpeg"}
                while not stop.is_set():
                    response = client.post("/predict", content=jpeg, headers=headers)
                    answers.append((response.status_code, response.json()["model"]["version"]))

        clients = [threading.Thread(target=ask) for _ in range(2)]
        for client in clients:
            client.start()
        wait_until(lambda: answers)
        store = ModelStore(store_copy)
        with store.staging(MODEL) as staged:
            source = store_copy / MODEL / str(first)
            shutil.copytree(source, staged, dirs_exist_ok=True)
            (staged / "manifest.json").unlink()
            manifest = store.load(MODEL, first).manifest
            store.publish(staged, manifest.model_copy(update={"version": first + 1}))
        try:
            wait_until(lambda: (200, first + 1) in answers)
        finally:
            stop.set()
        for client in clients:
            client.join()
        models = httpx.get(f"{url}/models").json()
    assert {status for status, _ in answers} == {200}
    assert {version for _, version in answers} == {first, first + 1}
    assert models["follows"] == "latest"


def test_without_it_nothing_takes_over(
    store_copy: Path, runtimes: FakeRuntimes, caplog: pytest.LogCaptureFixture
) -> None:
    first = newest(store_copy)
    caplog.set_level(logging.INFO)
    with serving(settings_for(store_copy, watch_interval_ms=INTERVAL_MS), runtimes) as service:
        add_version(store_copy)
        service.client.get("/health")
        assert service.client.get("/models").json()["follows"] is None
        assert active(service) == first
    assert len(runtimes.opened) == 1


def test_a_version_that_fails_is_named_and_tried_again_only_once_it_has_changed(
    store_copy: Path,
    watched: Service,
    runtimes: FakeRuntimes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = newest(store_copy)
    bad = add_version(store_copy, schema_version=99)
    wait_until(lambda: "refused" in described(watched, bad))
    assert described(watched, bad)["refused"]["code"] == "newer_schema"
    assert "newer_schema" in [
        record.fields["code"]  # type: ignore[attr-defined]
        for record in caplog.records
        if record.getMessage() == "activation refused"
    ]
    looks(watched, store_copy)
    assert active(watched) == first
    assert len(runtimes.opened) == 1
    refused = {"outcome": "refused"}
    assert watched.metric("brain_activations_total", **refused) == 1

    good = ModelStore(store_copy).load(MODEL, first).manifest.schema_version
    edit_manifest(store_copy, bad, {"schema_version": good})
    wait_until(lambda: active(watched) == bad)
    assert "refused" not in described(watched, bad)
    assert watched.metric("brain_activations_total", **refused) == 1


def test_a_version_that_does_not_warm_up_leaves_the_old_one(
    store_copy: Path, jpeg: bytes, watched: Service, runtimes: FakeRuntimes
) -> None:
    first = newest(store_copy)
    runtimes.error = RuntimeError("no")
    second = add_version(store_copy)
    wait_until(lambda: "refused" in described(watched, second))
    assert described(watched, second)["refused"]["code"] == "runtime_unusable"
    assert watched.predict_raw(jpeg).json()["model"]["version"] == first


OTHERS = {
    "classes": ["gesund", "krank", "unklar", "anderes"],
    "tumor_classes": ["krank"],
    # Of the classes that were.
    "reference": None,
}


@pytest.mark.parametrize(
    "changes", [OTHERS, {"tumor_classes": ["glioma"]}], ids=["classes", "tumor classes"]
)
def test_a_newest_version_with_other_classes_waits_for_somebody_to_activate_it(
    store_copy: Path,
    watched: Service,
    runtimes: FakeRuntimes,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, Any],
) -> None:
    first, other = newest(store_copy), add_version(store_copy, **changes)
    wait_until(lambda: "refused" in described(watched, other))
    assert described(watched, other)["refused"]["code"] == "other_classes"
    looks(watched, store_copy, 6)
    assert active(watched) == first
    assert len(runtimes.opened) == 1
    assert watched.metric("brain_activations_total", outcome="refused") == 1
    warnings = [it for it in caplog.records if it.getMessage() == "activation refused"]
    assert [it.fields["code"] for it in warnings] == ["other_classes"]  # type: ignore[attr-defined]

    assert watched.client.post(f"/models/{MODEL}/latest/activate").status_code == 200
    assert active(watched) == other
    assert "refused" not in described(watched, other)
    third = add_version(store_copy)
    wait_until(lambda: active(watched) == third)


def test_the_next_start_has_the_newest_version_whatever_its_classes(
    store_copy: Path, watched: Service, runtimes: FakeRuntimes
) -> None:
    """What the refusal says; an alias keeps the classes beyond a start."""
    first, other = newest(store_copy), add_version(store_copy, **OTHERS)
    wait_until(lambda: "refused" in described(watched, other))
    reason = described(watched, other)["refused"]["detail"]
    assert "the next start with BRAIN_MODEL_VERSION=latest" in reason
    assert watched.client.put(f"/models/{MODEL}/aliases/stable/{first}").status_code == 200
    for selector, number in (("latest", other), ("stable", first)):
        settings = settings_for(
            store_copy, watch=True, watch_interval_ms=INTERVAL_MS, model_version=selector
        )
        with serving(settings, runtimes) as service:
            assert active(service) == number


def test_other_classes_follow_once_somebody_has_activated_some_like_them(
    store_copy: Path, watched: Service, runtimes: FakeRuntimes
) -> None:
    first, other = newest(store_copy), add_version(store_copy, **OTHERS)
    wait_until(lambda: "refused" in described(watched, other))
    newer = add_version(store_copy)
    wait_until(lambda: described(watched, newer).get("refused", {}).get("code") == "other_classes")
    looks(watched, store_copy)
    assert active(watched) == first
    assert watched.client.post(f"/models/{MODEL}/{other}/activate").status_code == 200
    wait_until(lambda: active(watched) == newer)
    looks(watched, store_copy, 6)
    assert len(runtimes.opened) == 3


def test_what_somebody_activated_is_not_loaded_once_more(
    store_copy: Path, watched: Service, runtimes: FakeRuntimes
) -> None:
    first, other = newest(store_copy), add_version(store_copy, **OTHERS)
    wait_until(lambda: "refused" in described(watched, other))
    assert watched.client.post(f"/models/{MODEL}/latest/activate").status_code == 200
    looks(watched, store_copy, 6)
    assert len(runtimes.opened) == 2
    assert watched.client.post(f"/models/{MODEL}/rollback").status_code == 200
    looks(watched, store_copy, 6)
    assert active(watched) == first


@pytest.mark.parametrize("is_newer", [True, False], ids=["refused before", "older"])
def test_other_classes_serve_where_nothing_else_does(
    store_copy: Path, jpeg: bytes, watched: Service, runtimes: FakeRuntimes, is_newer: bool
) -> None:
    first = newest(store_copy)
    other = add_version(store_copy, **OTHERS)
    wait_until(lambda: "refused" in described(watched, other))
    lost, left = (first, other) if is_newer else (other, first)
    if not is_newer:
        assert watched.client.post(f"/models/{MODEL}/{other}/activate").status_code == 200
    shutil.rmtree(store_copy / MODEL / str(lost))
    looks(watched, store_copy, 6)
    assert active(watched) == lost
    runtimes.last.error = SystemExit()
    assert watched.predict_raw(jpeg).status_code == 503
    wait_until(lambda: active(watched) == left)


def test_the_same_classes_in_another_order_take_over(store_copy: Path, watched: Service) -> None:
    classes = described(watched, newest(store_copy))["classes"]
    second = add_version(store_copy, classes=classes[::-1])
    wait_until(lambda: active(watched) == second)


def test_other_classes_wait_while_what_serves_is_lost_too(
    store_copy: Path, jpeg: bytes, watched: Service, runtimes: FakeRuntimes
) -> None:
    first = newest(store_copy)
    runtimes.held = first
    runtimes.gate.clear()
    runtimes.last.error = SystemExit()
    assert watched.predict_raw(jpeg).json()["code"] == "runtime_lost"
    wait_until(runtimes.reached.is_set)
    other = add_version(store_copy, **OTHERS)
    looks(watched, store_copy, 6)
    assert active(watched) is None
    runtimes.gate.set()
    wait_until(lambda: "refused" in described(watched, other))
    assert active(watched) == first


def test_an_alias_is_followed_to_other_classes(store_copy: Path, runtimes: FakeRuntimes) -> None:
    first, other = newest(store_copy), add_version(store_copy, **OTHERS)
    ModelStore(store_copy).set_alias(MODEL, "stable", first)
    settings = settings_for(
        store_copy, watch=True, watch_interval_ms=INTERVAL_MS, model_version="stable"
    )
    with serving(settings, runtimes) as service:
        service.client.put(f"/models/{MODEL}/aliases/stable/{other}")
        wait_until(lambda: active(service) == other)


def test_a_version_that_is_being_copied_in_is_left_alone_until_it_is_complete(
    store_copy: Path, watched: Service
) -> None:
    """File by file, as nobody should: with pauses that are longer than the interval."""
    first = newest(store_copy)
    second = first + 1
    folder = store_copy / MODEL / str(second)
    shutil.copytree(store_copy / MODEL / str(first), store_copy / "aside")
    for path in sorted((store_copy / "aside").rglob("*")):
        target = folder / path.relative_to(store_copy / "aside")
        if path.is_dir():
            target.mkdir(parents=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes()
        target.write_bytes(content[: len(content) // 2])
        assert active(watched) == first
        target.write_bytes(content)
    looks(watched, store_copy)
    assert active(watched) == first
    edit_manifest(store_copy, second, {"version": second})
    wait_until(lambda: active(watched) == second)


def test_what_still_changes_is_not_tried(store_copy: Path, watched: Service) -> None:
    first = newest(store_copy)
    following, stamps = watched.state.registry.store, count()
    stamp = following.stamp
    # As if it were being written: it is another one at each look.
    following.stamp = lambda *_: str(next(stamps))  # type: ignore[method-assign]
    second = add_version(store_copy)
    looks(watched, store_copy)
    assert active(watched) == first
    following.stamp = stamp  # type: ignore[method-assign]
    wait_until(lambda: active(watched) == second)


def test_an_alias_is_followed_wherever_it_goes(store_copy: Path, runtimes: FakeRuntimes) -> None:
    first, second = newest(store_copy), add_version(store_copy)
    ModelStore(store_copy).set_alias(MODEL, "stable", first)
    settings = settings_for(
        store_copy, watch=True, watch_interval_ms=INTERVAL_MS, model_version="stable"
    )
    with serving(settings, runtimes) as service:
        assert active(service) == first
        service.client.put(f"/models/{MODEL}/aliases/stable/{second}")
        wait_until(lambda: active(service) == second)
        service.client.put(f"/models/{MODEL}/aliases/stable/{first}")
        wait_until(lambda: active(service) == first)
        bad = add_version(store_copy, schema_version=99)
        looks(service, store_copy)
        assert active(service) == first
        # Back from a version that was refused, it was moved as well; from the same once more, too.
        for _ in range(2):
            assert service.client.post(f"/models/{MODEL}/{second}/activate").status_code == 200
            service.client.put(f"/models/{MODEL}/aliases/stable/{bad}")
            looks(service, store_copy, 6)
            assert active(service) == second
            service.client.put(f"/models/{MODEL}/aliases/stable/{first}")
            wait_until(lambda: active(service) == first)
        # What serves is not loaded once more for that.
        opened = len(runtimes.opened)
        service.client.put(f"/models/{MODEL}/aliases/stable/{bad}")
        looks(service, store_copy, 6)
        service.client.put(f"/models/{MODEL}/aliases/stable/{first}")
        looks(service, store_copy, 6)
        assert len(runtimes.opened) == opened
        assert service.metric("brain_activations_total", outcome="refused") == 1


def test_what_was_activated_by_hand_stays_until_the_next_version(
    store_copy: Path, watched: Service
) -> None:
    first, second = newest(store_copy), add_version(store_copy)
    wait_until(lambda: active(watched) == second)
    assert watched.client.post(f"/models/{MODEL}/rollback").status_code == 200
    looks(watched, store_copy)
    assert active(watched) == first
    third = add_version(store_copy)
    wait_until(lambda: active(watched) == third)


def test_a_version_that_is_deleted_lets_no_other_one_take_over(
    store_copy: Path, watched: Service, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, bad = newest(store_copy), add_version(store_copy), add_version(store_copy)
    wait_until(lambda: active(watched) == bad)
    assert watched.client.post(f"/models/{MODEL}/{first}/activate").status_code == 200
    shutil.rmtree(store_copy / MODEL / str(bad))
    wait_until(lambda: "the newest version was deleted" in caplog.text)
    looks(watched, store_copy)
    assert active(watched) == first
    # Its number says nothing, whatever has it now; one above it does.
    assert add_version(store_copy) == bad
    looks(watched, store_copy, 6)
    assert active(watched) == first
    third = add_version(store_copy)
    wait_until(lambda: active(watched) == third)
    assert third > bad > second


@pytest.mark.parametrize("at_start", [True, False], ids=["at the start", "with another one"])
def test_a_refused_version_that_is_deleted_lets_no_other_one_take_over(
    store_copy: Path, runtimes: FakeRuntimes, caplog: pytest.LogCaptureFixture, at_start: bool
) -> None:
    """The one below it has never served, and is no newer for that."""
    settings = settings_for(store_copy, watch=True, watch_interval_ms=INTERVAL_MS)
    first, second, bad = (newest(store_copy) + more for more in range(3))
    if at_start:
        assert add_version(store_copy) == second
        assert add_version(store_copy, schema_version=99) == bad
    with serving(settings, runtimes, ready=not at_start) as service:
        if at_start:
            wait_until(lambda: service.client.get("/health").json().get("code") == "newer_schema")
            assert service.client.post(f"/models/{MODEL}/{first}/activate").status_code == 200
        else:
            assert active(service) == first
            # The higher one first, so that no look finds the other one to be the newest.
            aside = store_copy.with_name("aside")
            shutil.copytree(store_copy, aside)
            assert add_version(aside) == second
            assert add_version(aside, schema_version=99) == bad
            for number in (bad, second):
                (aside / MODEL / str(number)).rename(store_copy / MODEL / str(number))
            wait_until(lambda: "refused" in described(service, bad))
        looks(service, store_copy, 6)
        shutil.rmtree(store_copy / MODEL / str(bad))
        wait_until(lambda: "the newest version was deleted" in caplog.text)
        looks(service, store_copy, 6)
        assert active(service) == first
        # Mended, it may come back under its number, which has not served either.
        assert add_version(store_copy) == bad
        wait_until(lambda: active(service) == bad)


def test_a_version_that_comes_back_overrides_no_choice_by_hand(
    store_copy: Path, watched: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a network's file system does not show it for a while."""
    first, second = newest(store_copy), add_version(store_copy)
    wait_until(lambda: active(watched) == second)
    assert watched.client.post(f"/models/{MODEL}/{first}/activate").status_code == 200
    (store_copy / MODEL / str(second)).rename(store_copy / "aside")
    wait_until(lambda: "the newest version was deleted" in caplog.text)
    looks(watched, store_copy, 6)
    (store_copy / "aside").rename(store_copy / MODEL / str(second))
    looks(watched, store_copy, 6)
    assert active(watched) == first


def test_a_deleted_version_that_serves_goes_on(
    store_copy: Path, jpeg: bytes, watched: Service
) -> None:
    first, second = newest(store_copy), add_version(store_copy)
    wait_until(lambda: active(watched) == second)
    shutil.rmtree(store_copy / MODEL / str(second))
    looks(watched, store_copy, 6)
    assert watched.predict_raw(jpeg).json()["model"]["version"] == second
    gone = described(watched, second)
    assert gone["active"]
    assert gone["error"]["code"] == "version_not_found"
    assert not described(watched, first)["active"]


def test_where_nothing_can_serve_any_more_the_newest_that_is_left_does(
    store_copy: Path, jpeg: bytes, watched: Service, runtimes: FakeRuntimes
) -> None:
    """As after a restart: the one that served is lost, and gone from the store."""
    first, second = newest(store_copy), add_version(store_copy)
    wait_until(lambda: active(watched) == second)
    shutil.rmtree(store_copy / MODEL / str(second))
    looks(watched, store_copy, 6)
    runtimes.last.error = SystemExit()
    assert watched.predict_raw(jpeg).status_code == 503
    wait_until(lambda: active(watched) == first)


def test_a_bad_version_that_is_deleted_after_the_start_brings_the_service_up(
    store_copy: Path, runtimes: FakeRuntimes
) -> None:
    first, bad = newest(store_copy), add_version(store_copy, schema_version=99)
    settings = settings_for(store_copy, watch=True, watch_interval_ms=INTERVAL_MS)
    with serving(settings, runtimes, ready=False) as service:
        wait_until(lambda: service.client.get("/health").json().get("code") == "newer_schema")
        shutil.rmtree(store_copy / MODEL / str(bad))
        wait_until(lambda: active(service) == first)


def test_what_is_being_rebuilt_is_not_taken_for_gone(
    store_copy: Path, jpeg: bytes, watched: Service, runtimes: FakeRuntimes
) -> None:
    first, second, bad = newest(store_copy), add_version(store_copy), add_version(store_copy)
    wait_until(lambda: active(watched) == bad)
    assert watched.client.post(f"/models/{MODEL}/{first}/activate").status_code == 200
    runtimes.held = first
    runtimes.gate.clear()
    runtimes.last.error = SystemExit()
    assert watched.predict_raw(jpeg).json()["code"] == "runtime_lost"
    wait_until(runtimes.reached.is_set)
    shutil.rmtree(store_copy / MODEL / str(bad))
    looks(watched, store_copy, 6)
    assert active(watched) is None
    runtimes.gate.set()
    wait_until(lambda: active(watched) == first)
    looks(watched, store_copy, 6)
    assert active(watched) == first, f"and not {second}"


def test_a_store_that_is_filled_later_brings_the_service_up(
    store_copy: Path, tmp_path: Path, runtimes: FakeRuntimes, caplog: pytest.LogCaptureFixture
) -> None:
    empty = tmp_path / "empty"
    settings = settings_for(empty, watch=True, watch_interval_ms=INTERVAL_MS)
    with serving(settings, runtimes, ready=False) as service:
        wait_until(lambda: service.client.get("/health").json().get("code") == "version_not_found")
        looks(service, empty)
        shutil.copytree(store_copy, empty)
        wait_until(lambda: active(service) == newest(store_copy))
    complaints = [r for r in caplog.records if r.getMessage() == "the store has nothing to follow"]
    assert len(complaints) == 1


def test_a_number_is_nothing_to_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="BRAIN_WATCH follows"):
        Settings(watch=True, model_version="2")
    monkeypatch.setenv("BRAIN_WATCH", "true")
    monkeypatch.setenv("BRAIN_MODEL_VERSION", "2")
    with pytest.raises(SettingsError, match="BRAIN_WATCH"):
        Settings.from_environment()
