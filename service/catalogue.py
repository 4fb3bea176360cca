"""Every code that an answer can have, for programs that tell them apart."""

import inspect
from collections.abc import Iterator
from typing import Final, NamedTuple

from contract import errors as contract_errors
from contract.errors import (
    ContractError,
    CorruptStore,
    CorruptVersion,
    IncompleteVersion,
    MultiFrame,
    NewerSchema,
    PreprocessMismatch,
    VersionExists,
    VersionNotFound,
)
from service import errors as service_errors
from service.errors import (
    ActivationRefused,
    Failure,
    ModelUnavailable,
    OtherClasses,
    OtherPreprocessing,
    RateExceeded,
    RuntimeUnusable,
    SameVersion,
    ServiceError,
    Unavailable,
)
from service.problems import ROUTER_OTHERS, ROUTER_PROBLEMS

OF_VERSIONS: Final = frozenset(
    {
        CorruptStore,
        CorruptVersion,
        IncompleteVersion,
        NewerSchema,
        PreprocessMismatch,
        RuntimeUnusable,
        VersionNotFound,
    }
)
"""What :class:`ModelUnavailable` and :class:`ActivationRefused` pass on with statuses of their own."""

UNANSWERED: Final = frozenset(
    {MultiFrame, VersionExists, OtherClasses, OtherPreprocessing, SameVersion}
)
"""What only training and tools meet: the service takes files of many frames, and publishes nothing. And
what the watcher of the store and the shadow version do: ``GET /models`` shows it, and no answer."""


class Entry(NamedTuple):
    """One code.

    Attributes:
        code: stable and machine-readable.
        statuses: HTTP statuses of its answers, ascending; none where the router chooses.
        when: it is given, as a sentence.
        waits: those of the statuses that come with ``Retry-After``.
    """

    code: str
    statuses: tuple[int, ...]
    when: str
    waits: tuple[int, ...] = ()


def catalogue() -> list[Entry]:
    """All codes, by status and then by name."""
    entries = [_entry(kind) for kind in _answered()]
    for status, (code, detail) in ROUTER_PROBLEMS.items():
        entries.append(Entry(code, (status,), f"{detail[0].upper()}{detail[1:]}."))
    entries.append(Entry(ROUTER_OTHERS, (), "The router refused the request for another reason."))
    return sorted(entries, key=lambda entry: (entry.statuses or (600,), entry.code))


def _answered() -> Iterator[type[Failure]]:
    """The kinds of both trees that an answer is made of; without a text of its own, one is a group."""
    for module, base in ((contract_errors, ContractError), (service_errors, ServiceError)):
        for kind in vars(module).values():
            if not isinstance(kind, type) or not issubclass(kind, base):
                continue
            own = "code" in vars(kind) and vars(kind).get("__doc__") and kind is not ContractError
            if own and kind not in UNANSWERED:
                yield kind


def _entry(kind: type[Failure]) -> Entry:
    passed = {ActivationRefused.status, ModelUnavailable.status} if kind in OF_VERSIONS else set()
    statuses = tuple(sorted({kind.status, *passed}))
    waits = tuple(
        status
        for status in statuses
        if issubclass(kind, RateExceeded)
        or (status == Unavailable.status and (bool(passed) or issubclass(kind, Unavailable)))
    )
    return Entry(kind.code, statuses, inspect.cleandoc(kind.__doc__ or "").split("\n")[0], waits)


CODES: Final = tuple(sorted(entry.code for entry in catalogue()))
"""All of them, by name."""
