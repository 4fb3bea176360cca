"""What an instance is, read from the beginning of its file: enough to accept or to refuse it.

Nothing of it is logged, and no attribute of the patient is read.
"""

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from pydicom import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from contract.dicom_kind import MR_SOP_CLASSES
from contract.dicom_meta import inflate
from contract.dicom_pixels import IN_PROCESS, SANDBOXED
from contract.dicom_size import BoundedReader, check_size
from contract.policy import Checks
from service.dicom.making import MANUFACTURER

HEAD_BYTES: Final = 4 * 2**20
"""So much of an instance is read, or inflated; what it is lies in its first kilobytes."""

_LAST: Final = Tag("SeriesInstanceUID")

_KEYWORDS: Final = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("Modality", "Manufacturer"),
)

SYNTAXES: Final = frozenset(
    {
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        *IN_PROCESS,
        *SANDBOXED,
    }
)
"""Transfer syntaxes that the service reads."""

WELL_FORMED: Final = re.compile(r"[0-9]+(\.[0-9]+)+")


class Reason(IntEnum):
    """Why an instance was not stored; the value is its Failure Reason (0008,1197).

    The codes are those of PS3.4 2024e, table B.2-1, and PS3.7 2024e, annex C.
    """

    PROCESSING_FAILURE = 0x0110
    """It belongs to another study than the request says."""
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    """It is no MR image, or one of the service's own results."""
    OUT_OF_RESOURCES = 0xA700
    """It is larger than an instance may be."""
    CANNOT_UNDERSTAND = 0xC000
    """It is no DICOM file, or a UID is missing or malformed."""
    TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122
    """Nothing here reads its transfer syntax."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What an instance is.

    Attributes:
        sop_class, sop, series, study: its UIDs.
    """

    sop_class: str
    sop: str
    series: str
    study: str


class Refused(Exception):
    """An instance that is not stored.

    Attributes:
        reason: why.
        sop_class, sop: its UIDs, if they could be read.
        file: SHA-256 of the whole instance, where it has no such UID.
    """

    def __init__(self, reason: Reason, sop_class: str | None = None, sop: str | None = None):
        super().__init__(reason.name)
        self.reason = reason
        self.sop_class = sop_class
        self.sop = sop
        self.file: str | None = None


def identify(data: bytes, study: str | None = None, checks: Checks = Checks.STRICT) -> Identity:
    """Reads what an instance is.

    Args:
        data: a DICOM file, or its first :data:`HEAD_BYTES`.
        study: the UID of the only study that is accepted; None accepts any.
        checks: what it must say of itself. That it is of a head is looked at later.

    Raises:
        Refused: it cannot be stored.
    """
    try:
        header, syntax = _read(data)
        uids = [_uid(header, keyword) for keyword in _KEYWORDS[:4]]
    except Exception:  # noqa: BLE001 - whatever damage makes pydicom raise, attribute values in it
        raise Refused(Reason.CANNOT_UNDERSTAND) from None
    sop_class, sop, study_uid, series = uids
    if sop_class is None or sop is None or study_uid is None or series is None:
        raise Refused(Reason.CANNOT_UNDERSTAND, sop_class, sop)
    if not _is_wanted(header, sop_class, checks):
        raise Refused(Reason.SOP_CLASS_NOT_SUPPORTED, sop_class, sop)
    if syntax is not None and syntax not in SYNTAXES:
        raise Refused(Reason.TRANSFER_SYNTAX_NOT_SUPPORTED, sop_class, sop)
    if study is not None and study_uid != study:
        raise Refused(Reason.PROCESSING_FAILURE, sop_class, sop)
    return Identity(sop_class, sop, series, study_uid)


def _is_wanted(header: Dataset, sop_class: str, checks: Checks) -> bool:
    if str(header.get("Manufacturer", "")).strip() == MANUFACTURER:
        # A PACS that forwards everything also forwards results, whose results it would forward...
        return False
    if checks is Checks.STRICT:
        return sop_class in MR_SOP_CLASSES
    if checks is Checks.LENIENT:
        is_mr = str(header.get("Modality", "")).strip().upper() == "MR"
        return is_mr or sop_class in MR_SOP_CLASSES
    return "Image Storage" in UID(sop_class).name


def _read(data: bytes) -> tuple[Dataset, str | None]:
    """The beginning of an object, and its transfer syntax if it says one."""
    inflated = inflate(data, HEAD_BYTES)
    check_size(inflated.data, inflated.meta, _LAST)
    tags: list[BaseTag | int] = [Tag(name) for name in _KEYWORDS]
    header = read_partial(BoundedReader(inflated.data), _beyond, specific_tags=tags)
    return header, inflated.syntax


def _beyond(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return bool(tag > _LAST)


def _uid(header: Dataset, keyword: str) -> str | None:
    """A UID (PS3.5 2024e, 9.1), or None if it is missing or malformed."""
    uid = str(header.get(keyword) or "").strip("\0 ")
    return uid if len(uid) <= 64 and WELL_FORMED.fullmatch(uid) else None
