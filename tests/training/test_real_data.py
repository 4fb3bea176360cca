"""The public set with the leak: audited, split, and a short training on it. It is read once."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.data import require_data
from training.catalogue import load_recipe
from training.duplicates import Audit
from training.images import ImageSet
from training.prepare import configure, read, start
from training.splits import Protocol, split

pytestmark = [pytest.mark.data, pytest.mark.slow(35)]

RECIPE = load_recipe("baseline_cnn", {"epochs": 4, "resolution": 64})


@pytest.fixture(scope="module")
def root() -> Path:
    return require_data("nickparvar") / "nickparvar"


@pytest.fixture(scope="module")
def audited(root: Path) -> tuple[ImageSet, Audit]:
    return read(RECIPE, [root])


def test_the_published_leak_is_found_and_the_clean_split_is_free_of_it(
    audited: tuple[ImageSet, Audit],
) -> None:
    images, found = audited
    summary = found.summary(images)
    assert "7023" in images.describe()
    assert summary["images"] == 7023
    assert summary["distinct_files"] == 6726
    assert summary["testing_with_exact_copy_in_training"] >= 103
    # Eleven of them are cropped otherwise than their copy.
    assert summary["testing_with_near_duplicate_in_training"] == 1075
    recipe = RECIPE.model_copy(update={"validation_share": 0.1})
    for protocol in (Protocol.CLEAN, Protocol.PUBLISHED):
        parts = split(images, found, protocol, recipe)
        assert len(parts.test) == 1311
        groups = [
            set(found.groups[p].tolist()) for p in (parts.train, parts.validation, parts.test)
        ]
        assert not groups[0] & groups[1]
        if protocol is Protocol.CLEAN:
            assert not groups[2] & (groups[0] | groups[1])
            hashes = {images.sha256[i] for i in parts.test}
            assert not hashes & {images.sha256[i] for i in [*parts.train, *parts.validation]}
        else:
            assert len(groups[2] & groups[0]) > 100
        assert 0.08 < len(parts.validation) / (len(parts.train) + len(parts.validation)) < 0.12


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("default")  # Keras's own are not what is tested.
def test_a_short_training_learns(
    root: Path, audited: tuple[ImageSet, Audit], tmp_path: Path
) -> None:
    pytest.importorskip("tensorflow", reason="training needs TensorFlow")
    from training.fit import train

    images, found = audited
    parts = split(images, found, Protocol.CLEAN, RECIPE)
    # It learns from a third of them as well.
    parts = replace(parts, train=parts.train[::3])
    config = configure(RECIPE, [root], images, parts, Protocol.CLEAN)
    run = start(tmp_path / "run", config, resume=False)
    train(run, images, found.groups, parts)
    history = run.require_finished().history
    # The largest class is a third of the validation images.
    assert history[-1]["val_accuracy"] > 0.5
    assert history[-1]["val_loss"] < history[0]["val_loss"]
