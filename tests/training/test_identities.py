"""Whom DICOM objects show: grouped by patient, study and series, and named nowhere."""

from pathlib import Path

import numpy as np
import pytest

from tests.contract.samples import RANGE, mr_object
from tests.training.layouts import groups_of
from training.datasets import read_folders
from training.patients import known_persons, persons_named


def _object(path: Path, **attributes: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([*path.as_posix().encode()]).integers(
        0, 999, (64, 64), np.uint16
    )
    path.write_bytes(mr_object(pixels, attributes=RANGE | attributes))


@pytest.mark.parametrize(
    ("first", "second", "grouped"),
    [
        ({"PatientID": "A-17"}, {"PatientID": "a-17 "}, True),
        ({"PatientID": "A-17"}, {"PatientID": "A-18"}, False),
        ({"StudyInstanceUID": "1.2.3"}, {"StudyInstanceUID": "1.2.3"}, True),
        (
            {"PatientID": "x1", "StudyInstanceUID": "1.2.3"},
            {"PatientID": "x2", "StudyInstanceUID": "1.2.3"},
            True,
        ),
        ({"SeriesInstanceUID": "1.2.3"}, {"SeriesInstanceUID": "1.2.3"}, True),
        ({"StudyInstanceUID": "1.2.3"}, {"SeriesInstanceUID": "1.2.3"}, False),
        ({}, {}, False),
    ],
)
def test_objects_of_one_patient_study_or_series_are_one_group(
    tmp_path: Path, first: dict[str, str], second: dict[str, str], grouped: bool
) -> None:
    blank = {"PatientID": "", "StudyInstanceUID": "", "SeriesInstanceUID": ""}
    _object(tmp_path / "one" / "glioma" / "1.dcm", **blank | first)
    _object(tmp_path / "one" / "notumor" / "2.dcm", **blank | second)
    _object(tmp_path / "other" / "notumor" / "2.dcm", **blank | second)
    images = read_folders([tmp_path / "one", tmp_path / "other"])
    groups = groups_of(images)
    assert (groups[0] == groups[1]) is grouped
    # Two sites may number their patients alike.
    unique = grouped and first.keys() & second.keys() != {"PatientID"}
    assert (groups[0] == groups[2]) is unique
    assert all(file.patient is ("PatientID" in first) for file in images.files)


def test_halves_of_a_data_set_have_the_same_patient_ids(tmp_path: Path) -> None:
    for number, part in enumerate(("Training", "Testing")):
        uids = dict.fromkeys(("StudyInstanceUID", "SeriesInstanceUID"), f"1.2.{number}")
        _object(tmp_path / part / "glioma" / "1.dcm", PatientID="A-17", **uids)
    assert groups_of(read_folders([tmp_path / "Training", tmp_path / "Testing"])) == [0, 0]


def test_what_names_a_patient_stays_inside(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from training.contactsheet import run_audit

    for number in range(2):
        _object(
            tmp_path / "set" / "glioma" / f"{number}.dcm", PatientID="DOE-JANE", PatientName="DOE"
        )
    run_audit([tmp_path / "set"], tmp_path / "out")
    images = read_folders([tmp_path / "set"])
    identities = {identity for file in images.files for identity in file.identities}
    assert identities
    assert "DOE" not in repr(images.files)
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir()).decode("latin-1")
    said = "".join(capfd.readouterr()) + caplog.text
    for secret in ("DOE", *identities):
        assert secret not in written + said


@pytest.mark.parametrize("patient", ["", "A-17"])
def test_a_study_or_a_series_groups_slices_and_names_nobody(tmp_path: Path, patient: str) -> None:
    for number in range(2):
        uids = {"StudyInstanceUID": f"1.2.{number}", "SeriesInstanceUID": f"1.3.{number}"}
        for slice_ in "ab":
            path = tmp_path / "set" / "glioma" / f"{number}{slice_}.dcm"
            _object(path, PatientID=patient and f"{patient}{number}", **uids)
    images = read_folders([tmp_path / "set"])
    assert groups_of(images) == [0, 0, 1, 1]
    assert persons_named(images, np.arange(4)) == {"set": bool(patient)}
    assert [file.patient for file in images.files] == [bool(patient)] * 4
    count, linked = (4, "") if patient else (0, "; a study or series links 4 others")
    assert f"or a DICOM header names: {count}{linked}\n" in f"{images.describe()}\n"


def test_a_study_of_one_slice_links_none(tmp_path: Path) -> None:
    for number in range(3):
        uids = {"StudyInstanceUID": f"1.2.{number}", "SeriesInstanceUID": f"1.3.{number}"}
        _object(tmp_path / "set" / "glioma" / f"{number}.dcm", PatientID="", **uids)
        _object(tmp_path / "other" / "glioma" / f"{number}.dcm", PatientID="", **uids)
    images = read_folders([tmp_path / "set"])
    assert "names: 0\n" in f"{images.describe()}\n"
    assert known_persons(images, np.arange(3))["by_study"] == []
    # They do where another data set has a slice of the same study.
    both = read_folders([tmp_path / "set", tmp_path / "other"])
    assert "; a study or series links 6 others" in both.describe()
    assert known_persons(both, np.arange(3))["by_study"] == ["other", "set"]
