"""What changes the service leaves a line in the audit log, whether it is done, fails or is denied."""

import re
from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from starlette.types import Scope

from contract.errors import ContractError
from service.context import Context
from service.errors import Draining, ServiceError
from service.state import State

_ACTIONS: Final = (
    ("POST", re.compile(r"/models/[^/]+/[^/]+/activate"), "activate"),
    ("POST", re.compile(r"/models/[^/]+/rollback"), "rollback"),
    ("PUT", re.compile(r"/models/[^/]+/aliases/[^/]+/[^/]+"), "alias"),
    ("POST", re.compile(r"/deliveries/retry"), "retry"),
)
"""What is recorded, by the method and address that ask for it."""


def action_of(method: str, path: str) -> str | None:
    """How the audit log calls what a request asks for; None if that changes nothing."""
    for asked, pattern, action in _ACTIONS:
        if method == asked and pattern.fullmatch(path):
            return action
    return None


@dataclass(slots=True)
class Line:
    """What the audit log says of an action that succeeds.

    Attributes:
        result: what came of it; set by whoever acts.
    """

    result: str = ""


@contextmanager
def recorded(action: str, scope: Scope) -> Iterator[Line]:
    """Writes a line about an action, whether it succeeds or fails.

    Args:
        action: what is done, as in :func:`action_of`.
        scope: of the request that asks for it.
    """
    state, context = State.of(scope), Context.of(scope)
    line = Line()
    try:
        yield line
    except BaseException as failure:
        code = ServiceError.code
        if isinstance(failure, ServiceError | ContractError):
            code = failure.code
        elif isinstance(failure, CancelledError):
            code = Draining.code
        state.record(action, context, code, None, outcome="failed")
        raise
    state.record(action, context, line.result, None, outcome="done")
