"""What changes the service leaves a line in the audit log, whether it is done, fails or is denied."""

import re
from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from starlette.types import Scope

from contract.errors import ContractError
from contract.manifest import ALIAS_PATTERN, MODEL_NAME_PATTERN, VERSION_PATTERN
from service.context import Context
from service.errors import Draining, ServiceError
from service.state import State

_NAME: Final = re.compile(MODEL_NAME_PATTERN)
_SELECTOR: Final = re.compile(f"{VERSION_PATTERN}|{ALIAS_PATTERN}")

_ACTIONS: Final = (
    ("POST", re.compile(r"/models/([^/]+)/([^/]+)/activate"), "activate", "{0}/{1}"),
    ("POST", re.compile(r"/models/([^/]+)/rollback"), "rollback", "{0}"),
    ("PUT", re.compile(r"/models/([^/]+)/aliases/([^/]+)/([^/]+)"), "alias", "{1}={0}/{2}"),
    ("POST", re.compile(r"/deliveries/retry"), "retry", ""),
)
"""What is recorded, by the method and address that ask for it, and how the log names what of."""


class Asked(NamedTuple):
    """What a request asks for, as the audit log has it.

    Attributes:
        action: one word.
        target: what of: NAME/VERSION, NAME, or ALIAS=NAME/VERSION. None where that is no name, as
            anybody could write anything there.
    """

    action: str
    target: str | None

    @classmethod
    def of(cls, scope: Scope) -> Self | None:
        """What a request asks for; None if that changes nothing."""
        for method, pattern, action, form in _ACTIONS:
            if scope["method"] == method and (match := pattern.fullmatch(scope["path"])):
                names, selectors = match.groups()[:1], match.groups()[1:]
                named = all(map(_NAME.fullmatch, names)) and all(
                    map(_SELECTOR.fullmatch, selectors)
                )
                return cls(action, form.format(*names, *selectors) if named and form else None)
        return None


@dataclass(slots=True)
class Line:
    """What the audit log says of an action that succeeds.

    Attributes:
        result: what came of it; set by whoever acts.
    """

    result: str = ""


def record(scope: Scope, result: str, outcome: str) -> None:
    """Writes a line about what a request asks for, if it asks for a change.

    Args:
        scope: of the request.
        result: what came of it, or an error code.
        outcome: ``done``, ``failed`` or ``denied``.
    """
    asked, context = Asked.of(scope), Context.of(scope)
    if asked is not None:
        State.of(scope).audit.record(
            asked.action,
            who=context.key,
            request_id=context.request_id,
            result=result,
            target=asked.target,
            outcome=outcome,
        )


@contextmanager
def recorded(scope: Scope) -> Iterator[Line]:
    """Writes a line about what a request changes, whether it succeeds or fails.

    Args:
        scope: of the request, which is one of those that :class:`Asked` knows.
    """
    line = Line()
    try:
        yield line
    except BaseException as failure:
        code = ServiceError.code
        if isinstance(failure, ServiceError | ContractError):
            code = failure.code
        elif isinstance(failure, CancelledError):
            code = Draining.code
        record(scope, code, "failed")
        raise
    record(scope, line.result, "done")
