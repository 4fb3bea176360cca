"""``/deliveries``: for the administrator, what was given up, and to try it again."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.administration import recorded
from service.audit import hashed
from service.errors import NoDestination
from service.pacs.schemas import LISTED
from service.state import State


async def show(request: Request) -> Response:
    """What waits, what was given up and what was set aside, and why; all is named by hashes.

    The newest of what was given up and set aside are listed; `objects_dead`, `series_dead` count all.
    """
    gateway = State.of(request.scope).gateway
    if gateway is None:
        raise NoDestination("BRAIN_DICOMWEB_URL is not set")
    report = await gateway.report()
    dead = await gateway.dead(LISTED)
    refused = [
        {
            "kind": item.kind,
            "object": hashed(item.sop),
            "reason": item.reason,
            "attempts": item.attempts,
            "created": item.created,
            "request_id": item.request_id,
        }
        for item in dead
    ]
    set_aside = [
        {
            "series": hashed(item.uid),
            "instances": item.instances,
            "reason": item.reason,
            "since": item.since,
            "request_id": item.request_id,
        }
        for item in await gateway.set_aside(LISTED)
    ]
    return JSONResponse({**report, "refused": refused, "set_aside": set_aside})


async def retry(request: Request) -> Response:
    """Tries everything again that was given up."""
    gateway = State.of(request.scope).gateway
    with recorded(request.scope) as line:
        if gateway is None:
            raise NoDestination("BRAIN_DICOMWEB_URL is not set")
        series, objects = await gateway.retry()
        line.result = f"series={series},objects={objects}"
    return JSONResponse({"series": series, "objects": objects})
