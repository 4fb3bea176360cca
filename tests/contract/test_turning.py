"""A slice lies before the model as it is read, however it is stored, and what is found turns back."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import EnhancedMRImageStorage

from contract.decoding import decode, open_source
from contract.preprocessing import DEFAULT_SPEC, Placement, preprocess_placed
from contract.region import Geometry, cell_grid, find_region, spread
from contract.turning import AS_STORED, TURNS, Turn, upright
from tests.contract.samples import OBJECTS, RANGE, encode, grey_slice, mr_frames, mr_object
from tests.contract.test_region import record
from tests.support.turned import PLANES, orientation, tilted

GREY = grey_slice()

EACH_TURN = pytest.mark.parametrize(
    "turn", TURNS, ids=lambda turn: "".join(map(str, map(int, turn)))
)
EACH_PLANE = pytest.mark.parametrize("plane", PLANES)


def turn_of(values: list[float]) -> Turn:
    a, b, c, d, e, f = values
    return upright((a, b, c, d, e, f))


def test_there_are_eight_ways_to_lay_a_slice() -> None:
    seen = {turn.apply(np.arange(6).reshape(2, 3)).tobytes() + bytes([turn[0]]) for turn in TURNS}
    assert len(seen) == len(TURNS) == 8
    assert TURNS[0] == AS_STORED


@EACH_TURN
def test_undone_it_is_as_it_was(turn: Turn) -> None:
    assert np.array_equal(turn.undo(turn.apply(GREY)), GREY)
    assert turn.apply(GREY).shape == turn.size(GREY.shape)
    marked = np.zeros(GREY.shape, np.uint8)
    marked[10:30, 5:50] = 1
    rows, columns = np.nonzero(turn.apply(marked))
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert turn.undo_box(box, GREY.shape) == (5, 10, 50, 30)


class TestUpright:
    @EACH_TURN
    @EACH_PLANE
    def test_of_every_plane_stored_in_every_way(self, plane: str, turn: Turn) -> None:
        assert turn_of(orientation(turn, plane)) == turn

    @EACH_TURN
    @EACH_PLANE
    @pytest.mark.parametrize("axis", range(3))
    @pytest.mark.parametrize("degrees", [-44, -20, 3, 44])
    def test_of_oblique_slices(self, plane: str, turn: Turn, degrees: float, axis: int) -> None:
        assert turn_of(orientation(turn, plane, tilted(degrees, axis))) == turn

    @EACH_PLANE
    def test_halfway_between_two_ways_it_stays(self, plane: str) -> None:
        for degrees in (44.9, 45, 45.1):
            rotation = tilted(degrees, PLANES[plane])
            assert turn_of(orientation(AS_STORED, plane, rotation)) == AS_STORED

    def test_far_from_every_plane_it_stays(self) -> None:
        row, column = np.array([-1, 1, 0]) / 2**0.5, np.array([1, 1, -2]) / 6**0.5
        assert turn_of([*row.tolist(), *column.tolist()]) == AS_STORED

    def test_without_an_orientation_it_stays(self) -> None:
        assert upright(None) == AS_STORED

    @pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.stem)
    def test_real_objects_are_stored_as_they_are_read(self, path: Path) -> None:
        found = decode(path.read_bytes())
        assert found.turn == AS_STORED
        assert np.shares_memory(found.upright, found.pixels)


class TestSlice:
    @EACH_TURN
    @EACH_PLANE
    @pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 0.5), (0.5, 1.1)], ids=str)
    def test_is_stored_in_any_way_and_read_in_one(
        self, spacing: tuple[float, float], plane: str, turn: Turn
    ) -> None:
        """Bit for bit, with pixels that are not square too."""
        known = decode(mr_object(GREY, attributes=RANGE | {"PixelSpacing": list(spacing)}))
        attributes = RANGE | {
            "PixelSpacing": list(turn.size(spacing)),  # type: ignore[arg-type]
            "ImageOrientationPatient": orientation(turn, plane),
        }
        stored = np.ascontiguousarray(turn.undo(GREY))
        found = decode(mr_object(stored, attributes=attributes))
        assert found.turn == turn
        assert np.array_equal(found.upright, known.upright)
        assert np.array_equal(found.pixels, turn.undo(known.pixels))
        assert found.pixels.flags.c_contiguous
        assert found.original_size == stored.shape

    def test_each_frame_has_its_own(self) -> None:
        groups = []
        for turn in TURNS[:4]:
            own, plane = Dataset(), Dataset()
            plane.ImageOrientationPatient = orientation(turn)
            own.PlaneOrientationSequence = [plane]
            groups.append(own)
        frames = [np.ascontiguousarray(turn.undo(GREY)) for turn in TURNS[:4]]
        attributes = {"SOPClassUID": EnhancedMRImageStorage, **RANGE}
        attributes["PerFrameFunctionalGroupsSequence"] = groups
        source = open_source(mr_frames(frames, attributes=attributes))
        for frame, turn in enumerate(TURNS[:4], 1):
            assert source.slice(frame).turn == turn
            assert np.array_equal(source.slice(frame).upright, GREY)

    def test_a_picture_lies_as_it_is(self) -> None:
        assert decode(encode(GREY, "PNG")).turn == AS_STORED


class TestWhatIsFound:
    @EACH_TURN
    def test_lies_on_the_stored_pixels(self, turn: Turn) -> None:
        """Where the region, the grid and the heat map of the slice as it is read lie in it, turned."""
        attributes = RANGE | {"PixelSpacing": [0.7, 0.5]}
        known = decode(mr_object(GREY, attributes=attributes))
        attributes |= {"PixelSpacing": list(turn.size((0.7, 0.5)))}  # type: ignore[arg-type]
        attributes |= {"ImageOrientationPatient": orientation(turn)}
        found = decode(mr_object(np.ascontiguousarray(turn.undo(GREY)), attributes=attributes))
        expected, actual = (
            Geometry.of(image, preprocess_placed(image.upright)[1], DEFAULT_SPEC)
            for image in (known, found)
        )
        cells = np.zeros((56, 56), np.float32)
        cells[20:31, 30:37] = np.linspace(0.55, 0.95, 77).reshape(11, 7)
        cells[31:34, 30] = 0.7
        regions = [find_region(cells, geometry, record()) for geometry in (expected, actual)]
        assert regions[0] is not None
        assert regions[1] is not None
        assert np.array_equal(regions[1].mask(), turn.undo(regions[0].mask()))
        rows, columns = np.nonzero(regions[1].mask())
        assert regions[1].box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert regions[1].score == regions[0].score
        assert regions[1].area_mm2 == pytest.approx(regions[0].area_mm2)
        heat = [spread(cells, geometry) for geometry in (expected, actual)]
        assert np.array_equal(heat[1], turn.undo(heat[0]))
        grids = [cell_grid(cells, geometry) for geometry in (expected, actual)]
        assert np.array_equal(grids[1].values, turn.undo(grids[0].values))
        assert turn.undo_box(grids[0].box, found.original_size) == grids[1].box

    @given(st.sampled_from(TURNS), st.integers(0, 2**32 - 1))
    def test_of_any_mask(self, turn: Turn, seed: int) -> None:
        rng = np.random.default_rng(seed)
        cells = rng.random((14, 14)).astype(np.float32)
        box = (0, 0, 30, 20), (0, 4, 28, 24)
        read = Geometry(Placement(*box), (28, 28), (20, 30), (41, 57))
        stored = Geometry(
            Placement(*box), (28, 28), turn.size((20, 30)), turn.size((41, 57)), None, turn
        )
        one, other = (find_region(cells, place, record(threshold=0.7)) for place in (read, stored))
        assert one is not None
        assert other is not None
        assert np.array_equal(other.mask(), turn.undo(one.mask()))
        assert other.run_lengths()["size"] == list(turn.size((41, 57)))
