"""The segmentation lies on its source: same planes, same pixels, by the source's own geometry."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from contract.answer import Decision
from service.dicom.findings import SliceFinding
from service.dicom.headers import read_header
from tests.support.dicom import encoded
from tests.support.results import (
    AXIAL,
    SAGITTAL,
    SMALL,
    complaints,
    enhanced,
    finding,
    needs_tools,
    results,
    series_of,
    shifted,
)


def read(dataset: Dataset) -> hd.seg.Segmentation:
    """A segmentation through highdicom."""
    return hd.seg.segread(io.BytesIO(encoded(dataset)))


def mask_of(said: SliceFinding) -> NDArray[np.bool_]:
    """The mask of a finding that has one."""
    assert said.mask is not None
    return said.mask


def classic_affine(dataset: Dataset) -> NDArray[np.float64]:
    """Pixel (column, row) to mm, of a classic image (PS3.3 2024e, equation C.7.6.2.1-1)."""
    rows, columns = map(float, dataset.PixelSpacing)
    along, down = np.reshape(np.asarray(dataset.ImageOrientationPatient, float), (2, 3))
    position = np.asarray(dataset.ImagePositionPatient, float)
    return np.stack([along * columns, down * rows, position])


def frame_affine(dataset: Dataset, frame: int) -> NDArray[np.float64]:
    """The same of a frame of a multi-frame image."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    own = dataset.PerFrameFunctionalGroupsSequence[frame - 1]
    flat = Dataset()
    for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence", "PlanePositionSequence"):
        flat.update((own if keyword in own else shared)[keyword].value[0])
    return classic_affine(flat)


@pytest.mark.parametrize("path", [SAGITTAL, AXIAL, SMALL], ids=["sagittal", "axial", "small"])
def test_single_slice(path: Path) -> None:
    header = read_header(path.read_bytes())
    said = finding(header)
    made = read(results([header], series_of([said]))[2])
    assert made.FrameOfReferenceUID == header.FrameOfReferenceUID
    assert (made.Rows, made.Columns) == (header.Rows, header.Columns)
    assert np.array_equal(made.pixel_array, mask_of(said))
    assert np.allclose(frame_affine(made, 1), classic_affine(header), atol=1e-5)


def test_slices_of_a_series() -> None:
    headers = [read_header(data) for data in shifted()]
    chosen = [0, 1, 3]
    said = [
        finding(header, Decision.TUMOR if number in chosen else Decision.NO_TUMOR, offset=number)
        for number, header in enumerate(headers)
    ]
    made = read(results(headers, series_of(said))[2])
    uids = [headers[number].SOPInstanceUID for number in chosen]
    pixels = made.get_pixels_by_source_instance(uids, segment_numbers=[1])[..., 0]
    for number, mask in zip(chosen, pixels, strict=True):
        assert np.array_equal(mask, mask_of(said[number]))
    _frames_lie_on_their_sources(made, headers)
    assert made.NumberOfFrames == len(chosen)
    # The gap of the series, not of the slices with a mask.
    measures = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SpacingBetweenSlices == pytest.approx(1.5)


def _frames_lie_on_their_sources(made: Dataset, headers: Sequence[Dataset]) -> None:
    by_uid = {header.SOPInstanceUID: header for header in headers}
    for frame, item in enumerate(made.PerFrameFunctionalGroupsSequence, 1):
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        expected = classic_affine(by_uid[source.ReferencedSOPInstanceUID])
        assert np.allclose(frame_affine(made, frame), expected, atol=1e-5)


@pytest.mark.parametrize("legacy", [True, False], ids=["legacy converted", "enhanced"])
def test_frames_of_a_multi_frame_image(legacy: bool) -> None:
    source = dcmread(io.BytesIO(enhanced(legacy)))
    header = read_header(enhanced(legacy))
    said = [finding(header, frame=frame) for frame in (1, 2, 4)]
    made = read(results([header], series_of(said))[2])
    pixels = made.get_pixels_by_source_frame(header.SOPInstanceUID, [1, 2, 4], segment_numbers=[1])[
        ..., 0
    ]
    for one, mask in zip(said, pixels, strict=True):
        assert np.array_equal(mask, mask_of(one))
    for frame, item in enumerate(made.PerFrameFunctionalGroupsSequence, 1):
        reference = item.DerivationImageSequence[0].SourceImageSequence[0]
        expected = frame_affine(source, reference.ReferencedFrameNumber)
        assert np.allclose(frame_affine(made, frame), expected, atol=1e-5)


def test_masks_match_volume_geometry_that_highdicom_reads_from_the_source() -> None:
    sources = [dcmread(io.BytesIO(data)) for data in shifted()]
    headers = [read_header(data) for data in shifted()]
    made = read(results(headers, series_of([finding(header) for header in headers]))[2])
    image = hd.get_volume_from_series(sources)
    mask = made.get_volume(combine_segments=True)
    assert mask.spatial_shape == image.spatial_shape
    assert np.allclose(mask.affine, image.affine, atol=1e-3)


def test_planes_of_other_orientations_are_objects_of_their_own() -> None:
    sagittal, turned = (read_header(data) for data in shifted(2))
    orientation = list(turned.ImageOrientationPatient)
    turned.ImageOrientationPatient = orientation[3:] + orientation[:3]
    made = results([sagittal, turned], series_of([finding(sagittal), finding(turned)]))[2:]
    assert [item.InstanceNumber for item in made] == [1, 2]
    assert len({item.SeriesInstanceUID for item in made}) == 1
    assert len({item.SOPInstanceUID for item in made}) == 2
    for item, header in zip(made, [sagittal, turned], strict=True):
        assert np.allclose(frame_affine(item, 1), classic_affine(header), atol=1e-5)


def test_of_two_slices_at_one_position_the_more_suspicious_is_segmented() -> None:
    first, second = (read_header(data) for data in shifted(2))
    second.ImagePositionPatient = list(first.ImagePositionPatient)
    said = [finding(first, tumor=0.7), finding(second, offset=3, tumor=0.8)]
    made = results([first, second], series_of(said))[2]
    assert made.NumberOfFrames == 1
    assert np.array_equal(made.pixel_array, mask_of(said[1]))


@needs_tools
@pytest.mark.parametrize(
    ("stated", "expected"),
    [(["NASION"] * 2, "NASION"), (["NASION", ""], None), ([None] * 2, None)],
    ids=["all", "some", "none"],
)
def test_what_the_frame_of_reference_starts_from_is_copied(
    stated: list[str | None], expected: str | None, tmp_path: Path
) -> None:
    headers = [read_header(data) for data in shifted()[:2]]
    for header, value in zip(headers, stated, strict=True):
        header.PositionReferenceIndicator = value
    made = results(headers, series_of([finding(header) for header in headers]))[-1]
    assert (made.Modality, made["PositionReferenceIndicator"].value) == ("SEG", expected)
    assert complaints(made, tmp_path) == []


def test_empty_mask_is_none() -> None:
    header = read_header(SAGITTAL.read_bytes())
    said = finding(header)
    mask_of(said)[:] = False
    assert [item.Modality for item in results([header], series_of([said]))] == ["SR", "OT"]


def test_mask_of_another_size_is_refused() -> None:
    header = read_header(SAGITTAL.read_bytes())
    said = finding(header)
    header.Rows += 1
    with pytest.raises(ValueError, match="stored pixel matrix"):
        results([header], series_of([said]))


def test_frame_of_a_single_frame_image_is_the_first() -> None:
    header = read_header(SAGITTAL.read_bytes())
    with pytest.raises(ValueError, match="no other frames"):
        results([header], series_of([finding(header, frame=2)]))


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("PixelSpacing", [2, 2]), ("SliceThickness", 7)],
    ids=["spacing", "thick"],
)
def test_planes_of_other_measures_are_objects_of_their_own(keyword: str, value: object) -> None:
    usual, other = (read_header(data) for data in shifted(2))
    setattr(other, keyword, value)
    made = results([usual, other], series_of([finding(usual), finding(other)]))[2:]
    assert len(made) == 2
    for item, header in zip(made, [usual, other], strict=True):
        measures = item.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        assert list(measures.PixelSpacing) == list(header.PixelSpacing)
        assert measures.SliceThickness == header.SliceThickness
        assert np.allclose(frame_affine(item, 1), classic_affine(header), atol=1e-5)


def comment_of(report: Dataset) -> str:
    """What a report says of itself."""
    texts = [item for item in report.ContentSequence if item.ValueType == "TEXT"]
    return str(texts[-1].TextValue)


@needs_tools
def test_frames_of_reference_are_objects_of_their_own(tmp_path: Path) -> None:
    """They have no position in common; an image without one keeps no other from being segmented."""
    headers = [read_header(data) for data in shifted()]
    del headers[1].FrameOfReferenceUID
    headers[3].FrameOfReferenceUID = "1.2.3"
    made = results(headers, series_of([finding(header) for header in headers]))
    assert [item.Modality for item in made] == ["SR", "OT", "SEG", "SEG"]
    assert [item.get("NumberOfFrames") for item in made[2:]] == [3, 1]
    for item, used in zip(made[2:], ([0, 2, 4], [3]), strict=True):
        assert item.FrameOfReferenceUID == headers[used[0]].FrameOfReferenceUID
        _frames_lie_on_their_sources(item, [headers[number] for number in used])
    # Of one slice alone no distance is known, whatever lies beside it in another frame.
    assert (
        "SpacingBetweenSlices"
        not in made[3].SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence")[0]
    )
    assert "1 slices with a region are in no segmentation" in comment_of(made[0])
    for item in made:
        assert complaints(item, tmp_path) == []


@pytest.mark.parametrize("uid", ["1.2.03.4", "1.2.840.113704.1.111.2008.01.02.5"])
def test_a_leading_zero_in_the_frame_of_reference(uid: str) -> None:
    """It is as good a name as those of study, series and image, which may have one too."""
    header = read_header(SAGITTAL.read_bytes())
    header.FrameOfReferenceUID = header.StudyInstanceUID = uid
    made = results([header], series_of([finding(header)]))
    assert [item.Modality for item in made] == ["SR", "OT", "SEG"]
    assert made[2].FrameOfReferenceUID == uid
    assert "no segmentation" not in comment_of(made[0])


@pytest.mark.parametrize(
    "keyword", ["FrameOfReferenceUID", "ImagePositionPatient", "PixelSpacing", "SliceThickness"]
)
def test_a_report_says_why_there_is_no_segmentation(keyword: str) -> None:
    header = read_header(SAGITTAL.read_bytes())
    delattr(header, keyword)
    report, capture = results([header], series_of([finding(header)]))
    assert capture.Modality == "OT"
    assert "1 slices with a region are in no segmentation" in comment_of(report)


@pytest.mark.parametrize("spacing", [[0, 1], [1, -1]])
def test_impossible_pixels_are_not_segmented(spacing: list[float]) -> None:
    header = read_header(SAGITTAL.read_bytes())
    header.PixelSpacing = spacing
    assert [item.Modality for item in results([header], series_of([finding(header)]))] == [
        "SR",
        "OT",
    ]


def test_a_frame_that_is_described_nowhere_is_not_segmented() -> None:
    header = read_header(enhanced(legacy=False))
    header.PerFrameFunctionalGroupsSequence = header.PerFrameFunctionalGroupsSequence[:3]
    made = results([header], series_of([finding(header, frame=frame) for frame in (1, 3, 4)]))[2]
    assert made.NumberOfFrames == 2
    assert [
        item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for item in made.PerFrameFunctionalGroupsSequence
    ] == [1, 3]


@pytest.mark.parametrize("thickness", [0, -5])
def test_an_impossible_thickness_is_the_distance_of_the_slices(thickness: int) -> None:
    headers = [read_header(data) for data in shifted(3)]
    for header in headers:
        header.SliceThickness = thickness
    made = results(headers, series_of([finding(header) for header in headers]))[2]
    measures = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (measures.SliceThickness, measures.SpacingBetweenSlices) == (1.5, 1.5)


def test_slices_at_uneven_distances_have_none_between_them() -> None:
    headers = [read_header(data) for data in shifted()]
    del headers[1]
    made = results(headers, series_of([finding(header) for header in headers]))[2]
    measures = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert "SpacingBetweenSlices" not in measures
    for header in headers:
        # Neither how thick they are nor how far apart: a viewer could not place them.
        del header.SliceThickness
    unplaced = results(headers, series_of([finding(header) for header in headers]))
    assert [item.Modality for item in unplaced] == ["SR", "OT"]


def test_only_parallel_slices_have_a_distance() -> None:
    *sagittal, turned = (read_header(data) for data in shifted())
    orientation = list(turned.ImageOrientationPatient)
    turned.ImageOrientationPatient = [*orientation[:3], *np.cross(orientation[:3], orientation[3:])]
    turned.ImagePositionPatient = [0, 0, 0]
    headers = [*sagittal, turned]
    made, alone = results(headers, series_of([finding(header) for header in headers]))[2:]
    measures, others = (
        item.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0] for item in (made, alone)
    )
    assert measures.SpacingBetweenSlices == 1.5
    assert "SpacingBetweenSlices" not in others


ROUNDED = {
    "orientation": ("ImageOrientationPatient", lambda value: value + 1e-6),
    "spacing": ("PixelSpacing", lambda value: value + 1e-7),
    "thickness": ("SliceThickness", lambda value: value + 1e-7),
}


@pytest.mark.parametrize(("keyword", "change"), ROUNDED.values(), ids=ROUNDED.keys())
def test_last_digits_split_no_segmentation(
    keyword: str, change: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> None:
    headers = [read_header(data) for data in shifted(3)]
    changed = change(np.atleast_1d(np.asarray(headers[1][keyword].value, float))).tolist()
    setattr(headers[1], keyword, changed if len(changed) > 1 else changed[0])
    made = results(headers, series_of([finding(header) for header in headers]))
    assert [item.Modality for item in made] == ["SR", "OT", "SEG"]
    assert made[2].NumberOfFrames == 3


def test_roughly_rounded_directions_are_unit_vectors_again() -> None:
    header = read_header(AXIAL.read_bytes())
    header.ImageOrientationPatient = np.round(
        np.asarray(header.ImageOrientationPatient, float), 2
    ).tolist()
    made = results([header], series_of([finding(header)]))[2]
    shared = made.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    row, column = np.reshape(np.asarray(shared.ImageOrientationPatient, float), (2, 3))
    assert [row @ row, column @ column, row @ column] == pytest.approx([1, 1, 0], abs=1e-9)
    assert np.abs(row - header.ImageOrientationPatient[:3]).max() < 0.01


def test_absurd_pixels_are_not_segmented() -> None:
    header = read_header(SAGITTAL.read_bytes())
    header.PixelSpacing = [1e300, 1e300]
    made = results([header], series_of([finding(header)]))
    assert [item.Modality for item in made] == ["SR", "OT"]
