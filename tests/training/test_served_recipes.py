"""Every backbone from training to the real service: fitted, tested, exported, asked for slices."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contract.answer import relative
from contract.decoding import decode
from contract.manifest import Manifest
from contract.preprocessing import preprocess
from contract.store import ModelStore
from contract.version import StoredVersion, file_digest
from service.choices import RuntimeChoice
from tests.support.service import serving, settings_for

from .conftest import SLICES, Training, calibrated, eagerly, grown  # noqa: TID252

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow(130)]

RECIPES = {
    "baseline_cnn": (),
    "mobilenet_v2": ("--resolution", "64"),
    "vgg16_binary": ("--resolution", "64"),
    "resnet50_4class": ("--resolution", "64", "--weights", "none"),
    "efficientnetb4_scratch": (),
}

SERVED_SMALL = {"vgg16_binary"}
"""Looks at a slice in 64 pixels, a twelfth of 224, at which MobileNetV2 and ResNet50 serve."""


@pytest.fixture(scope="module")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What makes a step of training: four crops of each slice, of which one is for test."""
    return grown(tmp_path_factory.mktemp("data") / "tiny", crops=4)


@pytest.fixture(scope="module", params=RECIPES)
def exported(
    request: pytest.FixtureRequest,
    tiny_data: Path,
    training: Training,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[StoredVersion]:
    recipe: str = request.param
    import tensorflow as tf

    folder = tmp_path_factory.mktemp(recipe)
    run, store = folder / "run", folder / "store"
    options = ("--recipe", recipe, "--epochs", "1", *RECIPES[recipe])
    with eagerly(), pytest.MonkeyPatch.context() as patched:
        if recipe in SERVED_SMALL:
            from training import __main__ as commands

            given = commands._overrides
            patched.setattr(
                commands, "_overrides", lambda options: given(options) | {"input_resolution": 64}
            )
        fitted = training("fit", *options, "--data", tiny_data, "--out", run)
    assert fitted.returncode == 0, fitted.stderr
    with pytest.MonkeyPatch.context() as patched:
        # To read B4's anew for each part takes seconds, and so does the first answer of what was read.
        patched.setattr(tf.saved_model, "load", functools.cache(tf.saved_model.load))
        with calibrated(4):
            for command in (
                ("evaluate", "--run", run),
                ("export", "--run", run, "--store", store, "--allow-float"),
            ):
                done = training(*command)
                assert done.returncode == 0, done.stderr
        yield ModelStore(store).load("brain-tumor", 1)


def _digests(folder: Path) -> dict[Path, str]:
    """Of the files in a folder."""
    return {
        path.relative_to(folder): file_digest(path) for path in folder.rglob("*") if path.is_file()
    }


def _slices() -> dict[Path, np.ndarray]:
    return {path: preprocess(decode(path.read_bytes()).pixels) for path in SLICES.rglob("*.jpg")}


def test_a_recipe_is_served_and_highlights_regions(exported: StoredVersion) -> None:
    import tensorflow as tf

    from training.convert import in_batches, litert_predictor
    from training.fidelity import SAVED_MODEL
    from training.run import ARTIFACTS, Run

    manifest = exported.manifest
    run = Run.open(exported.path.parents[2] / "run")
    assert manifest.classes == run.config.recipe.classes
    slices = _slices()
    batch = np.stack(list(slices.values()))
    artifact = run.path / ARTIFACTS / SAVED_MODEL
    # The service reads the published one below.
    assert _digests(exported.path / manifest.artifacts["tensorflow"]) == _digests(artifact)
    model = tf.saved_model.load(str(artifact))
    full = in_batches(model.signatures["serving_default"])(batch)
    light = litert_predictor(exported.path / manifest.artifacts["litert"])(batch)
    assert full.keys() == light.keys()
    assert full["probabilities"].shape == (len(batch), len(manifest.classes))
    assert np.abs(full["probabilities"] - light["probabilities"]).max() < 0.2
    if run.config.recipe.head.linear:
        for outputs, tolerance in ((full, 1e-3), (light, 0.5)):
            assert outputs["cam"].shape[-1] == len(manifest.classes)
            means = outputs["cam"].mean(axis=(1, 2))
            assert np.abs(means - outputs["logits"]).max() < tolerance
    else:
        heat = model.signatures["explain"](slices=tf.constant(batch))["heatmap"].numpy()
        _check_grad_cam(heat, batch)
        # The forward pass gives the same, of every class; 8 bits only roughly.
        exact, rough = (np.abs(_tumor_maps(outputs, manifest) - heat) for outputs in (full, light))
        assert exact.max() < 1e-3
        # After one step B4's maps are next to nothing, of which 8 bits hold not even the sign.
        assert rough.mean() < 0.1 or run.config.recipe.name == "efficientnetb4_scratch"
    # Each batch size is warmed up, and a large one takes VGG16 long.
    settings = settings_for(exported.path.parents[1], max_batch_size=2)
    for choice, expected in ((RuntimeChoice.LITERT, light), (RuntimeChoice.TENSORFLOW, full)):
        chosen = settings.model_copy(update={"runtime": choice})
        # To load B4 takes TensorFlow seconds, and several times that beside other tests.
        with serving(chosen, seconds=120) as service:
            answers = service.predict(*(path.read_bytes() for path in slices)).json()
        for answer, row in zip(answers["predictions"], expected["probabilities"], strict=True):
            found = [answer["probabilities"][name] for name in manifest.classes]
            assert found == pytest.approx(row.tolist(), abs=1e-3)


def _tumor_maps(outputs: dict[str, np.ndarray], manifest: Manifest) -> np.ndarray:
    """Of the most probable tumour class."""
    is_tumor = np.isin(manifest.classes, manifest.tumor_classes)
    likeliest = np.where(is_tumor, outputs["logits"], -np.inf).argmax(axis=1)
    maps = zip(outputs["cam"], likeliest, strict=True)
    return np.stack([relative(cam[:, :, label]) for cam, label in maps])


def _check_grad_cam(heat: np.ndarray, batch: np.ndarray) -> None:
    assert heat.shape[0] == len(batch)
    assert heat.ndim == 3
    assert heat.min() >= 0
    peaks = heat.max(axis=(1, 2))
    # Each slice's highest cell is 1, but where no cell speaks for a tumour.
    assert np.all((np.abs(peaks - 1) < 1e-5) | (peaks == 0))


def test_the_report_says_what_was_exported(exported: StoredVersion) -> None:
    metrics = json.loads((exported.path / "report" / "metrics.json").read_text())
    assert metrics["recipe"] == exported.manifest.provenance.recipe
    agreed = json.loads((exported.path.parents[2] / "run/artifacts/agreement.json").read_text())
    strayed = (
        agreed["label_disagreement"] > 0.01
        or abs(agreed["accuracy_float"] - agreed["accuracy_int8"]) > 0.003
    )
    expected = "model.float32.tflite" if strayed else "model.int8.tflite"
    assert exported.manifest.artifacts["litert"] == expected
