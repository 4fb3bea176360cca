"""Makes DICOM objects in a process of its own.

highdicom is Python code: in a thread it would keep the event loop and the decoding threads waiting, and
a series takes it half a second. The process starts with the first task, or before.
"""

import logging
import pickle
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from contract.errors import DecodeError, DecoderTimedOut, DecoderUnavailable
from contract.sandbox import Sandbox
from service.dicom.results import Failed, MadeObject, unpack
from service.errors import DeadlineExceeded, ServiceError

if TYPE_CHECKING:  # pydicom costs a quarter of a second, which the start need not wait for
    from service.dicom.task import Task

logger = logging.getLogger("service.dicom")

MEMORY_BYTES: Final = 2 * 2**30
"""What a task may allocate."""

LONGEST_ANSWER: Final = 512 * 2**20
"""Bytes that a series' objects may have; a series of 1000 slices has some 10 MB."""


class Workshop:
    """The process; threads that call it at a time get one each."""

    def __init__(self) -> None:
        # What is read has been read by then, and libraries for DICOM import much of themselves late.
        self._sandbox = Sandbox("service.dicom.worker:make", MEMORY_BYTES, opens=True)

    def start(self) -> None:
        """Starts the process unless it waits for a task. Any thread; it blocks."""
        # Where it cannot be started, the next task tries again and says so.
        with suppress(DecodeError):
            self._sandbox.start()

    def make(self, task: "Task", seconds: float) -> list[MadeObject]:
        """Makes a series' objects: see :func:`service.dicom.objects.make`. Any thread; it blocks.

        Args:
            task: the series.
            seconds: time that it may take.

        Raises:
            DeadlineExceeded: it takes longer.
            DecoderUnavailable: there is no process to be had now.
            ServiceError: it failed; the log says where, and nothing of the patient.
        """
        try:
            answer = unpack(self._sandbox.call(pickle.dumps(task), LONGEST_ANSWER, seconds))
        except DecoderTimedOut:
            raise DeadlineExceeded("the deadline passed while DICOM objects were made") from None
        except DecoderUnavailable:
            raise
        except DecodeError as error:
            logger.error("DICOM objects could not be made: %s", error.code)  # noqa: TRY400
            raise ServiceError from None
        if isinstance(answer, Failed):
            logger.error("DICOM objects could not be made: %s\n%s", answer.kind, answer.where)
            raise ServiceError
        return answer

    @property
    def processes(self) -> list[int]:
        """Process ids of those that wait for a task."""
        return self._sandbox.children

    def close(self) -> None:
        """Ends the process."""
        self._sandbox.close()
