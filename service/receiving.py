"""The head of every request that brings images: admission, body, deadline."""

import asyncio
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import NamedTuple

from starlette.requests import Request

from service.archives import unpacked
from service.buffers import Claim
from service.engine import Engine
from service.errors import QueueFull
from service.jobs import Upload
from service.state import State
from service.uploads import read_uploads


class Received(NamedTuple):
    """A request whose body has arrived.

    Attributes:
        engine: the version that predicts it.
        uploads: its files, at least one.
        deadline: monotonic seconds at which nobody waits for the answer any more.
    """

    engine: Engine
    uploads: list[Upload]
    deadline: float


async def receive(request: Request, state: State, max_files: int, claim: Claim) -> Received:
    """Reads a request's files and unpacks its archives, if the service can answer it at all.

    Args:
        request: whose body has not been read.
        state: of the app.
        max_files: that it may have.
        claim: of its memory, to be held until it is answered.

    Raises:
        Unavailable: it cannot; nothing of the body was read. Or there is no memory for it, or others
            needed that while it arrived.
        ServiceError: the body is not what it should be, or takes too long; see
            :func:`service.uploads.read_uploads`.
    """
    settings = state.settings
    # Before the body is read: a service that cannot answer must not spend its time on bodies.
    engine = state.engine()
    state.pipeline.admit()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as limit:
            with claim.arriving(partial(loop.call_soon_threadsafe, _end_now, limit)):
                uploads = await read_uploads(
                    request,
                    settings.max_body_bytes,
                    max_files,
                    claim,
                    settings.body_timeout_ms / 1000,
                )
    except TimeoutError as error:
        raise QueueFull("others needed the room of this body; try again") from error
    deadline = monotonic() + settings.deadline_ms / 1000
    uploads = await unpacked(uploads, max_files, settings.max_body_bytes, claim)
    if state.registry.active is not engine:
        # The body took a while, and the version was replaced meanwhile.
        engine = state.registry.engine()
    return Received(engine, uploads, deadline)


def _end_now(limit: asyncio.Timeout) -> None:
    # Of a time that is over already there is nothing to end.
    with suppress(RuntimeError):
        limit.reschedule(asyncio.get_running_loop().time())
