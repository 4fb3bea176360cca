"""POST /explain: the picture and the numbers, of tiny models with a mask, with maps, and without."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.explanation import BOX, MAX_SIDE, OUTLINE
from service.schemas import ExplainAnswer
from tests.contract.samples import RANGE, encode, mr_frames, mr_object
from tests.service.test_archives import zipped
from tests.support.models import EXPLAINED, MAPS, NAME, head
from tests.support.results import enhanced
from tests.support.service import Service, run_python, serving, settings_for
from tests.support.slices import HEALTHY, PATCH, STRANGE, TUMOR

JSON = {"Accept": "application/json"}


@pytest.fixture(scope="module")
def maps(tiny_store: Path) -> Iterator[Service]:
    with serving(settings_for(tiny_store, model=NAME, model_version=str(MAPS))) as running:
        yield running


def explained(service: Service, image: bytes, **options: Any) -> Any:
    return service.client.post("/explain", files={"files": ("a.png", image)}, **options)


def picture(service: Service, image: bytes) -> NDArray[np.uint8]:
    response = explained(service, image)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(response.content)) as opened:
        assert opened.mode == "RGB"
        return np.asarray(opened)


def numbers(service: Service, image: bytes, **options: Any) -> dict[str, Any]:
    response = explained(service, image, headers=JSON, **options)
    assert response.status_code == 200, response.text
    ExplainAnswer.model_validate_json(response.content)
    found: dict[str, Any] = response.json()["explanation"]
    return found


def peak(heat: dict[str, Any]) -> tuple[float, float]:
    """Column and row of the hottest cells' middle, in the image's pixels."""
    values = np.array(heat["values"])
    left, top, right, bottom = heat["box"]
    rows, columns = np.nonzero(values >= values.max() - 0.05)
    across, down = (right - left) / values.shape[1], (bottom - top) / values.shape[0]
    return left + (columns.mean() + 0.5) * across, top + (rows.mean() + 0.5) * down


def of_colour(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray((pixels == colour).all(axis=2))


class TestPicture:
    def test_outline_and_box_surround_the_tumor(self, two_heads: Service) -> None:
        pixels = picture(two_heads, TUMOR)
        scale = 512 / 300
        assert pixels.shape == (512, round(260 * scale), 3)
        column, row, radius = (scale * value for value in PATCH)
        rows, columns = np.nonzero(of_colour(pixels, OUTLINE))
        distance = np.hypot(columns - column, rows - row)
        assert np.abs(distance - radius).max() < 6
        rows, columns = np.nonzero(of_colour(pixels, BOX))
        assert columns.min() == pytest.approx(column - radius, abs=6)
        assert columns.max() == pytest.approx(column + radius, abs=6)
        assert rows.min() == pytest.approx(row - radius, abs=6)
        assert rows.max() == pytest.approx(row + radius, abs=6)

    def test_the_tumor_is_hot_and_the_rest_is_grey(self, two_heads: Service) -> None:
        pixels = picture(two_heads, TUMOR).astype(int)
        scale = 512 / 300
        red, green, blue = pixels[round(120 * scale), round(170 * scale)]
        assert red > blue + 60
        assert blue > green, "red, and not the yellow of what is hardly warm"
        red, green, blue = pixels[round(220 * scale), round(100 * scale)]
        assert red == green == blue > 0

    def test_without_a_region_nothing_is_drawn(self, two_heads: Service) -> None:
        pixels = picture(two_heads, HEALTHY)
        assert not of_colour(pixels, OUTLINE).any()

    def test_of_a_strange_image_no_region_is_drawn(self, two_heads: Service) -> None:
        found = numbers(two_heads, STRANGE)
        assert found["region"] is not None
        assert found["in_distribution"] is False
        pixels = picture(two_heads, STRANGE)
        assert not (of_colour(pixels, OUTLINE) | of_colour(pixels, BOX)).any()

    def test_a_jpeg_is_shown_sharper_than_the_model_saw_it(self, two_heads: Service) -> None:
        large = np.kron(head(patch=PATCH), np.ones((4, 4), np.uint8))
        pixels = picture(two_heads, encode(large, "JPEG", quality=95))
        assert pixels.shape == (1200, 1040, 3)
        rows, columns = np.nonzero(of_colour(pixels, OUTLINE))
        assert np.abs(np.hypot(columns - 680, rows - 480) - 88).max() < 14

    def test_a_large_slice_is_shown_no_larger_than_a_screen(self, two_heads: Service) -> None:
        large = np.kron(head(patch=PATCH), np.ones((8, 8), np.uint8))
        assert picture(two_heads, encode(large, "PNG")).shape == (MAX_SIDE, 1775, 3)

    def test_dicom_is_shown_with_square_pixels(self, two_heads: Service) -> None:
        data = mr_object(head(patch=PATCH)[::2], attributes=RANGE | {"PixelSpacing": [1.0, 0.5]})
        pixels = picture(two_heads, data)
        assert pixels.shape == (512, round(260 * 512 / 300), 3)

    def test_of_several_frames_the_explained_one_is_shown(self, two_heads: Service) -> None:
        frames = [head(patch=None), head(patch=PATCH)]
        data = mr_frames(frames, attributes=RANGE)
        alone = [picture(two_heads, mr_object(frame, attributes=RANGE)) for frame in frames]
        for number, expected in enumerate(alone, 1):
            response = explained(two_heads, data, params={"frame": str(number)})
            with Image.open(io.BytesIO(response.content)) as shown:
                np.testing.assert_array_equal(np.asarray(shown), expected)

    def test_it_says_what_its_colours_are_made_of(self, two_heads: Service, maps: Service) -> None:
        for service, source in ((two_heads, "mask"), (maps, "cam")):
            for headers in ({}, JSON):
                response = explained(service, HEALTHY, headers=headers)
                assert response.headers["x-heatmap-source"] == source
                version = service.client.get("/health").json()["model"]["version"]
                assert response.headers["x-model-version"] == str(version)
        document = two_heads.client.get("/openapi.json").json()
        described = document["paths"]["/explain"]["post"]["responses"]["200"]["headers"]
        assert described["X-Heatmap-Source"]["schema"]["enum"] == ["mask", "cam", "explain"]
        assert described["X-Model-Version"]["schema"]["type"] == "integer"

    def test_a_raw_body_will_do(self, two_heads: Service) -> None:
        response = two_heads.client.post(
            "/explain", content=TUMOR, headers={"Content-Type": "image/png"}
        )
        assert response.headers["content-type"] == "image/png"


class TestNumbers:
    def test_the_mask_s_cells_lie_where_they_belong(self, two_heads: Service) -> None:
        found = numbers(two_heads, TUMOR, params={"mask": "rle"})
        assert found["decision"] == "tumor"
        assert found["region"]["mask"]["encoding"] == "rle"
        heat = found["heatmap"]
        assert heat["source"] == "mask"
        values = np.array(heat["values"])
        assert 0 <= values.min() <= values.max() <= 1
        column, row = peak({**heat, "values": values})
        # The skull's bright pixels are hot too, and pull the middle a little.
        assert (column, row) == pytest.approx(PATCH[:2], abs=25)
        left, top, right, bottom = heat["box"]
        assert 0 <= left < 130 < right <= 260
        assert 0 <= top < 150 < bottom <= 300

    def test_activation_maps_are_enough(self, maps: Service) -> None:
        found = numbers(maps, TUMOR)
        heat = found["heatmap"]
        assert (found["label"], heat["source"]) == ("glioma", "cam")
        assert np.max(heat["values"]) == 1
        assert peak(heat) == pytest.approx(PATCH[:2], abs=12)
        # Without a mask, they are what the region is found in as well.
        assert found["region"]["source"] == "cam"
        left, top, right, bottom = found["region"]["box"]
        assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx(PATCH[:2], abs=12)
        pixels = picture(maps, TUMOR)
        rows, columns = np.nonzero(of_colour(pixels, BOX))
        scale = 512 / 300
        assert columns.min() / scale == pytest.approx(left, abs=3)
        assert rows.max() / scale == pytest.approx(bottom, abs=3)

    def test_maps_give_no_region_where_the_answer_is_no_tumor(self, maps: Service) -> None:
        found = numbers(maps, HEALTHY)
        assert found["tumor_probability"] < 0.5
        assert found["region"] is None

    def test_maps_give_a_region_wherever_the_answer_is_a_tumor(self, maps: Service) -> None:
        sensitive = numbers(maps, HEALTHY, params={"tumor_threshold": "0"})
        assert (sensitive["decision"], sensitive["region"]["source"]) == ("tumor", "cam")
        strict = numbers(maps, TUMOR, params={"tumor_threshold": "1"})
        assert (strict["decision"], strict["region"]) == ("no_tumor", None)

    def test_the_most_suspicious_frame_is_explained(self, two_heads: Service) -> None:
        data = enhanced(legacy=True)
        entries = two_heads.predict(data).json()["predictions"]
        assert len(entries) == 5
        best = max(entries, key=lambda entry: entry["tumor_probability"])
        assert numbers(two_heads, data)["dicom"] == best["dicom"]
        third = numbers(two_heads, data, params={"frame": "3"})
        assert third["dicom"]["frame"] == 3
        response = explained(two_heads, data, params={"frame": "6"})
        assert (response.status_code, response.json()["code"]) == (400, "invalid_parameter")


class TestRefused:
    @pytest.mark.parametrize("frame", ["0", "-1", "x", "1.5", "9" * 20, "9" * 5000, "\u0661"])
    def test_a_frame_that_is_no_number(self, two_heads: Service, frame: str) -> None:
        response = explained(two_heads, TUMOR, params={"frame": frame})
        assert (response.status_code, response.json()["code"]) == (400, "invalid_parameter")

    def test_a_damaged_image(self, two_heads: Service) -> None:
        response = explained(two_heads, TUMOR[: len(TUMOR) // 2])
        assert (response.status_code, response.json()["code"]) == (422, "truncated_image")

    def test_two_images(self, two_heads: Service) -> None:
        files = [("files", ("a.png", TUMOR)), ("files", ("b.png", TUMOR))]
        response = two_heads.client.post("/explain", files=files)
        assert (response.status_code, response.json()["code"]) == (413, "too_many_files")
        assert response.json()["detail"] == "a request may have one file here"
        response = explained(two_heads, zipped({"a.png": TUMOR, "b.png": TUMOR}))
        assert (response.status_code, response.json()["code"]) == (413, "too_many_files")
        assert response.json()["detail"] == "the zip file may have one file here"

    def test_a_form_that_it_cannot_have(self, two_heads: Service) -> None:
        response = explained(two_heads, TUMOR, headers={"Accept": "image/webp"})
        assert (response.status_code, response.json()["code"]) == (406, "not_acceptable")

    def test_a_version_that_shows_nothing(self, tiny_store: Path) -> None:
        settings = settings_for(tiny_store, model=NAME, model_version=str(EXPLAINED))
        with serving(settings) as service:
            response = explained(service, TUMOR)
            assert (response.status_code, response.json()["code"]) == (501, "not_explainable")
            assert service.predict(TUMOR).status_code == 200


@pytest.mark.tensorflow
@pytest.mark.slow
def test_a_saved_model_may_explain_itself(tiny_store: Path) -> None:
    """In a process of its own, as TensorFlow's threads and warnings are not these tests'."""
    code = f"""
import tensorflow  # before anything waits for it
from pathlib import Path
from tests.service.test_explain import PATCH, TUMOR, explained, numbers, peak, picture
from tests.support.service import serving, settings_for
settings = settings_for(
    Path({str(tiny_store)!r}), model={NAME!r}, model_version="{EXPLAINED}", runtime="tensorflow",
    max_batch_size=2,
)
with serving(settings) as service:
    heat = numbers(service, TUMOR)["heatmap"]
    assert heat["source"] == "explain"
    column, row = peak(heat)
    assert abs(column - PATCH[0]) < 25 and abs(row - PATCH[1]) < 25, (column, row)
    assert picture(service, TUMOR).shape[0] == 512
    assert explained(service, TUMOR).headers["x-heatmap-source"] == "explain"
"""
    run_python("-c", code)
