"""However a DICOM slice is stored: the shipped model sees it as it is read, and says where it lies."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedMRImageStorage

from contract.turning import AS_STORED, TURNS, Turn
from tests.contract.samples import RANGE, SLICES, mr_frames, mr_object
from tests.service.test_predict_dicom import RELATED, objects
from tests.support.dicom import encoded
from tests.support.masks import run_length_mask
from tests.support.results import AXIAL
from tests.support.service import Service
from tests.support.turned import orientation, tilted

SPACING = (0.45, 0.45)

SAME = ("label", "tumor_probability", "probabilities", "decision", "in_distribution")

each_turn = pytest.mark.parametrize(
    "turn", TURNS, ids=lambda turn: "".join(map(str, map(int, turn)))
)


def glioma() -> NDArray[np.uint8]:
    """A real slice with a tumour, as it is read; not square, so that a swapped axis shows."""
    with Image.open(next(path for path in SLICES if path.stem == "Te-gl_0014")) as image:
        pixels = np.asarray(image.convert("L"))
    return pixels[:, 30:-18]


def stored(turn: Turn, spacing: tuple[float, float] = SPACING, **attributes: Any) -> bytes:
    """The slice as an object that has to be turned to be read."""
    return mr_object(
        np.ascontiguousarray(turn.undo(glioma())),
        attributes=RANGE
        | {"ImageOrientationPatient": orientation(turn), "ImagePositionPatient": [-110, -90, 10]}
        | {"PixelSpacing": [spacing[1], spacing[0]] if turn.transposed else list(spacing)}
        | attributes,
    )


def entry(service: Service, data: bytes, frame: int = 1) -> dict[str, Any]:
    answer = service.predict(data, params={"mask": "rle"}).json()["predictions"]
    found: dict[str, Any] = answer[frame - 1]
    return found


def check(turn: Turn, read: dict[str, Any], found: dict[str, Any]) -> None:
    """What is said of a stored slice is what is said of it as it is read, in the stored pixels."""
    assert {key: found[key] for key in SAME} == {key: read[key] for key in SAME}
    mask = run_length_mask(found["region"]["mask"])
    assert np.array_equal(mask, turn.undo(run_length_mask(read["region"]["mask"])))
    rows, columns = np.nonzero(mask)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert found["region"]["box"] == box
    for key in ("score", "area_pixels", "area_mm2"):
        assert found["region"][key] == pytest.approx(read["region"][key])


@each_turn
@pytest.mark.parametrize("spacing", [SPACING, (0.5, 0.42)], ids=["square", "not square"])
def test_a_tumour_is_found_however_it_is_stored(
    service: Service, spacing: tuple[float, float], turn: Turn
) -> None:
    read = entry(service, stored(AS_STORED, spacing))
    assert read["decision"] == "tumor"
    assert read["in_distribution"]
    check(turn, read, entry(service, stored(turn, spacing)))


def test_what_says_nothing_of_how_it_lies_is_not_turned(service: Service) -> None:
    turn = Turn(upside_down=True)
    found = entry(service, stored(turn, ImageOrientationPatient=None))
    assert (found["in_distribution"], found["decision"]) == (False, "refer")


def test_an_oblique_slice(service: Service) -> None:
    turn = Turn(upside_down=True, mirrored=True)
    lying = orientation(turn, rotation=tilted(30, 0) @ tilted(-12, 2))
    check(
        turn,
        entry(service, stored(AS_STORED)),
        entry(service, stored(turn, ImageOrientationPatient=lying)),
    )


def test_frames_that_are_stored_in_different_ways(service: Service) -> None:
    turns = [
        AS_STORED,
        Turn(upside_down=True),
        Turn(mirrored=True),
        Turn(upside_down=True, mirrored=True),
    ]
    groups = []
    for number, turn in enumerate(turns):
        own, plane, place = Dataset(), Dataset(), Dataset()
        plane.ImageOrientationPatient = orientation(turn)
        place.ImagePositionPatient = [0, 0, 5 * number]
        own.PlaneOrientationSequence, own.PlanePositionSequence = [plane], [place]
        groups.append(own)
    attributes = {"SOPClassUID": EnhancedMRImageStorage, "PixelSpacing": list(SPACING), **RANGE}
    attributes["PerFrameFunctionalGroupsSequence"] = groups
    frames = [np.ascontiguousarray(turn.undo(glioma())) for turn in turns]
    data = mr_frames(frames, attributes=attributes)
    read = entry(service, stored(AS_STORED))
    for frame, turn in enumerate(turns, 1):
        check(turn, read, entry(service, data, frame))


@each_turn
def test_an_explanation_lies_on_the_stored_pixels(service: Service, turn: Turn) -> None:
    numbers, pictures = [], []
    for data in (stored(AS_STORED), stored(turn)):
        files = {"files": ("a", data)}
        response = service.client.post(
            "/explain", files=files, headers={"Accept": "application/json"}
        )
        numbers.append(response.json()["explanation"]["heatmap"])
        with Image.open(io.BytesIO(service.client.post("/explain", files=files).content)) as image:
            pictures.append(np.asarray(image, np.int16))
    assert np.array_equal(numbers[1]["values"], turn.undo(np.array(numbers[0]["values"])))
    box = turn.undo_box(tuple(numbers[0]["box"]), turn.size(glioma().shape))
    assert numbers[1]["box"] == pytest.approx(box, abs=0.011)
    for channel in range(3):
        difference = np.abs(pictures[1][..., channel] - turn.undo(pictures[0][..., channel]))
        # Lines are drawn a pixel to one side, and rounding has a direction.
        assert difference.mean() < 1


@each_turn
def test_a_segmentation_lies_on_the_stored_pixels(service: Service, turn: Turn) -> None:
    source = dcmread(AXIAL)
    pixels = np.ascontiguousarray(turn.undo(glioma())).astype(np.uint16)
    source.Rows, source.Columns = pixels.shape
    source.BitsAllocated, source.BitsStored, source.HighBit = 16, 16, 15
    source.PixelRepresentation = 0
    source.WindowCenter, source.WindowWidth = 128, 256
    source.PixelSpacing = list(SPACING)
    source.ImageOrientationPatient = orientation(turn)
    source.PixelData = pixels.tobytes()
    data = encoded(source)
    made = {
        item.Modality: item for item in objects(service.predict(data, headers={"Accept": RELATED}))
    }
    mask = np.squeeze(made["SEG"].pixel_array).astype(bool)
    read = entry(service, stored(AS_STORED))["region"]["mask"]
    assert np.array_equal(mask, turn.undo(run_length_mask(read)))
    plane = made["SEG"].SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    assert list(plane.ImageOrientationPatient) == pytest.approx(orientation(turn))
