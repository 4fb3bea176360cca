"""When results are the same objects as before, and when they are others."""

import io
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from pydicom import dcmread

from contract.answer import Outputs, Rules
from contract.decoding import open_source
from contract.manifest import RegionRecord
from contract.policy import DEFAULT_POLICY
from contract.preprocessing import DEFAULT_SPEC
from contract.space import EmbeddingSpace
from service.dicom.answer import _with_pixels
from service.dicom.findings import ModelIdentity
from service.dicom.headers import read_header
from service.dicom.making import SERIES_NUMBER_BASE
from service.dicom.objects import build
from service.dicom.series import sort_into_series
from service.jobs import Group, Job, Upload
from tests.support.dicom import encoded
from tests.support.results import (
    AXIAL,
    CREATED,
    MODEL,
    SAGITTAL,
    finding,
    multi_frame,
    results,
    series_of,
    shifted,
    volume,
)
from tests.support.service import RULES


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


def test_a_report_that_lacks_more_images_is_another_object() -> None:
    """And nothing else is: the pictures do not say how many are missing."""
    complete, partial = ({item.Modality: item for item in volume(failed=n)} for n in (0, 1))
    assert (complete["SR"].CompletionFlag, partial["SR"].CompletionFlag) == ("COMPLETE", "PARTIAL")
    same = {
        kind for kind in complete if complete[kind].SOPInstanceUID == partial[kind].SOPInstanceUID
    }
    assert same == {"OT", "SEG"}


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
