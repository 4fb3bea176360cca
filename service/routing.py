"""Which address is answered by which route, and what OpenAPI says of it."""

from functools import partial
from typing import Final

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.responses import Response

from contract.errors import CorruptStore, InvalidAlias, ReadOnlyStore, StoreError
from service.errors import (
    Draining,
    NoDestination,
    NoEarlierVersion,
    NotAcceptable,
    NotExplainable,
    OtherVersionServes,
    QueueFull,
    SpoolFull,
    SpoolUnreachable,
    UnsupportedRequestMedia,
)
from service.openapi import (
    AUTHENTICATED,
    EXPLAIN_BODY,
    EXPLAIN_HEADERS,
    EXPLAIN_PARAMETERS,
    EXPOSITION,
    OBJECTS,
    PICTURE,
    PREDICT_BODY,
    PREDICT_PARAMETERS,
    STORE_ANSWERS,
    STORE_BODY,
    Responses,
    problems,
)
from service.pacs.schemas import Deliveries, Retried
from service.routes import deliveries, dicomweb, explain, health, models, pages, predict
from service.schemas import (
    Activation,
    Alias,
    ExplainAnswer,
    Health,
    Liveness,
    ModelList,
    PredictAnswer,
)

PREDICT: Final = "/predict"
EXPLAIN: Final = "/explain"


def add_routes(app: FastAPI) -> None:
    """Adds every route, in the order in which OpenAPI lists them."""
    _add_prediction(app)
    _add_operation(app)
    _add_models(app)
    _add_pacs(app)
    _add_pages(app)
    _answer_head(app)


def _add_prediction(app: FastAPI) -> None:
    add = partial(app.add_api_route, methods=["POST"], response_model=None, tags=["prediction"])
    add(
        PREDICT,
        predict.predict,
        operation_id="predict",
        summary="Classify slices",
        responses={
            200: {
                "model": PredictAnswer,
                "description": "One entry for each slice, in order; or DICOM objects, if the header "
                "`Accept` prefers them.",
                "content": OBJECTS,
            },
            **problems(400, 401, 403, 406, 413, 415, 422, 429, 500, 503, 504),
        },
        openapi_extra=PREDICT_BODY | AUTHENTICATED | {"parameters": PREDICT_PARAMETERS},
    )
    add(
        EXPLAIN,
        explain.explain,
        operation_id="explain",
        summary="Show what the answer to one slice is made of",
        responses={
            200: {
                "model": ExplainAnswer,
                "description": "The slice as a PNG file, with region, box and heat map over it. "
                "Numbers for a header `Accept` that names JSON, unless it prefers the picture.",
                "content": PICTURE,
                "headers": EXPLAIN_HEADERS,
            },
            **problems(400, 401, 403, NotAcceptable, 413, 415, 422, 429, 500),
            **problems(NotExplainable, 503, 504),
        },
        openapi_extra=EXPLAIN_BODY | AUTHENTICATED | {"parameters": EXPLAIN_PARAMETERS},
    )


def _add_operation(app: FastAPI) -> None:
    add = partial(app.add_api_route, response_model=None, tags=["operation"])
    report: Responses = {
        200: {"model": Health},
        503: {"model": Health, "description": "Not ready, and why."},
    }
    add(
        "/health",
        health.health,
        operation_id="health",
        summary="Say whether it is ready, and what serves",
        responses=report,
    )
    add(
        "/health/ready",
        health.health,
        operation_id="health_ready",
        summary="Say the same to a readiness probe",
        responses=report,
    )
    add(
        "/health/live",
        health.live,
        operation_id="health_live",
        summary="Say that the process runs",
        responses={200: {"model": Liveness}},
    )
    add(
        "/metrics",
        health.metrics,
        operation_id="metrics",
        summary="Give metrics to Prometheus",
        response_class=Response,
        responses={200: {"content": EXPOSITION}},
    )


def _add_models(app: FastAPI) -> None:
    add = partial(app.add_api_route, response_model=None, tags=["models"])
    change = partial(add, openapi_extra=AUTHENTICATED)
    add(
        "/models",
        models.list_models,
        operation_id="list_models",
        summary="List the versions in the store",
        responses={200: {"model": ModelList}, **problems(StoreError)},
    )
    change(
        "/models/{name}/{version}/activate",
        models.activate,
        operation_id="activate",
        summary="Have another version serve",
        methods=["POST"],
        responses={
            200: {"model": Activation},
            **problems(401, 403, 404, 409, CorruptStore, 429, StoreError, Draining),
        },
    )
    change(
        "/models/{name}/rollback",
        models.rollback,
        operation_id="rollback",
        summary="Go back to the version that served before",
        methods=["POST"],
        responses={
            200: {"model": Activation},
            **problems(401, 403, NoEarlierVersion, OtherVersionServes, 409, 429, Draining),
        },
    )
    change(
        "/models/{name}/aliases/{alias}/{version}",
        models.set_alias,
        operation_id="set_alias",
        summary="Give a version another name",
        methods=["PUT"],
        responses={
            200: {"model": Alias},
            **problems(401, 403, 404, ReadOnlyStore, CorruptStore, InvalidAlias),
            **problems(429, StoreError, Draining),
        },
    )


def _add_pacs(app: FastAPI) -> None:
    add = partial(app.add_api_route, response_model=None, tags=["PACS"])
    for path, name, summary in (
        ("/dicom-web/studies", "store", "Take DICOM instances to analyse (STOW-RS)"),
        ("/dicom-web/studies/{study}", "store_in_study", "Take DICOM instances of one study"),
    ):
        add(
            path,
            dicomweb.store,
            operation_id=name,
            summary=summary,
            methods=["POST"],
            response_class=Response,
            responses={
                **STORE_ANSWERS,
                **problems(400, 401, 403, NotAcceptable, 413, UnsupportedRequestMedia, 429, 500),
                **problems(NoDestination, SpoolFull, QueueFull, Draining),
            },
            openapi_extra=STORE_BODY | AUTHENTICATED,
        )
    unable = problems(401, 403, 429, NoDestination, SpoolUnreachable)
    add(
        "/deliveries",
        deliveries.show,
        operation_id="deliveries",
        summary="Show what waits for the PACS, and what was given up",
        responses={200: {"model": Deliveries}, **unable},
        openapi_extra=AUTHENTICATED,
    )
    add(
        "/deliveries/retry",
        deliveries.retry,
        operation_id="retry_deliveries",
        summary="Try again what was given up",
        methods=["POST"],
        responses={200: {"model": Retried}, **unable},
        openapi_extra=AUTHENTICATED,
    )


def _add_pages(app: FastAPI) -> None:
    """The pages, and what OpenAPI says nothing of."""
    add = partial(app.add_api_route, response_model=None, include_in_schema=False)
    add("/", pages.index)
    add("/docs", pages.docs)
    app.mount("/static", pages.Files(directory=pages.WEB))


def _answer_head(app: FastAPI) -> None:
    """Has each GET answer HEAD as well, with which load balancers and monitors probe (RFC 9110, 9.1).

    One route takes both, so that a refusal of another method names both. It comes before the one that
    is described, as OpenAPI would have it twice.
    """
    for route in [route for route in app.routes if isinstance(route, APIRoute)]:
        if route.methods == {"GET"}:
            both = APIRoute(
                route.path,
                route.endpoint,
                methods=["GET", "HEAD"],
                response_model=None,
                include_in_schema=False,
            )
            app.router.routes.insert(0, both)
