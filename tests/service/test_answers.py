"""What a version with every output answers: where, how sure, and when not; the tiny model."""

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from contract.answer import Decision, Outputs, Rules
from contract.manifest import RegionRecord
from contract.preprocessing import Placement
from contract.region import Geometry, Region
from service.answers import Answer, MaskForm, region_content
from service.keys import Role, make_key
from service.operation import PARAMETERS, Options
from service.schemas import PredictAnswer
from tests.contract.samples import RANGE, encode, mr_object
from tests.support.inputs import in_colour
from tests.support.keys import write_keys
from tests.support.masks import run_length_mask
from tests.support.models import CLASSES, EXPLAINED, MAPS, NAME, TWO_HEADS, head
from tests.support.service import RULES, Service, serving, settings_for
from tests.support.slices import HEALTHY, PATCH, STRANGE, TUMOR


def disc(rows: int = 300, columns: int = 260, scale: float = 1) -> NDArray[np.bool_]:
    y, x = np.mgrid[0:rows, 0:columns]
    column, row, radius = (scale * value for value in PATCH)
    return np.asarray((y - row) ** 2 + (x - column) ** 2 < radius**2)


def entry(service: Service, image: bytes, **query: Any) -> dict[str, Any]:
    response = service.predict(image, params=query)
    assert response.status_code == 200, response.text
    PredictAnswer.model_validate_json(response.content)
    found: dict[str, Any] = response.json()["predictions"][0]
    return found


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    assert one.shape == other.shape
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


class TestAnswer:
    def test_a_tumor_is_found_where_it_is(self, two_heads: Service) -> None:
        found = entry(two_heads, TUMOR)
        assert list(found) == [
            *("input", "label", "probability", "probabilities", "tumor_probability", "decision"),
            *("prediction_set", "in_distribution", "region"),
        ]
        assert (found["label"], found["decision"]) == ("glioma", "tumor")
        assert found["prediction_set"] == ["glioma"]
        assert found["in_distribution"] is True
        assert sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert found["tumor_probability"] == pytest.approx(
            1 - found["probabilities"]["notumor"], abs=1e-5
        )
        region = found["region"]
        assert region.keys() == {"source", "box", "score", "area_pixels"}
        assert region["source"] == "mask"
        column, row, radius = PATCH
        expected = (column - radius, row - radius, column + radius, row + radius)
        assert np.abs(np.subtract(region["box"], expected)).max() <= 3
        assert region["area_pixels"] == pytest.approx(disc().sum(), rel=0.1)
        assert region["score"] > 0.9

    def test_where_there_is_none_the_region_is_null(self, two_heads: Service) -> None:
        found = entry(two_heads, HEALTHY)
        assert (found["label"], found["decision"]) == ("notumor", "no_tumor")
        assert "notumor" in found["prediction_set"]
        assert found["region"] is None

    def test_what_is_no_head_is_referred(self, two_heads: Service) -> None:
        found = entry(two_heads, STRANGE)
        assert found["in_distribution"] is False
        assert found["decision"] == "refer"
        assert found["prediction_set"] == list(CLASSES)

    def test_each_of_many_gets_its_own(self, two_heads: Service) -> None:
        images = [TUMOR, b"junk", HEALTHY, STRANGE] * 3
        entries = two_heads.predict(*images).json()["predictions"]
        assert [found.get("decision") for found in entries] == [
            "tumor",
            None,
            "no_tumor",
            "refer",
        ] * 3

    def test_a_large_jpeg_has_its_region_in_its_own_pixels(self, two_heads: Service) -> None:
        """It is decoded at half its size."""
        large = np.kron(head(patch=PATCH), np.ones((4, 4), np.uint8))
        found = entry(two_heads, encode(large, "JPEG", quality=95), mask="rle")
        mask = run_length_mask(found["region"]["mask"])
        assert dice(mask, disc(1200, 1040, 4)) > 0.95

    def test_dicom_has_square_millimetres_and_stored_pixels(self, two_heads: Service) -> None:
        """Every second row only, 1 mm high: pixels are made square for the model, and back."""
        data = mr_object(head(patch=PATCH)[::2], attributes=RANGE | {"PixelSpacing": [1.0, 0.5]})
        found = entry(two_heads, data, mask="rle")
        region = found["region"]
        assert region["area_mm2"] == pytest.approx(region["area_pixels"] * 0.5)
        assert dice(run_length_mask(region["mask"]), disc()[::2]) > 0.95
        assert found["dicom"]["frame"] == 1

    @pytest.mark.parametrize("spacing", [[50, 0.5], [9e160, 9e160], [1e-300, 1e-300]], ids=str)
    def test_spacing_that_is_not_believed_gives_no_area(
        self, two_heads: Service, spacing: list[float]
    ) -> None:
        data = mr_object(head(patch=PATCH), attributes=RANGE | {"PixelSpacing": spacing})
        region = entry(two_heads, data)["region"]
        assert region["area_pixels"] > 0
        assert "area_mm2" not in region


class TestMask:
    def test_run_lengths_and_png_are_the_same_mask(self, two_heads: Service) -> None:
        lengths = entry(two_heads, TUMOR, mask="rle")["region"]["mask"]
        png = entry(two_heads, TUMOR, mask="png")["region"]["mask"]
        assert (lengths["encoding"], png["encoding"]) == ("rle", "png")
        with Image.open(io.BytesIO(base64.b64decode(png["data"]))) as image:
            pixels = np.asarray(image)
        np.testing.assert_array_equal(run_length_mask(lengths), pixels)
        assert dice(pixels, disc()) > 0.95
        assert png["size"] == lengths["size"] == [300, 260]

    def test_it_comes_only_where_it_is_asked_for(self, two_heads: Service) -> None:
        assert "mask" not in entry(two_heads, TUMOR)["region"]
        assert "mask" not in entry(two_heads, TUMOR, mask="none")["region"]

    def test_another_form_is_refused(self, two_heads: Service) -> None:
        response = two_heads.predict(TUMOR, params={"mask": "svg"})
        assert (response.status_code, response.json()["code"]) == (400, "invalid_parameter")

    def test_a_version_without_masks_has_no_region(self, service: Service, jpeg: bytes) -> None:
        record = service.state.registry.engine().stored.manifest.answer
        found = entry(service, jpeg, mask="rle")
        assert ("region" in found) is (record is not None and record.region is not None)


def at(threshold: float, low: float, high: float | None = None) -> dict[str, float]:
    """A threshold and a band, which is empty without its upper end."""
    upper = low if high is None else high
    return {"tumor_threshold": threshold, "refer_low": low, "refer_high": upper}


WITHOUT_KEYS = {
    "threshold above the band": ({"tumor_threshold": 0.999999}, TUMOR, "refer"),
    "threshold below the band": ({"tumor_threshold": 0.0}, HEALTHY, "refer"),
    "threshold and empty band above": (at(0.999999, 0.999999), TUMOR, "no_tumor"),
    "threshold and empty band below": (at(0.0, 0.0), HEALTHY, "tumor"),
    "threshold and band apart from it": (at(0.999999, 0.0, 0.1), TUMOR, "no_tumor"),
    "band": ({"refer_low": 0.0, "refer_high": 1.0}, HEALTHY, "refer"),
    "empty band": ({"refer_low": 0.5, "refer_high": 0.5}, TUMOR, "tumor"),
}
NONSENSE = {
    "no number": {"tumor_threshold": "high"},
    "not a number": {"tumor_threshold": "nan"},
    "underscore": {"tumor_threshold": "0_0.5"},
    "digits of another script": {"tumor_threshold": "\N{ARABIC-INDIC DIGIT ZERO}.5"},
    "blanks": {"tumor_threshold": " 0.5 "},
    "above 1": {"tumor_threshold": "1.1"},
    "below 0": {"refer_low": "-0.1", "refer_high": "1"},
    "half a band": {"refer_low": "0.1"},
    "band upside down": {"refer_low": "0.8", "refer_high": "0.2"},
}


@pytest.fixture(scope="module")
def guarded(
    tiny_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, dict[str, str]]]:
    made = {
        "pacs": make_key("pacs", [Role.PREDICT]),
        "chief": make_key("chief", [Role.PREDICT, Role.ADMIN]),
    }
    keys = [key for _, key in made.values()]
    path = write_keys(tmp_path_factory.mktemp("keys") / "keys.txt", *keys)
    settings = settings_for(
        tiny_store, model=NAME, model_version=str(TWO_HEADS), api_keys_file=path
    )
    with serving(settings) as running:
        yield running, {name: presented for name, (presented, _) in made.items()}


BAND = replace(RULES, tumor_threshold=0.5, refer_band=(0.5, 0.6))

STRETCHED = {
    "above": (BAND, 0.9, (0.5, 0.9)),
    "below": (BAND, 0.25, (0.25, 0.6)),
    "within": (BAND, 0.55, (0.5, 0.6)),
    "at the upper end": (BAND, 0.6, (0.5, 0.6)),
    "an empty band": (replace(BAND, refer_band=(0.5, 0.5)), 0.9, (0.5, 0.5)),
    "no band": (replace(BAND, refer_band=None), 0.9, None),
}


@pytest.mark.parametrize(("rules", "threshold", "band"), STRETCHED.values(), ids=STRETCHED.keys())
def test_a_threshold_that_moves_alone_takes_the_band_with_it(
    rules: Rules, threshold: float, band: tuple[float, float] | None
) -> None:
    moved = Options(tumor_threshold=threshold).applied(rules)
    assert (moved.tumor_threshold, moved.refer_band) == (threshold, band)
    order = [Decision.NO_TUMOR, Decision.REFER, Decision.TUMOR]
    decided = [order.index(moved.decide(share / 100)) for share in range(101)]
    assert decided == sorted(decided), "a higher tumour probability has the weaker decision"


class TestOperatingPoint:
    @pytest.mark.parametrize(
        ("query", "image", "decision"), WITHOUT_KEYS.values(), ids=WITHOUT_KEYS.keys()
    )
    def test_a_request_may_move_it_where_there_are_no_keys(
        self, two_heads: Service, query: dict[str, float], image: bytes, decision: str
    ) -> None:
        before = entry(two_heads, image)
        moved = entry(two_heads, image, **query)
        assert moved["decision"] == decision
        assert moved | {"decision": None} == before | {"decision": None}
        assert entry(two_heads, image) == before

    @pytest.mark.parametrize("query", NONSENSE.values(), ids=NONSENSE.keys())
    def test_nonsense_is_refused(self, two_heads: Service, query: dict[str, str]) -> None:
        response = two_heads.predict(TUMOR, params=query)
        assert (response.status_code, response.json()["code"]) == (400, "invalid_parameter")

    @pytest.mark.parametrize("path", ["/predict", "/explain"])
    @pytest.mark.parametrize(
        ("query", "word"),
        [
            ("tumor_treshold=0.99", "no such parameter"),
            ("Tumor_threshold=0.99", "no such parameter"),
            ("tumor_threshold=0.1&tumor_threshold=0.99", "tumor_threshold must come once"),
            ("mask=rle&mask=rle", "mask must come once"),
            ("Mustermann=1", "no such parameter"),
        ],
    )
    def test_a_parameter_that_does_not_exist_or_comes_twice_is_refused(
        self, two_heads: Service, path: str, query: str, word: str
    ) -> None:
        response = two_heads.client.post(f"{path}?{query}", files={"files": TUMOR})
        assert (response.status_code, response.json()["code"]) == (400, "invalid_parameter")
        assert word in response.json()["detail"]
        # Whoever builds a wrong address may have put anything into it.
        assert not any(name in response.text for name in ("treshold", "Tumor", "Mustermann"))
        if "no such parameter" in response.json()["detail"]:
            assert "mask, tumor_threshold, refer_low, refer_high" in response.json()["detail"]
            assert ("frame" in response.json()["detail"]) == (path == "/explain")

    def test_what_only_explain_has_is_none_of_predict(self, two_heads: Service) -> None:
        response = two_heads.predict(TUMOR, params={"frame": "1"})
        assert (response.status_code, response.json()["code"]) == (400, "invalid_parameter")

    def test_every_parameter_is_documented(self, two_heads: Service) -> None:
        paths = two_heads.client.get("/openapi.json").json()["paths"]
        for path, names in (("/predict", PARAMETERS), ("/explain", (*PARAMETERS, "frame"))):
            described = paths[path]["post"]["parameters"]
            assert [parameter["name"] for parameter in described] == list(names)

    def test_unlike_data_stay_referred(self, two_heads: Service) -> None:
        assert entry(two_heads, STRANGE, tumor_threshold=0.0)["decision"] == "refer"

    @pytest.mark.parametrize("name", ["tumor_threshold", "refer_low", "refer_high"])
    def test_with_keys_it_takes_an_administrator(
        self, guarded: tuple[Service, dict[str, str]], name: str
    ) -> None:
        service, keys = guarded
        query = {"refer_low": "0", "refer_high": "1", name: "0.9"}
        for parameters in ({name: "0.9"}, query):
            refused = service.predict(TUMOR, params=parameters, headers={"X-API-Key": keys["pacs"]})
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
            assert "admin" in refused.json()["detail"]
        allowed = service.predict(TUMOR, params=query, headers={"X-API-Key": keys["chief"]})
        assert allowed.status_code == 200
        assert service.predict(TUMOR, headers={"X-API-Key": keys["pacs"]}).status_code == 200
        assert (
            service.predict(
                TUMOR, params={"mask": "rle"}, headers={"X-API-Key": keys["pacs"]}
            ).status_code
            == 200
        )


SETTINGS: dict[str, tuple[dict[str, Any], bytes, dict[str, Any]]] = {
    "threshold": ({"tumor_threshold": 0.999999}, TUMOR, {"decision": "refer"}),
    "threshold and band": (at(0.999999, 0.999999), TUMOR, {"decision": "no_tumor"}),
    "band": ({"refer_low": 0.0, "refer_high": 1.0}, HEALTHY, {"decision": "refer"}),
    "set": ({"prediction_set_threshold": 0.0}, TUMOR, {"prediction_set": list(CLASSES)}),
    "ood, strict": (
        {"ood_threshold": 1e-4},
        TUMOR,
        {"in_distribution": False, "decision": "refer"},
    ),
    "ood, lax": ({"ood_threshold": 100.0}, STRANGE, {"in_distribution": True}),
    "region's cells": ({"region_min_cells": 112 * 112}, TUMOR, {"region": None}),
    "region's probability": ({"region_min_tumor_probability": 1.0}, TUMOR, {"region": None}),
}


@pytest.mark.parametrize(("changes", "image", "expected"), SETTINGS.values(), ids=SETTINGS.keys())
def test_settings_go_before_the_version(
    tiny_store: Path, changes: dict[str, Any], image: bytes, expected: dict[str, Any]
) -> None:
    settings = settings_for(tiny_store, model=NAME, model_version=str(TWO_HEADS), **changes)
    with serving(settings) as service:
        found = entry(service, image)
        assert {name: found[name] for name in expected} == expected


def test_a_higher_temperature_makes_classes_less_sure(two_heads: Service, tiny_store: Path) -> None:
    settings = settings_for(tiny_store, model=NAME, model_version=str(TWO_HEADS), temperature=20.0)
    with serving(settings) as service:
        found, usual = entry(service, TUMOR), entry(two_heads, TUMOR)
    assert found["label"] == usual["label"]
    assert found["probability"] < usual["probability"]


def test_a_setting_without_effect_is_said_in_the_log(
    tiny_store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(
        tiny_store,
        model=NAME,
        model_version=str(EXPLAINED),
        temperature=2.0,
        prediction_set_threshold=0.1,
        ood_threshold=1.0,
        region_min_cells=5,
    )
    with serving(settings) as service:
        assert not {"region", "prediction_set"} & entry(service, TUMOR).keys()
    told = [record.fields for record in caplog.records if hasattr(record, "fields")]
    assert {"setting": "BRAIN_TEMPERATURE"} in told
    assert {"setting": "BRAIN_PREDICTION_SET_THRESHOLD"} in told
    assert {"setting": "BRAIN_OOD_THRESHOLD"} in told
    assert {"setting": "BRAIN_REGION_MIN_CELLS"} in told


def test_regions_of_activation_maps_have_the_same_settings(tiny_store: Path) -> None:
    areas = []
    for threshold in (None, 0.95):
        settings = settings_for(
            tiny_store, model=NAME, model_version=str(MAPS), region_threshold=threshold
        )
        with serving(settings) as service:
            areas.append(entry(service, TUMOR)["region"]["area_pixels"])
    assert 0 < areas[1] < areas[0]


def test_the_example_in_openapi_is_an_answer(two_heads: Service) -> None:
    document = two_heads.client.get("/openapi.json").json()
    operation = document["paths"]["/predict"]["post"]
    examples = operation["responses"]["200"]["content"]["application/json"]["examples"]
    for example in examples.values():
        PredictAnswer.model_validate_json(json.dumps(example["value"]))
    assert [parameter["name"] for parameter in operation["parameters"]] == [
        "mask",
        "tumor_threshold",
        "refer_low",
        "refer_high",
    ]


def test_an_area_has_hundredths_of_a_square_millimetre() -> None:
    region = Region((1, 1, 2, 2), 0.9, np.ones((1, 1), np.bool_), (3, 3), 0.123456)
    assert region_content(region, MaskForm.NONE)["area_mm2"] == 0.12


@pytest.mark.parametrize(("least", "there"), [(0.5, True), (0.500001, False)])
def test_a_region_needs_its_least_tumour_probability(least: float, there: bool) -> None:
    record = RegionRecord(threshold=0.5, min_cells=1, min_tumor_probability=least)
    rules = replace(RULES, region=record)
    outputs = Outputs(
        np.array([[0.25, 0.25, 0.5, 0]], np.float32), mask=np.ones((1, 8, 8), np.float32)
    )
    box, size = (0, 0, 8, 8), (8, 8)
    geometry = Geometry(Placement(box, box), size, size, size, None)
    answer = Answer.of(outputs, geometry, rules)
    assert (answer.region is not None) is there


def test_a_tie_of_two_classes_is_answered_as_it_is_decided() -> None:
    rules = Rules(("notumor", "tumor"), ("tumor",), 0.5)
    answer = Answer.of(Outputs(np.array([[0.5, 0.5]], np.float32)), None, rules)
    content = answer.content(MaskForm.NONE)
    assert (content["label"], content["decision"]) == ("tumor", "tumor")
    hard = replace(rules, tumor_threshold=0.7)
    content = Answer.of(Outputs(np.array([[0.5, 0.5]], np.float32)), None, hard).content(
        MaskForm.NONE
    )
    assert (content["label"], content["decision"]) == ("notumor", "no_tumor")


@pytest.mark.parametrize("version", ["1", "4"])
def test_a_picture_in_colour_is_referred(model_store: Path, jpeg: bytes, version: str) -> None:
    """What is orange in it would look like tissue that is bright; version 1 cannot tell by itself."""
    with serving(settings_for(model_store, model_version=version)) as service:
        plain, coloured = service.predict(jpeg, in_colour(jpeg)).json()["predictions"]
        explained = service.client.post(
            "/explain",
            files={"files": in_colour(jpeg)},
            headers={"Accept": "application/json"},
        )
    assert plain["decision"] == "tumor"
    assert plain.get("in_distribution", True)
    assert coloured["decision"] == "refer"
    assert coloured["in_distribution"] is False
    if version == "4":
        assert len(coloured["prediction_set"]) == 4
        assert explained.json()["explanation"]["in_distribution"] is False
