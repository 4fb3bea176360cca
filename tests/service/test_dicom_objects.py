"""Results as DICOM objects: valid for other tools, and true to their source."""

from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from contract.answer import Decision
from service.dicom.findings import DISCLAIMER, SeriesFindings
from service.dicom.headers import read_header
from service.errors import UnidentifiedSource
from tests.support.data import require_data
from tests.support.results import (
    AXIAL,
    CREATED,
    MODEL,
    SAGITTAL,
    SMALL,
    Maker,
    complaints,
    enhanced,
    finding,
    multi_frame,
    needs_tools,
    of_file,
    results,
    series_of,
    shifted,
    volume,
)

CASES: dict[str, Maker] = {
    "explicit, oblique sagittal": lambda: of_file(SAGITTAL),
    "implicit, oblique axial": lambda: of_file(AXIAL),
    "implicit, no mask": lambda: of_file(AXIAL, mask=False),
    "nothing found": lambda: of_file(SAGITTAL, Decision.NO_TUMOR),
    "indeterminate": lambda: of_file(SAGITTAL, Decision.REFER),
    "64 x 64 pixels": lambda: of_file(SMALL),
    "series": volume,
    "series with failed images": lambda: volume(failed=2),
    "Enhanced MR": lambda: multi_frame(legacy=False),
    "Legacy Converted Enhanced MR": lambda: multi_frame(legacy=True),
}


@needs_tools
@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_other_tools_find_no_error(make: Maker, tmp_path: Path) -> None:
    made = make()
    assert {dataset.SOPInstanceUID: complaints(dataset, tmp_path) for dataset in made} == {
        dataset.SOPInstanceUID: [] for dataset in made
    }


@needs_tools
@pytest.mark.data
@pytest.mark.parametrize("name", ["siemens_mprage_sagittal", "axial_t1_defaced"])
def test_other_tools_find_no_error_in_results_of_real_series(name: str, tmp_path: Path) -> None:
    folder = require_data(f"dicom/{name}") / "dicom" / name
    headers = [read_header(path.read_bytes()) for path in sorted(folder.glob("*.dcm"))]
    made = results(headers, series_of([finding(header) for header in headers]))
    assert [dataset.Modality for dataset in made] == ["SR", "OT", "SEG"]
    assert [complaints(dataset, tmp_path) for dataset in made] == [[], [], []]


def test_there_is_a_report_a_capture_and_a_segmentation() -> None:
    assert [dataset.SOPClassUID for dataset in volume()] == [
        ComprehensiveSRStorage,
        SecondaryCaptureImageStorage,
        SegmentationStorage,
    ]


@pytest.mark.parametrize(
    "make",
    [lambda: of_file(AXIAL, mask=False), lambda: of_file(AXIAL, Decision.NO_TUMOR)],
    ids=["no mask", "nothing found"],
)
def test_without_a_region_there_is_no_segmentation(make: Maker) -> None:
    assert [dataset.Modality for dataset in make()] == ["SR", "OT"]


@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_objects_lie_in_their_source_study_in_series_of_their_own(make: Maker) -> None:
    made = make()
    assert len({dataset.StudyInstanceUID for dataset in made}) == 1
    assert len({dataset.SeriesInstanceUID for dataset in made}) == len(made)
    assert len({dataset.SeriesNumber for dataset in made}) == len(made)
    for dataset in made:
        assert DISCLAIMER in dataset.SeriesDescription
        assert dataset.ContentQualification == "RESEARCH"
        assert dataset.DeviceSerialNumber == MODEL.manifest_digest[:16]
        assert MODEL.label in dataset.SoftwareVersions
        assert MODEL.manifest_digest in str(dataset.ContributingEquipmentSequence)
        assert str(dataset.ContentDate) == CREATED.strftime("%Y%m%d")


def referenced(dataset: Dataset) -> set[str]:
    """Every object that a dataset refers to."""
    return {
        element.value
        for element in dataset.iterall()
        if element.keyword == "ReferencedSOPInstanceUID"
    }


@pytest.mark.parametrize("legacy", [True, False], ids=["legacy converted", "enhanced"])
def test_references_to_a_multi_frame_source_name_object_and_frame(legacy: bool) -> None:
    source = read_header(enhanced(legacy))
    report, capture, segmentation = multi_frame(legacy)
    assert referenced(report) == {source.SOPInstanceUID, segmentation.SOPInstanceUID}
    assert referenced(capture) == referenced(segmentation) == {source.SOPInstanceUID}
    assert capture.SourceImageSequence[0].ReferencedFrameNumber == 5
    frames = [
        item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for item in segmentation.PerFrameFunctionalGroupsSequence
    ]
    assert sorted(frames) == [2, 5]
    kept = source.SOPClassUID == EnhancedMRImageStorage
    assert kept is not legacy


def test_references_to_a_series_name_its_images() -> None:
    headers = [read_header(data) for data in shifted()]
    uids = [header.SOPInstanceUID for header in headers]
    report, capture, segmentation = volume()
    assert referenced(report) == {*uids, segmentation.SOPInstanceUID}
    assert referenced(capture) == {uids[4]}
    assert referenced(segmentation) == {uids[1], uids[4]}
    series = segmentation.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == headers[0].SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence} == {
        uids[1],
        uids[4],
    }


def test_source_without_geometry_gives_no_segmentation() -> None:
    header = read_header(SAGITTAL.read_bytes())
    del header.ImagePositionPatient
    assert [item.Modality for item in results([header], series_of([finding(header)]))] == [
        "SR",
        "OT",
    ]


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_source_without_identity_is_refused(keyword: str) -> None:
    header = read_header(SAGITTAL.read_bytes())
    said = series_of([finding(header)])
    delattr(header, keyword)
    with pytest.raises(UnidentifiedSource) as refused:
        results([header], said)
    assert refused.value.status == 422


@pytest.mark.parametrize(
    "uid",
    ["1.2.840.10008.5.1.4.1.1.3", "1.2.840.10008.9.9", "1.2.3.4", ExplicitVRLittleEndian],
    ids=["retired", "unknown", "private", "no class"],
)
def test_source_of_another_sop_class_is_refused(uid: str) -> None:
    header = read_header(SAGITTAL.read_bytes())
    header.SOPClassUID = uid
    with pytest.raises(UnidentifiedSource):
        results([header], series_of([finding(header)]))


@needs_tools
@pytest.mark.parametrize("mask", [True, False], ids=["mask", "box"])
@pytest.mark.parametrize("uid", [CTImageStorage, SecondaryCaptureImageStorage])
def test_source_with_wrong_tags(uid: str, mask: bool, tmp_path: Path) -> None:
    """As a site may let them in whose tags are wrong."""
    header = read_header(SAGITTAL.read_bytes())
    header.SOPClassUID, header.Modality = uid, "OT"
    made = results([header], series_of([finding(header, mask=mask)]))
    assert [complaints(item, tmp_path) for item in made] == [[]] * (3 if mask else 2)


@needs_tools
def test_what_was_lost_in_the_source_is_said_in_the_results(tmp_path: Path) -> None:
    header = read_header(SAGITTAL.read_bytes())
    header.LossyImageCompression = "01"
    header.LossyImageCompressionRatio = [2.5, 12.5]
    header.LossyImageCompressionMethod = ["ISO_14495_1", "ISO_10918_1"]
    made = {item.Modality: item for item in results([header], series_of([finding(header)]))}
    for kind in ("OT", "SEG"):
        assert made[kind].LossyImageCompression == "01"
        assert made[kind].LossyImageCompressionRatio == [2.5, 12.5]
        assert made[kind].LossyImageCompressionMethod == ["ISO_14495_1", "ISO_10918_1"]
        assert complaints(made[kind], tmp_path) == []


@pytest.mark.parametrize("keyword", ["PatientID", "IssuerOfPatientID"])
def test_a_series_of_several_patients_is_refused(keyword: str) -> None:
    first, second = (read_header(data) for data in shifted()[:2])
    setattr(first, keyword, "one")
    setattr(second, keyword, "another")
    with pytest.raises(UnidentifiedSource):
        results([first, second], series_of([finding(first), finding(second)]))


@pytest.mark.parametrize("stating", [0, 1])
def test_an_issuer_that_only_some_images_state_is_that_of_all(stating: int) -> None:
    headers = [read_header(data) for data in shifted()[:2]]
    headers[stating].IssuerOfPatientID = "HOSPITAL"
    for item in results(headers, series_of([finding(header) for header in headers])):
        assert item.IssuerOfPatientID == "HOSPITAL"
    headers[1 - stating].IssuerOfPatientID = "PRACTICE"
    with pytest.raises(UnidentifiedSource):
        results(headers, series_of([finding(header) for header in headers]))


def test_findings_must_belong_to_the_sources() -> None:
    first, second = (read_header(data) for data in shifted()[:2])
    with pytest.raises(ValueError, match="none of the images"):
        results([first], series_of([finding(second)]))
    small = read_header(SMALL.read_bytes())
    with pytest.raises(ValueError, match="several series"):
        results([first, small], series_of([finding(first)]))
    with pytest.raises(ValueError, match="index of a slice"):
        SeriesFindings((), 0.5, Decision.TUMOR, 0, "")


def test_of_several_losses_the_worst_is_said() -> None:
    headers = [read_header(data) for data in shifted(3)]
    for header, ratio in zip(headers, (4, 20, 8), strict=True):
        header.LossyImageCompression = "01"
        header.LossyImageCompressionRatio = ratio
    made = results(headers, series_of([finding(header) for header in headers]))
    assert {item.LossyImageCompressionRatio for item in made if item.Modality == "SEG"} == {20}


@needs_tools
def test_a_classic_image_that_states_one_frame_is_referred_to_as_a_whole(tmp_path: Path) -> None:
    header = read_header(SAGITTAL.read_bytes())
    header.NumberOfFrames = 1
    for made in results([header], series_of([finding(header)])):
        assert complaints(made, tmp_path) == []


def test_a_jpeg_lost_something_whatever_its_header_says() -> None:
    header = read_header(SAGITTAL.read_bytes())
    header.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    for made in results([header], series_of([finding(header)]))[1:]:
        assert made.LossyImageCompression == "01"
        assert made.LossyImageCompressionMethod == "ISO_10918_1"


def _code(**attributes: str) -> Dataset:
    code = Dataset()
    code.CodingSchemeDesignator = "99LOCAL"
    code.CodeMeaning = "MR of the head"
    for keyword, value in attributes.items():
        if value:
            setattr(code, keyword, value)
        else:
            code.pop(keyword, None)
    return code


CODES: dict[str, tuple[dict[str, str], bool]] = {
    "whole": ({"CodeValue": "MRHEAD"}, True),
    "of a context group": (
        {
            "CodeValue": "MRHEAD",
            "ContextIdentifier": "101",
            "ContextGroupVersion": "20240101",
            "MappingResource": "DCMR",
        },
        True,
    ),
    "URN": ({"URNCodeValue": "urn:oid:1.2.3", "CodingSchemeDesignator": ""}, True),
    "without a meaning": ({"CodeValue": "MRHEAD", "CodeMeaning": ""}, False),
    "without a scheme": ({"CodeValue": "MRHEAD", "CodingSchemeDesignator": ""}, False),
    "too long, and cut off another one": ({"CodeValue": "M" * 17}, False),
}


@needs_tools
@pytest.mark.filterwarnings("ignore:.*exceeds the maximum length:UserWarning")
@pytest.mark.parametrize(("attributes", "is_kept"), CODES.values(), ids=CODES.keys())
def test_a_code_is_copied_whole_or_not_at_all(
    attributes: dict[str, str], is_kept: bool, tmp_path: Path
) -> None:
    code = _code(**attributes)
    header = read_header(SAGITTAL.read_bytes())
    header.ProcedureCodeSequence = [code]
    for made in results([header], series_of([finding(header)])):
        assert complaints(made, tmp_path) == []
        found = list(made.get("ProcedureCodeSequence", []))
        assert found == ([code] if is_kept else [])


@needs_tools
def test_who_issued_an_accession_number_is_copied_whole(tmp_path: Path) -> None:
    issuer = Dataset()
    issuer.LocalNamespaceEntityID = "HOSPITAL"
    issuer.UniversalEntityID = "1.2.3"
    issuer.UniversalEntityIDType = "ISO"
    header = read_header(SAGITTAL.read_bytes())
    header.IssuerOfAccessionNumberSequence = [issuer]
    for made in results([header], series_of([finding(header)])):
        assert complaints(made, tmp_path) == []
        assert list(made.IssuerOfAccessionNumberSequence) == [issuer]
