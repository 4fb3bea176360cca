"""``POST /predict``: images in, one entry for each of them out."""

import asyncio
import json
from collections.abc import Sequence
from time import monotonic
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from contract.answer import Outputs
from contract.errors import ContractError
from service.context import Context
from service.dicom.findings import ModelIdentity
from service.dicom.series import is_dicom, sort_into_series
from service.errors import BodyTimeout, Failure, NoDicomSource, ServiceError, UnidentifiedSource
from service.jobs import Job
from service.negotiation import Form, accepted_forms
from service.problems import problem_response
from service.registry import Engine
from service.state import State
from service.uploads import read_uploads

DECIMALS: Final = 6
"""Probabilities are rounded to this many; float32 holds no more."""


async def predict(request: Request) -> Response:
    """Predicts the images of one request; see the HTTP contract in OpenAPI."""
    state, context = State.of(request.scope), Context.of(request.scope)
    settings = state.settings
    forms = accepted_forms(", ".join(request.headers.getlist("accept")) or None)
    # Before the body is read: a service that cannot answer must not spend its time on bodies.
    engine = state.engine()
    state.pipeline.admit()
    try:
        async with asyncio.timeout(settings.body_timeout_ms / 1000):
            uploads = await read_uploads(request, settings.max_body_bytes, settings.max_files)
    except TimeoutError as error:
        raise BodyTimeout("the body did not arrive in time") from error
    deadline = monotonic() + settings.deadline_ms / 1000
    if state.registry.active is not engine:
        # The body took a while, and the version was replaced meanwhile.
        engine = state.registry.engine()
    as_objects = forms[0] is Form.DICOM
    if as_objects and not all(is_dicom(upload.data) for upload in uploads):
        if Form.JSON not in forms:
            raise NoDicomSource("results come as DICOM objects only where every input is DICOM")
        as_objects = False
    jobs = await state.pipeline.predict(engine, uploads, deadline, keep_headers=as_objects)
    entries = [_entry(job, engine, state) for job in jobs]
    timing = _timing(jobs, context)
    context.fields |= {"images": len(jobs)} | {f"{name}_ms": ms for name, ms in timing.items()}
    failures = [_known(job) for job in jobs if not isinstance(job.outcome, Outputs)]
    refused = len(failures) == len(jobs)
    # As the answer's own error, the first one is counted by the middleware.
    for failure in failures[1:] if refused else failures:
        state.metrics.errors.labels(failure.code).inc()
    if refused:
        return problem_response(failures[0], context, {"errors": entries})
    if as_objects:
        try:
            return await _objects(jobs, entries, engine, state, deadline)
        except UnidentifiedSource:
            if Form.JSON not in forms:
                raise
    content = {
        "request_id": context.request_id,
        "model": engine.identity,
        "predictions": entries,
        "timing_ms": timing,
    }
    return Response(json.dumps(content), media_type="application/json")


async def _objects(
    jobs: Sequence[Job],
    entries: Sequence[dict[str, Any]],
    engine: Engine,
    state: State,
    deadline: float,
) -> Response:
    """The results as DICOM objects."""
    manifest = engine.stored.manifest
    model = ModelIdentity(manifest.name, manifest.version, engine.stored.manifest_digest)
    series = sort_into_series(jobs, entries)
    body = await state.results.write(series, model, deadline)
    return Response(body.content, media_type=body.media_type)


def _entry(job: Job, engine: Engine, state: State) -> dict[str, Any]:
    if not isinstance(job.outcome, Outputs):
        failure = _known(job)
        error = {"status": failure.status, "code": failure.code, "detail": failure.detail}
        return {"input": job.upload.name, "error": error, **_place(job)}
    manifest = engine.stored.manifest
    values = job.outcome.probabilities[0].tolist()
    probabilities = {
        name: round(value, DECIMALS) for name, value in zip(manifest.classes, values, strict=True)
    }
    label = manifest.classes[values.index(max(values))]
    state.metrics.predictions.labels(label).inc()
    # Int8 probabilities add up to 1 only roughly.
    total = min(1.0, sum(probabilities[name] for name in manifest.tumor_classes))
    tumor_probability = round(total, DECIMALS)
    entry: dict[str, Any] = {
        "input": job.upload.name,
        "label": label,
        "probability": probabilities[label],
        "probabilities": probabilities,
        "tumor_probability": tumor_probability,
        "decision": "tumor" if tumor_probability >= manifest.tumor_threshold else "no_tumor",
    }
    return entry | _place(job)


def _place(job: Job) -> dict[str, Any]:
    """Where a DICOM slice belongs, as a part of its entry."""
    if job.dicom is None:
        return {}
    place = {
        "sop_instance_uid": job.dicom.sop_instance_uid,
        "series_instance_uid": job.dicom.series_instance_uid,
        "frame": job.dicom.frame,
    }
    return {"dicom": place}


def _known(job: Job) -> Failure:
    """Why a job has no prediction; a settled one always says, so its silence is an unknown error."""
    outcome = job.outcome
    return outcome if isinstance(outcome, ServiceError | ContractError) else ServiceError()


def _timing(jobs: Sequence[Job], context: Context) -> dict[str, float]:
    return {
        "decode": _milliseconds(max(job.decode_seconds for job in jobs)),
        "queue": _milliseconds(max(job.queue_seconds for job in jobs)),
        "inference": _milliseconds(max(job.inference_seconds for job in jobs)),
        "total": _milliseconds(monotonic() - context.start),
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)
