"""Patient and study in the results: those of the source, however it is written, and in no log."""

import io
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.valuerep import PersonName

from service.dicom import patient
from service.dicom.headers import read_header
from tests.support.dicom import encoded
from tests.support.results import (
    CREATED,
    SAGITTAL,
    complaints,
    finding,
    needs_tools,
    results,
    series_of,
)


def source(**changes: Any) -> bytes:
    """A real image with other patient attributes.

    None removes one; bytes are written as they are, whatever they break.
    """
    dataset = dcmread(SAGITTAL)
    for keyword, value in changes.items():
        if value is None:
            dataset.pop(keyword, None)
        elif isinstance(value, bytes):
            tag = Tag(keyword)
            vr, length = dictionary_VR(tag), len(value)
            dataset[tag] = RawDataElement(tag, vr, length, value, 0, False, True)
        else:
            setattr(dataset, keyword, value)
    return encoded(dataset)


def made_of(data: bytes) -> list[Dataset]:
    """The results of an image, written and read again."""
    header = read_header(data)
    return [
        dcmread(io.BytesIO(encoded(dataset)))
        for dataset in results([header], series_of([finding(header)]))
    ]


def dataset_text(dataset: Dataset, keyword: str) -> str:
    """All values of an attribute."""
    value = dataset[keyword].value
    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)


NAMES = {
    "ISO_IR 100": "Müßig^José",
    "ISO_IR 192": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "ISO_IR 144": "Иванова^Анна",
    "GB18030": "Wang^XiaoDong=王^小东",
}


@needs_tools
@pytest.mark.parametrize("charset", NAMES)
def test_name_survives_any_character_set(charset: str, tmp_path: Path) -> None:
    data = source(SpecificCharacterSet=charset, PatientName=NAMES[charset])
    for dataset in made_of(data):
        assert str(dataset.PatientName) == NAMES[charset]
        assert dataset.SpecificCharacterSet == "ISO_IR 192"
        assert complaints(dataset, tmp_path) == []


def test_name_in_japanese_escape_sequences() -> None:
    raw = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"
    charsets = ["", "ISO 2022 IR 87"]
    name = PersonName(raw, convert_encodings(charsets))
    for dataset in made_of(source(SpecificCharacterSet=charsets, PatientName=name)):
        assert str(dataset.PatientName) == "Yamada^Tarou=山田^太郎"


@pytest.mark.parametrize(
    ("keyword", "raw", "expected"),
    [
        (
            "PatientName",
            b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab= ",
            "Zhang^XiaoDong=张^小东",
        ),
        ("PatientID", b"\x1b$)A\xd5\xc51 ", "张1"),
        ("StudyDescription", b"\x1b$)A\xcd\xb7 MR ", "头 MR"),
    ],
)
def test_text_in_chinese_escape_sequences(keyword: str, raw: bytes, expected: str) -> None:
    # pydicom cannot write this set.
    stand_in = "Q" * len(raw)
    changes = {"SpecificCharacterSet": ["", "ISO 2022 IR 58"], keyword: stand_in}
    data = source(**changes).replace(stand_in.encode(), raw)
    for dataset in made_of(data):
        assert str(dataset[keyword].value) == expected


@pytest.mark.parametrize(
    ("charset", "raw", "expected"),
    [
        pytest.param(b"ISO_IR 203", b"\xbcuf^\xb4an \xa4", "Œuf^Žan €", id="Latin 9"),
        pytest.param(
            b"\\ISO 2022 IR 203", b"A^\x1b-b\xbcuf^\x1b-b\xb4", "A^Œuf^Ž", id="Latin 9 by escape"
        ),
        pytest.param(b"ISO_IR 999", b"M\xfc\xdfig ", "Müßig", id="unknown"),
        pytest.param(None, b"M\xfc\xdfig ", "Müßig", id="none"),
    ],
)
def test_name_of_a_character_set_that_pydicom_does_not_know(
    charset: bytes | None, raw: bytes, expected: str
) -> None:
    """What is unknown, or not stated, is taken for Latin 1."""
    # pydicom cannot write these sets.
    known = None if charset is None else charset[:-3].decode() + "100"
    stand_in = "Q" * len(raw)
    data = source(SpecificCharacterSet=known, PatientName=stand_in)
    data = data.replace((known or "none").encode(), charset or b"none")
    for dataset in made_of(data.replace(stand_in.encode(), raw)):
        assert str(dataset.PatientName) == expected


def test_plain_text_names_no_character_set() -> None:
    for dataset in made_of(source(SpecificCharacterSet="ISO_IR 100", PatientName="Doe^Jane")):
        assert "SpecificCharacterSet" not in dataset


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        pytest.param("PatientBirthDate", b"unknown!", "", id="no date"),
        pytest.param("PatientBirthDate", b"20250230", "", id="impossible date"),
        pytest.param("PatientBirthDate", b"1999.12.31", "19991231", id="date of ACR-NEMA"),
        pytest.param("StudyTime", b"25:61", "", id="impossible time"),
        pytest.param("StudyTime", b"10:20:30", "102030", id="time of ACR-NEMA"),
        pytest.param("PatientSex", b"WEIBLICH", "", id="no sex of the standard"),
        pytest.param("PatientSex", None, "", id="missing"),
        pytest.param("PatientID", None, "", id="missing identifier"),
        pytest.param("AccessionNumber", None, "", id="missing accession number"),
        pytest.param("ReferringPhysicianName", None, "", id="missing physician"),
        pytest.param("PatientAge", b"forty", None, id="no age"),
        pytest.param("PatientWeight", b"-1", None, id="negative weight"),
        pytest.param("PatientWeight", b"heavy", None, id="no weight"),
        pytest.param("TimezoneOffsetFromUTC", b"+01:00", None, id="time zone with a colon"),
        pytest.param("TimezoneOffsetFromUTC", b"+1500", None, id="impossible time zone"),
        pytest.param("TimezoneOffsetFromUTC", b"-0000", None, id="time zone of another UTC"),
        pytest.param("StudyDescription", b"x" * 80, "x" * 64, id="long description"),
    ],
)
@needs_tools
def test_what_is_wrong_in_the_source_is_not_wrong_in_the_results(
    keyword: str, value: bytes | None, expected: str | None, tmp_path: Path
) -> None:
    for dataset in made_of(source(**{keyword: value})):
        found = dataset.get(keyword)
        assert (found if found is None else str(found)) == expected
        assert complaints(dataset, tmp_path) == []


def test_identifiers_are_copied_as_they_are() -> None:
    """An archive compares them, so a rule that they break must not change them."""
    long = "P" * 70
    data = source(PatientID=long.encode(), AccessionNumber=b"A-123456789-123456789")
    for dataset in made_of(data):
        assert dataset.PatientID == long
        assert dataset.AccessionNumber == "A-123456789-123456789"


@pytest.mark.parametrize(
    "keyword", ["PatientID", "PatientName", "AccessionNumber", "StudyID"], ids=str
)
@pytest.mark.parametrize(
    ("stated", "kept"),
    [
        pytest.param(b"  A1", "  A1", id="leading spaces"),
        pytest.param(b"A\t1", "A\t1", id="a tab"),
        pytest.param(b"A  1  ", "A  1", id="padding"),
        pytest.param(b"A1\0\0", "A1", id="padding with zeros"),
        pytest.param(b" A\\\\1", " A\\\\1", id="an empty value between others"),
        pytest.param(b"  ", "", id="padding alone"),
    ],
)
def test_identifiers_lose_only_their_padding(keyword: str, stated: bytes, kept: str) -> None:
    """An archive that compares leading spaces would file the results under another patient."""
    for dataset in made_of(source(**{keyword: stated})):
        assert dataset_text(dataset, keyword) == kept


def test_padding_and_control_characters_make_no_other_patient() -> None:
    written = [source(PatientID=stated) for stated in (b"A1", b"  A1", b"A1  ", b"A\t1")]
    assert len({patient.whose(read_header(data)) for data in written}) == 1


@needs_tools
@pytest.mark.parametrize("offset", ["+0530", "-1200", "+1400"])
def test_time_zone_of_the_source_is_that_of_all_dates(offset: str, tmp_path: Path) -> None:
    made = CREATED.astimezone(datetime.strptime(offset, "%z").tzinfo)
    for dataset in made_of(source(TimezoneOffsetFromUTC=offset)):
        assert dataset.TimezoneOffsetFromUTC == offset
        for kind in ("Content", "InstanceCreation"):
            assert dataset[f"{kind}Date"].value == made.strftime("%Y%m%d")
            assert dataset[f"{kind}Time"].value == made.strftime("%H%M%S")
        assert complaints(dataset, tmp_path) == []


def test_deidentified_patient_stays_marked() -> None:
    changes = {"PatientIdentityRemoved": "YES", "DeidentificationMethod": None}
    for dataset in made_of(source(**changes)):
        assert dataset.PatientIdentityRemoved == "YES"
        assert dataset.DeidentificationMethod == "not stated in the source"


TRIAL = {
    "ClinicalTrialSponsorName": "Sponsor",
    "ClinicalTrialProtocolID": "P-1",
    "ClinicalTrialProtocolName": "Protocol",
    "ClinicalTrialSiteID": "7",
    "ClinicalTrialSiteName": "Site",
    "ClinicalTrialSubjectID": "SUBJ7",
}

DOG = {
    "PatientSpeciesDescription": "Canine",
    "PatientBreedDescription": "Boxer",
    "PatientSexNeutered": "ALTERED",
    "ResponsiblePerson": "Doe^Jane",
    "ResponsiblePersonRole": "OWNER",
}


@needs_tools
@pytest.mark.parametrize(
    "stated",
    [
        pytest.param(TRIAL, id="trial"),
        pytest.param(DOG, id="animal"),
        pytest.param({"LongitudinalTemporalInformationModified": "MODIFIED"}, id="moved dates"),
    ],
)
def test_what_the_source_says_of_its_subject_is_copied(
    stated: dict[str, str], tmp_path: Path
) -> None:
    for dataset in made_of(source(**stated)):
        assert {keyword: dataset.get(keyword) for keyword in stated} == stated
        assert complaints(dataset, tmp_path) == []


@needs_tools
@pytest.mark.parametrize(
    ("stated", "kept"),
    [
        pytest.param({"ClinicalTrialSubjectID": "SUBJ7"}, set(), id="a trial without a protocol"),
        pytest.param(
            {key: TRIAL[key] for key in list(TRIAL)[:-1]}, set(), id="a trial without a subject"
        ),
        pytest.param({"LongitudinalTemporalInformationModified": "MAYBE"}, set(), id="no value"),
        pytest.param({"PatientBreedDescription": "Boxer"}, set(), id="a breed of no species"),
        pytest.param(
            {"PatientSpeciesDescription": "Canine", "ResponsiblePerson": "Doe^Jane"},
            {"PatientSpeciesDescription"},
            id="a person without a role",
        ),
    ],
)
def test_a_module_that_the_source_leaves_incomplete_is_not_written(
    stated: dict[str, str], kept: set[str], tmp_path: Path
) -> None:
    for dataset in made_of(source(**stated)):
        assert {keyword for keyword in stated if dataset.get(keyword)} == kept
        assert complaints(dataset, tmp_path) == []


@needs_tools
def test_the_species_may_be_a_code(tmp_path: Path) -> None:
    species = Dataset()
    species.CodeValue, species.CodingSchemeDesignator = "448771007", "SCT"
    species.CodeMeaning = "Canis lupus subspecies familiaris"
    for dataset in made_of(source(PatientSpeciesCodeSequence=[species])):
        assert dataset.PatientSpeciesCodeSequence[0].CodeValue == species.CodeValue
        assert complaints(dataset, tmp_path) == []


@needs_tools
@pytest.mark.parametrize("versions", [["syngo MR E11"], ["syngo MR E11", "VE11C", "SW 7"]], ids=str)
def test_every_version_of_the_scanner_is_named(versions: list[str], tmp_path: Path) -> None:
    for dataset in made_of(source(SoftwareVersions=versions)):
        scanner = dataset.ContributingEquipmentSequence[0]
        assert dataset_text(scanner, "SoftwareVersions").split("\\") == versions
        assert complaints(dataset, tmp_path) == []


PLANTED = "Zuckertort"


def test_patient_reaches_no_log_and_no_warning(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    planted = PLANTED.encode()
    data = source(PatientName=planted, PatientID=planted + b"\\2", PatientBirthDate=planted)
    with caplog.at_level(logging.DEBUG):
        made = made_of(data)
    assert [PLANTED in dataset.PatientName for dataset in made] == [True] * 3
    assert PLANTED not in caplog.text
    printed = capsys.readouterr()
    assert PLANTED not in printed.out + printed.err
