"""From findings to DICOM objects. Services make them in a process of their own: see `workshop`."""

import logging
from collections.abc import Sequence
from datetime import datetime

from highdicom.base import SOPClass
from pydicom import Dataset

from contract.quiet import quieten
from service.dicom.capture import capture
from service.dicom.findings import ModelIdentity, SeriesFindings
from service.dicom.making import Making
from service.dicom.report import report
from service.dicom.segmentation import segment
from service.dicom.task import Task
from service.dicom.uids import UUID_ROOT

# Its records quote UIDs and attributes, so none may reach the service's log.
logging.getLogger("highdicom").setLevel(logging.CRITICAL + 1)


def make(task: Task) -> list[SOPClass]:
    """Makes the DICOM objects of one series' findings.

    The same slices, model and root give the same UIDs, and with the same ``created`` the same objects.
    It takes 50 ms and more, nearly all of it in Python code.

    Returns:
        The structured report, the Secondary Capture, then the segmentations: none, if the model gave
        no mask, nothing was found, or the source does not say where it lies in the patient. All are
        ready to be written in explicit VR little endian.
    """
    quieten()
    making = Making(task)
    segmented = segment(making)
    return [report(making, segmented), capture(making), *segmented.objects]


def build(
    sources: Sequence[Dataset],
    findings: SeriesFindings,
    model: ModelIdentity,
    uid_root: str = UUID_ROOT,
    created: datetime | None = None,
) -> list[SOPClass]:
    """:func:`make` of :meth:`Task.of`, in this process."""
    return make(Task.of(sources, findings, model, uid_root, created))
