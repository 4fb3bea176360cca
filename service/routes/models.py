"""``/models``: what is in the store, and which version of it answers."""

import asyncio
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from contract.errors import StoreError
from contract.manifest import Manifest
from contract.store import MANIFEST, ModelStore
from service.context import Context
from service.registry import Engine
from service.state import State


async def list_models(request: Request) -> Response:
    """Every version in the store with its metrics; a damaged one with what is wrong."""
    registry = State.of(request.scope).registry
    models = await asyncio.to_thread(_describe_store, registry.store, registry.active)
    return JSONResponse({"models": models})


async def activate(request: Request) -> Response:
    """Verifies and warms up a version, then lets it answer; or keeps the old one and says why."""
    state, context = State.of(request.scope), Context.of(request.scope)
    previous = state.registry.active
    parameters = request.path_params
    engine = await state.registry.activate(parameters["name"], parameters["version"])
    state.record("activate", context, engine.label, None)
    return JSONResponse(
        {"model": engine.identity, "previous": previous.identity if previous else None}
    )


def _describe_store(store: ModelStore, active: Engine | None) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "versions": [
                _describe(store, name, version, active) for version in store.versions(name)
            ],
        }
        for name in store.names()
    ]


def _describe(store: ModelStore, name: str, version: int, active: Engine | None) -> dict[str, Any]:
    served = (active.identity["name"], active.identity["version"]) if active else None
    entry: dict[str, Any] = {"version": version, "active": served == (name, version), "aliases": []}
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
