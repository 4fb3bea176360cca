"""``/health`` for people, ``/health/live`` and ``/health/ready`` for orchestrators, ``/metrics``."""

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.negotiation import accept_of
from service.state import State


async def health(request: Request) -> Response:
    """Whether predictions are answered: 200, or 503 and why not."""
    state = State.of(request.scope)
    pacs = {} if state.gateway is None else {"pacs": await state.gateway.report()}
    report = state.health() | pacs
    return JSONResponse(report, 200 if report["status"] == "ready" else 503)


async def live(_request: Request) -> Response:
    """200 as long as the process answers at all; a restart would not help otherwise."""
    return JSONResponse({"status": "alive"})


async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    state = State.of(request.scope)
    state.metrics.tasks.set(len(asyncio.all_tasks()))
    state.metrics.queue_depth.set(state.pipeline.depth)
    if state.gateway is not None:
        await state.gateway.measure()
    # At the last moment: a model that is loaded while the service stops would say otherwise.
    state.metrics.ready.set(state.health()["status"] == "ready")
    body, media_type = state.metrics.render(accept_of(request.headers) or "")
    return Response(body, headers={"Content-Type": media_type})
