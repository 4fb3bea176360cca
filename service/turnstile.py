"""Refusals that the connection itself writes: of what is no request, and of requests in a flood.

Of requests, only predictions are refused here, and only in a flood, as that costs less: there is no
room whoever asks, so that no key is looked at. Every other request, and every refusal as long as they
are few, takes the way through the application.
"""

import logging
from collections.abc import Iterable
from time import monotonic
from typing import NamedTuple

from uvicorn._types import HTTPScope

from service.context import request_id
from service.errors import QueueFull, ServiceError
from service.metrics import Metrics
from service.middleware import UNMATCHED
from service.pacing import Pacer, pause_seconds, retry_after
from service.problems import whole_answer
from service.state import State

logger = logging.getLogger("service.request")


class TurnedAway(NamedTuple):
    """A request that there is no room for.

    Attributes:
        answer: the whole HTTP response.
        pause_seconds: how long its client is not listened to.
    """

    answer: bytes
    pause_seconds: float


class Turnstile:
    """Looks at a request before the application does. Event loop only.

    Args:
        pacer: of all refusals.
        metrics: counts them.
        path: that predicts.
    """

    def __init__(self, pacer: Pacer, metrics: Metrics, path: str) -> None:
        self._pacer = pacer
        self._metrics = metrics
        self._path = path
        self._state: State | None = None

    def watch(self, state: State) -> None:
        """Begins; before that everybody is let in."""
        self._state = state

    def turn_away(self, scope: HTTPScope) -> TurnedAway | None:
        """The refusal of a request, which counts as one in the metrics; None lets it in."""
        now = monotonic()
        state = self._state
        if state is None or state.draining or state.registry.active is None:
            return None
        if scope["method"] != "POST" or scope["path"] != self._path:
            return None
        if not self._pacer.is_flooded(now):
            return None
        try:
            state.pipeline.admit()
        except QueueFull as refusal:
            return self._refused(refusal, scope, now)
        return None

    def last_words(self, failure: ServiceError, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The answer to what never became a request; it counts as one, and has its line in the log.

        Args:
            failure: why it is the last one of its connection.
            fields: what has come of the head.

        Returns:
            The whole HTTP response.
        """
        identification = request_id(fields)
        self._metrics.requests.labels(UNMATCHED, str(failure.status)).inc()
        self._metrics.errors.labels(failure.code).inc()
        if self._pacer.turn(monotonic()) == 0:
            line = {
                "request_id": identification,
                "route": UNMATCHED,
                "status": failure.status,
                "code": failure.code,
            }
            logger.info("request", extra={"fields": line})
        return whole_answer(failure, identification, {"connection": "close"})

    def _refused(self, refusal: QueueFull, scope: HTTPScope, now: float) -> TurnedAway:
        seconds = self._pacer.turn(now)
        identification = request_id(scope["headers"])
        headers = {"retry-after": retry_after(refusal.retry_after_seconds, seconds)}
        answer = whole_answer(refusal, identification, headers)
        self._metrics.requests.labels(self._path, str(refusal.status)).inc()
        self._metrics.request_seconds.labels(self._path).observe(monotonic() - now)
        self._metrics.errors.labels(refusal.code).inc()
        return TurnedAway(answer, pause_seconds(seconds))
