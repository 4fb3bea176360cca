"""Reports as cards and comparisons read them: the shipped version's, and ones that are made."""

import json
from pathlib import Path
from typing import Any

from training.catalogue import load_recipe
from training.recipe import Recipe
from training.run import RunConfig
from training.splits import Protocol

VERSION = Path(__file__).parents[2] / "model_store" / "brain-tumor" / "4"
TUMORS = ["glioma", "meningioma", "pituitary"]
HOSPITAL = {"name": "hospital", "images": 1, "digest": "0" * 64}


def version_metrics(**changes: Any) -> dict[str, Any]:
    """The report of the shipped version, which was written before patients were noted."""
    found: dict[str, Any] = json.loads((VERSION / "report" / "metrics.json").read_text())
    return found | {"by_patient": ["figshare_cheng", "normal_volumes"]} | changes


def version_config(recipe: str | Recipe = "efficientnet_lite0_mask", **changes: Any) -> RunConfig:
    """Of a run on the shipped version's data."""
    provenance = json.loads((VERSION / "manifest.json").read_text())["provenance"]
    content = {
        "recipe": load_recipe(recipe) if isinstance(recipe, str) else recipe,
        "protocol": Protocol.GROUPED,
        "data": provenance["data"],
        "roots": (),
        "splits": {},
    }
    return RunConfig.model_validate(content | changes)


def shown(**more: Any) -> dict[str, Any]:
    """A row of a record."""
    limits = {"accuracy": [0.8, 0.95]}
    return {"accuracy": 0.9, "float_accuracy": 0.9, "trained": 9, "interval": limits, **more}


def report_of(labels: list[str], held_out: list[str], answers: bool) -> dict[str, Any]:
    """Of guesses on slices of these labels, as the evaluation of a recipe of four classes writes it."""
    import numpy as np

    from training.scores import scores, tumor_scores

    recipe = load_recipe("efficientnet_lite0_mask")
    rng = np.random.default_rng(7)
    probabilities = rng.dirichlet([1, 1, 3, 1], len(labels))
    truth = np.array([(*recipe.classes, "tumor").index(label) for label in labels])
    named, groups = truth < 4, np.arange(len(labels))
    classes, tumors = recipe.classes, recipe.tumor_classes
    kind = scores(probabilities[named], truth[named], groups[named], classes, tumors)
    tumor = np.array(labels) != "notumor"
    score = probabilities[:, np.isin(classes, tumors)].sum(1)
    found = {
        "recipe": recipe.name,
        "protocol": "grouped",
        "held_out": held_out,
        "split": {"train": 99, "validation": 9, "test": len(labels)},
        "validation": {},
        "protocols": {"grouped": {"testing": {"int8": kind, "float": kind}}},
    }
    if answers:
        found["answers"] = {"tumor": {"all": tumor_scores(score, tumor, groups)}}
    return found


def evaluated(folder: Path, config: RunConfig, **changes: Any) -> Path:
    """A run's folder as a comparison reads it, evaluated."""
    for name in ("report", "artifacts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(config.model_dump_json())
    (folder / "artifacts" / "latency.json").write_text("{}")
    report = report_of([*TUMORS, "notumor"] * 2, [], answers=False) | changes
    report["recipe"] = config.recipe.name
    (folder / "report" / "metrics.json").write_text(json.dumps(report))
    return folder
