"""Errors as RFC 9457 problem details, for every way in which a request can fail."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from contract.errors import ContractError
from service.context import Context
from service.errors import BadRequest, Failure, ServiceError
from service.headers import protected

MEDIA_TYPE: Final = "application/problem+json"

ROUTER_PROBLEMS: Final = {
    404: ("not_found", "there is nothing at this address"),
    405: ("method_not_allowed", "this address does not answer this method"),
}
"""Code and text of what the router itself refuses."""

ROUTER_OTHERS: Final = "http_error"
"""Code of what it refuses besides."""


def problem_response(
    failure: Failure, context: Context, extra: Mapping[str, Any] | None = None
) -> Response:
    """The answer to a request that failed as a whole.

    Args:
        failure: why.
        context: the request.
        extra: further members of the problem.
    """
    context.code = failure.code
    headers = failure.headers if isinstance(failure, ServiceError) else {}
    content = {**problem(failure, context.request_id), **(extra or {})}
    return Response(json.dumps(content), failure.status, headers, MEDIA_TYPE)


def problem(failure: Failure, request_id: str) -> dict[str, Any]:
    """The problem details of a failure."""
    return _details(failure.status, failure.code, failure.detail, request_id)


def whole_answer(failure: ServiceError, request_id: str, headers: Mapping[str, str]) -> bytes:
    """The HTTP response of a request that never reached the application.

    Args:
        failure: why.
        request_id: of the request.
        headers: further ones, or others than the failure's; in lower case.
    """
    body = json.dumps(problem(failure, request_id)).encode()
    own = {
        "content-type": MEDIA_TYPE,
        "content-length": str(len(body)),
        "x-request-id": request_id,
        **{name.lower(): value for name, value in failure.headers.items()},
        **headers,
    }
    fields = protected([(name.encode(), value.encode()) for name, value in own.items()], "")
    lines = [b"%s: %s\r\n" % field for field in fields]
    phrase = HTTPStatus(failure.status).phrase.encode()
    return b"".join([b"HTTP/1.1 %d %s\r\n" % (failure.status, phrase), *lines, b"\r\n", body])


def install_handlers(app: FastAPI) -> None:
    """Makes problems of everything that routes raise."""
    app.add_exception_handler(ServiceError, _answer_failure)
    app.add_exception_handler(ContractError, _answer_failure)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(HTTPException, _answer_router)
    app.add_exception_handler(Exception, _answer_unknown)


def _details(status: int, code: str, detail: str, request_id: str) -> dict[str, Any]:
    return {
        # Without a type of its own, a problem's title is the phrase of its status (section 4.2.1).
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    }


async def _answer_failure(request: Request, error: Exception) -> Response:
    return problem_response(cast("Failure", error), Context.of(request.scope))


async def _answer_validation(request: Request, error: Exception) -> Response:
    # Only where, never what: a value may be anything that a client typed.
    items = cast("RequestValidationError", error).errors()
    places = sorted({".".join(map(str, item["loc"])) for item in items})
    refusal = BadRequest(f"invalid: {', '.join(places)}")
    return problem_response(refusal, Context.of(request.scope))


async def _answer_router(request: Request, error: Exception) -> Response:
    refusal = cast("HTTPException", error)
    status = refusal.status_code
    code, detail = ROUTER_PROBLEMS.get(status, (ROUTER_OTHERS, "the request was refused"))
    context = Context.of(request.scope)
    context.code = code
    content = _details(status, code, detail, context.request_id)
    return Response(json.dumps(content), status, refusal.headers, MEDIA_TYPE)


async def _answer_unknown(request: Request, _error: Exception) -> Response:
    """The error goes on to the middleware, which logs it."""
    return problem_response(ServiceError(), Context.of(request.scope))
