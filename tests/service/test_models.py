"""/models and the swap of versions."""

import os
import shutil
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.store import ALIASES, ModelStore
from service import storage
from service.registry import Registry
from service.routes import models
from service.schemas import Activation, Alias, ModelList
from tests.support.service import (
    MODEL,
    PATIENCE_SECONDS,
    FakeRuntimes,
    Service,
    add_version,
    edit_manifest,
    newest,
    serving,
    settings_for,
    wait_until,
)


def serves(service: Service, image: bytes) -> int:
    version: int = service.predict_raw(image).json()["model"]["version"]
    return version


def test_versions_are_listed_with_what_they_are(store_copy: Path) -> None:
    first = newest(store_copy)
    second = add_version(store_copy)
    broken = add_version(store_copy, schema_version=99)
    ModelStore(store_copy).set_alias(MODEL, "stable", first)
    with serving(settings_for(store_copy, model_version=str(second))) as service:
        response = service.client.get("/models")
    assert response.status_code == 200
    (model,) = ModelList.model_validate_json(response.content).models
    assert model.name == MODEL
    by_number = {version.version: version for version in model.versions}
    assert [number for number, version in by_number.items() if version.active] == [second]
    assert by_number[first].aliases == ["stable"]
    assert by_number[first].metrics
    assert by_number[first].tumor_classes == ["glioma", "meningioma", "pituitary"]
    assert "litert" in (by_number[first].runtimes or [])
    error = by_number[broken].error
    assert error is not None
    assert error.code == "newer_schema"


@pytest.mark.parametrize(
    ("setting", "index"), [("latest", 1), ("number", 0), ("stable", 0)], ids=str
)
def test_the_configured_version_is_loaded(store_copy: Path, setting: str, index: int) -> None:
    versions = [newest(store_copy), add_version(store_copy)]
    ModelStore(store_copy).set_alias(MODEL, "stable", versions[0])
    chosen = str(versions[0]) if setting == "number" else setting
    with serving(settings_for(store_copy, model_version=chosen)) as service:
        assert service.client.get("/health").json()["model"]["version"] == versions[index]


def test_activation_swaps_and_rolls_back(store_copy: Path, jpeg: bytes) -> None:
    first, second = newest(store_copy), add_version(store_copy)
    ModelStore(store_copy).set_alias(MODEL, "stable", first)
    with serving(settings_for(store_copy, model_version=str(first))) as service:
        assert serves(service, jpeg) == first
        response = service.client.post(f"/models/{MODEL}/latest/activate")
        assert response.status_code == 200
        answer = Activation.model_validate_json(response.content)
        assert answer.previous is not None
        assert (answer.previous.version, answer.model.version) == (first, second)
        assert serves(service, jpeg) == second
        assert service.metric(
            "brain_model_info",
            name=MODEL,
            version=str(second),
            runtime="litert",
            device="cpu",
            manifest=service.state.registry.engine().stored.manifest_digest,
        )
        assert service.client.post(f"/models/{MODEL}/stable/activate").status_code == 200
        assert serves(service, jpeg) == first


def test_of_two_activations_at_once_the_later_one_follows_the_earlier(store_copy: Path) -> None:
    first, second, third = newest(store_copy), add_version(store_copy), add_version(store_copy)
    with (
        serving(settings_for(store_copy, model_version=str(first))) as service,
        ThreadPoolExecutor(2) as clients,
    ):
        paths = [f"/models/{MODEL}/{version}/activate" for version in (second, third)]
        answers = [answer.json() for answer in clients.map(service.client.post, paths)]
        moves = {(a["previous"]["version"], a["model"]["version"]) for a in answers}
        assert moves in ({(first, second), (second, third)}, {(first, third), (third, second)})


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        (f"{MODEL}/bad", 409, "corrupt_version"),
        (f"{MODEL}/4711", 404, "version_not_found"),
        (f"{MODEL}/no-such-alias", 404, "version_not_found"),
        ("no-such-model/1", 404, "version_not_found"),
        ("%2e%2e/1", 404, "version_not_found"),
    ],
)
def test_a_version_that_must_not_serve_leaves_the_old_one(
    store_copy: Path, jpeg: bytes, target: str, status: int, code: str
) -> None:
    first, bad = newest(store_copy), add_version(store_copy)
    ModelStore(store_copy).set_alias(MODEL, "bad", bad)
    next((store_copy / MODEL / str(bad)).glob("*.tflite")).write_bytes(b"junk")
    with serving(settings_for(store_copy, model_version=str(first))) as service:
        response = service.client.post(f"/models/{target}/activate")
        assert (response.status_code, response.json()["code"]) == (status, code)
        assert serves(service, jpeg) == first


def test_a_selector_of_any_length_is_repeated_only_so_far(service: Service) -> None:
    for target in (f"{MODEL}/{'x' * 5000}", f"{'x' * 5000}/1"):
        response = service.client.post(f"/models/{target}/activate")
        assert (response.status_code, response.json()["code"]) == (404, "version_not_found")
        assert "xxx…" in response.json()["detail"]
        assert len(response.json()["detail"]) < 200


def test_a_failed_warm_up_leaves_the_old_one(
    store_copy: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    first, second = newest(store_copy), add_version(store_copy)
    settings = settings_for(store_copy, model_version=str(first))
    with serving(settings, runtimes) as service:
        runtimes.error = RuntimeError("this one does not warm up")
        response = service.client.post(f"/models/{MODEL}/{second}/activate")
        assert (response.status_code, response.json()["code"]) == (409, "runtime_unusable")
        assert serves(service, jpeg) == first


def test_a_version_that_hangs_while_it_is_loaded_is_refused_and_blocks_nobody(
    store_copy: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    first, second = newest(store_copy), add_version(store_copy)
    settings = settings_for(store_copy, model_version=str(first), load_timeout_ms=300)
    with serving(settings, runtimes) as service:
        runtimes.gate.clear()
        response = service.client.post(f"/models/{MODEL}/{second}/activate")
        assert (response.status_code, response.json()["code"]) == (409, "runtime_unusable")
        assert "within 0.3 s" in response.json()["detail"]
        (model,) = service.client.get("/models").json()["models"]
        assert model["versions"][-1]["refused"]["detail"] in response.json()["detail"]
        assert serves(service, jpeg) == first
        runtimes.gate.set()
        # It came back after all, and is closed, as nobody waits for it.
        wait_until(lambda: runtimes.opened[1:] and runtimes.opened[1].closed)
        assert service.client.post(f"/models/{MODEL}/{second}/activate").status_code == 200
        assert serves(service, jpeg) == second


def test_what_waits_for_a_version_that_hangs_has_its_turn(
    store_copy: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    first, hanging, good = newest(store_copy), add_version(store_copy), add_version(store_copy)
    settings = settings_for(store_copy, model_version=str(first), load_timeout_ms=500)
    with serving(settings, runtimes) as service, ThreadPoolExecutor(3) as clients:
        runtimes.held = hanging
        runtimes.gate.clear()
        model, client = f"/models/{MODEL}", service.client
        refused = clients.submit(client.post, f"{model}/{hanging}/activate")
        wait_until(runtimes.reached.is_set)
        moved = clients.submit(client.put, f"{model}/aliases/stable/{good}")
        activated = clients.submit(client.post, f"{model}/{good}/activate")
        answers = [future.result().status_code for future in (refused, moved, activated)]
        assert answers == [409, 200, 200]
        assert serves(service, jpeg) == good
        runtimes.gate.set()


def test_a_damaged_store_can_be_left_by_activating_a_good_version(
    store_copy: Path, jpeg: bytes
) -> None:
    first, bad = newest(store_copy), add_version(store_copy, schema_version=99)
    with serving(settings_for(store_copy), ready=False) as service:
        wait_until(lambda: service.client.get("/health").json().get("code") == "newer_schema")
        assert service.client.post(f"/models/{MODEL}/{bad}/activate").status_code == 409
        response = service.client.post(f"/models/{MODEL}/{first}/activate")
        assert (response.status_code, response.json()["previous"]) == (200, None)
        assert serves(service, jpeg) == first


def test_swaps_under_load_lose_nothing(
    store_copy: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    versions = [newest(store_copy), add_version(store_copy)]
    answers: list[tuple[int, int]] = []
    stop = threading.Event()

    with serving(settings_for(store_copy), runtimes) as service:

        def ask() -> None:
            while not stop.is_set():
                response = service.predict_raw(jpeg)
                answers.append((response.status_code, response.json()["model"]["version"]))

        clients = [threading.Thread(target=ask) for _ in range(4)]
        for client in clients:
            client.start()
        for number in range(6):
            response = service.client.post(f"/models/{MODEL}/{versions[number % 2]}/activate")
            assert response.status_code == 200
        stop.set()
        for client in clients:
            client.join()
        assert {status for status, _ in answers} == {200}
        assert {version for _, version in answers} == set(versions)
        retired = {id(runtime) for runtime in runtimes.opened[:-1]}
        wait_until(
            lambda: {id(runtime) for runtime in runtimes.opened if runtime.closed} == retired
        )


def rolled_back(service: Service) -> tuple[int, int | None]:
    """Rolls back; what serves then, and what did before."""
    response = service.client.post(f"/models/{MODEL}/rollback")
    assert response.status_code == 200
    answer = Activation.model_validate_json(response.content)
    return answer.model.version, answer.previous.version if answer.previous else None


def test_rollback_goes_back_through_what_has_served(
    store_copy: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    versions = [newest(store_copy), add_version(store_copy), add_version(store_copy)]
    with serving(settings_for(store_copy, model_version=str(versions[0])), runtimes) as service:
        for number in (versions[1], versions[1], versions[2]):
            path = f"/models/{MODEL}/{number}/activate"
            assert service.client.post(path).status_code == 200
        assert rolled_back(service) == (versions[1], versions[2])
        assert serves(service, jpeg) == versions[1]
        assert rolled_back(service) == (versions[0], versions[1])
        response = service.client.post(f"/models/{MODEL}/rollback")
        assert (response.status_code, response.json()["code"]) == (409, "no_earlier_version")
        assert serves(service, jpeg) == versions[0]
        response = service.client.post("/models/another/rollback")
        assert (response.status_code, response.json()["code"]) == (409, "no_earlier_version")


def test_a_rollback_never_goes_back_to_what_it_was_to_leave(
    store_copy: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    """An activation that is under way ends first; the version before it is then the bad one."""
    first, bad, third = newest(store_copy), add_version(store_copy), add_version(store_copy)
    settings = settings_for(store_copy, model_version=str(first))
    with serving(settings, runtimes) as service, ThreadPoolExecutor(2) as clients:
        model, client = f"/models/{MODEL}", service.client
        assert client.post(f"{model}/{bad}/activate").status_code == 200
        runtimes.held = third
        runtimes.gate.clear()
        activated = clients.submit(client.post, f"{model}/{third}/activate")
        wait_until(runtimes.reached.is_set)
        refused = clients.submit(client.post, f"{model}/rollback")
        wait_until(lambda: service.state.registry._changing._waiters)
        runtimes.gate.set()
        assert activated.result().status_code == 200
        response = refused.result()
        assert (response.status_code, response.json()["code"]) == (409, "other_version_serves")
        assert serves(service, jpeg) == third
        assert rolled_back(service) == (bad, third)


def test_a_store_that_hangs_costs_one_thread_and_ends_nothing_but_what_asks_it(
    store_copy: Path, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "STORE_SECONDS", 0.3)
    with serving(settings_for(store_copy)) as service:
        manifest = store_copy / MODEL / "4711" / "manifest.json"
        manifest.parent.mkdir()
        # Opening it waits for a writer, as a network's file system waits for its server.
        os.mkfifo(manifest)
        threads = threading.active_count()
        for _ in range(3):
            response = service.client.get("/models")
            assert (response.status_code, response.json()["code"]) == (503, "model_store_error")
        assert threading.active_count() <= threads + 1
        response = service.client.post(f"/models/{MODEL}/latest/activate")
        assert (response.status_code, response.json()["code"]) == (503, "model_store_error")
        assert service.predict_raw(jpeg).status_code == 200
        writer = os.open(manifest, os.O_WRONLY)
        manifest.unlink()
        os.close(writer)
        wait_until(lambda: service.client.get("/models").status_code == 200)


def test_a_change_waits_for_one_listing_however_many_ask_for_one(
    store_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, clients = newest(store_copy), 12
    calls: list[str] = []
    gate = threading.Event()

    def describe(asked: Registry) -> object:
        calls.append("listing")
        assert gate.wait(PATIENCE_SECONDS)
        return describe_store(asked)

    describe_store = models._describe_store
    monkeypatch.setattr(models, "_describe_store", describe)
    with serving(settings_for(store_copy)) as service, ThreadPoolExecutor(clients + 1) as pool:
        active = service.state.registry
        calls_of_store = active.store_calls
        listing, resolve = calls_of_store.listing, active.store.resolve
        asked: list[object] = []

        def list_noted(function: Callable[[], Any]) -> Awaitable[Any]:
            asked.append(function)
            return listing(function)

        def resolve_noted(name: str, selector: str) -> int:
            calls.append("change")
            return resolve(name, selector)

        monkeypatch.setattr(calls_of_store, "listing", list_noted)
        monkeypatch.setattr(active.store, "resolve", resolve_noted)
        listings = [pool.submit(service.client.get, "/models")]
        wait_until(lambda: calls)
        listings += [pool.submit(service.client.get, "/models") for _ in range(clients - 1)]
        wait_until(lambda: len(asked) == clients)
        moved = pool.submit(service.client.put, f"/models/{MODEL}/aliases/stable/{first}")
        wait_until(lambda: len(calls_of_store._turns._turn._waiters or ()) > 0)
        # What is listed from now on has the version that came meanwhile.
        second = add_version(store_copy)
        gate.set()
        assert moved.result().status_code == 200
        answers = [listing.result().json()["models"] for listing in listings]
    assert calls == ["listing", "change", "listing"]
    for answer in answers[1:]:
        assert [entry["version"] for entry in answer[0]["versions"]][-1] == second


def test_rollback_to_a_version_that_is_damaged_by_now_leaves_the_active_one(
    store_copy: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    first, second = newest(store_copy), add_version(store_copy)
    with serving(settings_for(store_copy, model_version=str(first)), runtimes) as service:
        assert service.client.post(f"/models/{MODEL}/{second}/activate").status_code == 200
        edit_manifest(store_copy, first, {"schema_version": 99})
        response = service.client.post(f"/models/{MODEL}/rollback")
        assert (response.status_code, response.json()["code"]) == (409, "newer_schema")
        assert serves(service, jpeg) == second
        edit_manifest(store_copy, first, {"schema_version": manifest_schema(store_copy, second)})
        assert rolled_back(service) == (first, second)


def test_rollback_passes_over_what_was_deleted(
    store_copy: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    first, second, third = newest(store_copy), add_version(store_copy), add_version(store_copy)
    with serving(settings_for(store_copy, model_version=str(first)), runtimes) as service:
        model, client = f"/models/{MODEL}", service.client
        for number in (second, third):
            assert client.post(f"{model}/{number}/activate").status_code == 200
        shutil.rmtree(store_copy / MODEL / str(second))
        assert rolled_back(service) == (first, third)
        response = client.post(f"{model}/rollback")
        assert (response.status_code, response.json()["code"]) == (409, "no_earlier_version")
        assert serves(service, jpeg) == first


def test_rollback_passes_over_what_is_left_of_a_deleted_version(
    store_copy: Path, runtimes: FakeRuntimes
) -> None:
    """On NFS a file that is open when it is deleted stays under another name."""
    first, second, third = newest(store_copy), add_version(store_copy), add_version(store_copy)
    with serving(settings_for(store_copy, model_version=str(first)), runtimes) as service:
        for number in (second, third):
            path = f"/models/{MODEL}/{number}/activate"
            assert service.client.post(path).status_code == 200
        folder = store_copy / MODEL / str(second)
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / ".nfs0001").write_bytes(b"x")
        assert rolled_back(service) == (first, third)


def test_rollback_leads_to_another_version_whatever_was_deleted_between(
    store_copy: Path, runtimes: FakeRuntimes
) -> None:
    first, second, third = newest(store_copy), add_version(store_copy), add_version(store_copy)
    with serving(settings_for(store_copy, model_version=str(first)), runtimes) as service:
        for number in (second, third, second):
            path = f"/models/{MODEL}/{number}/activate"
            assert service.client.post(path).status_code == 200
        shutil.rmtree(store_copy / MODEL / str(third))
        assert rolled_back(service) == (first, second)


def test_an_alias_of_a_deleted_version_is_shown_and_selects_nothing(
    store_copy: Path, jpeg: bytes
) -> None:
    first, second = newest(store_copy), add_version(store_copy)
    ModelStore(store_copy).set_alias(MODEL, "stable", second)
    shutil.rmtree(store_copy / MODEL / str(second))
    with serving(settings_for(store_copy, model_version="stable"), ready=False) as service:
        wait_until(lambda: service.client.get("/health").json().get("code") == "version_not_found")
        reason = service.client.get("/health").json()["reason"]
        assert reason == (
            f"the alias stable points at version {second} of {MODEL}, which is not in the store"
        )
        (model,) = ModelList.model_validate_json(service.client.get("/models").content).models
        assert [(it.version, it.aliases, it.active) for it in model.versions] == [
            (first, [], False),
            (second, ["stable"], False),
        ]
        assert model.versions[1].error
        assert model.versions[1].error.code == "version_not_found"
        # Moved, it is an alias like any other.
        assert service.client.put(f"/models/{MODEL}/aliases/stable/{first}").status_code == 200
        assert service.client.post(f"/models/{MODEL}/stable/activate").status_code == 200
        assert serves(service, jpeg) == first
        (model,) = ModelList.model_validate_json(service.client.get("/models").content).models
        assert [version.version for version in model.versions] == [first]


def test_aliases_are_shown_when_every_version_was_deleted(store_copy: Path) -> None:
    only = newest(store_copy)
    ModelStore(store_copy).set_alias(MODEL, "stable", only)
    with serving(settings_for(store_copy)) as service:
        shutil.rmtree(store_copy / MODEL / str(only))
        (model,) = ModelList.model_validate_json(service.client.get("/models").content).models
        (version,) = model.versions
        assert (version.version, version.active, version.aliases) == (only, True, ["stable"])


def manifest_schema(store: Path, version: int) -> int:
    return ModelStore(store).load(MODEL, version).manifest.schema_version


def test_an_alias_is_moved_and_activated(
    store_copy: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    first, second = newest(store_copy), add_version(store_copy)
    with serving(settings_for(store_copy, model_version=str(first)), runtimes) as service:

        def move(alias: str, selector: str) -> httpx.Response:
            return service.client.put(f"/models/{MODEL}/aliases/{alias}/{selector}")

        moved = Alias.model_validate_json(move("canary", "latest").content)
        assert (moved.alias, moved.version, moved.previous) == ("canary", second, None)
        assert move("stable", str(first)).json()["version"] == first
        assert move("stable", "canary").json() == {
            "alias": "stable",
            "version": second,
            "previous": first,
        }
        assert ModelStore(store_copy).aliases(MODEL) == {"canary": second, "stable": second}
        assert serves(service, jpeg) == first, "an alias alone swaps nothing"
        assert service.client.post(f"/models/{MODEL}/stable/activate").status_code == 200
        assert serves(service, jpeg) == second
        refusals = [move("latest", "latest"), move("Stable", "latest"), move("stable", "nightly")]
        assert [(refusal.status_code, refusal.json()["code"]) for refusal in refusals] == [
            (422, "invalid_alias"),
            (422, "invalid_alias"),
            (404, "version_not_found"),
        ]
        (store_copy / MODEL / ALIASES).write_text('{"stable": ')
        damaged = [
            move("stable", str(first)),
            service.client.post(f"/models/{MODEL}/stable/activate"),
        ]
        for refusal in damaged:
            assert (refusal.status_code, refusal.json()["code"]) == (409, "corrupt_store")
            assert "backup" in refusal.json()["detail"]
        (model,) = ModelList.model_validate_json(service.client.get("/models").content).models
        assert {it.error and it.error.code for it in model.versions} == {"corrupt_store"}
        assert serves(service, jpeg) == second


def test_an_alias_of_latest_stays_where_that_was(store_copy: Path, runtimes: FakeRuntimes) -> None:
    first = newest(store_copy)
    with serving(settings_for(store_copy), runtimes) as service:
        path = f"/models/{MODEL}/aliases/stable/latest"
        assert service.client.put(path).json()["version"] == first
        add_version(store_copy)
        assert ModelStore(store_copy).aliases(MODEL) == {"stable": first}
        document = service.client.get("/openapi.json").json()
    described = document["paths"]["/models/{name}/aliases/{alias}/{version}"]["put"]["description"]
    assert "the number that it means at the moment of the call" in " ".join(described.split())


def test_a_store_that_cannot_be_written_says_so(
    store_copy: Path, runtimes: FakeRuntimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    with serving(settings_for(store_copy), runtimes) as service:
        monkeypatch.setattr(Path, "write_text", refuse)
        response = service.client.put(f"/models/{MODEL}/aliases/stable/latest")
        assert (response.status_code, response.json()["code"]) == (409, "read_only_store")
