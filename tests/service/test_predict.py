"""POST /predict: the answer of the HTTP contract, over real HTTP with the shipped model."""

import io
from pathlib import Path

import pytest
from PIL import Image

from service.schemas import PredictAnswer, Problem
from tests.support.service import Service


def png(jpeg: bytes) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(jpeg)).convert("L").save(out, "PNG")
    return out.getvalue()


def test_answer_has_the_fields_of_the_contract(service: Service, jpeg: bytes) -> None:
    response = service.predict(jpeg)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    content = response.json()
    assert content.keys() == {
        "request_id",
        "model",
        "tumor_classes",
        "predictions",
        "timing_ms",
    }
    assert content["tumor_classes"] == ["glioma", "meningioma", "pituitary"]
    assert content["request_id"] == response.headers["x-request-id"]
    assert content["model"] == {
        "name": "brain-tumor",
        "version": service.state.registry.engine().stored.manifest.version,
        "runtime": "litert",
        "device": "cpu",
    }
    assert content["timing_ms"].keys() == {"decode", "queue", "inference", "total"}
    assert content["timing_ms"]["total"] >= content["timing_ms"]["inference"] > 0
    rules = service.state.registry.engine().rules
    capabilities = {
        "prediction_set": rules.set_threshold is not None,
        "in_distribution": rules.space is not None,
        "region": rules.region is not None,
    }
    assert content["predictions"][0].keys() == {
        "input",
        "label",
        "probability",
        "probabilities",
        "tumor_probability",
        "decision",
        *(name for name, there in capabilities.items() if there),
    }


def test_answers_validate_against_the_openapi_model(
    service: Service, jpeg: bytes, dicom: bytes
) -> None:
    PredictAnswer.model_validate_json(service.predict(jpeg, b"no image", dicom).content)


def test_prediction_is_consistent_in_itself(service: Service, slices: list[Path]) -> None:
    manifest = service.state.registry.engine().stored.manifest
    rules = service.state.registry.engine().rules
    for entry in service.predict(*(path.read_bytes() for path in slices)).json()["predictions"]:
        probabilities = entry["probabilities"]
        assert list(probabilities) == list(manifest.classes)
        assert sum(probabilities.values()) == pytest.approx(1, abs=0.02)
        assert entry["probability"] == probabilities[entry["label"]] == max(probabilities.values())
        tumor = sum(probabilities[name] for name in manifest.tumor_classes)
        assert entry["tumor_probability"] == pytest.approx(tumor, abs=1e-5)
        low, high = rules.refer_band or (1.0, 0.0)
        over = entry["tumor_probability"] >= manifest.tumor_threshold
        if low <= entry["tumor_probability"] < high or entry.get("in_distribution") is False:
            assert entry["decision"] == "refer"
        else:
            assert entry["decision"] == ("tumor" if over else "no_tumor")


def test_files_of_many_kinds_are_answered_in_order(
    service: Service, jpeg: bytes, dicom: bytes
) -> None:
    truncated = jpeg[: len(jpeg) // 2]
    files = [
        ("files", ("a.jpg", jpeg)),
        ("files", ("notes.txt", b"no image at all")),
        ("files", ("c.png", png(jpeg))),
        ("files", ("d.jpg", truncated)),
        ("files", ("e.dcm", dicom)),
    ]
    response = service.client.post("/predict", files=files)
    assert response.status_code == 200
    entries = response.json()["predictions"]
    assert [entry["input"] for entry in entries] == [name for _, (name, _) in files]
    assert [entry.get("error", {}).get("code") for entry in entries] == [
        None,
        "unsupported_media_type",
        None,
        "truncated_image",
        None,
    ]
    assert [entry["error"]["status"] for entry in entries if "error" in entry] == [415, 422]
    assert ["dicom" in entry for entry in entries] == [False, False, False, False, True]


def test_a_bad_neighbour_changes_nothing(service: Service, jpeg: bytes) -> None:
    alone = service.predict(jpeg).json()["predictions"][0]
    beside = service.predict(b"junk", jpeg).json()["predictions"][1]
    assert alone | {"input": None} == beside | {"input": None}


@pytest.mark.parametrize(
    "media",
    ["image/jpeg", "image/png", "application/dicom", "application/octet-stream", "IMAGE/JPEG; a=b"],
)
def test_raw_body_is_sniffed_and_its_header_is_not_trusted(
    service: Service, jpeg: bytes, media: str
) -> None:
    response = service.predict_raw(jpeg, media)
    assert response.status_code == 200
    entries = response.json()["predictions"]
    assert len(entries) == 1
    assert entries[0]["input"] is None


def test_multipart_and_raw_give_the_same_prediction(service: Service, jpeg: bytes) -> None:
    form = service.predict(jpeg).json()["predictions"][0]
    raw = service.predict_raw(jpeg).json()["predictions"][0]
    assert form | {"input": None} == raw


def test_dicom_says_where_it_belongs(service: Service, dicom: bytes) -> None:
    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(dicom))
    entry = service.predict_raw(dicom, "application/dicom").json()["predictions"][0]
    assert entry["dicom"] == {
        "sop_instance_uid": dataset.SOPInstanceUID,
        "study_instance_uid": dataset.StudyInstanceUID,
        "series_instance_uid": dataset.SeriesInstanceUID,
        "frame": 1,
    }


@pytest.mark.parametrize(
    ("images", "status", "code"),
    [
        pytest.param([b"junk"], 415, "unsupported_media_type", id="no image"),
        pytest.param([b""], 415, "unsupported_media_type", id="empty file"),
        pytest.param([b"\xff\xd8\xff\xe0", b"junk"], 422, "undecodable_image", id="first decides"),
    ],
)
def test_if_every_input_fails_the_first_error_is_the_status(
    service: Service, images: list[bytes], status: int, code: str
) -> None:
    response = service.predict(*images)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate_json(response.content)
    assert (problem.status, problem.code) == (status, code)
    assert problem.request_id == response.headers["x-request-id"]
    assert problem.errors is not None
    assert len(problem.errors) == len(images)


def test_raw_body_that_is_no_image(service: Service) -> None:
    response = service.predict_raw(b"GIF89a")
    assert response.status_code == 415
    assert response.json()["errors"][0]["input"] is None


def test_file_name_comes_back_as_it_was_sent(service: Service, jpeg: bytes) -> None:
    name = 'Schädel "T1", größe.jpg'
    response = service.client.post("/predict", files=[("files", (name, jpeg))])
    assert response.json()["predictions"][0]["input"].replace("%22", '"') == name


def test_a_connection_is_used_again(service: Service, jpeg: bytes) -> None:
    for _ in range(3):
        assert service.predict_raw(jpeg).status_code == 200
