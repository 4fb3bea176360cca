"""``/dicom-web/studies``: STOW-RS, by which a PACS sends images whose results it gets back."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response

from service.buffers import Claim
from service.context import Context
from service.errors import Draining, MalformedRequest, NoDestination
from service.negotiation import STORE_FORMS, accept_of, accepted_forms
from service.state import State
from service.uploads import arriving, check_coding, check_length

if TYPE_CHECKING:  # pydicom costs a quarter of a second, which only a PACS has to pay
    from service.pacs.gateway import Gateway
    from service.pacs.receiver import Receipt

PIECE_BYTES: Final = 256 * 1024
"""How much of a body is in memory before it is handed to the disk."""


async def store(request: Request) -> Response:
    """Stores the instances of one request; what was stored has a result delivered some time later."""
    state, context = State.of(request.scope), Context.of(request.scope)
    gateway = state.gateway
    if gateway is None:
        raise NoDestination(
            "set BRAIN_DICOMWEB_URL: results of what is stored here would go nowhere"
        )
    if state.draining:
        raise Draining("the service is about to stop")
    accepted_forms(accept_of(request.headers), STORE_FORMS)
    check_coding(request.headers)
    check_length(request.headers, state.settings.stow_max_body_bytes)
    with (
        state.stow_places.one(context.client),
        state.buffers.claim(context.client) as claim,
    ):
        receipt = await _receive(request, gateway, state, context, claim)
    return _answer(receipt, state, context)


async def _receive(
    request: Request, gateway: "Gateway", state: State, context: Context, claim: Claim
) -> "Receipt":
    from service.pacs.identity import WELL_FORMED

    study = request.path_params.get("study")
    if study is not None and (len(study) > 64 or not WELL_FORMED.fullmatch(study)):
        raise MalformedRequest("the address names no study")
    pieces = _pieces(request, state.settings.body_timeout_ms / 1000, claim)
    # A file is opened for what has come, not for what is announced.
    first = await anext(pieces, b"")
    # Not those of predictions: the disk may stall.
    run = gateway.threads.run
    receiver = await run(gateway.receiver, request.headers.get("content-type"), study)
    try:
        await run(receiver.feed, first)
        claim.free(len(first))
        del first
        async for piece in pieces:
            await run(receiver.feed, piece)
            claim.free(len(piece))
    except asyncio.CancelledError:
        # The process ends, and does not wait for a disk that stalls.
        gateway.threads.submit(receiver.abandon)
        raise
    except BaseException:
        await run(receiver.abandon)
        raise
    try:
        # A thread ends what it has begun: nobody can stop it half way, nor what it has accepted.
        return await run(receiver.finish, context.key, context.request_id)
    except Exception:
        await run(receiver.abandon)
        raise


async def _pieces(request: Request, seconds: float, claim: Claim) -> AsyncIterator[bytes]:
    """The body in pieces that are worth a thread's while; they are claimed until they are freed."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in arriving(request, seconds):
        claim.add(len(chunk))
        chunks.append(chunk)
        size += len(chunk)
        if size >= PIECE_BYTES:
            yield b"".join(chunks)
            chunks, size = [], 0
    if size:
        yield b"".join(chunks)


def _answer(receipt: "Receipt", state: State, context: Context) -> Response:
    from service.pacs import stow

    for identity in receipt.stored:
        state.metrics.stow_instances.labels("stored").inc()
        state.record("store", context, "stored", identity.sop)
    for refusal in receipt.refused:
        outcome = refusal.reason.name.lower()
        state.metrics.stow_instances.labels(outcome).inc()
        state.record("store", context, outcome, refusal.sop, refusal.file)
    context.fields |= {"stored": len(receipt.stored), "refused": len(receipt.refused)}
    return Response(
        json.dumps(stow.dataset(receipt)), stow.status(receipt), media_type=stow.MEDIA_TYPE
    )
