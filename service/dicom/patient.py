"""Patient and study attributes, from a source image to what is made of it.

What identifies the patient and the study is copied as it is, so that an archive files the results with
their source. Everything else is copied only if it is valid. Text is decoded here and written as UTF-8
where it is not plain ASCII. Nothing of it may reach a log or an error text.
"""

import math
import re
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any, Final

from pydicom import DataElement, Dataset, Sequence
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.multival import MultiValue

UTF_8: Final = "ISO_IR 192"

_IDENTIFYING: Final = ("PatientName", "PatientID", "AccessionNumber", "StudyID")
"""Type 2, and copied even if they break a rule: an archive compares them."""

_REQUIRED: Final = (
    *_IDENTIFYING,
    *("PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""Type 2 of the Patient and General Study modules (DICOM PS3.3 2024e, C.7.1.1 and C.7.2.1)."""

_OPTIONAL: Final = (
    *("IssuerOfPatientID", "PatientBirthTime"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("StudyDescription", "IssuerOfAccessionNumberSequence", "ProcedureCodeSequence"),
    *("PatientAge", "PatientSize", "PatientWeight", "TimezoneOffsetFromUTC"),
    "LongitudinalTemporalInformationModified",
)

_SPECIES: Final = ("PatientSpeciesDescription", "PatientSpeciesCodeSequence")

_ANIMAL: Final = (
    *("PatientBreedDescription", "PatientBreedCodeSequence", "BreedRegistrationSequence"),
    *("ResponsiblePerson", "ResponsibleOrganization", "PatientSexNeutered"),
)
"""Type 2C: required of an animal beside its species (PS3.3 2024e, C.7.1.1 and C.7.2.2)."""

_ROLE: Final = "ResponsiblePersonRole"
"""Type 1C: required beside a Responsible Person, and of no use without one."""

_TRIAL_STATED: Final = ("ClinicalTrialSponsorName", "ClinicalTrialProtocolID")
"""Type 1 of the Clinical Trial Subject module (PS3.3 2024e, C.7.1.3)."""

_TRIAL_SUBJECT: Final = ("ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID")
"""Type 1C: one of them."""

_TRIAL_REQUIRED: Final = (
    *("ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName"),
)
"""Type 2."""

_TRIAL: Final = (*_TRIAL_STATED, *_TRIAL_SUBJECT, *_TRIAL_REQUIRED)

KEYWORDS: Final = (
    *("SpecificCharacterSet", *_REQUIRED, *_OPTIONAL),
    *(*_SPECIES, *_ANIMAL, _ROLE, *_TRIAL),
)
"""What has to be read of a source image."""

_COPIED: Final = frozenset({"SH", "LO", "UC", "UI", "CS", "UT", "UR", "DT"})
"""What an item of a sequence is copied of: all that the macros of codes and of issuers have."""

_CODE_VALUES: Final = ("CodeValue", "LongCodeValue", "URNCodeValue")

_ENUMERATED: Final = {
    "PatientSex": {"M", "F", "O"},
    "PatientSexNeutered": {"ALTERED", "UNALTERED"},
    "PatientIdentityRemoved": {"YES", "NO"},
    "LongitudinalTemporalInformationModified": {"UNMODIFIED", "MODIFIED", "REMOVED"},
}
_MAX_CHARACTERS: Final = {"SH": 16, "LO": 64, "ST": 1024, "LT": 10240, "CS": 16, "UC": 2**20}
_ESCAPE: Final = re.compile(r"\x1b[\x20-\x2f]*[\x30-\x7e]")
"""What names a character set (ISO/IEC 2022); pydicom leaves those of ISO 2022 IR 58 in the text."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_DATE: Final = re.compile(r"[0-9]{8}")
_TIME: Final = re.compile(r"([01][0-9]|2[0-3])([0-5][0-9]([0-5][0-9](\.[0-9]{1,6})?)?)?")
_AGE: Final = re.compile(r"[0-9]{3}[DWMY]")
_OFFSET: Final = re.compile(
    r"\+(0[0-9]|1[0-3])[0-5][0-9]|\+1400|-(?!0000)(0[0-9]|1[01])[0-5][0-9]|-1200"
)
"""Hours and minutes from -1200 to +1400, and no -0000 (PS3.3 2024e, table C.12-1)."""

_CODE: Final = re.compile(r"[A-Z0-9_ ]*")
_UID: Final = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")


def identity(source: Dataset) -> Dataset:
    """The patient and study attributes of a source image, valid and decoded.

    Args:
        source: a header; attributes may be missing, empty or malformed.

    Returns:
        Every type 2 attribute of the modules, empty where the source has nothing valid, and the
        optional ones that are valid.
    """
    clean = Dataset()
    for keyword in _REQUIRED:
        is_identifying = keyword in _IDENTIFYING
        stated = _identifier(source, keyword) if is_identifying else text(source, keyword)
        setattr(clean, keyword, stated or "")
    _copy(source, clean, _OPTIONAL)
    _copy_animal(source, clean)
    _copy_trial(source, clean)
    if clean.get("PatientIdentityRemoved") == "YES" and not (
        "DeidentificationMethod" in clean or "DeidentificationMethodCodeSequence" in clean
    ):
        # Required beside it, and the fact matters more than how.
        clean.DeidentificationMethod = "not stated in the source"
    return clean


def _copy(source: Dataset, clean: Dataset, keywords: Iterable[str]) -> None:
    """Those attributes that are valid."""
    for keyword in keywords:
        if dictionary_VR(keyword) == "SQ":
            items = [_item(item) for item in sequence(source, keyword)]
            if items := [item for item in items if len(item)]:
                setattr(clean, keyword, Sequence(items))
        elif values := _values(source, keyword):
            setattr(clean, keyword, values if keyword == "DeidentificationMethod" else values[0])


def _copy_animal(source: Dataset, clean: Dataset) -> None:
    """What is said of a patient that is none of our own species, if the source says which."""
    found = Dataset()
    _copy(source, found, _SPECIES)
    if not len(found):
        return
    _copy(source, found, (*_ANIMAL, _ROLE))
    if "ResponsiblePerson" not in found or _ROLE not in found:
        for keyword in ("ResponsiblePerson", _ROLE):
            found.pop(keyword, None)
    clean.update(found)
    _fill(clean, _ANIMAL)


def _copy_trial(source: Dataset, clean: Dataset) -> None:
    """The subject of a clinical trial, if the source says what the module must not lack."""
    found = Dataset()
    _copy(source, found, _TRIAL)
    stated = all(keyword in found for keyword in _TRIAL_STATED)
    if stated and any(keyword in found for keyword in _TRIAL_SUBJECT):
        clean.update(found)
        _fill(clean, _TRIAL_REQUIRED)


def _fill(clean: Dataset, keywords: Iterable[str]) -> None:
    """Empty attributes where there are none."""
    for keyword in keywords:
        if keyword not in clean:
            setattr(clean, keyword, None)


def whose(source: Dataset) -> tuple[str, str]:
    """What tells a source image's patient from others: the ID, and who issued it; empty if missing.

    An ID is the same with and without padding, and with and without control characters.
    """
    number = _CONTROL.sub("", _identifier(source, "PatientID")).strip(" ")
    return number, text(source, "IssuerOfPatientID") or ""


def is_ascii(dataset: Dataset) -> bool:
    """Whether no text of a dataset needs a character set."""
    return all(
        str(element.value).isascii()
        for element in dataset.iterall()
        if element.VR in {"PN", "LO", "SH", "LT", "ST", "UC", "UT"}
    )


def text(source: Dataset, keyword: str) -> str | None:
    """An attribute's first value, if it is valid and not empty."""
    return next(iter(_values(source, keyword)), None)


def texts(source: Dataset, keyword: str) -> list[str]:
    """An attribute's valid values, without empty ones."""
    return _values(source, keyword)


def raw(source: Dataset, keyword: str) -> Any:
    """An attribute's value, whatever it is; None if it is missing or damaged."""
    try:
        return source[tag_for_keyword(keyword) or 0].value
    except Exception:  # noqa: BLE001 - missing, or so malformed that pydicom cannot even decode it
        return None


def sequence(source: Dataset, keyword: str) -> list[Dataset]:
    """The items of an attribute, if it is a sequence."""
    value = raw(source, keyword)
    return list(value) if isinstance(value, Sequence) else []


def _identifier(source: Dataset, keyword: str) -> str:
    """All that an archive compares of an attribute, so all but the padding behind it."""
    return "\\".join(_ESCAPE.sub("", item) for item in _items(source, keyword)).rstrip(" \0")


def _item(source: Dataset) -> Dataset:
    """The plain text attributes of a sequence's item."""
    clean = Dataset()
    for element in source:
        is_text = element.VR in _COPIED and element.keyword
        if is_text and (values := _values(source, element.keyword)):
            clean.add(DataElement(element.tag, element.VR, values[0]))
    return clean if _is_whole(clean, source) else Dataset()


def _is_whole(item: Dataset, source: Dataset) -> bool:
    """Whether an item, if it is a code, is one still (DICOM PS3.3 2024e, 8.8)."""
    if not any(keyword in source for keyword in _CODE_VALUES):
        return True
    values = [keyword for keyword in _CODE_VALUES if keyword in item]
    if len(values) != 1 or "CodeMeaning" not in item:
        return False
    # Cut off, it would be another code.
    (value,) = values
    unchanged = str(item[value].value) == str(raw(source, value)).strip()
    return unchanged and ("CodingSchemeDesignator" in item or value == "URNCodeValue")


def _values(source: Dataset, keyword: str) -> list[str]:
    """An attribute's valid values as text, without empty ones."""
    return list(_valid(keyword, dictionary_VR(keyword), _items(source, keyword)))


def _items(source: Dataset, keyword: str) -> list[str]:
    """An attribute's values as text, whatever they are."""
    value = raw(source, keyword)
    several = value if isinstance(value, MultiValue | list | tuple) else [value]
    return [str(item) for item in several if item is not None]


def _valid(keyword: str, vr: str, values: Iterable[str]) -> Iterable[str]:
    accept = _CHECKS.get(keyword) or _CHECKS.get(vr, _clip)
    for value in values:
        kept = accept(vr, _CONTROL.sub("", _ESCAPE.sub("", value)).strip(" "))
        if kept and kept in _ENUMERATED.get(keyword, {kept}):
            yield kept


def _clip(vr: str, value: str) -> str:
    return value[: _MAX_CHARACTERS.get(vr, len(value))].rstrip(" ")


def _date(_vr: str, value: str) -> str:
    digits = value.replace(".", "") if value.count(".") == 2 else value
    if not _DATE.fullmatch(digits):
        return ""
    try:
        date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return ""
    return digits


def _time(_vr: str, value: str) -> str:
    digits = value.replace(":", "")
    return digits if _TIME.fullmatch(digits) else ""


def _number(_vr: str, value: str) -> str:
    try:
        number = float(value)
    except ValueError:
        return ""
    return value if math.isfinite(number) and number > 0 and len(value) <= 16 else ""


def _matching(pattern: re.Pattern[str], longest: int) -> Callable[[str, str], str]:
    def check(_vr: str, value: str) -> str:
        return value if len(value) <= longest and pattern.fullmatch(value) else ""

    return check


def _name(_vr: str, value: str) -> str:
    """At most three component groups of 64 characters (PS3.5 2024e, 6.2)."""
    groups = value.split("=")
    return value if len(groups) <= 3 and all(len(group) <= 64 for group in groups) else ""


_CHECKS: Final[dict[str, Callable[[str, str], str]]] = {
    "DA": _date,
    "TM": _time,
    "DS": _number,
    "AS": _matching(_AGE, 4),
    "CS": _matching(_CODE, 16),
    "UI": _matching(_UID, 64),
    "PN": _name,
    "TimezoneOffsetFromUTC": _matching(_OFFSET, 5),
}
"""By VR, or by keyword for what has a form of its own."""
