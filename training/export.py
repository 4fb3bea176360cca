"""Publishes an evaluated run as the next version of a model."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from contract.manifest import Manifest, PreprocessRecord, Provenance, TensorSpec
from contract.preprocessing import DEFAULT_SPEC, probe_digest
from contract.store import ModelStore
from training.answering import Fitted, read_fitted
from training.card import CARD_FILE, METRICS_FILE, model_card
from training.convert import (
    litert_predictor,
    saved_model_predictor,
    trained_model,
    write_float_litert,
)
from training.datasets import allowed
from training.errors import ExportRefused, RunError
from training.fidelity import (
    AGREEMENT_FILE,
    LITERT_FILE,
    LITERT_FLOAT_FILE,
    SAVED_MODEL,
    agreement,
    require_faithful,
)
from training.prepare import reopen
from training.run import Run, installed, read_json


def export(
    path: Path, store: ModelStore, name: str, version: int | None, allow_float: bool = False
) -> Path:
    """Publishes a run.

    Args:
        path: the folder of a run that has been evaluated.
        store: where to.
        name: the model's name.
        version: its number; the next one that was never used if None.
        allow_float: publish a float32 LiteRT file where the int8 one strays.

    Returns:
        The version's folder.

    Raises:
        RunError: the run has not been evaluated, this installation makes other pixels of a slice than
            the run's, or the run left a data set out.
        DatasetError: a float file is to be checked, and the data are gone.
        ExportRefused: int8 strays from float on validation, and a float file is not allowed, has no
            answers fitted to it or strays as well; nothing is published.
        StoreError: the number is taken.
    """
    run = Run.open(path)
    artifacts, report = path / "artifacts", path / "report"
    if not (report / METRICS_FILE).is_file():
        raise RunError(f"{path} has no report; evaluate it first")
    _require_servable(run)
    fitted = read_fitted(artifacts)
    litert = _litert_file(run, allow_float, fitted)
    metrics = read_json(report / METRICS_FILE)
    number = store.next_version(name) if version is None else version
    manifest = _manifest(run, metrics, name, number, fitted, artifacts / litert)
    with store.staging(name) as staged:
        if fitted and fitted.answer.ood:
            shutil.copy(artifacts / fitted.answer.ood.file, staged / fitted.answer.ood.file)
        shutil.copytree(artifacts / SAVED_MODEL, staged / SAVED_MODEL)
        shutil.copy(artifacts / litert, staged / litert)
        shutil.copytree(report, staged / "report")
        if litert == LITERT_FLOAT_FILE:
            card = model_card(metrics, run.config, "float")
            (staged / "report" / CARD_FILE).write_text(card, encoding="utf-8")
        published = store.publish(staged, manifest)
    store.load(name, number)
    print(f"published {published}")
    return published


def _require_servable(run: Run) -> None:
    """Raises RunError for a run that must not become a version: the store keeps what it is given."""
    if run.config.probe_digest not in (None, probe_digest(DEFAULT_SPEC)):
        raise RunError(
            f"{run.path} was started where preprocessing gives other pixels: no service with this "
            "installation's packages could load the version"
        )
    if run.config.held_out:
        # A version's provenance names the run's data as what it was trained on.
        raise RunError(
            f"{run.path} was trained without {', '.join(run.config.held_out)}: it is there to be "
            "measured (evaluate --left-out), not to be served"
        )


def _litert_file(run: Run, allow_float: bool, fitted: Fitted | None) -> str:
    """Name of the LiteRT file to publish, in the run's artifacts."""
    artifacts = run.path / "artifacts"
    try:
        require_faithful(read_json(artifacts / AGREEMENT_FILE))
    except ExportRefused as refused:
        if not allow_float:
            raise
        if fitted:
            raise ExportRefused(
                "the answers were fitted to the int8 file, which strays from the float one"
            ) from refused
        print(f"{refused}; the LiteRT file is float32")
        _write_float(run, artifacts)
        return LITERT_FLOAT_FILE
    return LITERT_FILE


def _write_float(run: Run, artifacts: Path) -> None:
    """Writes the float32 LiteRT file, and compares it with the SavedModel on validation."""
    recipe = run.config.recipe
    write_float_litert(trained_model(run), recipe, artifacts / LITERT_FLOAT_FILE)
    _, prepared = reopen(run.path)
    rows = prepared.parts.validation
    slices, labels = prepared.images.slices[rows], prepared.images.labels[rows]
    found = agreement(
        saved_model_predictor(artifacts / SAVED_MODEL)(slices),
        litert_predictor(artifacts / LITERT_FLOAT_FILE)(slices),
        allowed(labels, recipe.classes, recipe.tumor_classes),
    )
    require_faithful(found, "the float32 LiteRT file")


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
        metrics=_headline(metrics, litert.name),
        answer=fitted.answer if fitted else None,
        reference=fitted.reference if fitted else None,
        provenance=Provenance(
            recipe=recipe.name,
            recipe_digest=recipe.digest,
            weights=recipe.weights_name,
            protocol=str(run.config.protocol),
            seed=recipe.seed,
            data=run.config.data,
            counts=metrics["split"],
            packages=run.config.packages or installed(),
        ),
    )


def _headline(metrics: dict[str, Any], litert: str) -> dict[str, float]:
    """The figures that /models shows, of the files that are published; report/metrics.json has all."""
    kinds = ("float",) if litert == LITERT_FLOAT_FILE else ("int8", "float")
    subsets = metrics["protocols"][metrics["protocol"]]
    answers = metrics.get("answers", {})
    more = {
        f"regions.{kind}.{figure}": figures[figure]
        for kind, figures in answers.get("regions", {}).items()
        for figure in ("dice", "ap50", "centre_inside")
    }
    # Of test images of one class there is none.
    if "ece" in answers.get("calibration", {}):
        more["testing.int8.ece"] = answers["calibration"]["ece"]
    return more | {
        f"{subset}.{kind}.{figure}": found[kind][figure]
        for subset, found in subsets.items()
        for kind in kinds
        for figure in ("accuracy", "macro_f1")
    }
