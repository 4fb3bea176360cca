"""What the objects of one series are made of: all of it, checked, and small enough to hand on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from pydicom import Dataset

from contract.quiet import quieten
from service.dicom.findings import ModelIdentity, SeriesFindings
from service.dicom.source import SourceSeries
from service.dicom.uids import UUID_ROOT


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One series' objects, to be made.

    Attributes:
        source: the series.
        findings: on it.
        model: that made the findings.
        uid_root: new UIDs lie under it.
        created: the objects' dates; written in the source's time zone or, where it states none, as they
            are, in local time.
    """

    source: SourceSeries
    findings: SeriesFindings
    model: ModelIdentity
    uid_root: str
    created: datetime

    @classmethod
    def of(
        cls,
        sources: Sequence[Dataset],
        findings: SeriesFindings,
        model: ModelIdentity,
        uid_root: str = UUID_ROOT,
        created: datetime | None = None,
    ) -> Self:
        """Reads the headers of a series' images.

        Args:
            sources: headers of the images (:func:`service.dicom.headers.read_header`); their pixel data
                are not read. Attributes may be missing, empty or malformed.
            findings: every slice's image is among ``sources``.
            model: that made the findings.
            uid_root: new UIDs lie under it.
            created: the objects' dates; now, if not given.

        Raises:
            UnidentifiedSource: a source lacks a UID that references need, or the sources are of several
                patients.
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
        return cls(source, findings, model, uid_root, created or datetime.now().astimezone())
