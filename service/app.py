"""The app: its parts, its routes, and its life from start to drain."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Lifespan

from contract.sandbox import DECODERS
from contract.version import StoredVersion
from service.access import Access
from service.audit import Audit, AuditFile
from service.buffers import Buffers
from service.dicom.answer import ResultWriter
from service.ending import cancel_all, end_all
from service.follower import Follower
from service.keys import Keyring
from service.metrics import Metrics
from service.middleware import Observer
from service.openapi import DESCRIPTION, TITLE, describe
from service.pacing import Pacer
from service.pipeline import Pipeline
from service.problems import install_handlers
from service.rates import RateLimiter
from service.registry import Registry
from service.release import RELEASE
from service.routes import predict
from service.routing import PREDICT, add_routes
from service.runtimes import Runtime, open_runtime
from service.settings import Settings
from service.state import State
from service.turnstile import Turnstile

if TYPE_CHECKING:
    from service.pacs.gateway import Gateway


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
        return Observer(stack, self.metrics, self._access, direct, self._pacer, self.routes)

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
    access = _open_access(settings)
    audit = _open_audit(settings, metrics)
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
        selected = _follower(settings, registry, audit).run() if settings.watch else registry.load()
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
    add_routes(app)
    return app


def _open_access(settings: Settings) -> Access:
    return Access(
        Keyring.read(settings.api_keys_file) if settings.api_keys_file else None,
        RateLimiter(settings.rate_per_second) if settings.rate_per_second else None,
        settings.allowed_hosts,
        settings.trusted_proxies,
    )


def _open_audit(settings: Settings, metrics: Metrics) -> Audit:
    if settings.audit_log is None:
        return Audit()
    return AuditFile(
        settings.audit_log,
        settings.audit_max_bytes,
        settings.audit_files,
        settings.audit_fsync,
        metrics,
    )


def _open_gateway(settings: Settings, metrics: Metrics, audit: Audit) -> "Gateway | None":
    if settings.dicomweb_url is None:
        return None
    # It imports pydicom and an HTTP client: a good part of a second that others need not wait for.
    from service.pacs.gateway import Gateway

    return Gateway(settings, metrics, audit)


def _follower(settings: Settings, registry: Registry, audit: Audit) -> Follower:
    interval_seconds = settings.watch_interval_ms / 1000
    return Follower(registry, settings.model, settings.model_version, audit, interval_seconds)
