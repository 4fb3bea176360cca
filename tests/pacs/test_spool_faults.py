"""The spool's disk fails or stalls for a while: nothing is lost or set aside, and nobody else waits."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.policy import Checks
from service.errors import SpoolFull
from service.pacs.inbox import Inbox
from service.pacs.ledger import Ledger
from service.pacs.receiver import Limits, Receiver
from service.pacs.segments import Segments
from tests.support.pacs import form, series

LIMITS = Limits(10**6, 10**6, 10, Checks.STRICT)


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


def failing(number: int) -> Any:
    def fail(*_: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


class Closing:
    """A file whose quota is found to be exceeded as it is closed, as on NFS."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        self._file.close()
        failing(errno.EDQUOT)()


@pytest.mark.parametrize("fault", ["close", "unlink"])
def test_a_request_that_breaks_off_on_a_bad_disk_holds_up_its_series_no_longer(
    inbox: Inbox, segments: Segments, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    first, second = series(2)
    receiver = Receiver("application/dicom", None, LIMITS, inbox, segments)
    receiver.feed(first.data)
    receiver.finish("pacs-1", "visit-1")
    content_type, body = form([second.data] * 2)
    receiver = Receiver(content_type, None, LIMITS, inbox, segments)
    receiver.feed(body[: 3 * len(body) // 4])
    assert inbox.complete() is None
    if fault == "close":
        receiver._segment._file = Closing(receiver._segment._file)  # type: ignore[assignment]
    else:
        monkeypatch.setattr(Path, "unlink", failing(errno.EIO))
    receiver.abandon()
    assert inbox.complete() == first.series
    assert segments.used == len(first.data)
    assert len(list(segments.folder.iterdir())) == (1 if fault == "close" else 2)


def test_a_request_whose_file_cannot_be_closed_leaves_nothing(
    inbox: Inbox, segments: Segments
) -> None:
    (one,) = series(1)
    receiver = Receiver("application/dicom", None, LIMITS, inbox, segments)
    receiver.feed(one.data)
    receiver._segment._file = Closing(receiver._segment._file)  # type: ignore[assignment]
    with pytest.raises(SpoolFull):
        receiver.finish("pacs-1", "visit-1")
    receiver.abandon()
    assert segments.used == 0
    assert list(segments.folder.iterdir()) == []
    assert inbox._arriving == {}
