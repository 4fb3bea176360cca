"""A whole series in one request: its slices' entries, and what they come to."""

import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import RLELossless

from contract.answer import Decision, Outputs
from contract.errors import (
    DecoderTimedOut,
    Localizer,
    NoPixelData,
    NotMagnitude,
    NotMr,
    NotPatient,
    TruncatedImage,
    UnsupportedMedia,
)
from contract.policy import DEFAULT_POLICY
from contract.preprocessing import DEFAULT_SPEC, DicomReference
from contract.region import Region
from contract.series import score_series
from service.answers import Answer
from service.errors import DamagedZip, DeadlineExceeded, Failure, QueueFull
from service.jobs import Group, Job, Upload
from service.schemas import PredictAnswer
from service.series import is_one_image, may_be_dicom, summaries
from tests.contract.samples import RANGE, grey_slice, mr_frames, mr_object
from tests.support.data import require_data
from tests.support.dicom import encoded
from tests.support.models import head
from tests.support.service import RULES, FakeRuntimes, Service, serving, settings_for
from tests.support.slices import PATCH

GREY = grey_slice()
SERIES = "1.2.826.0.1.3680043.2.1143.2"
MAGIC = bytes(128) + b"DICM"


def mr_slice(picture: Path, depth: float, **attributes: Any) -> bytes:
    """A real slice as an object of a series, so many mm above the others."""
    values = np.asarray(Image.open(picture).convert("L"))
    place = {
        "ImagePositionPatient": [0, 0, depth],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "SOPInstanceUID": f"{SERIES}.{int(depth)}",
    }
    return mr_object(values, attributes=RANGE | place | attributes)


def slice_job(number: int, outcome: float | Failure, **place: Any) -> Job:
    """An answered slice of a stack: its tumour probability, or why it has none."""
    where = DicomReference(
        f"{SERIES}.{number}",
        SERIES,
        1,
        (1.0, 1.0),
        (0.0, 0.0, float(number)),
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        number,
    )
    job = Job(Upload(None, MAGIC), DEFAULT_SPEC, RULES, 0.0, cast("Group", None))
    job.dicom = replace(where, **place)
    if isinstance(outcome, float):
        decision = RULES.decide(outcome)
        job.outcome = Outputs(np.zeros(4, np.float32))
        job.answer = Answer("glioma", {}, outcome, decision, None, None, None, False, None)
    else:
        job.outcome = outcome
    return job


def file_job(outcome: Failure, data: bytes, failure: Failure | None = None) -> Job:
    """A file that was not read, so that nothing is known of its place."""
    job = slice_job(1, outcome)
    job.upload, job.dicom = Upload(None, data, failure), None
    return job


def by_rule(entries: Sequence[dict[str, Any]], depths: Sequence[float]) -> float:
    """The rule of the docs, written down once more."""
    ordered = [
        entry["tumor_probability"]
        for _, entry in sorted(zip(depths, entries, strict=True), key=lambda pair: pair[0])
    ]
    size = min(3, len(ordered))
    means = [sum(ordered[k : k + size]) / size for k in range(len(ordered) - size + 1)]
    return float(max(means))


@pytest.fixture(scope="module")
def few(model_store: Path) -> Iterator[Service]:
    with serving(settings_for(model_store), FakeRuntimes()) as service:
        yield service


def test_summary_follows_the_rule(service: Service, slices: list[Path]) -> None:
    depths = [float(depth) for depth in range(0, 24, 3)]
    Random(3).shuffle(depths)  # noqa: S311
    response = service.predict(
        *(mr_slice(path, depth) for path, depth in zip(slices, depths, strict=True))
    )
    PredictAnswer.model_validate_json(response.content)
    content = response.json()
    (series,) = content["series"]
    entries = content["predictions"]
    assert series["series_instance_uid"] == SERIES
    assert (series["slices"], series["failed"]) == (8, 0)
    assert series["tumor_probability"] == pytest.approx(by_rule(entries, depths), abs=1e-5)
    window = series["window"]
    assert len(window) == 3
    assert np.mean([entries[k]["tumor_probability"] for k in window]) == pytest.approx(
        series["tumor_probability"], abs=1e-5
    )
    assert sorted(depths[k] for k in window)[2] - min(depths[k] for k in window) == 6
    leading = max(window, key=lambda k: entries[k]["tumor_probability"])
    assert series["most_suspicious"] == leading
    found = [k for k in np.argsort(depths).tolist() if entries[k]["decision"] != "no_tumor"]
    assert series["suspicious"] == found
    rules = service.state.registry.engine().rules
    familiar = all(entries[k].get("in_distribution", True) for k in window)
    assert series["decision"] == rules.decide(series["tumor_probability"], familiar=familiar)


def test_two_series_and_a_picture(few: Service, slices: list[Path], jpeg: bytes) -> None:
    other = {"SeriesInstanceUID": "1.2.3"}
    files = [
        mr_slice(slices[0], 0),
        jpeg,
        mr_slice(slices[1], 3, **other),
        mr_slice(slices[2], 6),
        mr_slice(slices[3], 9, SeriesInstanceUID=None),
    ]
    series = few.predict(*files).json()["series"]
    assert [item["series_instance_uid"] for item in series] == [SERIES, "1.2.3"]
    assert [item["window"] for item in series] == [[0, 3], [2]]


def test_pictures_have_no_series(few: Service, jpeg: bytes) -> None:
    assert "series" not in few.predict(jpeg, jpeg).json()


def test_slice_that_was_sent_twice_counts_once(few: Service, slices: list[Path]) -> None:
    files = [mr_slice(slices[0], 0), mr_slice(slices[1], 3), mr_slice(slices[0], 0)]
    (series,) = few.predict(*files).json()["series"]
    assert series["slices"] == 2
    # The newest of them.
    assert series["suspicious"] == [2, 1]


def test_failed_slices_are_counted_where_they_belong(few: Service, slices: list[Path]) -> None:
    palette = {"PhotometricInterpretation": "HSV"}
    files = [mr_slice(slices[0], 0), mr_slice(slices[1], 3, **palette), b"no image"]
    content = few.predict(*files).json()
    assert [entry.get("error", {}).get("code") for entry in content["predictions"]] == [
        None,
        "unsupported_pixels",
        "unsupported_media_type",
    ]
    (series,) = content["series"]
    assert (series["slices"], series["failed"]) == (1, 1)


def refused(picture: Path, **attributes: Any) -> list[tuple[str, bytes]]:
    """Objects of which nothing but the header is read, and the code of each."""
    whole = mr_slice(picture, 9, **attributes)
    mosaic = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    return [
        ("mosaic", mr_slice(picture, 9, ImageType=mosaic, **attributes)),
        ("unsupported_pixels", mr_slice(picture, 9, BitsStored=4, HighBit=7, **attributes)),
        ("no_pixel_data", mr_slice(picture, 9, PixelData=None, **attributes)),
        ("truncated_image", whole[:-9000]),
    ]


def test_what_is_refused_by_its_header_is_missing_in_its_own_series_alone(
    few: Service, slices: list[Path]
) -> None:
    """Or in each, if it names none."""
    for series, study, failed in (
        ("1.2.3", "1.2.1", 0),
        (SERIES, "1.2.1", 4),
        (SERIES, "1.2.2", 0),
        (None, "1.2.1", 4),
    ):
        objects = refused(slices[0], SeriesInstanceUID=series, StudyInstanceUID=study)
        own = {"StudyInstanceUID": "1.2.1"}
        whole = [mr_slice(slices[1], 0, **own), mr_slice(slices[2], 3, **own)]
        files = [*whole, *(data for _, data in objects)]
        content = few.predict(*files).json()
        entries = content["predictions"][2:]
        assert [entry["error"]["code"] for entry in entries] == [code for code, _ in objects]
        assert [summary["failed"] for summary in content["series"]] == [failed]
        for entry in entries:
            place = entry["dicom"]
            assert (place["series_instance_uid"], place["study_instance_uid"]) == (series, study)


def test_slices_that_share_identifier_and_place_all_count() -> None:
    """As some anonymisers leave them, which take the places away too; true copies still count once."""
    values = [(0.9 if 10 <= number < 16 else 0.05) + number / 500 for number in range(30)]
    nowhere = {"sop_instance_uid": "1.2.3", "position_mm": None, "instance_number": None}
    jobs = [slice_job(number, value, **nowhere) for number, value in enumerate(values)]
    copies = [replace(job, upload=Upload(None, job.upload.data)) for job in jobs]
    (series,) = summaries([*jobs, *copies], RULES)
    assert (series["slices"], series["decision"]) == (30, Decision.TUMOR)


def test_of_an_image_that_was_sent_twice_the_newest_counts() -> None:
    """Its numbers differ a little from one batch to another."""
    jobs = [slice_job(0, 0.9), slice_job(1, 0.05), slice_job(0, 0.9009), slice_job(1, 0.0511)]
    (series,) = summaries(jobs, RULES)
    assert (series["slices"], series["suspicious"]) == (3, [2])


BOX = Region((1, 2, 9, 9), 0.9, np.ones((7, 8), np.bool_), (20, 20), None)


@pytest.mark.parametrize(
    ("answer", "probabilities", "same"),
    [
        ({}, [0.9999, 2e-6], True),
        ({"probabilities": {"glioma": 0.9009}, "region": replace(BOX, score=0.8)}, None, True),
        ({"tumor_probability": 0.9011}, None, False),
        ({"probabilities": {"glioma": 0.9011}}, None, False),
        ({"region": replace(BOX, box=(1, 2, 9, 10))}, None, False),
        ({"region": None}, None, False),
        ({}, [0.9999, 3e-6], False),
    ],
    ids=["same", "close", "tumour", "class", "box", "no box", "logarithm"],
)
def test_what_tells_an_image_from_another_one_of_its_uid(
    answer: dict[str, Any], probabilities: list[float] | None, same: bool
) -> None:
    one, other = (slice_job(0, 0.9) for _ in range(2))
    for job, changes in ((one, {}), (other, answer)):
        assert job.answer is not None
        known: dict[str, Any] = {"probabilities": {"glioma": 0.9}, "region": BOX}
        job.answer = replace(job.answer, **known | changes)
        job.outcome = Outputs(np.array([[0.9999, 2e-6]], np.float32))
    if probabilities is not None:
        other.outcome = Outputs(np.array([probabilities], np.float32))
    assert is_one_image(one, other) == is_one_image(other, one) == same
    (series,) = summaries([one, other], RULES)
    assert series["slices"] == (1 if same else 2)
    one.dicom = slice_job(0, 0.9, position_mm=None).dicom
    assert not is_one_image(one, other)


def test_a_copy_in_another_transfer_syntax_counts_once(
    service: Service, slices: list[Path]
) -> None:
    dataset = dcmread(io.BytesIO(mr_slice(slices[0], 0)))
    dataset.compress(RLELossless, generate_instance_uid=False)
    content = service.predict(
        mr_slice(slices[0], 0), mr_slice(slices[1], 3), encoded(dataset)
    ).json()
    assert [entry.get("error") for entry in content["predictions"]] == [None] * 3
    (series,) = content["series"]
    assert series["slices"] == 2


def test_one_series_uid_in_two_studies_is_two_series() -> None:
    """As some anonymisers give it to all patients; a slice that failed is missing in its own alone."""
    jobs = [slice_job(number, value) for number, value in enumerate((0.99, 0.05, 0.05, 0.05))]
    lost = slice_job(4, LATE)
    for job, study in zip([*jobs, lost], ("1.1", "1.2", "1.2", "1.2", "1.1"), strict=True):
        job.study = study
    one, other = summaries([*jobs, lost], RULES)
    assert [series["study_instance_uid"] for series in (one, other)] == ["1.1", "1.2"]
    assert (one["slices"], one["failed"], one["decision"]) == (1, 1, Decision.TUMOR)
    assert (other["slices"], other["failed"], other["decision"]) == (3, 0, Decision.NO_TUMOR)


def test_two_studies_of_one_series_uid_in_one_request(few: Service, slices: list[Path]) -> None:
    """Through the whole service: each slice names its study as the summary does."""
    place = {"PatientID": "1"}
    files = [
        mr_slice(slices[number], depth, StudyInstanceUID=study, **place)
        for number, (study, depth) in enumerate([("1.2.1", 0), ("1.2.2", 3), ("1.2.1", 6)])
    ]
    content = PredictAnswer.model_validate_json(few.predict(*files).content)
    assert content.series is not None
    assert [item.study_instance_uid for item in content.series] == ["1.2.1", "1.2.2"]
    assert [item.slices for item in content.series] == [2, 1]
    studies = [entry.dicom and entry.dicom.study_instance_uid for entry in content.predictions]
    assert studies == ["1.2.1", "1.2.2", "1.2.1"]


@pytest.mark.parametrize(("strange", "expected"), [(10, "no_tumor"), (11, "refer"), (17, "refer")])
def test_a_series_that_is_mostly_unlike_the_training_data_is_left_to_a_person(
    strange: int, expected: str
) -> None:
    jobs = [slice_job(number, 0.05) for number in range(20)]
    for job in jobs[:strange]:
        assert job.answer is not None
        # Lower than the others, so that none of them decides.
        job.answer = replace(
            job.answer, tumor_probability=0.01, in_distribution=False, decision=Decision.REFER
        )
    (series,) = summaries(jobs, RULES)
    assert (series["slices"], series["unfamiliar"]) == (20, strange)
    assert series["decision"] == expected


def test_slices_that_share_an_identifier_all_count() -> None:
    """As some anonymisers leave them; true copies still count once."""
    values = [0.9 if 10 <= number < 16 else 0.05 for number in range(30)]
    for place in ({}, {"position_mm": None}, {"instance_number": None}):
        jobs = [
            slice_job(number, value, sop_instance_uid="1.2.3", **place)
            for number, value in enumerate(values)
        ]
        (series,) = summaries([*jobs, *jobs], RULES)
        assert (series["slices"], series["decision"]) == (30, Decision.TUMOR)


LATE = DeadlineExceeded("too late")


@pytest.mark.parametrize("reason", [LATE, QueueFull(), DecoderTimedOut(), NoPixelData()], ids=repr)
@pytest.mark.parametrize("known", [True, False], ids=["place known", "place unknown"])
def test_a_series_that_lacks_slices_is_not_without_a_tumour(reason: Failure, known: bool) -> None:
    """It may be in them."""
    jobs = [slice_job(number, reason if 8 <= number < 18 else 0.05) for number in range(30)]
    for job in jobs:
        if isinstance(job.outcome, Failure) and not known:
            job.dicom = None
    (series,) = summaries(jobs, RULES)
    assert (series["slices"], series["failed"]) == (20, 10)
    assert (series["tumor_probability"], series["decision"]) == (0.05, Decision.REFER)


@pytest.mark.parametrize(
    "reason", [Localizer(), NotMr(), NotPatient(), NotMagnitude()], ids=lambda reason: reason.code
)
def test_what_is_no_slice_of_a_head_is_not_missed(reason: Failure) -> None:
    jobs = [slice_job(number, reason if number > 3 else 0.05) for number in range(6)]
    (series,) = summaries(jobs, RULES)
    assert (series["failed"], series["decision"]) == (0, Decision.NO_TUMOR)


def test_a_tumour_stays_one_whatever_is_missing() -> None:
    (series,) = summaries([slice_job(0, 0.9), slice_job(1, LATE)], RULES)
    assert (series["failed"], series["decision"]) == (1, Decision.TUMOR)


def test_slices_of_another_series_and_pictures_are_not_missed() -> None:
    picture = file_job(TruncatedImage(), b"\xff\xd8")
    other = slice_job(1, LATE, series_instance_uid="1.2.3")
    (series,) = summaries([slice_job(0, 0.05), other, picture], RULES)
    assert (series["failed"], series["decision"]) == (0, Decision.NO_TUMOR)


def test_what_an_archive_did_not_give_may_be_a_slice() -> None:
    lost = file_job(DamagedZip(), b"", DamagedZip())
    (series,) = summaries([slice_job(0, 0.05), lost], RULES)
    assert (series["failed"], series["decision"]) == (1, Decision.REFER)


@pytest.mark.parametrize(
    "left",
    [
        *(b"", bytes(40), MAGIC[:128], MAGIC[:130], MAGIC[:131], bytes(132), bytes(5000)),
        *(b"\x02\0\x10\0UI\x14\0", b"\x08\0\x05\0CS\x0a\0"),
    ],
    ids=[*("empty", "40", "preamble", "DI", "DIC", "132 zeros", "zeros"), *("meta", "no preamble")],
)
def test_what_is_left_of_a_dicom_file_may_be_a_slice(left: bytes) -> None:
    lost = file_job(UnsupportedMedia(), left)
    (series,) = summaries([slice_job(0, 0.05), lost], RULES)
    assert (series["failed"], series["decision"]) == (1, Decision.REFER)


@pytest.mark.parametrize(
    "other", [b"text", b"<html>" + bytes(200), b"\x89PNG", bytes(200) + b"1"], ids=repr
)
def test_other_files_are_no_slices(other: bytes) -> None:
    beside = file_job(UnsupportedMedia(), other)
    (series,) = summaries([slice_job(0, 0.05), beside], RULES)
    assert (series["failed"], series["decision"]) == (0, Decision.NO_TUMOR)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "1.dcm",
            "IM000001",
            "study.zip/DICOM/IM000001",
            "1.2.840.113619.2.5",
            "A.IMA",
            "x.DICOM",
        ),
        *("C:\\study\\7", "T1 0.9mm", "disc.js/7", "00000001.MR", "scan"),
    ],
)
def test_an_empty_file_may_be_a_slice_by_its_name(name: str) -> None:
    assert may_be_dicom(Upload(name, b""))


@pytest.mark.parametrize(
    "name",
    [
        *("VERSION", "disc.zip/LOCKFILE", "Icon\r", ".gitkeep", "a/.nomedia", "C:\\x\\desktop.ini"),
        *("notes.txt", "1.2.3.xml", "7.js", "autorun.INF", "1.jpg", "dcm.bak"),
    ],
)
def test_an_empty_file_is_no_slice_by_its_name(name: str) -> None:
    assert not may_be_dicom(Upload(name, b""))
    assert may_be_dicom(Upload(name, bytes(132))), "its name counts where there is nothing else"


def test_empty_files_of_media_and_systems_leave_a_series_alone(two_heads: Service) -> None:
    """Through the whole service, as patient CDs and Macs have them."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("DICOM/IM000001", mr_object(head(patch=None), attributes=RANGE))
        for name in ("VERSION", "LOCKFILE", "Icon\r", "DICOM/.gitkeep", "viewer/index.js"):
            file.writestr(name, b"")
    content = two_heads.predict(archive.getvalue()).json()
    names = [entry["input"].rpartition("/")[2] for entry in content["predictions"]]
    assert names == ["IM000001", "index.js"]
    (series,) = content["series"]
    assert (series["slices"], series["failed"], series["decision"]) == (1, 0, "no_tumor")


def test_empty_files_in_an_archive_leave_the_series_to_a_person(two_heads: Service) -> None:
    """Through the whole service."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("1.dcm", mr_object(head(patch=None), attributes=RANGE))
        file.writestr("2.dcm", b"")
        file.writestr("3.dcm", bytes(50_000))
        file.writestr("notes.txt", b"text")
    (series,) = two_heads.predict(archive.getvalue()).json()["series"]
    assert (series["slices"], series["failed"], series["decision"]) == (1, 2, "refer")


def test_a_truncated_slice_leaves_the_series_to_a_person(two_heads: Service) -> None:
    """Through the whole service, which cannot say which series the file is of."""
    place = RANGE | {"SOPInstanceUID": "1.2.4"}
    healthy = mr_object(head(patch=None), attributes=RANGE)
    tumour = mr_object(head(patch=PATCH), attributes=place)
    (series,) = two_heads.predict(healthy, tumour[:-5000]).json()["series"]
    assert (series["failed"], series["decision"]) == (1, "refer")
    localizer = mr_object(head(), attributes=place | {"ImageType": ["ORIGINAL", "LOCALIZER"]})
    content = two_heads.predict(healthy, localizer).json()
    assert content["predictions"][1]["error"]["code"] == "localizer"
    (series,) = content["series"]
    assert (series["failed"], series["decision"]) == (0, "no_tumor")


def test_a_series_of_magnitudes_and_phases_is_judged_by_its_magnitudes(two_heads: Service) -> None:
    objects = [
        mr_object(
            head(patch=PATCH if part == "P" else None),
            attributes=RANGE
            | {"SOPInstanceUID": f"1.2.{number}.{ord(part)}"}
            | {"ImageType": ["ORIGINAL", "PRIMARY", part], "ImagePositionPatient": [0, 0, number]},
        )
        for number in range(3)
        for part in "MP"
    ]
    content = two_heads.predict(*objects).json()
    codes = [entry.get("error", {}).get("code") for entry in content["predictions"]]
    assert codes == [None, "not_magnitude"] * 3
    (series,) = content["series"]
    assert (series["slices"], series["failed"], series["decision"]) == (3, 0, "no_tumor")


def test_frames_of_one_object_are_a_series(service: Service) -> None:
    frames = [GREY, GREY[::-1].copy(), GREY[:, ::-1].copy(), 255 - GREY]
    content = service.predict_raw(mr_frames(frames, attributes=RANGE)).json()
    (series,) = content["series"]
    assert series["slices"] == 4
    assert series["tumor_probability"] == pytest.approx(
        by_rule(content["predictions"], range(4)), abs=1e-5
    )


def test_three_hundred_slices_are_answered_within_the_defaults(
    model_store: Path, slices: list[Path]
) -> None:
    """More than the queue holds, through the real model."""
    data = [mr_slice(path, 0) for path in slices]
    with serving(settings_for(model_store, queue_size=64, deadline_ms=600_000)) as service:
        response = service.predict(*(data[k % 8] for k in range(300)))
        entries = response.json()["predictions"]
        assert len(entries) == 300
        assert not [entry for entry in entries if "error" in entry]
        for k in range(8):
            assert len({entry["tumor_probability"] for entry in entries[k::8]}) == 1
        assert service.state.pipeline.depth == 0


@pytest.mark.data
def test_real_series_in_any_order_gives_one_summary(service: Service) -> None:
    from contract.dicom import open_dicom

    folder = require_data("dicom/siemens_mprage_sagittal") / "dicom/siemens_mprage_sagittal"
    files = [path.read_bytes() for path in sorted(folder.glob("*.dcm"))]
    shuffled = files.copy()
    Random(1).shuffle(shuffled)  # noqa: S311
    one = service.predict(*files).json()
    other = service.predict(*shuffled).json()
    assert one["series"][0]["tumor_probability"] == other["series"][0]["tumor_probability"]
    places = [open_dicom(data, DEFAULT_POLICY).reference(1) for data in files]
    score = score_series(places, [entry["tumor_probability"] for entry in one["predictions"]])
    assert one["series"][0]["tumor_probability"] == pytest.approx(score.tumor_probability, abs=1e-5)
    assert one["series"][0]["most_suspicious"] == score.most_suspicious
