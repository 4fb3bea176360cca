"""The app: its parts, its routes, and its life from start to drain."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import ASGIApp, Lifespan

from contract.errors import CorruptVersion, InvalidAlias, ReadOnlyStore, StoreError
from contract.sandbox import DECODERS
from contract.version import StoredVersion
from service.access import Access
from service.audit import Audit, AuditFile
from service.buffers import Buffers
from service.dicom.answer import ResultWriter
from service.ending import cancel_all, end_all
from service.errors import (
    Draining,
    NoDestination,
    NoEarlierVersion,
    NotAcceptable,
    NotExplainable,
    OtherVersionServes,
    QueueFull,
    SpoolFull,
    UnsupportedRequestMedia,
)
from service.follower import Follower
from service.keys import Keyring
from service.metrics import Metrics
from service.middleware import Observer
from service.openapi import (
    AUTHENTICATED,
    DESCRIPTION,
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
    TITLE,
    Responses,
    describe,
    problems,
)
from service.pacing import Pacer
from service.pipeline import Pipeline
from service.problems import install_handlers
from service.rates import RateLimiter
from service.registry import Registry
from service.release import RELEASE
from service.routes import deliveries, dicomweb, explain, health, models, pages, predict
from service.runtimes import Runtime, open_runtime
from service.schemas import (
    Activation,
    Alias,
    Deliveries,
    Explanation,
    Health,
    Liveness,
    Models,
    PredictAnswer,
    Retried,
)
from service.settings import Settings
from service.state import State
from service.turnstile import Turnstile

if TYPE_CHECKING:
    from service.pacs.gateway import Gateway

PREDICT: Final = "/predict"
EXPLAIN: Final = "/explain"


class App(FastAPI):
    """FastAPI with the service's middleware around all of its own.

    Attributes:
        metrics: of everything that it does.
        turnstile: for the server's connections.
    """

    def __init__(self, metrics: Metrics, access: Access, lifespan: Lifespan[FastAPI]) -> None:
        pacer = Pacer()
        super().__init__(
            title=TITLE,
            description=DESCRIPTION,
            version=RELEASE,
            lifespan=lifespan,
            docs_url=None,
            redoc_url=None,
            # A redirect names http, whatever a proxy before the service speaks, and has the client send
            # its image and its key once more, in clear.
            redirect_slashes=False,
        )
        self.metrics = metrics
        self.turnstile = Turnstile(pacer, metrics, PREDICT)
        self._access = access
        self._pacer = pacer

    def build_middleware_stack(self) -> ASGIApp:
        """Predictions take the short way; FastAPI still describes their route in OpenAPI."""
        direct = {("POST", PREDICT): predict.predict}
        stack = super().build_middleware_stack()
        return Observer(stack, self.metrics, self._access, direct, self._pacer)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return describe(self)


def create_app(
    settings: Settings,
    open_runtime: Callable[[Settings, StoredVersion], Runtime] = open_runtime,
) -> App:
    """An app that loads its model in its lifespan.

    It answers /health from the beginning and predictions once the model is warmed up. A store or
    runtime that is of no use does not stop it: /health and /predict say what is wrong with 503.

    Args:
        settings: see :class:`Settings`.
        open_runtime: how a verified version is loaded; another one in tests of faults.

    Raises:
        SettingsError: the file of API keys, the audit log or the spool is of no use.
    """
    metrics = Metrics()
    access = Access(
        Keyring.read(settings.api_keys_file) if settings.api_keys_file else None,
        RateLimiter(settings.rate_per_second) if settings.rate_per_second else None,
        settings.allowed_hosts,
        settings.trusted_proxies,
    )

    audit = Audit()
    if settings.audit_log is not None:
        audit = AuditFile(
            settings.audit_log,
            settings.audit_max_bytes,
            settings.audit_files,
            settings.audit_fsync,
            metrics,
        )
    gateway = _open_gateway(settings, metrics, audit)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        pipeline = Pipeline(
            loop, settings.queue_size, settings.decode_threads, settings.policy, metrics
        )
        registry = Registry(settings, metrics, pipeline, open_runtime)
        results = ResultWriter(settings.dicom_uid_root, settings.policy, settings.queue_size)
        buffers = Buffers(settings.max_buffered_bytes)
        state = State(settings, metrics, registry, pipeline, results, buffers, audit, gateway)
        app.state.parts = state
        app.turnstile.watch(state)
        if gateway is not None:
            gateway.start(state)
        selected = _follower(settings, registry).run() if settings.watch else registry.load()
        tasks = [loop.create_task(selected), loop.create_task(registry.watch())]
        yield
        await end_all(
            *([] if gateway is None else [gateway.stop]),
            partial(cancel_all, tasks),
            registry.close,
            pipeline.close,
            results.close,
            DECODERS.close,
            audit.close,
        )

    app = App(metrics, access, lifespan)
    install_handlers(app)
    _add_routes(app)
    return app


def _open_gateway(settings: Settings, metrics: Metrics, audit: Audit) -> "Gateway | None":
    if settings.dicomweb_url is None:
        return None
    # It imports pydicom and an HTTP client: a good part of a second that others need not wait for.
    from service.pacs.gateway import Gateway

    return Gateway(settings, metrics, audit)


def _follower(settings: Settings, registry: Registry) -> Follower:
    interval_seconds = settings.watch_interval_ms / 1000
    return Follower(registry, settings.model, settings.model_version, interval_seconds)


def _add_routes(app: FastAPI) -> None:
    app.add_api_route(
        PREDICT,
        predict.predict,
        methods=["POST"],
        response_model=None,
        tags=["prediction"],
        responses={
            200: {
                "model": PredictAnswer,
                "description": "One entry for each slice, in order; or DICOM objects, if the header "
                "`Accept` prefers them.",
                "content": OBJECTS,
            },
            **problems(400, 401, 403, 406, 408, 413, 415, 422, 429, 500, 503, 504),
        },
        openapi_extra=PREDICT_BODY | AUTHENTICATED | {"parameters": PREDICT_PARAMETERS},
    )
    app.add_api_route(
        EXPLAIN,
        explain.explain,
        methods=["POST"],
        response_model=None,
        tags=["prediction"],
        responses={
            200: {
                "model": Explanation,
                "description": "The slice with region, box and heat map over it; or numbers, if the "
                "header `Accept` prefers them.",
                "content": PICTURE,
                "headers": EXPLAIN_HEADERS,
            },
            **problems(400, 401, 403, NotAcceptable, 408, 413, 415, 422, 429, 500),
            **problems(NotExplainable, 503, 504),
        },
        openapi_extra=EXPLAIN_BODY | AUTHENTICATED | {"parameters": EXPLAIN_PARAMETERS},
    )
    unready: Responses = {503: {"model": Health, "description": "Not ready, and why."}}
    for path in ("/health", "/health/ready"):
        app.add_api_route(
            path,
            health.health,
            response_model=None,
            tags=["operation"],
            responses={200: {"model": Health}, **unready},
        )
    app.add_api_route(
        "/health/live",
        health.live,
        response_model=None,
        tags=["operation"],
        responses={200: {"model": Liveness}},
    )
    app.add_api_route(
        "/metrics",
        health.metrics,
        response_model=None,
        response_class=Response,
        tags=["operation"],
        responses={200: {"content": EXPOSITION}},
    )
    app.add_api_route(
        "/models",
        models.list_models,
        response_model=None,
        tags=["models"],
        responses={200: {"model": Models}, **problems(StoreError)},
    )
    app.add_api_route(
        "/models/{name}/{version}/activate",
        models.activate,
        methods=["POST"],
        response_model=None,
        tags=["models"],
        responses={
            200: {"model": Activation},
            **problems(401, 403, 404, 409, 429, CorruptVersion, Draining),
        },
        openapi_extra=AUTHENTICATED,
    )
    app.add_api_route(
        "/models/{name}/rollback",
        models.rollback,
        methods=["POST"],
        response_model=None,
        tags=["models"],
        responses={
            200: {"model": Activation},
            **problems(401, 403, NoEarlierVersion, OtherVersionServes, 409, 429, Draining),
        },
        openapi_extra=AUTHENTICATED,
    )
    app.add_api_route(
        "/models/{name}/aliases/{alias}/{version}",
        models.set_alias,
        methods=["PUT"],
        response_model=None,
        tags=["models"],
        responses={
            200: {"model": Alias},
            **problems(401, 403, 404, ReadOnlyStore, InvalidAlias, 429, CorruptVersion, Draining),
        },
        openapi_extra=AUTHENTICATED,
    )
    for path in ("/dicom-web/studies", "/dicom-web/studies/{study}"):
        app.add_api_route(
            path,
            dicomweb.store,
            methods=["POST"],
            response_model=None,
            response_class=Response,
            tags=["PACS"],
            responses={
                **STORE_ANSWERS,
                **problems(
                    400, 401, 403, NotAcceptable, 408, 413, UnsupportedRequestMedia, 429, 500
                ),
                **problems(NoDestination, SpoolFull, QueueFull, Draining),
            },
            openapi_extra=STORE_BODY | AUTHENTICATED,
        )
    app.add_api_route(
        "/deliveries",
        deliveries.show,
        response_model=None,
        tags=["PACS"],
        responses={
            200: {"model": Deliveries},
            **problems(401, 403, 429, NoDestination, SpoolFull),
        },
        openapi_extra=AUTHENTICATED,
    )
    app.add_api_route(
        "/deliveries/retry",
        deliveries.retry,
        methods=["POST"],
        response_model=None,
        tags=["PACS"],
        responses={
            200: {"model": Retried},
            **problems(401, 403, 429, NoDestination, SpoolFull),
        },
        openapi_extra=AUTHENTICATED,
    )
    app.add_api_route("/", pages.index, response_model=None, include_in_schema=False)
    app.add_api_route("/docs", pages.docs, response_model=None, include_in_schema=False)
    # Load balancers and monitors probe with it.
    for path, endpoint in (
        ("/health", health.health),
        ("/health/ready", health.health),
        ("/health/live", health.live),
        ("/", pages.index),
    ):
        app.add_api_route(
            path, endpoint, methods=["HEAD"], response_model=None, include_in_schema=False
        )
    app.mount("/static", StaticFiles(directory=pages.WEB))
