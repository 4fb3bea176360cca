"""What the routes share: the parts of one running app."""

from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from starlette.types import Scope

from service.buffers import Buffers
from service.dicom.answer import ResultWriter
from service.errors import Draining, ModelLoading, Unavailable
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.registry import Engine, Registry
from service.settings import Settings


@dataclass(slots=True)
class State:
    """One running app; event loop only.

    Attributes:
        draining: SIGTERM has come; nothing new is accepted.
        started: monotonic seconds of the start.
    """

    settings: Settings
    metrics: Metrics
    registry: Registry
    pipeline: Pipeline
    results: ResultWriter
    buffers: Buffers
    draining: bool = False
    started: float = field(default_factory=monotonic)

    @classmethod
    def of(cls, scope: Scope) -> "State":
        """The state of the app that serves a request."""
        state: State = scope["app"].state.parts
        return state

    def engine(self) -> Engine:
        """The version that predicts new requests.

        Raises:
            Unavailable: why none does.
        """
        if self.draining:
            raise Draining("the service is about to stop")
        return self.registry.engine()

    def drain(self) -> None:
        """Lets nothing new in; what has been accepted is finished."""
        self.draining = True
        self.metrics.ready.set(0)

    def health(self) -> dict[str, Any]:
        """What /health says; ``status`` is ``ready`` exactly if predictions are answered."""
        failure: Unavailable | None = None
        try:
            self.engine()
        except Unavailable as error:
            failure = error
        active = self.registry.active
        report: dict[str, Any] = {
            "status": _word(failure),
            "model": active.identity if active else None,
            "uptime_seconds": round(monotonic() - self.started, 1),
            "queue_depth": self.pipeline.depth,
        }
        if failure is not None:
            report |= {"code": failure.code, "reason": failure.detail}
        return report


def _word(failure: Unavailable | None) -> str:
    match failure:
        case None:
            return "ready"
        case Draining():
            return "draining"
        case ModelLoading():
            return "starting"
        case _:
            return "unavailable"
