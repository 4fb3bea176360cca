"""The secondary capture: the slice between its captions."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from contract.answer import Decision
from service.dicom import capture as capture_module
from service.dicom.drawing import Caption, draw
from service.dicom.headers import read_header
from tests.support.dicom import encoded
from tests.support.results import (
    AXIAL,
    SAGITTAL,
    SMALL,
    finding,
    of_file,
    results,
    series_of,
)


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
