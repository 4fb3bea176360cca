"""Publishes an evaluated run as the next version of a model."""

import importlib.metadata
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from contract.manifest import Manifest, PreprocessRecord, Provenance, TensorSpec
from contract.preprocessing import DEFAULT_SPEC, probe_digest
from contract.store import ModelStore
from training.card import METRICS_FILE
from training.errors import RunError
from training.fidelity import AGREEMENT_FILE, LITERT_FILE, SAVED_MODEL, require_faithful
from training.run import Run

PACKAGES: Final = ("tensorflow", "tensorflow_cpu", "keras", "numpy", "pillow", "ai-edge-litert")


def export(path: Path, store: ModelStore, name: str, version: int | None) -> Path:
    """Publishes a run.

    Args:
        path: the folder of a run that has been evaluated.
        store: where to.
        name: the model's name.
        version: its number; the next free one if None.

    Returns:
        The version's folder.

    Raises:
        RunError: the run has not been evaluated.
        ExportRefused: int8 strays from float on validation; nothing is published.
        StoreError: the number is taken.
    """
    run = Run.open(path)
    artifacts, report = path / "artifacts", path / "report"
    if not (report / METRICS_FILE).is_file():
        raise RunError(f"{path} has no report; evaluate it first")
    require_faithful(json.loads((artifacts / AGREEMENT_FILE).read_text(encoding="utf-8")))
    metrics = json.loads((report / METRICS_FILE).read_text(encoding="utf-8"))
    number = version or max(store.versions(name), default=0) + 1
    manifest = _manifest(run, metrics, name, number)
    with store.staging(name) as staged:
        shutil.copytree(artifacts / SAVED_MODEL, staged / SAVED_MODEL)
        shutil.copy(artifacts / LITERT_FILE, staged / LITERT_FILE)
        shutil.copytree(report, staged / "report")
        published = store.publish(staged, manifest)
    store.load(name, number)
    print(f"published {published}")
    return published


def _manifest(run: Run, metrics: dict[str, Any], name: str, version: int) -> Manifest:
    recipe = run.config.recipe
    parameters = DEFAULT_SPEC.model_dump()
    return Manifest(
        name=name,
        version=version,
        created=datetime.now(UTC).replace(microsecond=0),
        classes=recipe.classes,
        tumor_classes=recipe.tumor_classes,
        tumor_threshold=0.5,
        input=TensorSpec(dtype="uint8", shape=(None, DEFAULT_SPEC.height, DEFAULT_SPEC.width)),
        outputs={"probabilities": TensorSpec(dtype="float32", shape=(None, len(recipe.classes)))},
        preprocess=PreprocessRecord(
            parameters=parameters,
            digest=DEFAULT_SPEC.digest,
            probe_digest=probe_digest(DEFAULT_SPEC),
        ),
        artifacts={"litert": LITERT_FILE, "tensorflow": SAVED_MODEL},
        metrics=_headline(metrics),
        provenance=Provenance(
            recipe=recipe.name,
            recipe_digest=recipe.digest,
            weights=recipe.weights,
            protocol=str(run.config.protocol),
            seed=recipe.seed,
            data=run.config.data,
            counts=metrics["split"],
            packages=_packages(),
        ),
    )


def _headline(metrics: dict[str, Any]) -> dict[str, float]:
    """The figures that /models shows; report/metrics.json has them all."""
    subsets = metrics["protocols"][metrics["protocol"]]
    return {
        f"{subset}.{kind}.{figure}": figures[figure]
        for subset, kinds in subsets.items()
        for kind, figures in kinds.items()
        for figure in ("accuracy", "macro_f1")
    }


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
