"""What all objects of one series have in common: UIDs, series, patient, equipment, dates."""

from collections.abc import Iterable
from copy import deepcopy
from datetime import datetime
from enum import Enum
from typing import Any, Final

from highdicom import ContributingEquipment
from highdicom.base import SOPClass
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.valuerep import DA, DS, TM

from service.dicom import patient, uids
from service.dicom.findings import DISCLAIMER
from service.dicom.source import SourceImage
from service.dicom.task import Task
from service.release import RELEASE

CONTENT_VERSION: Final = "8"
"""Part of every UID; raised when the same findings give objects of other content."""

MANUFACTURER: Final = "Brain MRI inference"

SERIES_NUMBER_BASE: Final = 90_000
"""Results lie behind all other series of a study: this, ten times the source's number, and the kind."""

MAX_SOURCE_NUMBER: Final = 9_999

LONG_STRING: Final = 64
"""Characters of an LO value (DICOM PS3.5 2024e, 6.2); a model's name may have as many."""

_BLANK: Final = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber"),
)
"""What highdicom copies from evidence; :meth:`Making.finish` puts it in."""


class Kind(Enum):
    """The objects, each of which gets a series of its own: word in UIDs, number, description."""

    REPORT = ("report", 1, "AI brain tumor report")
    CAPTURE = ("capture", 2, "AI brain tumor capture")
    SEGMENTATION = ("segmentation", 3, "AI brain tumor segmentation")

    def __init__(self, word: str, number: int, description: str) -> None:
        self.word = word
        self.number = number
        self.description = f"{description} ({DISCLAIMER})"


class Making:
    """The making of one series' objects.

    Args:
        task: what they are made of.

    Attributes:
        source, findings, model: of the task.
    """

    def __init__(self, task: Task) -> None:
        self.source = task.source
        self.findings = task.findings
        self.model = task.model
        self._uid_root = task.uid_root
        self._created = task.created

    def uid(self, *parts: str) -> str:
        """A UID that follows from the study, the slices, the model and what the UID is for.

        From the slices and not the images: of a multi-frame image some frames may have failed. From
        their files too: an archive that has the objects of an image would not take those of another
        one that came in its place.
        """
        slices = (
            f"{one.sop_instance_uid}#{one.frame}#{one.digest}" for one in self.findings.slices
        )
        return self._derive(*parts, self.source.study_uid, *sorted(slices))

    def series_uid(self, kind: Kind) -> str:
        """Of a kind's series: the same for each set of images out of one source series.

        The study is a part of it: some anonymisers give the series of all patients one UID.
        """
        return self._derive("series", kind.word, self.source.study_uid, self.source.series_uid)

    @property
    def device_uid(self) -> str:
        """Of this release with this model."""
        return self._derive("device", RELEASE)

    def arguments(self, kind: Kind, instance: int = 1) -> dict[str, Any]:
        """What highdicom's classes want of every object."""
        parts = [kind.word, str(instance)]
        if kind is Kind.REPORT:
            # It alone says how many images it lacks.
            parts.append(str(self.findings.failed))
        if kind is Kind.CAPTURE:
            # It shows the decision, which images that are missing may change.
            parts.append(str(self.findings.decision))
        number = self.source.number if self.source.number <= MAX_SOURCE_NUMBER else 0
        return {
            "series_instance_uid": self.series_uid(kind),
            "series_number": SERIES_NUMBER_BASE + 10 * number + kind.number,
            "series_description": kind.description,
            "sop_instance_uid": self.uid(*parts),
            "instance_number": instance,
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": self.model.name,
            "software_versions": [RELEASE, self.model.label[:LONG_STRING]],
            "device_serial_number": self.model.manifest_digest[:16],
            "content_qualification": "RESEARCH",
        }

    def reference(self, sop_class_uid: str, sop_instance_uid: str, series_uid: str) -> Dataset:
        """An object as highdicom takes it for evidence, without the patient."""
        header = Dataset()
        header.StudyInstanceUID = self.source.study_uid
        header.SeriesInstanceUID = series_uid
        header.SOPClassUID = sop_class_uid
        header.SOPInstanceUID = sop_instance_uid
        for keyword in _BLANK:
            setattr(header, keyword, None)
        return header

    @staticmethod
    def mark_lossy(made: SOPClass, images: Iterable[SourceImage]) -> None:
        """Says whether one of the images was compressed with loss, and how the worst of them was."""
        lossy = [image.lossy for image in images if image.lossy is not None]
        made.LossyImageCompression = "01" if lossy else "00"
        if lossy:
            worst = max(lossy, key=lambda one: max(one.ratios, default=0.0))
            if worst.ratios:
                made.LossyImageCompressionRatio = [
                    DS(ratio, auto_format=True) for ratio in worst.ratios
                ]
            if worst.methods:
                made.LossyImageCompressionMethod = list(worst.methods)

    def finish(self, made: SOPClass) -> SOPClass:
        """Puts the patient, the study, the equipment and the dates into an object.

        highdicom is given no patient: its checks quote names in warnings.
        """
        made.StudyInstanceUID = self.source.study_uid
        for element in self.source.identity:
            made[element.tag] = deepcopy(element)
        if "SpecificCharacterSet" in made:
            del made.SpecificCharacterSet
        made.ContributingEquipmentSequence = self._equipment()
        if not patient.is_ascii(made):
            made.SpecificCharacterSet = patient.UTF_8
        created = self._created
        if (offset := self.source.identity.get("TimezoneOffsetFromUTC")) is not None:
            # It holds for all dates of the object, those of its making too (PS3.3 2024e, table C.12-1).
            created = created.astimezone(datetime.strptime(offset, "%z").tzinfo)
        made.InstanceCreationDate = made.ContentDate = DA(created.date())
        made.InstanceCreationTime = made.ContentTime = TM(created.time().replace(microsecond=0))
        return made

    def _derive(self, *parts: str) -> str:
        model = "\n".join(self.model.parameters)
        return uids.derive(self._uid_root, CONTENT_VERSION, model, *parts)

    def _equipment(self) -> list[ContributingEquipment]:
        """The scanner, this model, and the library that wrote the object."""
        scanner = self.source.equipment
        ours = ContributingEquipment(
            MANUFACTURER,
            codes.DCM.ProcessingEquipment,
            manufacturer_model_name=self.model.label[:LONG_STRING],
            software_versions=[RELEASE, self.model.manifest_digest],
            contribution_description=f"Model {self.model.label}. {DISCLAIMER}.",
        )
        library = ContributingEquipment.for_highdicom()
        # It is the time of this very call, while everything else has the time of creation.
        del library.ContributionDateTime
        equipment = [ours, library]
        if "Manufacturer" in scanner:
            acquisition = ContributingEquipment(
                scanner.Manufacturer,
                codes.DCM.AcquisitionEquipment,
                manufacturer_model_name=scanner.get("ManufacturerModelName"),
                software_versions=scanner.get("SoftwareVersions"),
                device_serial_number=scanner.get("DeviceSerialNumber"),
                institution_name=scanner.get("InstitutionName"),
                station_name=scanner.get("StationName"),
            )
            equipment.insert(0, acquisition)
        return equipment
