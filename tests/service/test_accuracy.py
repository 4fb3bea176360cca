"""The shipped model behind the real service, against the figures that ship with it."""

import json
from collections import Counter
from pathlib import Path

import pytest

from contract.store import ModelStore
from tests.support.data import require_data
from tests.support.service import MODEL, Service

IMAGES_PER_REQUEST = 16


@pytest.mark.data
@pytest.mark.slow
def test_the_testing_images_score_what_the_model_card_says(
    service: Service, model_store: Path
) -> None:
    testing = require_data("nickparvar/Testing") / "nickparvar" / "Testing"
    files = sorted(testing.glob("*/*.jpg"))
    assert len(files) == 1311
    confusion: Counter[tuple[str, str]] = Counter()
    for start in range(0, len(files), IMAGES_PER_REQUEST):
        batch = files[start : start + IMAGES_PER_REQUEST]
        answer = service.client.post(
            "/predict", files=[("files", (str(i), f.read_bytes())) for i, f in enumerate(batch)]
        )
        assert answer.status_code == 200
        for file, entry in zip(batch, answer.json()["predictions"], strict=True):
            confusion[file.parent.name, entry["label"]] += 1
    version = ModelStore(model_store).versions(MODEL)[0]
    report = model_store / MODEL / str(version) / "report" / "metrics.json"
    metrics = json.loads(report.read_text())
    figures = metrics["protocols"][metrics["protocol"]]["testing"]["int8"]
    classes = metrics["classes"]
    served = [[confusion[truth, label] for label in classes] for truth in classes]
    # A slice on the edge between two classes may fall the other way on another processor.
    moved = sum(
        abs(a - b)
        for row, expected in zip(served, figures["confusion"], strict=True)
        for a, b in zip(row, expected, strict=True)
    )
    assert moved <= 6
    hits = sum(served[i][i] for i in range(len(classes)))
    assert hits / len(files) == pytest.approx(figures["accuracy"], abs=0.0025)
