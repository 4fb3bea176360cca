import inspect
import re

import pytest

from contract import errors
from contract.errors import (
    ContractError,
    DecodeError,
    DecoderFailed,
    DecoderUnavailable,
    DicomError,
    StoreError,
)

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, ContractError)
]
BASES = {ContractError, DecodeError, DecoderFailed, DicomError, StoreError}


def drawn_tree() -> dict[str, tuple[str | None, int | None]]:
    """Class name to its parent and its status, as the module's docstring draws them."""
    found: dict[str, tuple[str | None, int | None]] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"([│├└─ ]*)([A-Z]\w+(?:, [A-Z]\w+)*)(?:\s+(\d{3})\b)?", line)
        if not match or not all(hasattr(errors, name) for name in match[2].split(", ")):
            continue
        depth = len(match[1])
        above = [(column, name) for column, name in above if column < depth]
        parent = above[-1][1] if above else None
        for name in match[2].split(", "):
            found[name] = (parent, int(match[3]) if match[3] else None)
        above.append((depth, match[2]))
    return found


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn = {name: parent for name, (parent, _) in drawn_tree().items()}
    real = {
        kind.__name__: None if kind is ContractError else kind.__bases__[0].__name__
        for kind in CLASSES
    }
    assert drawn == real


def test_the_drawn_statuses_are_the_real_ones() -> None:
    drawn = {name: status for name, (_, status) in drawn_tree().items() if status is not None}
    assert len(drawn) >= 5
    assert drawn == {name: getattr(errors, name).status for name in drawn}


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in CLASSES]
    assert sorted(codes) == sorted(set(codes))


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_code_and_status_fit_a_client(kind: type[ContractError]) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code)
    if issubclass(kind, DecodeError):
        assert kind.status in ({503} if kind is DecoderUnavailable else {413, 415, 422})
    elif issubclass(kind, StoreError):
        assert kind.status in {404, 409, 422, 503}


@pytest.mark.parametrize(
    "kind", [kind for kind in CLASSES if kind not in BASES], ids=lambda kind: kind.__name__
)
def test_detail_is_the_message(kind: type[ContractError]) -> None:
    assert "code" in vars(kind), "each kind has a code of its own"
    assert kind("what a client may read").detail == "what a client may read"
