"""``POST /predict``: images in, one entry for each of them out."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from contract.answer import Outputs, Rules
from service.answers import MaskForm, entries_of, known_failure
from service.buffers import Claim
from service.context import Context
from service.dicom.findings import ModelIdentity
from service.dicom.series import PredictedSeries, sort_into_series
from service.errors import Failure, NoDicomSource, UnidentifiedSource
from service.jobs import Job, Upload
from service.negotiation import Form, accept_of, accepted_forms
from service.operation import Options
from service.presence import Presence
from service.problems import problem_response
from service.receiving import receive
from service.series import is_dicom, may_be_dicom, summaries
from service.state import State


async def predict(request: Request) -> Response:
    """Predicts the slices of one request: an entry for each, in order."""
    state = State.of(request.scope)
    with state.buffers.claim(Context.of(request.scope).client) as claim:
        return await _predict(request, state, claim)


async def _predict(request: Request, state: State, claim: Claim) -> Response:
    context = Context.of(request.scope)
    options = Options.of(request.query_params, is_admin=context.is_admin)
    forms = accepted_forms(accept_of(request.headers))
    engine, uploads, deadline = await receive(request, state, state.settings.max_files, claim)
    as_objects = forms[0] is Form.DICOM and _are_sources(uploads)
    if Form.JSON not in forms:
        if not as_objects:
            raise NoDicomSource(
                "results come as DICOM objects only of DICOM, beside it in archives alone"
            )
        # Nothing of the answer could be about the others.
        uploads = [upload for upload in uploads if _may_be_source(upload)]
    rules = options.applied(engine.rules)
    jobs = await state.pipeline.predict(
        engine,
        uploads,
        rules,
        deadline,
        claim,
        Presence.of(request.scope),
        keep_headers=as_objects,
        answers_only=not as_objects,
    )
    entries = await answered(jobs, options.mask)
    state.observe(jobs)
    state.registry.compare(jobs, engine)
    slices = zip(jobs, entries, strict=True)
    await state.record_slices("predict", context.key, context.request_id, slices, engine)
    parts = parts_of(jobs)
    context.fields |= fields_of(jobs, parts)
    failures = [known_failure(job) for job in jobs if not isinstance(job.outcome, Outputs)]
    refused = len(failures) == len(jobs)
    # As the answer's own error, the first one is counted by the middleware.
    for failure in failures[1:] if refused else failures:
        state.metrics.errors.labels(failure.code).inc()
    if refused:
        return problem_response(failures[0], context, {"errors": entries})
    if as_objects:
        try:
            series = await asyncio.to_thread(sort_into_series, jobs, entries, rules)
            # Without one, a picture in an archive is all that could be predicted.
            if series:
                return await _objects(
                    state, series, ModelIdentity.of(engine.stored, rules), deadline
                )
        except UnidentifiedSource:
            if Form.JSON not in forms:
                raise
    content = {
        "request_id": context.request_id,
        "model": engine.identity,
        "tumor_classes": rules.tumor_classes,
        "predictions": entries,
        "timing_ms": timing_of(parts, context),
    }
    return Response(
        json.dumps(content | await _summarised(jobs, rules)), media_type="application/json"
    )


async def _objects(
    state: State, series: Sequence[PredictedSeries], model: ModelIdentity, deadline: float
) -> Response:
    body = await state.results.write(series, model, deadline)
    return Response(body.content, media_type=body.media_type)


def _are_sources(uploads: Sequence[Upload]) -> bool:
    """Whether results can come as DICOM objects: every file is DICOM that the client sent as such.

    An archive, as of a patient's medium, may hold others, as long as it holds DICOM. What could not be
    taken out of one says itself what is wrong.
    """
    return all(upload.archived or _may_be_source(upload) for upload in uploads) and any(
        upload.failure or is_dicom(upload.data) for upload in uploads
    )


def _may_be_source(upload: Upload) -> bool:
    return upload.failure is not None or may_be_dicom(upload)


async def _summarised(jobs: Sequence[Job], rules: Rules) -> dict[str, Any]:
    """The part of an answer on the series of a request, if it has any."""
    if all(job.dicom is None for job in jobs):
        return {}
    # In a single slice, there is nothing to compare.
    is_short = len(jobs) == 1
    found = summaries(jobs, rules) if is_short else await asyncio.to_thread(summaries, jobs, rules)
    return {"series": found} if found else {}


async def answered(jobs: Sequence[Job], mask: MaskForm) -> list[dict[str, Any]]:
    """The entry of each job."""
    if mask is MaskForm.NONE and all(
        job.answer or isinstance(job.outcome, Failure) for job in jobs
    ):
        entries = entries_of(jobs, mask)
    else:
        # Masks and embeddings take a while, which nobody else's request may wait for.
        entries = await asyncio.to_thread(entries_of, jobs, mask)
    return entries


def timing_of(parts: Mapping[str, float], context: Context) -> dict[str, float]:
    """How long each part took and all until now, in milliseconds."""
    return {**parts, "total": _milliseconds(monotonic() - context.start)}


def fields_of(jobs: Sequence[Job], parts: Mapping[str, float]) -> dict[str, object]:
    """What a log line says of slices; the total is not known before the answer is sent."""
    return {"images": len(jobs), **{f"{name}_ms": ms for name, ms in parts.items()}}


def parts_of(jobs: Sequence[Job]) -> dict[str, float]:
    """How long each part took, in milliseconds; of several slices, the longest."""
    return {
        "decode": _milliseconds(max(job.decode_seconds for job in jobs)),
        "queue": _milliseconds(max(job.queue_seconds for job in jobs)),
        "inference": _milliseconds(max(job.inference_seconds for job in jobs)),
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)
