"""Every real DICOM file at hand, through the service: a result, or the error that it should get."""

from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pydicom
import pytest

from contract.policy import Checks
from service.schemas import PredictAnswer, Problem
from tests.contract.samples import OBJECTS
from tests.support.data import require_data
from tests.support.service import Service, serving, settings_for

SHIPPED = Path(pydicom.__file__).parent / "data"

NO_DICOM = "unsupported_media_type"
NO_IMAGE = "not_an_image"

TABLE: list[tuple[str, str | int, str | int]] = [
    # Path below pydicom's data; strict; checks off. A number is that of slices with a result.
    ("test_files/MR_truncated.dcm", "truncated_image", "truncated_image"),
    ("test_files/rtplan_truncated.dcm", "truncated_image", "truncated_image"),
    ("test_files/MR_small*.dcm", 1, 1),
    # By their descriptions, and projections of an angiography.
    ("test_files/dicomdirtests/98892003/MR*/*", "localizer", 1),
    ("test_files/examples_overlay.dcm", "not_head", 1),  # an abdomen
    # No DICOM at all, or without the preamble that tells one from anything else.
    ("*.md", NO_DICOM, NO_DICOM),
    ("*.txt", NO_DICOM, NO_DICOM),
    ("*.dump", NO_DICOM, NO_DICOM),
    ("*.icc", NO_DICOM, NO_DICOM),
    ("*.gz", NO_DICOM, NO_DICOM),
    ("*/README", NO_DICOM, NO_DICOM),
    ("test_files/*NoMeta.dcm", NO_DICOM, NO_DICOM),
    ("test_files/no_meta.dcm", NO_DICOM, NO_DICOM),
    ("test_files/rtstruct.dcm", NO_DICOM, NO_DICOM),
    # Reports, plans, curves, palettes, directories.
    ("palettes/*.dcm", NO_IMAGE, NO_IMAGE),
    ("*/DICOMDIR*", NO_IMAGE, NO_IMAGE),
    ("charset_files/chrSQ*.dcm", NO_IMAGE, NO_IMAGE),
    ("test_files/*SR.dcm", NO_IMAGE, NO_IMAGE),
    ("test_files/reportsi*.dcm", NO_IMAGE, NO_IMAGE),
    ("test_files/rtplan.dcm", NO_IMAGE, NO_IMAGE),
    ("test_files/waveform_ecg.dcm", NO_IMAGE, NO_IMAGE),
    ("test_files/UN_sequence.dcm", NO_IMAGE, NO_IMAGE),
    ("test_files/priv_SQ.dcm", NO_IMAGE, NO_IMAGE),
    ("test_files/empty_charset_LEI.dcm", NO_IMAGE, NO_IMAGE),
    ("test_files/no_meta_group_length.dcm", NO_IMAGE, NO_IMAGE),
    # Images of other modalities.
    ("charset_files/chrJapMulti*.dcm", "not_mr", "no_pixel_data"),
    ("charset_files/chrKoreanMulti.dcm", "not_mr", "no_pixel_data"),
    ("test_files/dicomdirtests/TINY_ALPHA/*", "not_mr", "no_pixel_data"),
    ("test_files/rtdose*.dcm", "not_mr", "unsupported_pixels"),
    ("test_files/badVR.dcm", "not_mr", "undecodable_image"),
    ("test_files/liver_*.dcm", "not_mr", "unsupported_pixels"),
    # Coloured, or of 32 bits; grey of three values first.
    ("test_files/SC_rgb_jpeg.dcm", "not_mr", 1),
    ("test_files/SC_rgb_jpeg_*dcmd.dcm", "not_mr", 1),
    ("test_files/SC_rgb_*.dcm", "not_mr", "unsupported_pixels"),
    ("test_files/SC_ybr_full_422_uncompressed.dcm", "not_mr", "unsupported_pixels"),
    ("test_files/ExplVR_BigEnd.dcm", "not_mr", "unsupported_pixels"),
    ("test_files/GDCMJ2K_TextGBR.dcm", "not_mr", "unsupported_pixels"),
    ("test_files/examples_jpeg2k.dcm", "not_mr", "unsupported_pixels"),
    ("test_files/examples_palette.dcm", "not_mr", "unsupported_pixels"),
    ("test_files/examples_rgb_color.dcm", "not_mr", "unsupported_pixels"),
    ("test_files/examples_ybr_color.dcm", "not_mr", 30),
    ("test_files/JPEG2000-embedded-sequence-delimiter.dcm", "not_mr", "undecodable_image"),
    ("test_files/meta_missing_tsyntax.dcm", "not_mr", "undecodable_image"),
    ("test_files/nested_priv_SQ.dcm", "not_mr", "undecodable_image"),
    ("charset_files/chr*.dcm", "not_mr", 1),
    ("test_files/dicomdirtests/*", "not_mr", 1),
    ("test_files/*", "not_mr", 1),
]


def shipped() -> list[Path]:
    """The data files that pydicom installs; its code and what it would download are none."""
    return [
        path
        for path in sorted(SHIPPED.rglob("*"))
        if path.is_file() and path.suffix not in {".py", ".pyc", ".json"}
    ]


def expected(path: Path) -> tuple[str | int, str | int]:
    name = path.relative_to(SHIPPED).as_posix()
    return next((strict, off) for pattern, strict, off in TABLE if fnmatchcase(name, pattern))


def outcome(service: Service, path: Path) -> str | int:
    """Slices with a result, or the error's code; no answer may be a fault of the service."""
    response = service.predict_raw(path.read_bytes(), "application/dicom")
    if response.status_code == 200:
        answer = PredictAnswer.model_validate_json(response.content)
        assert not [entry for entry in answer.predictions if not hasattr(entry, "label")]
        return len(answer.predictions)
    problem = Problem.model_validate_json(response.content)
    assert problem.status == response.status_code
    assert response.status_code in {413, 415, 422}, (path, problem)
    return problem.code


@pytest.fixture(scope="module")
def unchecked(model_store: Path) -> Iterator[Service]:
    with serving(settings_for(model_store, dicom_checks=Checks.OFF)) as running:
        yield running


def test_what_pydicom_installs(service: Service) -> None:
    found = {path: outcome(service, path) for path in shipped()}
    wanted = {path: expected(path)[0] for path in found}
    assert found == wanted
    counts = Counter(found.values())
    assert counts[1] >= 8
    assert counts["localizer"] >= 17
    assert counts["not_mr"] >= 130
    assert counts["not_an_image"] >= 25


def test_what_pydicom_installs_with_the_checks_off(unchecked: Service) -> None:
    found = {path: outcome(unchecked, path) for path in shipped()}
    wanted = {path: expected(path)[1] for path in found}
    assert found == wanted
    assert sum(isinstance(value, int) for value in found.values()) >= 65


def test_all_of_them_in_one_request(service: Service) -> None:
    """Not even beside each other do they do anything to each other."""
    paths = shipped()
    entries = service.predict(*(path.read_bytes() for path in paths)).json()["predictions"]
    assert len(entries) == len(paths), "strict, so that none has more than one slice"
    found = {
        path: entry.get("error", {}).get("code", 1)
        for path, entry in zip(paths, entries, strict=True)
    }
    assert found == {path: expected(path)[0] for path in paths}


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.stem)
def test_the_objects_of_this_project(service: Service, path: Path) -> None:
    assert outcome(service, path) == 1


@pytest.mark.data
def test_real_mr_objects_have_results(service: Service) -> None:
    folder = require_data("dicom") / "dicom"
    paths = sorted(folder.rglob("*.dcm"))
    assert len(paths) >= 12
    assert {path: outcome(service, path) for path in paths} == dict.fromkeys(paths, 1)
