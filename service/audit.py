"""The audit log: who had which image looked at, when, by which model, and what came of it.

One JSON object a line. An image is named by the SHA-256 of its SOP instance UID, or of the file where
it has none, which tells nothing of a patient; whoever has the image can find its lines. The log is
written by a thread of its own, so a slow disk holds nobody up. It looks before each write whether the
file is still there: one that was moved or deleted would take every further line with it.
"""

import errno
import json
import logging
import os
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any, BinaryIO, ClassVar, Final

from service.disks import unusable
from service.metrics import Metrics

logger = logging.getLogger("service.audit")

MAX_WAITING: Final = 100_000
"""Lines that wait for a disk that does not take them; beyond that the oldest are lost, and counted."""

MAX_BLOCK_LINES: Final = 1000
"""Lines that are written at once. They are the oldest, and not among those that are lost first."""

RETRY_SECONDS: Final = 1.0

ROTATE_SECONDS: Final = 60.0
"""After a rotation that failed the file grows for so long before the next attempt."""

_encode = json.JSONEncoder(separators=(",", ":")).encode


def hashed(sop_instance_uid: str | None) -> str | None:
    """How the log names an image."""
    return sop_instance_uid and sha256(sop_instance_uid.encode()).hexdigest()


def digest(file: bytes) -> str | None:
    """How the log names an image that has no UID."""
    return sha256(file).hexdigest() if file else None


class Audit:
    """Without a file, as :class:`Audit` itself, it records nothing."""

    records: ClassVar[bool] = False
    """Whether it does."""

    def record(
        self,
        action: str,
        *,
        who: str | None,
        request_id: str | None,
        result: str,
        instance: str | None = None,
        file: str | None = None,
        model: str | None = None,
        manifest: str | None = None,
        seconds: float | None = None,
        **more: str | int | None,
    ) -> None:
        """Takes a line; never blocks. Any thread.

        Args:
            action: what was done, one word.
            who: name of the API key; None without keys, and for what the service does by itself.
            request_id: of the request that it belongs to; None if it belongs to none.
            result: what came of it: a class or decision of the model, or an error code.
            instance: SOP instance UID; its hash is written.
            file: SHA-256 of the image as it came, where it has no such UID; see :func:`digest`.
            model: name and version of what answered.
            manifest: SHA-256 of its manifest.
            seconds: how long it took.
            more: further members; nothing of a patient.
        """

    def close(self) -> None:
        """Writes what waits."""


class AuditFile(Audit):
    """The log in a file that is rotated by size: FILE, FILE.1 (the one before), FILE.2 and so on.

    Args:
        path: the file.
        max_bytes: a new file is begun when it would become larger.
        files: older files that are kept.
        durable: every write is on the disk before the next one.
        metrics: counts lines that could not be written, and files that were moved or deleted.

    Raises:
        SettingsError: it cannot be written to, or its folder cannot be made.
    """

    records = True

    def __init__(
        self, path: Path, max_bytes: int, files: int, durable: bool, metrics: Metrics
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._durable = durable
        self._metrics = metrics
        self._lines: deque[bytes] = deque()
        self._block: deque[bytes] = deque()
        self._waiting = Event()
        self._closing = False
        self._fails = False
        self._stuck = False
        self._rotate_at = 0.0
        try:
            # Here alone: one that is gone later was on a disk that is gone.
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file: BinaryIO | None = self._open()
        except OSError as error:
            raise unusable("BRAIN_AUDIT_LOG", error) from error
        self._thread = Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def record(
        self,
        action: str,
        *,
        who: str | None,
        request_id: str | None,
        result: str,
        instance: str | None = None,
        file: str | None = None,
        model: str | None = None,
        manifest: str | None = None,
        seconds: float | None = None,
        **more: str | int | None,
    ) -> None:
        """See :meth:`Audit.record`."""
        line: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "action": action,
            "who": who,
            "request_id": request_id,
            "instance": hashed(instance),
            "file": file,
            "model": model,
            "manifest": manifest,
            "result": result,
            "duration_ms": None if seconds is None else round(seconds * 1000, 2),
            **more,
        }
        if len(self._lines) + len(self._block) >= MAX_WAITING:
            with suppress(IndexError):
                self._lines.popleft()
                self._metrics.audit_lost.inc()
        self._lines.append(f"{_encode(line)}\n".encode())
        self._waiting.set()

    def close(self) -> None:
        """Writes what waits and ends the thread."""
        self._closing = True
        self._waiting.set()
        self._thread.join(2 * RETRY_SECONDS)

    def _run(self) -> None:
        while True:
            self._waiting.wait()
            self._waiting.clear()
            try:
                while self._take():
                    self._write_some(self._block)
                    if self._fails:
                        logger.info("the audit log is written to again")
                        self._fails = False
            # ValueError is of a file that is closed; the thread must outlive whatever closed it.
            except (OSError, ValueError):
                self._metrics.audit_failures.inc()
                if not self._fails:
                    logger.exception("the audit log cannot be written to")
                self._fails = True
                if self._closing:
                    self._metrics.audit_lost.inc(len(self._block) + len(self._lines))
                    break
                sleep(RETRY_SECONDS)
                self._waiting.set()
            if self._closing and not self._block and not self._lines:
                break
        if self._file is not None:
            self._file.close()

    def _take(self) -> bool:
        """Whether there is something to write; it is in the block then."""
        # A line that has just been lost is not there any more.
        with suppress(IndexError):
            while len(self._block) < MAX_BLOCK_LINES:
                self._block.append(self._lines.popleft())
        return bool(self._block)

    def _write_some(self, lines: deque[bytes]) -> None:
        """Writes as many lines as the file still takes, and removes them from the queue."""
        if self._file is not None and not self._file.closed and not self._is_in_place(self._file):
            logger.warning("the audit log was moved or deleted; it goes on in a new file")
            self._metrics.audit_reopened.inc()
            self._close()
        if self._file is None or self._file.closed:
            self._file = self._open()
        start = size = self._file.seek(0, os.SEEK_END)
        if not start:
            # Not the one that could not be moved: somebody has done that, and this one has its limit.
            self._stuck, self._rotate_at = False, 0.0
        if start and start + len(lines[0]) > self._max_bytes and monotonic() >= self._rotate_at:
            self._try_to_rotate()
            return
        block: list[bytes] = []
        for line in lines:
            if block and size + len(line) > self._max_bytes and not self._stuck:
                break
            block.append(line)
            size += len(line)
        try:
            data = memoryview(b"".join(block))
            while data:
                data = data[self._file.write(data) :]
            if self._durable:
                os.fsync(self._file.fileno())
        except OSError:
            # What is half written would be there twice.
            with suppress(OSError):
                self._file.truncate(start)
            raise
        for _ in block:
            lines.popleft()

    def _is_in_place(self, file: BinaryIO) -> bool:
        """Whether the path still leads to the file that is open."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except OSError as error:
            # On NFS a file that another machine deleted is stale.
            if error.errno in {errno.ENOENT, errno.ESTALE}:
                return False
            raise

    def _close(self) -> None:
        if self._file is not None:
            # On a network or over a quota, closing may fail; the file is closed all the same.
            file, self._file = self._file, None
            file.close()

    def _try_to_rotate(self) -> None:
        """Begins a new file; where that fails, as of one that is mounted by itself, it grows."""
        try:
            self._close()
            self._rotate()
        except OSError:
            self._metrics.audit_failures.inc()
            if not self._stuck:
                logger.exception("the audit log cannot be rotated, and grows")
            self._stuck = True
            self._rotate_at = monotonic() + ROTATE_SECONDS
            return
        if self._stuck:
            logger.info("the audit log is rotated again")
            self._stuck = False

    def _rotate(self) -> None:
        # Up to a number that is free: one attempt after another that fails must not push all files out.
        numbers = range(1, self._files + 1)
        last = next(
            (number for number in numbers if not self._numbered(number).exists()), self._files
        )
        for number in range(last, 0, -1):
            older = self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))
        if not self._files:
            self._path.unlink()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

    def _open(self) -> BinaryIO:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        file = os.fdopen(os.open(self._path, flags, 0o600), "ab", buffering=0)
        end = file.seek(0, os.SEEK_END)
        # A power cut may have torn the last line.
        if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
            file.write(b"\n")
        return file
