"""Reads the test images, once, and writes the run's ``report/``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from contract.answer import Rules
from training import plots, trust
from training.answering import Fitted, as_outputs, fit_answers, read_fitted
from training.calibrate import class_indices
from training.card import CARD_FILE, METRICS_FILE, model_card
from training.convert import convert, litert_predictor, saved_model_predictor
from training.departure import departs, overridden
from training.errors import RunError
from training.excerpt import tumor_of_test
from training.fidelity import AGREEMENT_FILE, LITERT_FILE, SAVED_MODEL
from training.files import read_json, write_json
from training.foreign import foreign_figures, foreign_pictures
from training.overlays import overlays
from training.patients import known_persons
from training.prepare import Prepared, reopen
from training.recipe import Recipe
from training.robustness import robustness
from training.run import Run
from training.scores import by_source, scores
from training.splits import Protocol

TEST_IMAGES_FILE: Final = "test_images.txt"
"""sha256 of each test image's file, a line each: so that others can test on the same."""

Outputs = Mapping[str, NDArray[np.float32]]


def evaluate(
    path: Path,
    beside: Path | None,
    foreign: Path | None = None,
    answers_of: Path | None = None,
    left_out: Sequence[Path] = (),
) -> Path:
    """Tests a finished run, as float and as int8.

    Args:
        path: the run's folder.
        beside: an evaluated run of the other protocol, whose figures are shown next to this one's.
        foreign: a folder of pictures that are no brain MRI for each kind of them, for a run with a
            mask head; see ``scripts/foreign.py``.
        answers_of: an evaluated run with the same weights, whose answers are kept but for what is in
            distribution.
        left_out: evaluated runs that trained without a data set and were tested on it, for the card.

    Returns:
        The folder with metrics.json, the plots and MODEL_CARD.md.

    Raises:
        DatasetError: the foreign folder holds what is no picture.
        RunError: the run is unfinished, its data have changed, it has no mask head to be shown what is
            foreign, one of the others left nothing out, or it has been evaluated: test data that are
            read again and again become validation data.
    """
    report = path / "report"
    if (report / METRICS_FILE).exists():
        raise RunError(f"{path} has been evaluated; test is read once")
    # Before test is read: a wrong folder must not cost the one reading.
    others = _beside(Run.open(path), beside) if beside else {}
    pictures = _foreign(Run.open(path), foreign) if foreign else None
    without = [_left_out(other) for other in left_out]
    run, prepared = reopen(path)
    kept = _kept_answers(run, answers_of) if answers_of else None
    artifacts = convert(run, prepared.images, prepared.parts)
    recipe, test = run.config.recipe, prepared.parts.test
    images, doubtful = prepared.images, prepared.audit.doubtful
    fitted = (
        fit_answers(run, artifacts, images, prepared.parts, doubtful, kept) if recipe.mask else None
    )
    rules = fitted.rules(recipe, artifacts) if fitted else None
    slices = images.slices[test]
    outputs: dict[str, Outputs] = {
        "float": saved_model_predictor(artifacts / SAVED_MODEL)(slices),
        "int8": litert_predictor(artifacts / LITERT_FILE)(slices),
    }
    figures = _class_figures(prepared, outputs, recipe, rules)
    progress = run.require_finished()
    metrics: dict[str, Any] = {
        "recipe": recipe.name,
        "protocol": str(run.config.protocol),
        "held_out": list(run.config.held_out),
        "classes": list(recipe.classes),
        "split": prepared.parts.counts(),
        "validation": {
            "best_epoch": progress.best_epoch,
            "epochs": progress.total_epochs,
            "loss": progress.best_loss,
            **read_json(artifacts / AGREEMENT_FILE),
        },
        **known_persons(images, test),
        "tested_of_testing": int((images.parts[test] == "testing").sum()),
        "audit": prepared.audit.summary(prepared.images),
        **({"answers_of": answers_of.name} if answers_of else {}),
        **({"left_out": without} if without else {}),
        "protocols": {**others, str(run.config.protocol): figures},
    }
    report.mkdir(exist_ok=True)
    if fitted and rules:
        metrics["answers"] = _answer_figures(
            prepared, recipe, fitted, rules, outputs, report, artifacts, pictures
        )
    whole = figures["testing"]["int8"]
    title = f"{recipe.name} int8, {run.config.protocol}, {whole['images']} test images with a class"
    plots.confusion(report / "confusion.png", whole["confusion"], recipe.classes, title)
    named, truth = _named(prepared, recipe)
    shown = _probabilities(outputs["int8"], rules)[named]
    aucs = {name: entry["auc"] for name, entry in whole["classes"].items() if "auc" in entry}
    plots.roc(report / "roc.png", shown, truth[named], recipe.classes, aucs, title)
    plots.training_curves(report / "training.png", progress.history, progress.best_epoch)
    card = model_card(metrics, run.config)
    (report / CARD_FILE).write_text(card, encoding="utf-8")
    tested = "\n".join(run.config.splits["test"]) + "\n"
    (report / TEST_IMAGES_FILE).write_text(tested, encoding="utf-8")
    # Written last: its presence says that the test images have been read and the report is whole.
    write_json(report / METRICS_FILE, metrics)
    print(card)
    return report


def _beside(run: Run, other: Path) -> dict[str, Any]:
    """The figures of another run, by protocol.

    Raises:
        RunError: they do not compare: another recipe, the same protocol, other data or test images.
    """
    report = other / "report"
    if not (report / METRICS_FILE).is_file():
        raise RunError(f"{other} has no report; evaluate it first")
    metrics = read_json(report / METRICS_FILE)
    tested = (report / TEST_IMAGES_FILE).read_text(encoding="utf-8").split()
    ours, theirs = run.config, Run.open(other).config
    differences = {
        "another recipe": ours.recipe.digest != theirs.recipe.digest,
        "other data": ours.data != theirs.data,
        "other data sets left out": ours.held_out != theirs.held_out,
        "other test images": sorted(tested) != sorted(ours.splits["test"]),
    }
    if any(differences.values()):
        named = ", ".join(name for name, differ in differences.items() if differ)
        raise RunError(f"{other} has {named}; the two do not compare")
    if str(run.config.protocol) in metrics["protocols"]:
        raise RunError(f"{other} shows {run.config.protocol} itself")
    figures: dict[str, Any] = metrics["protocols"]
    return figures


def _left_out(path: Path) -> dict[str, Any]:
    """How a run did on a data set that it was trained without.

    Raises:
        RunError: it was trained with all of them, or has not been evaluated.
    """
    report = path / "report"
    if not (report / METRICS_FILE).is_file():
        raise RunError(f"{path} has no report; evaluate it first")
    metrics = read_json(report / METRICS_FILE)
    if not metrics["held_out"]:
        raise RunError(f"{path} was trained without --hold-out")
    config, answers = Run.open(path).config, metrics.get("answers", {})
    figures = metrics["protocols"][str(config.protocol)]["testing"]["int8"]
    # Of one class, accuracy and calibration error are that class's recall.
    several, limits = len(figures["classes"]) > 1, figures["interval"]
    calibration = answers.get("calibration", {})
    return {
        "held_out": metrics["held_out"],
        "recipe": metrics["recipe"],
        "overridden": overridden(config.recipe, config.overrides),
        "another_recipe": departs(config.recipe),
        "images": metrics["split"]["test"],
        "named": figures["images"],
        **({"accuracy": figures["accuracy"]} if several else {}),
        **({"interval": limits["accuracy"]} if several and "accuracy" in limits else {}),
        "tumor": tumor_of_test(metrics),
        **({"ece": calibration["ece"]} if several and "ece" in calibration else {}),
        **({"dice": answers["regions"]["int8"]["dice"]} if "regions" in answers else {}),
    }


def _foreign(run: Run, folder: Path) -> dict[str, NDArray[np.uint8]]:
    if run.config.recipe.mask is None:
        raise RunError(
            f"--foreign needs a recipe with a mask head: {run.config.recipe.name} does not say what is "
            "in distribution"
        )
    return foreign_pictures(folder)


def _kept_answers(run: Run, answers_of: Path) -> Fitted:
    other = Run.open(answers_of)
    ours, theirs = run.load_best(), other.load_best()
    other.require_same(run.config)
    if len(ours) != len(theirs) or not all(map(np.array_equal, ours, theirs)):
        raise RunError(f"{answers_of} has other weights than {run.path}; its answers are its own")
    kept = read_fitted(other.path / "artifacts")
    if kept is None:
        raise RunError(f"{answers_of} has no answers to keep")
    return kept.model_copy(update={"kept_from": answers_of.name})


def _named(prepared: Prepared, recipe: Recipe) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Which test images have a class, and which."""
    truth = class_indices(prepared.images.labels[prepared.parts.test], recipe.classes)
    return truth >= 0, truth


def _probabilities(outputs: Outputs, rules: Rules | None) -> NDArray[Any]:
    """As the service answers them."""
    if rules is None:
        return outputs["probabilities"]
    return rules.answer(as_outputs(outputs)).probabilities


def _class_figures(
    prepared: Prepared, outputs: Mapping[str, Outputs], recipe: Recipe, rules: Rules | None
) -> dict[str, Any]:
    """Scores of the test images whose class is stated, in all and by subset."""
    images, test = prepared.images, prepared.parts.test
    named, truth = _named(prepared, recipe)
    if prepared.config.protocol is Protocol.GROUPED:
        subsets = by_source(np.array([images.files[int(row)].source for row in test]))
    else:
        subsets = {"testing_unleaked": prepared.audit.unleaked(images)[test]}
    subsets = {"testing": np.ones(len(test), bool), **subsets}
    groups = prepared.audit.groups[test]
    probabilities = {kind: _probabilities(values, rules) for kind, values in outputs.items()}
    return {
        subset: {
            kind: scores(
                values[inside & named],
                truth[inside & named],
                groups[inside & named],
                recipe.classes,
                recipe.tumor_classes,
                # What serves where there is no mask head; with one it is one half, and the threshold
                # that serves has figures of its own.
                recipe.tumor_threshold,
            )
            for kind, values in probabilities.items()
        }
        for subset, inside in subsets.items()
        if (inside & named).any()
    }


def _answer_figures(
    prepared: Prepared,
    recipe: Recipe,
    fitted: Fitted,
    rules: Rules,
    outputs: Mapping[str, Outputs],
    report: Path,
    artifacts: Path,
    foreign: Mapping[str, NDArray[np.uint8]] | None,
) -> dict[str, Any]:
    """Everything that is measured of answers, and its pictures."""
    images, test = prepared.images, prepared.parts.test
    record = fitted.answer.region
    assert record is not None
    predict = litert_predictor(artifacts / LITERT_FILE)
    found = {
        kind: trust.tested(images, test, prepared.audit, rules, values)
        for kind, values in outputs.items()
    }
    ours = found["int8"]
    result = {
        "fitted": fitted.model_dump(mode="json"),
        "tumor": trust.tumor_figures(ours),
        "calibration": trust.calibration_figures(
            ours, recipe.classes, outputs["int8"]["probabilities"]
        ),
        "decisions": trust.decision_figures(ours, np.ones(len(test), np.bool_)),
        "decisions_upright": trust.decision_figures(ours, ~ours.doubtful),
        "served": trust.threshold_figures(ours, rules.tumor_threshold),
        "false_regions": trust.false_regions(images, ours, record),
        "robustness": robustness(images, ours, rules, predict, recipe),
    }
    if any(images.files[int(row)].mask is not None for row in test):
        result["regions"] = {
            kind: trust.region_figures(images, answered, record) for kind, answered in found.items()
        }
        overlays(report / "regions.jpg", images, ours, record, np.random.default_rng(recipe.seed))
    if foreign is not None:
        result["foreign"] = foreign_figures(foreign, ours, images.slices[test], rules, predict)
    known = class_indices(ours.labels, recipe.classes)
    named = known >= 0
    plain = outputs["int8"]["probabilities"][named]
    plots.reliability(
        report / "reliability.png",
        {
            "softmax": (plain.max(1), plain.argmax(1) == known[named]),
            "calibrated": (
                ours.answers.probabilities[named].max(1),
                ours.answers.labels[named] == known[named],
            ),
        },
    )
    plots.robustness(report / "robustness.png", result["robustness"])
    plots.risk_coverage(
        report / "risk_coverage.png",
        ours.answers.probabilities[named].max(1),
        ours.answers.labels[named] == known[named],
    )
    return result
