"""The answer to a prediction as DICOM objects."""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from time import monotonic
from typing import Final

from contract.decoding import open_source
from contract.errors import DecoderUnavailable
from contract.policy import Policy
from service.dicom.findings import ModelIdentity, SeriesFindings
from service.dicom.multipart import Body, pack
from service.dicom.results import MadeObject
from service.dicom.series import PredictedSeries
from service.dicom.workshop import Workshop
from service.errors import DeadlineExceeded, QueueFull, ServiceError, TooManySeries
from service.logs import log_discreetly

logger = logging.getLogger("service.dicom")

MAX_SERIES: Final = 32
"""Series in one answer, each of which has a megabyte of Secondary Capture."""


class ResultWriter:
    """Makes the objects of predicted series, one request at a time.

    A thread of its own reads the headers and waits for the process that makes the objects. What both
    need is imported when the first objects are asked for or :meth:`warm_up` is called, so that the
    start does not wait for it.

    Args:
        uid_root: new UIDs lie under it.
        policy: what was accepted of the files.
        capacity: most requests that may wait for their objects.
    """

    def __init__(self, uid_root: str, policy: Policy, capacity: int) -> None:
        self._uid_root = uid_root
        self._policy = policy
        self._capacity = capacity
        self._pending = 0
        self._warm: asyncio.Future[None] | None = None
        self._workshop = Workshop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dicom-results")

    async def warm_up(self) -> None:
        """Imports what is needed and starts the process, once; returns when it is there.

        Event loop only. What kept it from that may have passed by the next call, which tries again.
        """
        if self._warm is None or _has_failed(self._warm):
            self._warm = asyncio.get_running_loop().run_in_executor(None, self._start)
        # Whoever waits for it may give up, and the others still wait.
        await asyncio.shield(self._warm)

    async def write(
        self, series: Sequence[PredictedSeries], model: ModelIdentity, deadline: float
    ) -> Body:
        """The objects of all series as one body. Event loop only.

        Args:
            series: at least one.
            model: that predicted them.
            deadline: monotonic seconds; the time that :meth:`warm_up` still takes is added.

        Raises:
            TooManySeries: more than :data:`MAX_SERIES`.
            UnidentifiedSource: a source lacks a UID that results refer to, or a series is of several
                patients.
            QueueFull: too many requests wait for their objects.
            DeadlineExceeded: they are not made in time.
            DecoderUnavailable: there is no process to be had for it now.
            ServiceError: making them failed; the log says where.
        """
        if len(series) > MAX_SERIES:
            raise TooManySeries(f"DICOM objects are made of {MAX_SERIES} series at most")
        if self._pending >= self._capacity:
            raise QueueFull("too many requests wait for DICOM objects; try again")
        self._pending += 1
        try:
            began = monotonic()
            await self.warm_up()
            deadline += monotonic() - began
            future = asyncio.wrap_future(self._thread.submit(self._write, series, model, deadline))
            return await asyncio.wait_for(future, max(0.0, deadline - monotonic()))
        except TimeoutError as error:
            raise DeadlineExceeded(
                "the deadline passed before the DICOM objects were made"
            ) from error
        finally:
            self._pending -= 1

    def close(self) -> None:
        """Ends the thread once it has made what it is at, and the process."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._workshop.close()

    def make(
        self, series: PredictedSeries, model: ModelIdentity, deadline: float
    ) -> list[MadeObject]:
        """The objects of one series. Any thread; it blocks, and nobody else waits for it.

        Args:
            series: predicted with its headers kept.
            model: that predicted it.
            deadline: monotonic seconds.

        Raises:
            UnidentifiedSource: a source lacks a UID that results refer to, or a series is of several
                patients.
            DeadlineExceeded: they are not made in time.
            DecoderUnavailable: there is no process to be had for it now.
            ServiceError: making them failed; the log says where.
        """
        # Imports pydicom, if nothing has yet.
        from service.dicom.task import Task

        try:
            findings = _with_pixels(series, self._policy)
            task = Task.of(series.headers, findings, model, self._uid_root)
            left = deadline - monotonic()
            if left <= 0:
                raise DeadlineExceeded("the deadline passed while DICOM objects were made")
            return self._workshop.make(task, left)
        except (ServiceError, DecoderUnavailable):
            raise
        except Exception as error:  # noqa: BLE001 - its text may quote the patient's attributes
            log_discreetly(logger, "DICOM objects could not be made", error)
            raise ServiceError from None

    def _start(self) -> None:
        # Imports pydicom, which is a part of the wait.
        from service.dicom.task import Task  # noqa: F401

        self._workshop.start()

    def _write(
        self, series: Sequence[PredictedSeries], model: ModelIdentity, deadline: float
    ) -> Body:
        return pack([item.content for one in series for item in self.make(one, model, deadline)])


def _has_failed(future: asyncio.Future[None]) -> bool:
    return future.done() and (future.cancelled() or future.exception() is not None)


def _with_pixels(series: PredictedSeries, policy: Policy) -> SeriesFindings:
    """The findings, with the grey levels of the slice that the Secondary Capture shows."""
    findings = series.findings
    job = series.jobs[findings.most_suspicious]
    source = job.source or open_source(job.upload.data, job.spec, policy)
    slices = list(findings.slices)
    slices[findings.most_suspicious] = replace(
        findings.leading, pixels=source.slice(job.frame).pixels
    )
    return replace(findings, slices=tuple(slices))
