"""From a converted run to its answers: the record is fitted on validation, test is answered with it."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from contract.answer import Outputs, Rules
from contract.manifest import AnswerRecord, OodRecord, ReferenceRecord, TumorEvidence
from contract.space import EmbeddingSpace
from training.calibrate import (
    ACCEPTANCE,
    class_indices,
    conformal,
    embedding_space,
    expected_calibration_error,
    fit_evidence,
    fit_orientation,
    fit_temperature,
    operating_point,
)
from training.convert import Predictor, litert_predictor
from training.errors import RunError, brief
from training.fidelity import LITERT_FILE
from training.files import write_aside
from training.images import ImageSet
from training.names import NO_TUMOR
from training.recipe import Recipe
from training.regions import Judged, choose_record, on_validation
from training.run import Run
from training.scores import finite
from training.splits import Split
from training.synthesis import Synthetic, stripped_slices, synthesise
from training.truth import allowed

ANSWER_FILE: Final = "answer.json"
SYNTHETIC_SHARE: Final = 0.5
"""What the synthetic validation slices weigh in all, against the real ones, for the evidence."""
SPACE_FILE: Final = "embeddings.npz"
TURNS: Final[tuple[Callable[[NDArray[np.uint8]], NDArray[np.uint8]], ...]] = (
    lambda slices: slices,
    *(partial(np.rot90, k=quarters, axes=(1, 2)) for quarters in (1, 2, 3)),
    partial(np.flip, axis=1),
)
"""As training slices lie, then as they never do; left and right are mirrored in training."""


class Fitted(BaseModel):
    """What was fitted on validation, as ``answer.json`` holds it.

    Attributes:
        tumor_threshold: of the decision.
        answer, reference: for the manifest.
        validation: figures of the fit.
        kept_from: name of the run whose answers these are but for what is in distribution, if any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tumor_threshold: float
    answer: AnswerRecord
    reference: ReferenceRecord
    validation: dict[str, float]
    kept_from: str | None = None

    def rules(self, recipe: Recipe, folder: Path) -> Rules:
        """The rules that the service will follow."""
        classes, tumor_classes = recipe.classes, recipe.tumor_classes
        ood = folder / self.answer.ood.file if self.answer.ood else None
        return Rules.of(classes, tumor_classes, self.tumor_threshold, self.answer, ood)


def as_outputs(outputs: Mapping[str, NDArray[np.float32]]) -> Outputs:
    """A predictor's outputs in the form that the contract takes."""
    return Outputs(
        outputs["probabilities"], outputs["logits"], outputs.get("mask"), outputs["embedding"]
    )


def fit_answers(
    run: Run,
    artifacts: Path,
    images: ImageSet,
    parts: Split,
    doubtful: NDArray[np.bool_],
    kept: Fitted | None = None,
) -> Fitted:
    """Fits the answers of a run's int8 model with two heads, once; test is not looked at.

    How much the mask counts is fitted on the validation slices and on synthetic ones made from them:
    a tumour cut out of a slice, or pasted into one, is there in the mask alone, while the class head
    may have learned which data set a slice comes from.

    Args:
        run: whose recipe it is.
        artifacts: its converted models; ``answer.json`` and the embeddings are written there.
        images: what was read.
        parts: who trains and who validates.
        doubtful: slices that may not lie upright, (len(images),): what is in distribution is fitted
            without them.
        kept: answers of a run with the same weights, of which all is kept but what is in distribution;
            ``kept_from`` names that run.

    Raises:
        RunError: others than those to be kept have been fitted before; or some were kept before, and
            none are to be now.
    """
    if (before := read_fitted(artifacts)) is not None:
        if kept is not None and _but_distribution(before) != _but_distribution(kept):
            raise RunError(f"{artifacts / ANSWER_FILE} was fitted anew; delete it to keep others")
        if kept is None and before.kept_from is not None:
            # Of an evaluation that was interrupted: its report would not say whose these are.
            raise RunError(
                f"{artifacts / ANSWER_FILE} holds the answers of {before.kept_from}: add --answers-of "
                "again, or delete it to fit others"
            )
        return before
    recipe = run.config.recipe
    assert recipe.mask is not None
    predict = litert_predictor(artifacts / LITERT_FILE)
    rows = parts.validation
    outputs = predict(images.slices[rows])
    labels = images.labels[rows]
    made = synthesise(images, Split(rows, rows[:0], rows[:0]), recipe.mask, recipe.seed)
    # A recipe may have none made.
    none = {name: found[:0] for name, found in outputs.items()}
    synthetic = predict(made.slices) if len(made.slices) else none
    tumor_threshold, record = (
        _fit_decisions(recipe, images, rows, outputs, made, synthetic)
        if kept is None
        else (kept.tumor_threshold, kept.answer)
    )
    assert record.region is not None
    plain = _plain(recipe, record.temperature, record.tumor)
    answers = plain.answer(as_outputs(outputs))
    upright = outputs["embedding"][~doubtful[rows]]
    # What trained without its skull is in distribution without it.
    stripped, of = stripped_slices(images, parts.train, recipe.mask.stripped, recipe.seed)
    seen = np.concatenate([images.slices[parts.train], stripped])
    ood, distance = _fit_distribution(
        recipe, artifacts, predict, seen, doubtful[np.concatenate([parts.train, of])], upright
    )
    tumor = labels != NO_TUMOR
    known = class_indices(labels, recipe.classes)
    named = known >= 0
    correct = answers.labels == known
    confidence = answers.probabilities.max(axis=1)
    judged = Judged(images, rows, outputs["mask"], answers.tumor_probability, tumor)
    located = on_validation(judged, record.region)
    fitted = Fitted(
        tumor_threshold=tumor_threshold,
        answer=record.model_copy(update={"ood": ood}),
        reference=ReferenceRecord(
            class_shares={
                name: float((answers.labels == index).mean())
                for index, name in enumerate(recipe.classes)
            },
            mean_confidence=float(confidence.mean()),
            out_of_distribution_rate=float((distance > ood.threshold).mean()),
            embedding_distance_mean=float(distance.mean()),
            embedding_distance_std=float(distance.std()),
        ),
        validation={
            "accuracy": float(correct[named].mean()),
            **finite({"ece": expected_calibration_error(confidence[named], correct[named])}),
            "sensitivity": float((answers.tumor_probability[tumor] >= tumor_threshold).mean()),
            **{f"region_{name}": value for name, value in located.items()},
            **_synthetic_figures(plain, synthetic, made.labels),
        },
        kept_from=kept.kept_from if kept else None,
    )
    write_aside(artifacts / ANSWER_FILE, (fitted.model_dump_json(indent=1) + "\n").encode())
    return fitted


def _but_distribution(fitted: Fitted) -> tuple[float, AnswerRecord]:
    """The threshold of the decision, and all of the record but what is in distribution."""
    return fitted.tumor_threshold, fitted.answer.model_copy(update={"ood": None})


def _plain(recipe: Recipe, temperature: float, evidence: TumorEvidence | None) -> Rules:
    """Rules that give probabilities and decide nothing."""
    classes, tumor_classes = recipe.classes, recipe.tumor_classes
    return Rules(classes, tumor_classes, 0.5, temperature=temperature, tumor=evidence)


def _fit_decisions(
    recipe: Recipe,
    images: ImageSet,
    rows: NDArray[np.intp],
    outputs: Mapping[str, NDArray[np.float32]],
    made: Synthetic,
    synthetic: Mapping[str, NDArray[np.float32]],
) -> tuple[float, AnswerRecord]:
    """The threshold of the decision, and all of the record but what is in distribution."""
    labels = images.labels[rows]
    tumor = labels != NO_TUMOR
    may_be = allowed(labels, recipe.classes, recipe.tumor_classes)
    temperature = fit_temperature(outputs["logits"], may_be)
    weight = SYNTHETIC_SHARE * len(labels) / max(1, len(made.slices))
    evidence = fit_evidence(
        np.concatenate([outputs["logits"], synthetic["logits"]]) / temperature,
        np.concatenate([outputs["mask"], synthetic["mask"]]),
        np.concatenate([tumor, made.labels != NO_TUMOR]),
        np.isin(recipe.classes, recipe.tumor_classes),
        np.repeat([1.0, weight], [len(labels), len(made.slices)]),
    )
    answers = _plain(recipe, temperature, evidence).answer(as_outputs(outputs))
    threshold, point = operating_point(answers.tumor_probability, tumor)
    known = class_indices(labels, recipe.classes)
    named = known >= 0
    record = AnswerRecord(
        temperature=temperature,
        tumor=evidence,
        conformal=conformal(answers.probabilities[named], known[named]),
        operating_point=point,
        region=choose_record(
            Judged(images, rows, outputs["mask"], answers.tumor_probability, tumor), threshold
        ),
    )
    return threshold, record


def _fit_distribution(
    recipe: Recipe,
    artifacts: Path,
    predict: Predictor,
    train: NDArray[np.uint8],
    doubtful: NDArray[np.bool_],
    upright: NDArray[np.float32],
) -> tuple[OodRecord, NDArray[np.float64]]:
    """What is in distribution, and the distances of the validation slices that lie upright.

    Args:
        recipe: whose seed it is.
        artifacts: where the embeddings are written.
        predict: the int8 model.
        train: training slices, uint8 (N, H, W).
        doubtful: which of them may not lie upright, (N,).
        upright: embeddings of those validation slices, (M, d).
    """
    views = [predict(turn(train))["embedding"] for turn in TURNS]
    means, whitening = embedding_space(views[0], recipe.seed)
    plain = EmbeddingSpace(means, whitening).distance(upright)
    orientation = fit_orientation(views, doubtful, upright, plain)
    arrays: dict[str, Any] = {"means": means, "whitening": whitening, **orientation}
    np.savez(artifacts / SPACE_FILE, **arrays)
    distance = EmbeddingSpace.read(artifacts / SPACE_FILE).distance(upright)
    threshold = float(np.quantile(distance, ACCEPTANCE))
    return OodRecord(file=SPACE_FILE, threshold=threshold), distance


def _synthetic_figures(
    rules: Rules, outputs: Mapping[str, NDArray[np.float32]], labels: NDArray[np.str_]
) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score

    tumor = labels != NO_TUMOR
    if len(np.unique(tumor)) < 2:
        return {}
    found = rules.answer(as_outputs(outputs)).tumor_probability
    return {"synthetic_tumor_auc": float(roc_auc_score(tumor, found))}


def read_fitted(artifacts: Path) -> Fitted | None:
    """What :func:`fit_answers` wrote; None where the run has no answers of its own.

    Raises:
        RunError: it is damaged.
    """
    path = artifacts / ANSWER_FILE
    if not path.is_file():
        return None
    try:
        return Fitted.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RunError(f"{path} is damaged: {brief(error)}") from error
