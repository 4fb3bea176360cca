"""Publishes an evaluated run as the next version of a model."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from contract.manifest import Manifest, PreprocessRecord, Provenance, TensorSpec
from contract.preprocessing import DEFAULT_SPEC, probe_digest
from contract.store import ModelStore
from training.answering import Fitted, read_fitted
from training.card import METRICS_FILE
from training.convert import trained_model, write_float_litert
from training.errors import ExportRefused, RunError
from training.fidelity import (
    AGREEMENT_FILE,
    LITERT_FILE,
    LITERT_FLOAT_FILE,
    SAVED_MODEL,
    require_faithful,
)
from training.run import Run, installed


def export(
    path: Path, store: ModelStore, name: str, version: int | None, allow_float: bool = False
) -> Path:
    """Publishes a run.

    Args:
        path: the folder of a run that has been evaluated.
        store: where to.
        name: the model's name.
        version: its number; the next free one if None.
        allow_float: publish a float32 LiteRT file where the int8 one strays.

    Returns:
        The version's folder.

    Raises:
        RunError: the run has not been evaluated.
        ExportRefused: int8 strays from float on validation, and a float file is not allowed or has no
            answers fitted to it; nothing is published.
        StoreError: the number is taken.
    """
    run = Run.open(path)
    artifacts, report = path / "artifacts", path / "report"
    if not (report / METRICS_FILE).is_file():
        raise RunError(f"{path} has no report; evaluate it first")
    fitted = read_fitted(artifacts)
    litert = _litert_file(run, allow_float)
    if fitted and litert == LITERT_FLOAT_FILE:
        raise ExportRefused(
            "the answers were fitted to the int8 file, which strays from the float one"
        )
    metrics = json.loads((report / METRICS_FILE).read_text(encoding="utf-8"))
    number = version or max(store.versions(name), default=0) + 1
    manifest = _manifest(run, metrics, name, number, fitted, artifacts / litert)
    with store.staging(name) as staged:
        if fitted and fitted.answer.ood:
            shutil.copy(artifacts / fitted.answer.ood.file, staged / fitted.answer.ood.file)
        shutil.copytree(artifacts / SAVED_MODEL, staged / SAVED_MODEL)
        shutil.copy(artifacts / litert, staged / litert)
        shutil.copytree(report, staged / "report")
        published = store.publish(staged, manifest)
    store.load(name, number)
    print(f"published {published}")
    return published


def _litert_file(run: Run, allow_float: bool) -> str:
    """Name of the LiteRT file to publish, in the run's artifacts."""
    artifacts = run.path / "artifacts"
    try:
        require_faithful(json.loads((artifacts / AGREEMENT_FILE).read_text(encoding="utf-8")))
    except ExportRefused as refused:
        if not allow_float:
            raise
        print(f"{refused}; the LiteRT file is float32")
        write_float_litert(trained_model(run), run.config.recipe, artifacts / LITERT_FLOAT_FILE)
        return LITERT_FLOAT_FILE
    return LITERT_FILE


def _tensors(path: Path) -> dict[str, TensorSpec]:
    """The LiteRT file's outputs."""
    details = Interpreter(model_path=str(path)).get_signature_runner().get_output_details()
    return {
        name: TensorSpec(dtype="float32", shape=(None, *(int(n) for n in output["shape"][1:])))
        for name, output in sorted(details.items())
    }


def _manifest(
    run: Run,
    metrics: dict[str, Any],
    name: str,
    version: int,
    fitted: Fitted | None,
    litert: Path,
) -> Manifest:
    recipe = run.config.recipe
    parameters = DEFAULT_SPEC.model_dump()
    return Manifest(
        name=name,
        version=version,
        created=datetime.now(UTC).replace(microsecond=0),
        classes=recipe.classes,
        tumor_classes=recipe.tumor_classes,
        tumor_threshold=fitted.tumor_threshold if fitted else recipe.tumor_threshold,
        input=TensorSpec(dtype="uint8", shape=(None, DEFAULT_SPEC.height, DEFAULT_SPEC.width)),
        outputs=_tensors(litert),
        preprocess=PreprocessRecord(
            parameters=parameters,
            digest=DEFAULT_SPEC.digest,
            probe_digest=run.config.probe_digest or probe_digest(DEFAULT_SPEC),
        ),
        artifacts={"litert": litert.name, "tensorflow": SAVED_MODEL},
        metrics=_headline(metrics),
        answer=fitted.answer if fitted else None,
        reference=fitted.reference if fitted else None,
        provenance=Provenance(
            recipe=recipe.name,
            recipe_digest=recipe.digest,
            weights=recipe.weights,
            protocol=str(run.config.protocol),
            seed=recipe.seed,
            data=run.config.data,
            counts=metrics["split"],
            packages=run.config.packages or installed(),
        ),
    )


def _headline(metrics: dict[str, Any]) -> dict[str, float]:
    """The figures that /models shows; report/metrics.json has them all."""
    subsets = metrics["protocols"][metrics["protocol"]]
    answers = metrics.get("answers", {})
    more = {
        f"regions.{kind}.{figure}": figures[figure]
        for kind, figures in answers.get("regions", {}).items()
        for figure in ("dice", "ap50", "centre_inside")
    }
    if answers:
        more["testing.int8.ece"] = answers["calibration"]["ece"]
    return more | {
        f"{subset}.{kind}.{figure}": figures[figure]
        for subset, kinds in subsets.items()
        for kind, figures in kinds.items()
        for figure in ("accuracy", "macro_f1")
    }
