"""``/models``: what is in the store, and which version of it answers."""

from contextlib import suppress
from functools import partial
from typing import Any, Final

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contract.errors import StoreError
from contract.manifest import Manifest
from contract.store import ModelStore
from contract.version import MANIFEST
from service.administration import recorded
from service.errors import OtherPreprocessing, SameVersion
from service.registry import Change, Registry
from service.shadow import ShadowState
from service.state import State

PAUSING: Final = (OtherPreprocessing, SameVersion)
"""What keeps the shadow version from comparing until another version serves."""


async def list_models(request: Request) -> Response:
    """Every version in the store with its metrics; a damaged one with what is wrong.

    A version that was deleted is still listed where an alias points at it, or it serves: its `error` is
    `version_not_found`.
    """
    state = State.of(request.scope)
    registry, settings = state.registry, state.settings
    models = await registry.store_calls.listing(partial(_describe_store, registry))
    return JSONResponse(
        {
            "models": models,
            "follows": settings.model_version if settings.watch else None,
            "shadow": _describe_shadow(registry.shadow_state()),
        }
    )


async def activate(request: Request) -> Response:
    """Verifies and warms up a version, then lets it answer; or keeps the old one and says why."""
    registry, parameters = State.of(request.scope).registry, request.path_params
    with recorded(request.scope) as line:
        change = await registry.activate(parameters["name"], parameters["version"])
        line.result = change.active.label
    return _activated(change)


async def rollback(request: Request) -> Response:
    """Lets the version answer that did before the active one; or keeps this and says why."""
    registry = State.of(request.scope).registry
    with recorded(request.scope) as line:
        change = await registry.rollback(request.path_params["name"])
        line.result = change.active.label
    return _activated(change)


async def set_alias(request: Request) -> Response:
    """Points an alias at a version. Only BRAIN_WATCH makes the service act on it by itself.

    An alias keeps a number: `latest`, or another alias, in the place of the version stands for
    the number that it means at the moment of the call, and this one stays there when that moves on.
    """
    registry = State.of(request.scope).registry
    name, alias, selector = (request.path_params[key] for key in ("name", "alias", "version"))
    with recorded(request.scope) as line:
        number, before = await registry.set_alias(name, alias, selector)
        line.result = f"{alias}={name}/{number}"
    return JSONResponse({"alias": alias, "version": number, "previous": before})


def _activated(change: Change) -> Response:
    active, previous = change
    return JSONResponse(
        {"model": active.identity, "previous": previous.identity if previous else None}
    )


def _describe_shadow(shadow: ShadowState | None) -> dict[str, Any] | None:
    if shadow is None:
        return None
    status = "loading" if shadow.version is None else "running"
    described: dict[str, Any] = {
        "selector": shadow.selector,
        "name": shadow.name,
        "version": shadow.version,
    }
    if shadow.failure is not None:
        status = "paused" if isinstance(shadow.failure, PAUSING) else "failed"
        described["error"] = {"code": shadow.failure.code, "detail": shadow.failure.detail}
    return described | {"status": status}


def _describe_store(registry: Registry) -> list[dict[str, Any]]:
    store, active = registry.store, registry.active
    # A model of which all versions were deleted may still serve, and its aliases still point at one.
    names = {*store.names(), registry.model, *([active.identity["name"]] if active else [])}
    described = [
        {
            "name": name,
            "versions": [
                _describe(registry, name, version) for version in _numbers(registry, name)
            ],
        }
        for name in sorted(names)
    ]
    return [model for model in described if model["versions"]]


def _numbers(registry: Registry, name: str) -> list[int]:
    """Versions of a model, and those that are gone while an alias points at them, or they serve."""
    store, active = registry.store, registry.active
    numbers = {*store.versions(name)}
    with suppress(StoreError):  # Of a damaged file, each version says so.
        numbers.update(store.aliases(name).values())
    if active and active.identity["name"] == name:
        numbers.add(active.identity["version"])
    return sorted(numbers)


def _describe(registry: Registry, name: str, version: int) -> dict[str, Any]:
    store, active = registry.store, registry.active
    served = (active.identity["name"], active.identity["version"]) if active else None
    entry: dict[str, Any] = {"version": version, "active": served == (name, version), "aliases": []}
    refusal = registry.refused.get((name, version))
    if refusal is not None:
        entry["refused"] = {"code": refusal.code, "detail": refusal.detail}
    try:
        entry["aliases"] = sorted(
            alias for alias, number in store.aliases(name).items() if number == version
        )
        manifest = _read_manifest(store, name, version)
    except StoreError as error:
        return entry | {"error": {"code": error.code, "detail": error.detail}}
    return entry | {
        "created": manifest.created.isoformat(),
        "classes": manifest.classes,
        "tumor_classes": manifest.tumor_classes,
        "runtimes": sorted(manifest.artifacts),
        "metrics": manifest.metrics,
    }


def _read_manifest(store: ModelStore, name: str, version: int) -> Manifest:
    """The manifest alone; only if it is unusable is the whole version looked at, to say why."""
    path = store.root / name / str(version) / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return store.load(name, version).manifest
