"""The structured report: what it says of a series, and that other tools read it so."""

import io
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import pytest
from pydicom import Dataset

from contract.answer import Decision
from service.dicom.codes import DECISION_CODES, NEOPLASM_OF_BRAIN
from service.dicom.findings import DISCLAIMER
from service.dicom.headers import read_header
from service.dicom.report import MAX_SLICES
from tests.support.dicom import encoded
from tests.support.results import (
    AXIAL,
    MODEL,
    SAGITTAL,
    complaints,
    enhanced,
    finding,
    needs_tools,
    of_file,
    results,
    series_of,
    shifted,
    volume,
)


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
