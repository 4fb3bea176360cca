"""What the routes share: the parts of one running app."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from starlette.types import Scope

from service.audit import Audit, digest
from service.buffers import Buffers
from service.context import Context
from service.dicom.answer import ResultWriter
from service.engine import Engine
from service.errors import Draining, ModelLoading, Unavailable
from service.jobs import Job
from service.metrics import Metrics
from service.operation import described
from service.pipeline import Pipeline
from service.places import Places
from service.registry import Registry
from service.settings import Settings

if TYPE_CHECKING:  # imported where a PACS is configured alone
    from service.pacs.gateway import Gateway


MOST_HASHED_AT_ONCE: Final = 2**19
"""Bytes that are hashed on the event loop; that takes some milliseconds."""

MOST_STOW_BODIES: Final = 64
"""STOW-RS requests that are received at a time: each has a file open, and a piece in memory."""


@dataclass(slots=True)
class State:
    """One running app; event loop only.

    Attributes:
        audit: who had which image looked at.
        gateway: the way from a PACS and back, if there is one.
        stow_places: for what a PACS sends.
        draining: SIGTERM has come; nothing new is accepted.
        started: monotonic seconds of the start.
    """

    settings: Settings
    metrics: Metrics
    registry: Registry
    pipeline: Pipeline
    results: ResultWriter
    buffers: Buffers
    audit: Audit
    gateway: "Gateway | None" = None
    stow_places: Places = field(default_factory=lambda: Places(MOST_STOW_BODIES))
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

    def record(
        self,
        action: str,
        context: Context,
        result: str,
        instance: str | None,
        file: str | None = None,
    ) -> None:
        """Writes a line into the audit log; see :meth:`service.audit.Audit.record`."""
        self.audit.record(
            action,
            who=context.key,
            request_id=context.request_id,
            result=result,
            instance=instance,
            file=file,
        )

    def observe(self, jobs: Iterable[Job]) -> None:
        """Counts what was answered, for the drift."""
        for job in jobs:
            if job.answer is not None:
                self.metrics.observe_answer(job.answer, job.rules.ood_threshold)

    async def record_slices(
        self,
        action: str,
        who: str | None,
        request_id: str,
        slices: Iterable[tuple[Job, Mapping[str, Any]]],
        engine: Engine,
    ) -> None:
        """Writes a line for each slice into the audit log.

        Args:
            action: how it came to be predicted.
            who: name of the API key.
            request_id: of the request that brought it.
            slices: what was predicted, and what /predict answers for it.
            engine: the version that predicted it.
        """
        if not self.audit.records:
            return
        slices = list(slices)
        files = [_file(job) for job, _ in slices]
        if sum(map(len, files)) <= MOST_HASHED_AT_ONCE:
            digests = [*map(digest, files)]
        else:
            # Hashing releases the interpreter's lock, so that the event loop answers others meanwhile.
            digests = await asyncio.to_thread(lambda: [*map(digest, files)])
        for (job, entry), file in zip(slices, digests, strict=True):
            self.audit.record(
                action,
                who=who,
                request_id=request_id,
                result=entry["label"] if "label" in entry else entry["error"]["code"],
                instance=_instance(job),
                file=file,
                model=engine.label,
                manifest=engine.stored.manifest_digest,
                seconds=job.decode_seconds + job.queue_seconds + job.inference_seconds,
                frame=job.frame,
            )

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
        if active is not None:
            report["operating_point"] = described(active.rules, active.stored.manifest)
        if failure is not None:
            report |= {"code": failure.code, "reason": failure.detail}
        return report


def _instance(job: Job) -> str | None:
    return job.dicom.sop_instance_uid if job.dicom else None


def _file(job: Job) -> bytes:
    """What names the slice in the audit log if no UID does; other frames' lines are beside this one."""
    return job.upload.data if _instance(job) is None and job.frame == 1 else b""


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
