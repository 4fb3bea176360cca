"""Reads the test images, once, and writes the run's ``report/``."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from training import plots
from training.card import CARD_FILE, METRICS_FILE, model_card
from training.convert import convert, litert_predictor, saved_model_predictor
from training.datasets import allowed
from training.errors import RunError
from training.fidelity import AGREEMENT_FILE, LITERT_FILE, SAVED_MODEL
from training.prepare import reopen
from training.scores import scores


def evaluate(path: Path, beside: Path | None) -> Path:
    """Tests a finished run, as float and as int8, on all of Testing and on its unleaked part.

    Args:
        path: the run's folder.
        beside: an evaluated run of the other protocol, whose figures are shown next to this one's.

    Returns:
        The folder with metrics.json, the plots and MODEL_CARD.md.

    Raises:
        RunError: the run is unfinished, its data have changed, or it has been evaluated: test data
            that are read again and again become validation data.
    """
    report = path / "report"
    if (report / METRICS_FILE).exists():
        raise RunError(f"{path} has been evaluated; test is read once")
    # Before test is read: a wrong folder must not cost the one reading.
    others = _read_json(beside / "report" / METRICS_FILE)["protocols"] if beside else {}
    run, prepared = reopen(path)
    artifacts = convert(run, prepared.images, prepared.parts)
    recipe, test = run.config.recipe, prepared.parts.test
    if not test.size:
        raise RunError("the data have no Testing folder to evaluate on")
    slices, groups = prepared.images.slices[test], prepared.audit.groups[test]
    labels = prepared.images.labels[test]
    truth = allowed(labels, recipe.classes, recipe.tumor_classes).argmax(1)
    unleaked = prepared.audit.unleaked(prepared.images)[test]
    probabilities = {
        "float": saved_model_predictor(artifacts / SAVED_MODEL)(slices)["probabilities"],
        "int8": litert_predictor(artifacts / LITERT_FILE)(slices)["probabilities"],
    }
    subsets = {"testing": np.ones(len(test), bool), "testing_unleaked": unleaked}
    figures = {
        subset: {
            kind: scores(
                values[rows], truth[rows], groups[rows], recipe.classes, recipe.tumor_classes
            )
            for kind, values in probabilities.items()
        }
        for subset, rows in subsets.items()
    }
    progress = run.require_finished()
    metrics = {
        "recipe": recipe.name,
        "protocol": str(run.config.protocol),
        "classes": list(recipe.classes),
        "split": prepared.parts.counts(),
        "validation": {
            "best_epoch": progress.best_epoch,
            "epochs": progress.total_epochs,
            "loss": progress.best_loss,
            **_read_json(artifacts / AGREEMENT_FILE),
        },
        "audit": prepared.audit.summary(prepared.images),
        "protocols": {**others, str(run.config.protocol): figures},
    }
    report.mkdir(exist_ok=True)
    whole = figures["testing"]["int8"]
    title = f"{recipe.name} int8, {run.config.protocol}, {len(test)} Testing images"
    plots.confusion(report / "confusion.png", whole["confusion"], recipe.classes, title)
    aucs = {name: entry["auc"] for name, entry in whole["classes"].items()}
    plots.roc(report / "roc.png", probabilities["int8"], truth, recipe.classes, aucs, title)
    plots.training_curves(report / "training.png", progress.history, progress.best_epoch)
    card = model_card(metrics, run.config)
    (report / CARD_FILE).write_text(card, encoding="utf-8")
    # Written last: its presence says that the test images have been read and the report is whole.
    text = json.dumps(metrics, indent=1) + "\n"
    (report / METRICS_FILE).write_text(text, encoding="utf-8")
    print(card)
    return report


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path} is missing; evaluate that run first") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} is damaged")
    return content
