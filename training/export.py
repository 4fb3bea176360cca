"""Publishes an evaluated run as the next version of a model."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from contract.errors import VersionExists
from contract.manifest import Manifest, PreprocessRecord, Provenance, TensorSpec
from contract.preprocessing import DEFAULT_SPEC, probe_digest
from contract.store import ModelStore
from contract.version import MANIFEST
from training.answering import ANSWER_FILE, Fitted, read_fitted
from training.card import CARD_FILE, METRICS_FILE, model_card
from training.convert import (
    litert_predictor,
    made_of,
    saved_model_predictor,
    trained_model,
    write_float_litert,
)
from training.errors import ExportRefused, RunError
from training.fidelity import (
    AGREEMENT_FILE,
    LITERT_FILE,
    LITERT_FLOAT_FILE,
    SAVED_MODEL,
    agreement,
    require_faithful,
)
from training.files import read_json
from training.predecessor import require_same_classes, succession
from training.prepare import reopen
from training.progress import Progress
from training.run import ARTIFACTS, REPORT, Run, installed
from training.truth import allowed


def export(
    path: Path,
    store: ModelStore,
    name: str,
    version: int | None,
    *,
    allow_float: bool = False,
    other_classes: bool = False,
) -> Path:
    """Publishes a run.

    Args:
        path: the folder of a run that has been evaluated.
        store: where to.
        name: the model's name.
        version: its number; the next one that was never used if None.
        allow_float: publish a float32 LiteRT file where the int8 one strays.
        other_classes: publish though the newest version of that name has other classes.

    Returns:
        The version's folder.

    Raises:
        RunError: the run has not ended or not been evaluated, its artifacts or its report are gone,
            damaged or of other weights, this installation makes other pixels of a slice than the run's,
            or the run left a data set out.
        DatasetError: a float file is to be checked, and the data are gone.
        ExportRefused: int8 strays from float on validation, and a float file is not allowed, has no
            answers fitted to it or strays as well; or the newest version of that name has other
            classes, and that is not allowed; nothing is published.
        StoreError: the number is taken.
    """
    run = Run.open(path)
    artifacts, report = path / ARTIFACTS, path / REPORT
    progress = run.require_finished()
    if not (report / METRICS_FILE).is_file():
        raise RunError(f"{path} has no report; evaluate it first")
    _require_servable(run)
    recipe = run.config.recipe
    if not other_classes:
        require_same_classes(store, name, recipe.classes, recipe.tumor_classes)
    fitted = _require_artifacts(run)
    metrics = _require_report(run, progress)
    litert = _litert_file(run, allow_float, fitted)
    number = store.next_version(name) if version is None else version
    manifest = _manifest(run, metrics, name, number, fitted, artifacts / litert)
    with store.staging(name) as staged:
        if fitted and fitted.answer.ood:
            shutil.copy(artifacts / fitted.answer.ood.file, staged / fitted.answer.ood.file)
        shutil.copytree(artifacts / SAVED_MODEL, staged / SAVED_MODEL)
        shutil.copy(artifacts / litert, staged / litert)
        # What a killed process left half-written is no part of it.
        shutil.copytree(report, staged / REPORT, ignore=shutil.ignore_patterns(".*"))
        if litert == LITERT_FLOAT_FILE:
            card = model_card(metrics, run.config, "float")
            (staged / REPORT / CARD_FILE).write_text(card, encoding="utf-8")
        published = _publish(store, staged, manifest, fixed=version is not None)
    print(f"published {published}")
    whole = Manifest.model_validate_json((published / MANIFEST).read_bytes())
    for line in succession(store, whole):
        print(line)
    return published


def _publish(store: ModelStore, staged: Path, manifest: Manifest, fixed: bool) -> Path:
    """Publishes under the manifest's number or, where that is not fixed, under the next free one."""
    while True:
        try:
            return store.publish(staged, manifest)
        except VersionExists:
            if fixed:
                raise
            # Another export was faster.
            number = store.next_version(manifest.name)
            manifest = manifest.model_copy(update={"version": number})


def _require_artifacts(run: Run) -> Fitted | None:
    """The answers of a run whose artifacts are whole, and of its weights.

    Raises:
        RunError: they are not.
    """
    artifacts = run.path / ARTIFACTS
    fitted = read_fitted(artifacts)
    wanted = [AGREEMENT_FILE, LITERT_FILE, SAVED_MODEL]
    if run.config.recipe.mask is not None:
        wanted.append(ANSWER_FILE)
    if fitted is not None and fitted.answer.ood is not None:
        wanted.append(fitted.answer.ood.file)
    missing = [name for name in wanted if not (artifacts / name).exists()]
    if missing:
        raise RunError(
            f"{artifacts} lacks {', '.join(missing)}, which the report is of: put back what evaluate "
            "wrote, or evaluate a copy of the run without artifacts/ and report/ (test is read again)"
        )
    same = made_of(run)
    if same is False:
        raise RunError(f"{artifacts} was made of other weights than {run.path} has now")
    if same is None:
        print(f"{artifacts} is older than the record of the weights that it was made of")
    return fitted


def _require_report(run: Run, progress: Progress) -> dict[str, Any]:
    """The figures of a run's report.

    Raises:
        RunError: they are damaged, or of another training than the run's.
    """
    path = run.path / REPORT / METRICS_FILE
    metrics = read_json(path)
    try:
        told = metrics["recipe"], metrics["protocol"], metrics["split"]
        validation = metrics["validation"]
        epochs = validation["best_epoch"], validation["epochs"], validation["loss"]
        _headline(metrics, LITERT_FILE)
    except (AttributeError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged: {error!r}") from error
    config = run.config
    counts = {name: len(rows) for name, rows in config.splits.items()}
    # Later weights of the same recipe differ in the loss, if in nothing else.
    if told != (config.recipe.name, str(config.protocol), counts) or epochs != (
        progress.best_epoch,
        progress.total_epochs,
        progress.best_loss,
    ):
        raise RunError(f"{path} tells of another training than that of {run.path}")
    return metrics


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
    artifacts = run.path / ARTIFACTS
    try:
        require_faithful(read_json(artifacts / AGREEMENT_FILE))
    except ExportRefused as refused:
        if fitted:
            raise ExportRefused(
                f"{refused}; nor can a float one be published: the answers were fitted to the int8 file"
            ) from refused
        if not allow_float:
            raise ExportRefused(
                f"{refused}; --allow-float publishes a float32 LiteRT file instead"
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
