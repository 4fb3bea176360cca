"""``POST /explain``: one image in, where its answer comes from out."""

import asyncio
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from service.answers import known_failure
from service.buffers import Claim
from service.context import Context
from service.engine import Engine
from service.errors import InvalidParameter
from service.explanation import SOURCE_HEADER, VERSION_HEADER, content, heatmap, picture, source_of
from service.jobs import Job
from service.negotiation import EXPLANATION_FORMS, Form, accept_of, accepted_forms
from service.operation import Options
from service.presence import Presence
from service.receiving import receive
from service.routes.predict import answered, fields_of, parts_of, timing_of
from service.state import State


async def explain(request: Request) -> Response:
    """Explains the answer to one slice; of a file with many, to the one that is asked for."""
    state = State.of(request.scope)
    with state.buffers.claim(Context.of(request.scope).client) as claim:
        return await _explain(request, state, claim)


async def _explain(request: Request, state: State, claim: Claim) -> Response:
    context = Context.of(request.scope)
    options = Options.of(request.query_params, is_admin=context.is_admin, others=["frame"])
    frame = _frame(request.query_params.get("frame"))
    form = accepted_forms(accept_of(request.headers), EXPLANATION_FORMS)[0]
    # Before the body is read, as it would be in vain.
    source_of(state.engine())
    engine, uploads, deadline = await receive(request, state, 1, claim)
    headers = {
        SOURCE_HEADER: source_of(engine).value,
        VERSION_HEADER: str(engine.identity["version"]),
    }
    # A version that is replaced meanwhile must not be closed before its heat map is there.
    engine.acquire(1)
    try:
        rules = options.applied(engine.rules)
        presence = Presence.of(request.scope)
        jobs = await state.pipeline.predict(engine, uploads, rules, deadline, claim, presence)
        # They count for no drift: a slice that is looked at again is mostly one with a tumour.
        entries = await answered(jobs, options.mask)
        slices = zip(jobs, entries, strict=True)
        await state.record_slices("explain", context.key, context.request_id, slices, engine)
        index = _chosen(jobs, frame)
        job, entry = jobs[index], entries[index]
        if job.answer is None:
            raise known_failure(job)
        parts = parts_of(jobs)
        context.fields |= fields_of(jobs, parts)
        if form is Form.PNG:
            body = await asyncio.to_thread(_png, job, engine, state)
            return Response(body, headers=headers, media_type="image/png")
        heat = await asyncio.to_thread(_json, job, engine)
    finally:
        engine.release()
    answer = {
        "request_id": context.request_id,
        "model": engine.identity,
        "tumor_classes": rules.tumor_classes,
        "explanation": {**entry, "heatmap": heat},
        "timing_ms": timing_of(parts, context),
    }
    return Response(json.dumps(answer), headers=headers, media_type="application/json")


def _png(job: Job, engine: Engine, state: State) -> bytes:
    return picture(job, heatmap(job, engine), engine.rules, state.settings.policy)


def _json(job: Job, engine: Engine) -> dict[str, Any]:
    if job.geometry is None:
        raise ValueError("the slice was not answered")
    return content(heatmap(job, engine), job.geometry)


def _frame(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()) or len(text) > 9 or int(text) < 1:
        raise InvalidParameter("frame must be a number from 1")
    return int(text)


def _chosen(jobs: list[Job], frame: int | None) -> int:
    """The frame that is asked for, else the most suspicious one, else one that failed."""
    if frame is not None:
        if frame > len(jobs):
            raise InvalidParameter("the file has fewer frames")
        return frame - 1
    return max(
        range(len(jobs)),
        key=lambda index: job.answer.tumor_probability if (job := jobs[index]).answer else -1.0,
    )
