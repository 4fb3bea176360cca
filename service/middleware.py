"""Around every request: its id, who may make it, its metrics, its log line, unknown errors."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contract.errors import ContractError
from service.access import ADMIN_FOLDERS, OPEN, OPEN_FOLDER, Access
from service.administration import record
from service.context import KEY, Context, request_id
from service.errors import Draining, RateExceeded, ServiceError, Unauthenticated
from service.headers import protected
from service.metrics import Metrics
from service.pacing import EXTENSION, Pacer, pause_seconds, retry_after
from service.presence import Presence
from service.problems import problem_response
from service.state import State

logger = logging.getLogger("service.request")

UNMATCHED: Final = "unmatched"
"""Route label of addresses that do not exist, and of what is no whole request; their text is the
client's, so it is not recorded."""

CLIENT_GONE: Final = 499
"""Status in log and metrics for a client that left before its answer, as nginx writes it."""

OVERLOAD: Final = frozenset({429, 503})
"""Refusals that there are without number, and that tell nothing of who asks."""

RETRY_AFTER: Final = "retry-after"

Endpoint = Callable[[Request], Awaitable[Response]]


class Observer:
    """ASGI middleware, the outermost of all.

    Args:
        app: the rest of the application.
        metrics: counts answers.
        access: refuses who may not.
        direct: method and path of routes that are called without the rest of the application: its
            layers cost a busy route more than the route itself.
        pacer: of all refusals but those of what is for administrators.
        routes: all of the application's.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        access: Access,
        direct: Mapping[tuple[str, str], Endpoint],
        pacer: Pacer,
        routes: Sequence[BaseRoute],
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._access = access
        self._direct = direct
        self._pacer = pacer
        self._routes = routes
        # Others' refusals must not hide who tries to change the service.
        self._admin_pacer = Pacer()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, whatever happens in it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = Context(request_id(scope["headers"]))
        scope.setdefault("state", {})[KEY] = context
        presence = Presence.of(scope)
        status = 0
        identification = (b"x-request-id", context.request_id.encode())

        async def send_identified(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = CLIENT_GONE if presence.has_left else message["status"]
                headers = protected([*message.get("headers", ()), identification], scope["path"])
                message["headers"] = headers
                if State.of(scope).draining:
                    # The client's next request should find another instance.
                    headers.append((b"connection", b"close"))
            await send(message)

        endpoint = self._direct.get((scope["method"], scope["path"]))
        self._metrics.requests_in_progress.inc()
        try:
            self._check(scope, context)
            if endpoint is None:
                await self._app(scope, receive, send_identified)
            else:
                await _answer(endpoint, scope, receive, send_identified)
        except ClientDisconnect:
            # What the application made of it, nobody has seen.
            status, context.code = CLIENT_GONE, None
        except ServiceError as refusal:
            await self._refuse(refusal, context, scope, receive, send_identified)
        except asyncio.CancelledError:
            # The server gives up what takes longer than the drain. Another instance can still answer,
            # unless its answer has begun: what there is of that can only be cut off.
            if status or not State.of(scope).draining:
                raise
            late = Draining("the service stops, and could not finish this in time")
            await self._refuse(late, context, scope, receive, send_identified)
        except Exception:
            fields = {"request_id": context.request_id}
            logger.exception("a route raised an unknown error", extra={"fields": fields})
            if not status:
                await problem_response(ServiceError(), context)(scope, receive, send_identified)
        finally:
            self._metrics.requests_in_progress.dec()
            route = scope["path"] if endpoint else _route(scope)
            self._record(scope["method"], route, status, context)

    def _check(self, scope: Scope, context: Context) -> None:
        """Refuses who may not; what would have changed the service has a line in the audit log."""
        try:
            self._access.check(scope, context)
        except ServiceError as refusal:
            # The router, which says otherwise, is not asked.
            scope["route"] = self._asked(scope)
            if isinstance(refusal, Unauthenticated | RateExceeded):
                # Nobody is known who could be named, or was asked for: anybody could fill the log.
                raise
            record(scope, refusal.code, "denied")
            raise

    def _asked(self, scope: Scope) -> BaseRoute | None:
        """The route that a request would take, or be refused by for its method."""
        matching = (route for route in self._routes if route.matches(scope)[0] is not Match.NONE)
        return next(matching, None)

    async def _refuse(
        self, refusal: ServiceError, context: Context, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answers a refusal in its turn."""
        is_admin = scope["path"].startswith(ADMIN_FOLDERS)
        turn_seconds = (self._admin_pacer if is_admin else self._pacer).turn(monotonic())
        is_known = context.key is not None and refusal.status not in OVERLOAD
        context.logged = turn_seconds == 0 or is_known
        response = problem_response(refusal, context)
        if RETRY_AFTER in response.headers:
            least_seconds = int(response.headers[RETRY_AFTER])
            response.headers[RETRY_AFTER] = retry_after(least_seconds, turn_seconds)
        await response(scope, receive, send)
        _hold_off(scope, pause_seconds(turn_seconds))

    def _record(self, method: str, route: str, status: int, context: Context) -> None:
        seconds = monotonic() - context.start
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if context.code is not None:
            self._metrics.errors.labels(context.code).inc()
        if context.logged and logger.isEnabledFor(logging.INFO):
            fields = {
                "request_id": context.request_id,
                "method": method,
                "route": route,
                "status": status,
                "total_ms": round(seconds * 1000, 2),
                **context.fields,
            }
            if context.code is not None:
                fields["code"] = context.code
            logger.info("request", extra={"fields": fields})


def _hold_off(scope: Scope, seconds: float) -> None:
    """Does not listen to a refused client for a while; see :mod:`service.pacing`."""
    connection = scope.get("extensions", {}).get(EXTENSION)
    if connection is not None and seconds > 0:
        connection["for_seconds"](seconds)


def _route(scope: Scope) -> str:
    """The address as it was declared: there are few of them, whatever clients ask for."""
    path: str = scope["path"]
    if path in OPEN:
        return path
    if path.startswith(OPEN_FOLDER):
        return OPEN_FOLDER
    route: str = getattr(scope.get("route"), "path", UNMATCHED)
    return route


async def _answer(endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
    try:
        response = await endpoint(Request(scope, receive))
    except ContractError as failure:
        response = problem_response(failure, Context.of(scope))
    await response(scope, receive, send)
