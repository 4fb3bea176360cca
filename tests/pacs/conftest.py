"""A destination for each test, and one process that makes the objects of all of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.sandbox import Sandbox
from service.pacs.inbox import Inbox
from service.pacs.ledger import Ledger
from service.pacs.segments import Segments
from tests.support.pacs import Pacs, pacs


class Lasting(Sandbox):
    """Outlasts the service that it is made for: it is warm for the next one."""

    def close(self) -> None:
        """Is left to :meth:`end`."""

    def end(self) -> None:
        """Ends it, after the last test."""
        super().close()


@pytest.fixture(scope="session")
def boxes() -> Iterator[dict[tuple[str, int], Lasting]]:
    made: dict[tuple[str, int], Lasting] = {}
    yield made
    for box in made.values():
        box.end()


@pytest.fixture(autouse=True)
def warm_workshop(boxes: dict[tuple[str, int], Lasting], monkeypatch: pytest.MonkeyPatch) -> None:
    """highdicom takes a second to warm up. A task is a fork, and leaves nothing for the next."""

    def box(target: str, memory_bytes: int, *, opens: bool) -> Lasting:
        key = (target, memory_bytes)
        return boxes.setdefault(key, Lasting(target, memory_bytes, opens=opens))

    monkeypatch.setattr("service.dicom.workshop.Sandbox", box)


@pytest.fixture
def destination() -> Iterator[Pacs]:
    with pacs() as running:
        yield running


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path)
    yield ledger
    ledger.close()


@pytest.fixture
def segments(tmp_path: Path) -> Segments:
    return Segments(tmp_path / "segments", 10**6)


@pytest.fixture
def inbox(ledger: Ledger, segments: Segments) -> Inbox:
    return Inbox(ledger, segments, quiet_seconds=0, keep_seconds=900)
