"""Results as DICOM objects: valid for other tools, and true to their source."""

import io
from collections.abc import Collection, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    ComprehensiveSRStorage,
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from contract.answer import Decision, Outputs, Rules
from contract.decoding import open_source
from contract.manifest import RegionRecord
from contract.policy import DEFAULT_POLICY
from contract.preprocessing import DEFAULT_SPEC
from contract.space import EmbeddingSpace
from service.dicom import capture as capture_module
from service.dicom.answer import _with_pixels
from service.dicom.codes import DECISION_CODES, NEOPLASM_OF_BRAIN
from service.dicom.drawing import Caption, draw
from service.dicom.findings import DISCLAIMER, ModelIdentity, SeriesFindings
from service.dicom.headers import read_header
from service.dicom.making import SERIES_NUMBER_BASE
from service.dicom.objects import build
from service.dicom.report import MAX_SLICES
from service.dicom.series import sort_into_series
from service.errors import UnidentifiedSource
from service.jobs import Group, Job, Upload
from tests.support.data import require_data
from tests.support.results import (
    AXIAL,
    CREATED,
    MODEL,
    SAGITTAL,
    SMALL,
    Maker,
    complaints,
    encoded,
    enhanced,
    finding,
    frame_decisions,
    needs_tools,
    of_file,
    results,
    series_of,
    shifted,
)
from tests.support.service import RULES


def volume(mask: bool = True, failed: int = 0) -> list[Dataset]:
    """Results of five single-frame images, two of which stand out."""
    headers = [read_header(data) for data in shifted()]
    said = [
        finding(header, decision, tumor=tumor, mask=mask)
        for header, (_, decision, tumor) in zip(headers, frame_decisions(5, [2, 5]), strict=True)
    ]
    return results(headers, series_of(said, failed))


def multi_frame(legacy: bool, lost: Collection[int] = ()) -> list[Dataset]:
    """Results of the same volume in one object, of which some frames could not be predicted."""
    header = read_header(enhanced(legacy))
    said = [
        finding(header, decision, frame, tumor)
        for frame, decision, tumor in frame_decisions(5, [2, 5])
        if frame not in lost
    ]
    return results([header], series_of(said, len(lost)))


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


def read_report(dataset: Dataset) -> Dataset:
    """A report through highdicom."""
    return hd.sr.srread(io.BytesIO(encoded(dataset)))


def content_of(report: Dataset) -> hd.sr.MeasurementReport:
    """Its content, as TID 1500."""
    assert isinstance(report, hd.sr.ComprehensiveSR)
    assert isinstance(report.content, hd.sr.MeasurementReport)
    return report.content


def test_report_reads_back_with_highdicom() -> None:
    dataset, _, segmentation = volume()
    report = read_report(dataset)
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert report.CompletionFlag == "COMPLETE"
    content = content_of(report)
    (observer,) = content.get_observer_contexts()
    device = observer.observer_identifying_attributes
    assert isinstance(device, hd.sr.DeviceObserverIdentifyingAttributes)
    assert device.model_name == MODEL.label
    series = content.get_image_measurement_groups()[0]
    assert series.tracking_identifier == "Series"
    assert series.finding_type == NEOPLASM_OF_BRAIN
    assert [item.value for item in series.get_measurements()] == [85.0]
    (evaluation,) = series.get_qualitative_evaluations(name=NEOPLASM_OF_BRAIN)
    assert evaluation.value == DECISION_CODES[Decision.TUMOR]
    slices = content.get_planar_roi_measurement_groups()
    (segment,) = segmentation.SegmentSequence
    for group in slices:
        assert group.tracking_identifier == segment.TrackingID
        assert group.tracking_uid == segment.TrackingUID
    assert series.tracking_uid != segment.TrackingUID
    for group, share in zip(slices, (85.0, 82.0), strict=True):
        values = {item.name.meaning: item.value for item in group.get_measurements()}
        assert values["Probability"] == share
        assert values["Probability of glioma"] == pytest.approx(share - 3)
        assert values["Area"] > 0
        assert group.referenced_segmentation_frame is not None


def test_report_without_mask_outlines_the_box() -> None:
    report = read_report(of_file(AXIAL, mask=False)[0])
    (group,) = content_of(report).get_planar_roi_measurement_groups()
    header = read_header(AXIAL.read_bytes())
    box = finding(header).box
    assert box is not None
    assert isinstance(group.roi, hd.sr.ImageRegion)
    corners = group.roi.value
    assert corners.min(0).tolist() == [box.left, box.top]
    assert corners.max(0).tolist() == [box.right, box.bottom]


def test_report_names_algorithm_and_manifest_and_says_what_it_is_not_for() -> None:
    texts = {element.value for element in volume()[0].iterall() if element.keyword == "TextValue"}
    assert {MODEL.name, str(MODEL.version), f"manifest_sha256={MODEL.manifest_digest}"} <= texts
    (comment,) = (text for text in texts if DISCLAIMER in text)
    assert comment.startswith(f"{DISCLAIMER}. Result of research software, not verified")
    assert "5 slices analyzed, 2 of them suspicious." in comment


def test_report_of_an_incomplete_series_is_partial() -> None:
    report = volume(failed=2)[0]
    assert report.CompletionFlag == "PARTIAL"
    assert report.CompletionFlagDescription == "2 images not analyzed"


def test_report_lists_the_most_suspicious_slices_of_many() -> None:
    header = read_header(enhanced(legacy=False))
    count = MAX_SLICES + 3
    said = [
        finding(header, Decision.TUMOR, frame, 0.9 - 0.001 * frame, mask=False)
        for frame in range(1, count + 1)
    ]
    report = results([header], series_of(said))[0]
    groups = content_of(read_report(report)).get_planar_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == [
        f"Slice {number}" for number in range(1, MAX_SLICES + 1)
    ]
    assert report.CompletionFlagDescription == "3 suspicious slices not listed"


def test_capture_shows_the_slice_between_its_captions() -> None:
    header = read_header(SAGITTAL.read_bytes())
    grey = np.full((header.Rows, header.Columns), 100, np.uint8)
    said = finding(header, pixels=grey)
    assert said.box is not None
    capture = results([header], series_of([said]))[1]
    pixels = dcmread(io.BytesIO(encoded(capture))).pixel_array
    top = (pixels.shape[0] - 512) // 2 - 1
    assert pixels.shape[1:] == (512, 3)
    assert capture.BurnedInAnnotation == "YES"
    assert capture.ConversionType == "WSD"
    colours = {tuple(colour) for colour in pixels[top : top + 512].reshape(-1, 3).tolist()}
    assert {(100, 100, 100), (255, 64, 64), (255, 208, 0)} <= colours
    # Text above and below, and none of it on the slice.
    assert (pixels[: top - 2] > 128).any()
    assert (pixels[-60:] > 128).any()


@pytest.mark.parametrize(
    ("label", "words"), [("krank", "krank 50.0%"), ("notumor", "no tumor 50.0%")]
)
def test_capture_says_of_equally_probable_classes_the_one_that_is_answered(
    label: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def noted(text: str, *rest: Any) -> Caption:
        written.append(text)
        return Caption(text, *rest)

    monkeypatch.setattr(capture_module, "Caption", noted)
    header = read_header(SAGITTAL.read_bytes())
    tied = {"krank": 0.5, "notumor": 0.5}
    said = replace(finding(header, tumor=0.5), label=label, probabilities=tied)
    results([header], series_of([said]))
    assert f"This slice (1 of 1): tumor 50.0%, {words}" in written


@pytest.mark.parametrize(
    ("size", "expected"),
    [((64, 32), (512, 256)), ((700, 100), (700, 100)), ((1000, 4000), (512, 2048))],
    ids=["small", "as it is", "large"],
)
def test_picture_has_a_size_that_can_be_read(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    grey = np.full(size, 90, np.uint8)
    picture = draw(grey, None, None, size, [], [Caption("x")])
    shown = (picture == 90).all(2)
    assert (shown.any(1).sum(), shown.any(0).sum()) == expected


def test_capture_of_nothing_found_has_no_outline() -> None:
    header = read_header(SAGITTAL.read_bytes())
    grey = np.full((header.Rows, header.Columns), 100, np.uint8)
    said = finding(header, Decision.NO_TUMOR, pixels=grey)
    pixels = results([header], series_of([said]))[1].pixel_array
    assert (pixels == (255, 64, 64)).all(2).sum() == 0


@pytest.mark.parametrize(
    ("path", "directions"),
    [(SAGITTAL, ["PH", "FP"]), (AXIAL, ["L", "PF"]), (SMALL, ["L", "P"])],
    ids=["sagittal", "axial", "straight axial"],
)
def test_capture_says_how_the_patient_lies(path: Path, directions: list[str]) -> None:
    assert list(of_file(path)[1].PatientOrientation) == directions


def test_same_series_gives_the_same_objects() -> None:
    first, second = volume(), volume()
    assert [encoded(dataset) for dataset in first] == [encoded(dataset) for dataset in second]


def test_order_of_the_images_does_not_matter() -> None:
    headers = [read_header(data) for data in shifted()]
    findings = series_of([finding(header) for header in headers])
    forward = [item.SOPInstanceUID for item in results(headers, findings)]
    assert [item.SOPInstanceUID for item in results(headers[::-1], findings)] == forward


def test_order_of_arrival_does_not_matter() -> None:
    """Two echoes at each place, all slices as suspicious as any other, and one of another plane."""
    files = [AXIAL.read_bytes()]
    for echo in (1, 2):
        for data in shifted(3):
            dataset = dcmread(io.BytesIO(data))
            dataset.SOPInstanceUID = f"1.2.{echo}.{dataset.InstanceNumber}"
            files.append(encoded(dataset))
    first = dcmread(io.BytesIO(files[1]))
    across = dcmread(io.BytesIO(files[0]))
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "PatientID", "FrameOfReferenceUID"):
        setattr(across, keyword, first[keyword].value)
    files[0] = encoded(across)

    def made(files: Sequence[bytes]) -> list[bytes]:
        jobs = []
        for data in files:
            job = Job(Upload(None, data), DEFAULT_SPEC, RULES, 0.0, cast("Group", None))
            job.header = read_header(data)
            job.dicom = open_source(data).reference(1)
            job.outcome = Outputs(np.zeros((1, 4), np.float32))
            jobs.append(job)
        entry = {
            "label": "glioma",
            "probabilities": {"glioma": 0.9},
            "tumor_probability": 0.9,
            "decision": "tumor",
        }
        (series,) = sort_into_series(jobs, [entry] * len(jobs), RULES)
        findings = _with_pixels(series, DEFAULT_POLICY)
        return [encoded(item) for item in results(series.headers, findings)]

    expected = made(files)
    assert len(expected) == 2
    assert made(files[::-1]) == expected
    assert made(files[4:] + files[:4]) == expected


def test_another_set_of_images_gives_other_objects_in_the_same_series() -> None:
    headers = [read_header(data) for data in shifted()]
    whole = results(headers, series_of([finding(header) for header in headers]))
    part = results(headers[:3], series_of([finding(header) for header in headers[:3]]))
    for some, other in zip(whole, part, strict=True):
        assert some.SOPInstanceUID != other.SOPInstanceUID
        assert some.SeriesInstanceUID == other.SeriesInstanceUID


@pytest.mark.parametrize("lost", [([], [2]), ([1], [3])], ids=["complete", "as many"])
def test_other_frames_of_an_image_give_other_objects(lost: tuple[list[int], list[int]]) -> None:
    whole, part = (multi_frame(legacy=False, lost=frames) for frames in lost)
    assert [item.Modality for item in whole] == ["SR", "OT", "SEG"]
    for some, other in zip(whole, part, strict=True):
        assert some.SOPInstanceUID != other.SOPInstanceUID
        assert some.SeriesInstanceUID == other.SeriesInstanceUID


def test_other_thresholds_give_other_objects_and_are_in_the_report() -> None:
    header = read_header(SAGITTAL.read_bytes())
    said = series_of([finding(header)])
    moved = replace(MODEL, operation=("tumor_threshold=0.25",))
    usual, other = (build([header], said, model, created=CREATED) for model in (MODEL, moved))
    for one, two in zip(usual, other, strict=True):
        assert one.SOPInstanceUID != two.SOPInstanceUID
        assert one.SeriesInstanceUID != two.SeriesInstanceUID
    texts = {item.value for item in other[0].iterall() if item.keyword == "TextValue"}
    assert {f"manifest_sha256={MODEL.manifest_digest}", "tumor_threshold=0.25"} <= texts


def test_uids_lie_under_the_root() -> None:
    header = read_header(SAGITTAL.read_bytes())
    root = "1.2.826.0.1.3680043.10.1234"
    for dataset in results([header], series_of([finding(header)]), root):
        for uid in (dataset.SOPInstanceUID, dataset.SeriesInstanceUID):
            assert uid.startswith(f"{root}.")
            assert len(uid) <= 64


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


def test_a_report_that_lacks_more_images_is_another_object() -> None:
    """And nothing else is: the pictures do not say how many are missing."""
    complete, partial = ({item.Modality: item for item in volume(failed=n)} for n in (0, 1))
    assert (complete["SR"].CompletionFlag, partial["SR"].CompletionFlag) == ("COMPLETE", "PARTIAL")
    same = {
        kind for kind in complete if complete[kind].SOPInstanceUID == partial[kind].SOPInstanceUID
    }
    assert same == {"OT", "SEG"}


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


def test_one_series_uid_in_two_studies_gives_two_series() -> None:
    """As some anonymisers leave them, the UIDs of the images among them."""
    made = []
    for study in ("1.2.3", "1.2.4"):
        header = read_header(SAGITTAL.read_bytes())
        header.StudyInstanceUID = study
        made.append(results([header], series_of([finding(header)])))
    for one, other in zip(*made, strict=True):
        assert one.SeriesInstanceUID != other.SeriesInstanceUID
        assert one.SOPInstanceUID != other.SOPInstanceUID


def test_findings_must_belong_to_the_sources() -> None:
    first, second = (read_header(data) for data in shifted()[:2])
    with pytest.raises(ValueError, match="none of the images"):
        results([first], series_of([finding(second)]))
    small = read_header(SMALL.read_bytes())
    with pytest.raises(ValueError, match="several series"):
        results([first, small], series_of([finding(first)]))
    with pytest.raises(ValueError, match="index of a slice"):
        SeriesFindings((), 0.5, Decision.TUMOR, 0, "")


def test_areas_and_distances_are_of_pixels_that_are_not_square() -> None:
    header = read_header(SAGITTAL.read_bytes())
    header.PixelSpacing = [1.5, 2]
    said = finding(header)
    assert said.mask is not None
    report = read_report(results([header], series_of([said]))[0])
    (group,) = content_of(report).get_planar_roi_measurement_groups()
    values = {item.name.meaning: item.value for item in group.get_measurements()}
    assert values["Area"] == pytest.approx(3 * said.mask.sum())
    stated = {
        item.ConceptNameCodeSequence[0].CodeMeaning: item.MeasuredValueSequence[0].NumericValue
        for item in _contents(report)
        if "MeasuredValueSequence" in item
    }
    assert stated["Vertical Pixel Spacing"] == 1.5
    assert stated["Horizontal Pixel Spacing"] == 2


def test_pixels_that_are_too_oblong_are_not_measured() -> None:
    """The decoder takes such a spacing for a wrong attribute."""
    header = read_header(SAGITTAL.read_bytes())
    header.PixelSpacing = [50, 0.5]
    made = results([header], series_of([finding(header)]))
    assert [item.Modality for item in made] == ["SR", "OT"]
    meanings = {
        item.ConceptNameCodeSequence[0].CodeMeaning
        for item in _contents(read_report(made[0]))
        if "ConceptNameCodeSequence" in item
    }
    assert not meanings & {"Area", "Vertical Pixel Spacing"}
    assert "Probability" in meanings


def _contents(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", []):
        yield child
        yield from _contents(child)


@needs_tools
def test_a_report_on_slices_that_mostly_cannot_be_judged_is_partial(tmp_path: Path) -> None:
    headers = [read_header(data) for data in shifted(4)]
    flags = []
    for strange in (2, 3):
        said = [
            replace(finding(header, mask=False), in_distribution=number >= strange)
            for number, header in enumerate(headers)
        ]
        report = results(headers, series_of(said))[0]
        flags.append((report.CompletionFlag, report.get("CompletionFlagDescription")))
        assert complaints(report, tmp_path) == []
    assert flags == [("COMPLETE", None), ("PARTIAL", "3 of 4 slices cannot be judged")]


def test_the_report_says_what_is_unlike_the_training_data_and_what_is_referred() -> None:
    headers = [read_header(data) for data in shifted(3)]
    said = [
        finding(headers[0], Decision.NO_TUMOR, tumor=0.1),
        replace(finding(headers[1], Decision.REFER, tumor=0.3, mask=False), in_distribution=False),
        finding(headers[2], Decision.TUMOR, tumor=0.8, mask=False),
    ]
    report = results(headers, series_of(said))[0]
    (text,) = [
        item.TextValue
        for item in report.ContentSequence
        if item.ValueType == "TEXT" and item.ConceptNameCodeSequence[0].CodeMeaning == "Comment"
    ]
    assert "3 slices analyzed, 2 of them suspicious." in text
    assert "1 slices are unlike those that the model was trained on." in text
    groups = content_of(read_report(report)).get_planar_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["Slice 3", "Slice 2"]
    assert len({group.tracking_uid for group in groups}) == 2


@pytest.mark.parametrize("more", [0, 1])
def test_a_report_is_partial_from_one_slice_that_is_left_out(more: int) -> None:
    header = read_header(enhanced(legacy=False))
    said = [
        finding(header, Decision.TUMOR, frame, 0.9 - 0.001 * frame, mask=False)
        for frame in range(1, MAX_SLICES + more + 1)
    ]
    report = results([header], series_of(said))[0]
    assert report.CompletionFlag == ("PARTIAL" if more else "COMPLETE")


def test_objects_name_every_threshold_that_decided() -> None:
    space = EmbeddingSpace(np.zeros((1, 2), np.float32), np.eye(2, dtype=np.float32))
    rules = Rules(
        ("notumor", "tumor"),
        ("tumor",),
        0.25,
        temperature=1.25,
        refer_band=(0.25, 0.75),
        region=RegionRecord(threshold=0.5, min_cells=4, min_tumor_probability=0.3),
        space=space,
        ood_threshold=1.5,
    )
    stored = SimpleNamespace(
        manifest=SimpleNamespace(name="brain-tumor", version=3), manifest_digest="0" * 64
    )
    assert ModelIdentity.of(stored, rules).operation == (  # type: ignore[arg-type]
        "tumor_threshold=0.25",
        "temperature=1.25",
        "refer_low=0.25",
        "refer_high=0.75",
        "ood_threshold=1.5",
        "region_threshold=0.5",
        "region_min_cells=4",
        "region_min_tumor_probability=0.3",
    )


@pytest.mark.parametrize(("number", "expected"), [(12, 120), (9_999, 99_990), (10_000, 0)])
def test_series_numbers_lie_behind_those_of_the_source(number: int, expected: int) -> None:
    header = read_header(SAGITTAL.read_bytes())
    header.SeriesNumber = number
    made = results([header], series_of([finding(header)]))
    assert [item.SeriesNumber for item in made] == [
        SERIES_NUMBER_BASE + expected + kind for kind in (1, 2, 3)
    ]


def test_of_several_losses_the_worst_is_said() -> None:
    headers = [read_header(data) for data in shifted(3)]
    for header, ratio in zip(headers, (4, 20, 8), strict=True):
        header.LossyImageCompression = "01"
        header.LossyImageCompressionRatio = ratio
    made = results(headers, series_of([finding(header) for header in headers]))
    assert {item.LossyImageCompressionRatio for item in made if item.Modality == "SEG"} == {20}


def test_planes_that_differ_are_not_described_as_one() -> None:
    header = read_header(enhanced(legacy=False))
    groups = header.PerFrameFunctionalGroupsSequence
    measures = header.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence")
    measures = groups[2].get("PixelMeasuresSequence", measures)

    groups[2].PixelMeasuresSequence = deepcopy(measures)
    groups[2].PixelMeasuresSequence[0].PixelSpacing = [3, 3]
    report = results([header], series_of([finding(header, mask=False)]))[0]
    names = {item.ConceptNameCodeSequence[0].CodeMeaning for item in _contents(report)}
    assert "Pixel Data Rows" in names
    assert "Vertical Pixel Spacing" not in names


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
