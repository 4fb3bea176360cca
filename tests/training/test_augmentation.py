import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="training needs TensorFlow")

from training.augmentation import augment  # noqa: E402
from training.recipe import Augmentation  # noqa: E402

pytestmark = pytest.mark.tensorflow

NONE = Augmentation(
    rotation_degrees=0, shift=0, zoom=0, flip_horizontal=False, brightness=0, contrast=0
)


def _disc(side: int = 64) -> np.ndarray:
    rows, columns = np.mgrid[0:side, 0:side]
    inside = (rows - 20) ** 2 + (columns - 40) ** 2 < 100
    return np.where(inside, 200, 0).astype(np.uint8)


def _centre(image: np.ndarray) -> tuple[float, float]:
    rows, columns = np.nonzero(image > 20)
    return float(rows.mean()), float(columns.mean())


def _augment(settings: Augmentation, count: int = 64, side: int = 64, seed: int = 0) -> np.ndarray:
    batch = np.repeat(_disc()[None], count, axis=0)
    return np.asarray(
        augment(tf.constant(batch), tf.constant([seed, 1]), settings=settings, resolution=side)
    )


def test_without_ranges_nothing_changes() -> None:
    assert np.allclose(_augment(NONE), _disc(), atol=1e-3)


def test_scaling_keeps_everything_in_its_place() -> None:
    row, column = _centre(_augment(NONE, side=32)[0])
    assert (row + 0.5) * 2 == pytest.approx(_centre(_disc())[0] + 0.5, abs=0.6)
    assert (column + 0.5) * 2 == pytest.approx(_centre(_disc())[1] + 0.5, abs=0.6)


def test_equal_seeds_give_equal_batches_and_others_do_not() -> None:
    settings = NONE.model_copy(update={"shift": 0.1, "rotation_degrees": 15.0})
    assert np.array_equal(_augment(settings), _augment(settings))
    assert not np.array_equal(_augment(settings), _augment(settings, seed=1))


@pytest.mark.parametrize(
    ("change", "reach_pixels"), [({"shift": 0.1}, 6.4), ({"rotation_degrees": 15.0}, 4.2)]
)
def test_moves_stay_within_their_range_and_reach_it(
    change: dict[str, float], reach_pixels: float
) -> None:
    start = np.array(_centre(_disc()))
    moved = np.array([_centre(image) for image in _augment(NONE.model_copy(update=change))])
    distance = np.abs(moved - start).max(axis=1)
    assert distance.max() <= reach_pixels + 1
    assert distance.max() > reach_pixels / 2
    assert np.std(moved) > 0


@pytest.mark.parametrize("fill", ["black", "nearest"])
def test_hardly_bent_is_as_not_bent(fill: str) -> None:
    moved = NONE.model_copy(
        update={"rotation_degrees": 40.0, "shift": 0.3, "zoom": 0.2, "fill": fill}
    )
    bent = moved.model_copy(update={"elastic": 1e-9})
    noise = np.random.default_rng(0).integers(0, 256, (16, 64, 64), np.uint8)
    plain, other = (
        augment(tf.constant(noise), tf.constant([0, 1]), settings=settings, resolution=48)
        for settings in (moved, bent)
    )
    assert np.allclose(plain, other, atol=0.1)


def test_bending_moves_and_deforms_slice_and_mask_alike() -> None:
    settings = NONE.model_copy(update={"elastic": 0.05})
    batch = np.repeat(_disc()[None], 64, axis=0)
    # In a graph, as batches are made: TensorFlow simplifies it.
    slices, masks = tf.function(augment)(
        tf.constant(batch),
        tf.constant([0, 1]),
        settings=settings,
        resolution=64,
        masks=tf.constant(np.where(batch > 0, 255, 0).astype(np.uint8)),
    )
    assert np.allclose(slices / 200, masks, atol=1e-4)
    moved = np.abs([np.subtract(_centre(image), _centre(_disc())) for image in slices.numpy()])
    # Splines overshoot the knots a little.
    assert 0.05 * 64 / 2 < moved.max() < 1.5 * 0.05 * 64
    areas = (slices.numpy() > 100).sum(axis=(1, 2)) / (_disc() > 100).sum()
    assert areas.min() < 0.95 < 1.05 < areas.max()


def test_zoom_changes_the_area_both_ways() -> None:
    areas = (_augment(NONE.model_copy(update={"zoom": 0.1})) > 100).sum(axis=(1, 2))
    whole = (_disc() > 100).sum()
    assert 0.78 < areas.min() / whole < 0.92
    assert 1.08 < areas.max() / whole < 1.25


def test_half_are_mirrored() -> None:
    columns = [_centre(i)[1] for i in _augment(NONE.model_copy(update={"flip_horizontal": True}))]
    mirrored = sum(column < 32 for column in columns)
    assert set(np.round(columns)) == {40.0, 23.0}
    assert 16 < mirrored < 48


def test_light_changes_the_head_and_never_the_air_or_the_range() -> None:
    lit = _augment(NONE.model_copy(update={"brightness": 0.15, "contrast": 0.2}))
    assert (lit[:, _disc() == 0] == 0).all()
    head = lit[:, 20, 40]
    assert head.min() < 190
    assert head.max() > 210
    assert lit.min() >= 0
    assert lit.max() <= 255


def test_half_are_turned_upside_down() -> None:
    rows = [_centre(i)[0] for i in _augment(NONE.model_copy(update={"flip_vertical": True}))]
    upside = sum(row > 32 for row in rows)
    assert set(np.round(rows)) == {20.0, 43.0}
    assert 16 < upside < 48


def test_a_shear_moves_rows_apart_and_keeps_their_height() -> None:
    bar = np.zeros((64, 64), np.uint8)
    bar[8:56, 30:34] = 200
    batch = tf.constant(np.repeat(bar[None], 64, axis=0))
    settings = NONE.model_copy(update={"shear": 0.2})
    leaning = np.asarray(augment(batch, tf.constant([0, 1]), settings=settings, resolution=64))
    columns = np.arange(64)
    top, bottom = (
        (leaning[:, row] * columns).sum(axis=1) / leaning[:, row].sum(axis=1) for row in (12, 52)
    )
    # 40 rows apart, a slope of at most 0.2.
    assert 4 < np.abs(top - bottom).max() <= 8.5
    rows = (leaning > 100).any(axis=2).sum(axis=1)
    assert set(rows) <= {47, 48, 49}


def test_what_comes_in_from_outside_is_black_or_the_nearest_pixel() -> None:
    bright = tf.constant(np.full((16, 32, 32), 100, np.uint8))
    masks = tf.constant(np.full((16, 32, 32), 255, np.uint8))
    for fill, lowest in (("black", 0.0), ("nearest", 100.0)):
        settings = NONE.model_copy(update={"shift": 0.3, "fill": fill})
        moved, outlines = augment(
            bright, tf.constant([0, 1]), settings=settings, resolution=32, masks=masks
        )
        assert float(tf.reduce_min(moved)) == pytest.approx(lowest, abs=1e-3)
        # A tumour never grows out of the slice.
        assert float(tf.reduce_min(outlines)) == 0.0
