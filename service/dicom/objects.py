"""From findings to DICOM objects: the one function that others call."""

import logging
from collections.abc import Sequence
from datetime import datetime

from highdicom.base import SOPClass
from pydicom import Dataset

from contract.dicom import quieten
from service.dicom.capture import capture
from service.dicom.findings import ModelIdentity, SeriesFindings
from service.dicom.making import Making
from service.dicom.report import report
from service.dicom.segmentation import segment
from service.dicom.source import SourceSeries
from service.dicom.uids import UUID_ROOT

# Its records quote UIDs and attributes, so none may reach the service's log.
logging.getLogger("highdicom").setLevel(logging.CRITICAL + 1)


def build(
    sources: Sequence[Dataset],
    findings: SeriesFindings,
    model: ModelIdentity,
    uid_root: str = UUID_ROOT,
    created: datetime | None = None,
) -> list[SOPClass]:
    """Makes the DICOM objects of one series' findings.

    The same images, model and root give the same UIDs, and with the same ``created`` the same objects.
    It takes a few hundredths of a second and more, so it belongs in a thread.

    Args:
        sources: headers of the series' images (:func:`service.dicom.headers.read_header`); their pixel
            data are not read. Attributes may be missing, empty or malformed.
        findings: every slice's image is among ``sources``.
        model: that made the findings.
        uid_root: new UIDs lie under it.
        created: the objects' dates; now, if not given.

    Returns:
        The structured report, the Secondary Capture, then the segmentations: none, if the model gave
        no mask, nothing was found, or the source does not say where it lies in the patient. All are
        ready to be written in explicit VR little endian.

    Raises:
        UnidentifiedSource: a source lacks a UID that references need.
        ValueError: sources and findings do not belong together.
    """
    quieten()
    source = SourceSeries.of(sources)
    for finding in findings.slices:
        image = source.images.get(finding.sop_instance_uid)
        if image is None:
            raise ValueError("a finding belongs to none of the images")
        if finding.frame != 1 and not image.multi_frame:
            raise ValueError("a single-frame image has no other frames")
        if finding.mask is not None and finding.mask.shape != (image.rows, image.columns):
            raise ValueError("a mask must have the size of its image's stored pixel matrix")
    making = Making(source, findings, model, uid_root, created or datetime.now().astimezone())
    segmentations, frames = segment(making)
    return [report(making, frames), capture(making), *segmentations]
