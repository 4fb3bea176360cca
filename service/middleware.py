"""Around every request: its id, its metrics, its log line, and a plain answer to unknown errors."""

import logging
from time import monotonic
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.context import KEY, Context, request_id
from service.errors import ServiceError
from service.metrics import Metrics
from service.problems import problem_response
from service.state import State

logger = logging.getLogger("service.request")

UNMATCHED: Final = "unmatched"
"""Route label of addresses that do not exist; their text is the client's, so it is not recorded."""

CLIENT_GONE: Final = 499
"""Status in log and metrics for a client that left before its answer, as nginx writes it."""


class Observer:
    """ASGI middleware; the outermost one of the service's own.

    Args:
        app: the rest of the application.
        metrics: counts answers.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, whatever happens in it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = Context(request_id(scope["headers"]))
        scope.setdefault("state", {})[KEY] = context
        status = 0
        identification = (b"x-request-id", context.request_id.encode())

        async def send_identified(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), identification]
                if State.of(scope).draining:
                    # The client's next request should find another instance.
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            await self._app(scope, receive, send_identified)
        except ClientDisconnect:
            status = CLIENT_GONE
        except Exception:
            fields = {"request_id": context.request_id}
            logger.exception("a route raised an unknown error", extra={"fields": fields})
            if status:
                # Half an answer cannot be repaired; the server closes the connection.
                raise
            await problem_response(ServiceError(), context)(scope, receive, send_identified)
        finally:
            self._record(scope, context, status)

    def _record(self, scope: Scope, context: Context, status: int) -> None:
        route = getattr(scope.get("route"), "path", UNMATCHED)
        seconds = monotonic() - context.start
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if context.code is not None:
            self._metrics.errors.labels(context.code).inc()
        if logger.isEnabledFor(logging.INFO):
            fields = {
                "request_id": context.request_id,
                "method": scope["method"],
                "route": route,
                "status": status,
                "total_ms": round(seconds * 1000, 2),
                **context.fields,
            }
            if context.code is not None:
                fields["code"] = context.code
            logger.info("request", extra={"fields": fields})
