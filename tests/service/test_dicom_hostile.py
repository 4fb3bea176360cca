"""Results of sources that are wrong in some attribute: made and valid, or refused with a reason."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from contract.decoding import open_source
from contract.errors import DecodeError
from contract.quiet import quieten
from service.dicom import patient, source
from service.dicom.findings import ModelIdentity
from service.dicom.headers import KEYWORDS as KEPT
from service.dicom.headers import read_header
from service.dicom.objects import build
from service.dicom.source import SourceSeries
from service.errors import UnidentifiedSource
from tests.contract.samples import SHIPPED
from tests.support.dicom import encoded
from tests.support.results import (
    SAGITTAL,
    complaints,
    enhanced,
    finding,
    needs_tools,
    results,
    series_of,
    shifted,
)

GARBAGE = {
    "empty": b"",
    "letters": b"zz",
    "backslashes": rb"\\\\\\\\",
    "infinite": b"inf\\inf\\inf\\inf\\inf\\inf",
    "long": b"9" * 300,
    "controls": b"\x00\x01\x1b$\xff\xfe",
}

SEQUENCES = {"SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"}
KEYWORDS = sorted(
    keyword
    for keyword in {*patient.KEYWORDS, *source.KEYWORDS} - SEQUENCES - {"Rows", "Columns"}
    if dictionary_VR(keyword) != "SQ"
)
IDENTIFYING = {
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "SOPClassUID",
}


def spoiled(keywords: Iterable[str], garbage: bytes) -> Dataset:
    """A real header with garbage in some attributes."""
    header = read_header(SAGITTAL.read_bytes())
    for keyword in keywords:
        tag, vr = Tag(keyword), dictionary_VR(keyword)
        header[tag] = RawDataElement(tag, vr, len(garbage), garbage, 0, False, True)
    return header


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
@pytest.mark.parametrize("keyword", KEYWORDS)
def test_garbage_in_an_attribute_is_no_hindrance(keyword: str, garbage: bytes) -> None:
    quieten()
    if keyword in IDENTIFYING:
        # 300 digits have no dot, so they are no UID either.
        with pytest.raises(UnidentifiedSource):
            SourceSeries.of([spoiled([keyword], garbage)])
    else:
        assert len(SourceSeries.of([spoiled([keyword], garbage)]).images) == 1


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_results_are_made_where_all_but_the_identity_is_garbage(garbage: bytes) -> None:
    header = spoiled(set(KEYWORDS) - IDENTIFYING, garbage)
    made = results([header], series_of([finding(header)]))
    assert [item.Modality for item in made] == ["SR", "OT"]
    assert all(encoded(item) for item in made)


GEOMETRY = {
    "position of two values": {"ImagePositionPatient": [1, 2]},
    "orientation not perpendicular": {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
    "orientation not unit": {"ImageOrientationPatient": [2, 0, 0, 0, 1, 0]},
    "spacing zero": {"PixelSpacing": [0, 1]},
    "spacing too small": {"PixelSpacing": [0.001, 0.001]},
    "spacing too large": {"PixelSpacing": [101, 101]},
    "no frame of reference": {"FrameOfReferenceUID": None},
}


@pytest.mark.parametrize("changes", GEOMETRY.values(), ids=GEOMETRY.keys())
@needs_tools
def test_impossible_geometry_gives_no_segmentation(changes: dict[str, Any], tmp_path: Path) -> None:
    header = read_header(SAGITTAL.read_bytes())
    for keyword, value in changes.items():
        setattr(header, keyword, value)
    made = results([header], series_of([finding(header)]))
    assert [item.Modality for item in made] == ["SR", "OT"]
    assert [complaints(item, tmp_path) for item in made] == [[], []]


@needs_tools
def test_slices_without_thickness_are_as_thick_as_they_are_apart(tmp_path: Path) -> None:
    headers = [read_header(data) for data in shifted()]
    for header in headers:
        del header.SliceThickness
    made = results(headers, series_of([finding(header) for header in headers]))
    assert [complaints(item, tmp_path) for item in made] == [[], [], []]
    measures = made[2].SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SliceThickness == pytest.approx(1.5)
    alone = results(headers[:1], series_of([finding(headers[0])]))
    assert [item.Modality for item in alone] == ["SR", "OT"]


@pytest.mark.parametrize("keyword", sorted(SEQUENCES))
@pytest.mark.parametrize("content", [None, []], ids=["missing", "empty"])
def test_multi_frame_image_without_functional_groups(keyword: str, content: object) -> None:
    header = read_header(enhanced(legacy=False))
    setattr(header, keyword, content)
    said = [finding(header, frame=frame) for frame in (1, 3)]
    assert [item.Modality for item in results([header], series_of(said))] == ["SR", "OT"]


def test_stated_number_of_frames_is_not_believed() -> None:
    header = read_header(enhanced(legacy=False))
    header.NumberOfFrames = 2**31 - 1
    assert len(results([header], series_of([finding(header)]))) == 3


@needs_tools
def test_names_of_greatest_length(tmp_path: Path) -> None:
    header = read_header(SAGITTAL.read_bytes())
    model = ModelIdentity("m" * 64, 999_999_999, "f" * 64)
    made = build([header], series_of([finding(header)]), model, "1.2." + "3" * 36)
    assert [complaints(item, tmp_path) for item in made] == [[], [], []]


def readable() -> list[Path]:
    """What pydicom ships and the service predicts."""
    found = []
    for path in SHIPPED:
        try:
            open_source(path.read_bytes()).slice(1)
        except DecodeError:
            continue
        found.append(path)
    return found


@needs_tools
@pytest.mark.parametrize("path", readable(), ids=lambda path: path.name)
def test_results_of_whatever_is_predicted(path: Path, tmp_path: Path) -> None:
    opened = open_source(path.read_bytes(), keep=KEPT)
    header = opened.header
    assert header is not None
    said = finding(header, pixels=opened.slice(1).pixels)
    made = results([header], series_of([said]))
    assert len(made) >= 2
    # Some of the files use one UID for two things, and so must their results.
    own = {line for line in complaints(dcmread(path), tmp_path) if " has same value as " in line}
    assert [set(complaints(item, tmp_path)) - own for item in made] == [set()] * len(made)
    for item in made:
        assert dcmread(io.BytesIO(encoded(item))).StudyInstanceUID == header.StudyInstanceUID
