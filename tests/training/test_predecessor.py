"""What an export says of the version before, on manifests of the store that ships."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from contract.manifest import Manifest
from contract.store import ModelStore
from training.errors import ExportRefused
from training.predecessor import described, require_same_classes, succession

SHIPPED = Path(__file__).parents[2] / "model_store" / "brain-tumor"
CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
TUMORS = ("glioma", "meningioma", "pituitary")


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """The manifests of versions 1 and 4, without their files."""
    for number in (1, 4):
        target = tmp_path / "brain-tumor" / str(number)
        target.mkdir(parents=True)
        shutil.copy(SHIPPED / str(number) / "manifest.json", target)
    return ModelStore(tmp_path)


def _add(store: ModelStore, number: int, of: int, **changes: Any) -> Manifest:
    content = json.loads((SHIPPED / str(of) / "manifest.json").read_text())
    content |= {"version": number, **changes}
    folder = store.root / "brain-tumor" / str(number)
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(content))
    return Manifest.model_validate(content)


def test_other_classes_under_a_name_are_refused(store: ModelStore) -> None:
    require_same_classes(store, "brain-tumor", CLASSES, TUMORS)
    require_same_classes(store, "brain-tumor", CLASSES[::-1], TUMORS[::-1])
    require_same_classes(store, "other", ("notumor", "tumor"), ("tumor",))
    with pytest.raises(ExportRefused, match=r"brain-tumor/4 has the classes .*--other-classes"):
        require_same_classes(store, "brain-tumor", ("notumor", "tumor"), ("tumor",))
    with pytest.raises(ExportRefused, match="has the tumour classes glioma, meningioma, pituitary"):
        require_same_classes(store, "brain-tumor", CLASSES, ("glioma",))


def test_the_newest_version_that_can_be_read_says_what_a_name_stands_for(store: ModelStore) -> None:
    _add(store, 5, of=1)
    (store.root / "brain-tumor" / "5" / "manifest.json").write_text("{")
    (store.root / "brain-tumor" / "6").mkdir()
    assert [found.version for found in described(store, "brain-tumor")] == [4, 1]


def test_what_a_version_lacks_and_both_figures_are_said(store: ModelStore) -> None:
    new = _add(store, 5, of=1, metrics={"testing.int8.accuracy": 0.217}, files=[])
    lines = [*succession(store, new)]
    assert lines == [
        "from now on brain-tumor/latest is brain-tumor/5",
        (
            "it lacks what brain-tumor/4 has: regions by a mask, calibrated probabilities, "
            "prediction sets, the decision refer, in_distribution"
        ),
        "figures, each of its own test slices (1311; brain-tumor/4: 1197):",
        "  testing.int8.accuracy 0.2170; brain-tumor/4: 0.9253",
    ]


def test_the_same_weights_are_said_wherever_they_are(store: ModelStore) -> None:
    lines = [*succession(store, _add(store, 5, of=1))]
    assert lines[0] == "it has the same weights as brain-tumor/1"
    assert not any("same weights" in line for line in succession(store, _add(store, 6, of=3)))


def test_a_lower_number_takes_nothing_over(store: ModelStore) -> None:
    lines = [*succession(store, _add(store, 2, of=2))]
    assert lines[0] == "brain-tumor/latest is brain-tumor/4 as before"
