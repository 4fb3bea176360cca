"""MODEL_CARD.md: what the model is, what it was measured to do, and what it must not be used for."""

from shlex import quote
from typing import Any, Final

from training.card_answers import answer_sections, left_out_section
from training.catalogue import SUFFIX, recipe_names
from training.cells import plain, with_interval
from training.departure import departs, overridden
from training.run import RunConfig
from training.splits import Protocol

METRICS_FILE: Final = "metrics.json"
CARD_FILE: Final = "MODEL_CARD.md"

_KNOWN: Final = {
    "nickparvar": "mostly adults, most tumours on contrast-enhanced T1. `notumor` slices are nearly "
    "all from the middle of the brain and come from other sources than the tumours: what tells the "
    "sources apart also tells the classes apart, in Testing as in Training. Some of them are CT.",
}
"""What was seen of a data set, by its name."""
_PLAIN_SOFTMAX: Final = (
    "- Every probability is a plain softmax: neither calibrated nor checked for inputs unlike the\n"
    "  training data.\n"
)
_KINDS: Final = {
    "int8": "`int8` is the LiteRT file that serves on a CPU, `float` the SavedModel. ",
    "float": "`float` is the LiteRT file that serves on a CPU, and the SavedModel. ",
}
_PLOTTED: Final = {
    "int8": [],
    "float": [
        (
            "The confusion matrix and the ROC curves are those of an 8-bit file that strayed from the "
            "float one and is not published."
        ),
        "",
    ],
}
_UNLEAKED: Final = (
    "*unleaked* are the Testing images that share no near-duplicate group with Training."
)
_LEAK: Final = {
    Protocol.CLEAN: "For this model, every Training image in a group with a Testing image was removed.",
    Protocol.PUBLISHED: "For this model they were left in: the figures are for comparison only.",
}


def model_card(metrics: dict[str, Any], config: RunConfig, served: str = "int8") -> str:
    """The card as Markdown; every figure in it is from ``metrics``.

    Args:
        metrics: of the evaluation.
        config: of the run.
        served: what the LiteRT file is that is published, ``int8`` or ``float``.
    """
    recipe = config.recipe
    return "\n".join(
        [
            f"# {recipe.name}: {', '.join(recipe.classes)}",
            "",
            (
                f"Brain MRI slice classifier. Backbone {recipe.backbone}, starting weights "
                f"`{recipe.weights_name}`, protocol `{config.protocol}`."
            ),
            "",
            *_results(metrics, config, served),
            *(answer_sections(metrics["answers"], recipe.mask) if "answers" in metrics else []),
            *(left_out_section(metrics["left_out"]) if "left_out" in metrics else []),
            *_data(metrics, config, served),
            *_training(metrics, config),
            *_limits(metrics, config),
        ]
    )


def _results(metrics: dict[str, Any], config: RunConfig, served: str) -> list[str]:
    split, whole = metrics["split"], _whole_test(metrics, config, served)
    unstated = split["test"] - whole["images"]
    lines = [
        "## Results on the test images",
        "",
        (
            _intervals(metrics)
            + _KINDS[served]
            + _tested(metrics, config)
            + _unstated(unstated, split["test"], "answers" in metrics)
            + _tumor_from("answers" in metrics, config.recipe.tumor_threshold)
        ),
        "",
        (
            "| trained on | tested on | model | images | accuracy | macro F1 | tumour from | "
            "tumour sensitivity | tumour specificity | tumour AUC |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for protocol, subsets in sorted(metrics["protocols"].items()):
        for subset, kinds in subsets.items():
            for kind, figures in kinds.items():
                if kind in {served, "float"}:
                    lines.append(_row(protocol, subset, kind, figures))
    lines.append("")
    if config.protocol is not Protocol.GROUPED:
        lines += [_reading(metrics["protocols"], served), ""]
    lines += [
        f"By class (`{config.protocol}`, {served}, all test images with a class):",
        "",
        "| class | images | precision | recall | F1 | AUC |",
        "|---|---|---|---|---|---|",
    ]
    for name, f in whole["classes"].items():
        cells = [plain(f, key) for key in ("precision", "recall", "f1", "auc")]
        lines.append(f"| {name} | {f['images']} | {' | '.join(cells)} |")
    lines += [
        "",
        *_PLOTTED[served],
        "![Confusion matrix](confusion.png)",
        "![ROC curves](roc.png)",
        "![Training curves](training.png)",
        "",
    ]
    return lines


def _whole_test(metrics: dict[str, Any], config: RunConfig, served: str) -> dict[str, Any]:
    """Figures of all test images with a class."""
    figures: dict[str, Any] = metrics["protocols"][str(config.protocol)]["testing"][served]
    return figures


def _data(metrics: dict[str, Any], config: RunConfig, served: str) -> list[str]:
    split, audit = metrics["split"], metrics["audit"]
    classed = _whole_test(metrics, config, served)["images"]
    lines = [
        "## Data",
        "",
        "| data set | images | sha256 over the files' sha256 |",
        "|---|---|---|",
    ]
    lines += [f"| {s.name} | {s.images} | `{s.digest[:16]}…` |" for s in config.data]
    lines += [
        "",
        *([_leak(metrics, config)] if audit["testing_images"] else []),
        (
            f"{len(audit['conflicting_labels'])} images are alike and have two labels; none of them "
            "trained or validated."
        ),
        "",
        f"Training {split['train']}, validation {split['validation']}, test {split['test']} images"
        + (f", of which {classed} have a class" if classed < split["test"] else "")
        + "; no group spans two of them"
        + (", but for the published leak into Testing." if config.protocol == "published" else "."),
        "",
    ]
    return lines


def _training(metrics: dict[str, Any], config: RunConfig) -> list[str]:
    recipe, validation = config.recipe, metrics["validation"]
    another = departs(recipe) is not None
    return [
        "## Training",
        "",
        (
            f"- Best epoch {validation['best_epoch']} of {validation['epochs']} by validation "
            f"{recipe.checkpoint_monitor}: validation loss {validation['loss']:.4f}. The bare softmax "
            f"has {validation['accuracy_float']:.4f} float, {validation['accuracy_int8']:.4f} int8 of "
            "the validation labels right, where of a slice whose kind of tumour is not stated any "
            "tumour class is: no accuracy to compare with those above."
        ),
        (
            f"- int8 and float disagree on {validation['label_disagreement']:.2%} of the validation "
            "labels."
        ),
        f"- Seed {recipe.seed}; recipe sha256 `{recipe.digest[:16]}…`"
        + (
            f", another one than the {recipe.name} that the command below trains."
            if another
            else "."
        ),
        "",
        "```",
        *_commands(metrics, config),
        "```",
        "",
    ]


def _commands(metrics: dict[str, Any], config: RunConfig) -> list[str]:
    """What a person types to make the run again; where folders are is nobody else's business."""
    recipe = config.recipe
    # What is drawn goes by the order in which they were read.
    names = [root.name for root in config.roots] or [source.name for source in config.data]
    return [
        f"python -m training fit --recipe {recipe.name}"
        # Of one's own, the file is needed.
        + ("" if recipe.name in recipe_names() else SUFFIX)
        + "".join(f" --data {quote(name)}" for name in names)
        + "".join(
            f" --{'mixed-precision' if name == 'precision' else name} {quote(str(value))}"
            for name, value in overridden(recipe, config.overrides).items()
        )
        + "".join(f" --hold-out {quote(name)}" for name in config.held_out)
        + f" --protocol {config.protocol} --out runs/NAME",
        "python -m training evaluate --run runs/NAME"
        + (" --beside runs/OTHER" if len(metrics["protocols"]) > 1 else "")
        + (" --foreign FOLDER" if "foreign" in metrics.get("answers", {}) else "")
        + (" --answers-of runs/FIRST" if "answers_of" in metrics else "")
        + "".join(f" --left-out runs/{n}" for n in range(1, 1 + len(metrics.get("left_out", [])))),
        # A run that left a data set out is not published.
        *([] if config.held_out else ["python -m training export --run runs/NAME"]),
    ]


def _intervals(metrics: dict[str, Any]) -> str:
    """What the intervals are drawn over, and what they leave out."""
    persons = metrics.get("persons_named", {})
    named = [source for source, each in persons.items() if each]
    studies = [source for source in metrics.get("by_study", []) if source in persons]
    if named and all(persons.values()):
        return (
            "95 % intervals are bootstrap percentiles, drawn by person; shares at and near 0 and 1 "
            "have at least Clopper and Pearson's limits for the effective number of persons. "
        )
    return (
        "95 % intervals are bootstrap percentiles over near-duplicate groups"
        + (f", and over the persons of {', '.join(named)}" if named else "")
        + (f", and over the DICOM studies of {', '.join(studies)}" if studies else "")
        + "; shares at and near 0 and 1 have at least Clopper and Pearson's limits for the effective "
        "number of groups, fewer than five groups have none. "
        + ("Of the other sets the" if named else "The")
        + " slices of one patient lie in several groups, and no person is named to draw them together: "
        "**so the intervals do not cover how patients differ, and are too narrow for new ones.** "
    )


def _tested(metrics: dict[str, Any], config: RunConfig) -> str:
    """Which images the test is."""
    if config.held_out:
        of = sum(source.images for source in config.data if source.name in config.held_out)
        tested = metrics["split"]["test"]
        return (
            f"The run was trained without {', '.join(config.held_out)} and tested on nothing else: "
            + (
                f"all {of} images"
                if tested == of
                else f"the {tested} of {of} images that share no near-duplicate group with the others"
            )
            + ", whether called Training or Testing."
        )
    if config.protocol is not Protocol.GROUPED:
        return _UNLEAKED
    fixed = [source.name for source in config.data if source.name in config.recipe.train_only]
    folds = config.recipe.folds
    names = ", ".join(str(number) for number in folds.test) if folds else ""
    return (
        "The test images are drawn in whole near-duplicate groups, whether a set calls them Training "
        "or Testing"
        + (f", but none from {', '.join(fixed)}" if fixed else "")
        + "."
        # Where no set names patients there are no folds; older reports do not say which has some.
        + (
            f" Of a set that names patient-wise folds, {f'fold {names}' if folds else 'nothing'} is "
            "tested."
            if metrics.get("by_fold", metrics.get("by_patient", True))
            else ""
        )
    )


def _unstated(count: int, tested: int, answers: bool) -> str:
    if not count:
        return ""
    return (
        f" {count} of the {tested} test images show a tumour of an unstated kind, and count for "
        "nothing in this section" + (", but for tumour or not below." if answers else ".")
    )


def _tumor_from(answers: bool, threshold: float) -> str:
    """What the column of that name is, and where it is said what the threshold that serves finds."""
    return (
        " From the tumour probability *tumour from* on, a slice counts as one with a tumour; "
        + (
            "the threshold that serves has figures of its own below."
            if answers
            # Reports of before the column have figures at one half, whatever serves.
            else f"the threshold that serves is {threshold:g}."
        )
    )


def _leak(metrics: dict[str, Any], config: RunConfig) -> str:
    """What the sets' own division leaks, and what became of it."""
    audit = metrics["audit"]
    found = (
        f"Of {audit['testing_images']} Testing images {audit['testing_with_exact_copy_in_training']} "
        f"are byte-identical to a Training image and "
        f"{audit['testing_with_near_duplicate_in_training']} have a near duplicate there. "
    )
    if not config.held_out and config.protocol is not Protocol.GROUPED:
        return found + _LEAK[config.protocol]
    # Reports of before this was counted have no number.
    among = metrics.get("tested_of_testing")
    return (
        found
        + "This model's test does not go by that division"
        + ("" if among is None else f": {among} of its images are among those")
        + ". No image that shares a group with a test image trained."
    )


def _limits(metrics: dict[str, Any], config: RunConfig) -> list[str]:
    classes = config.recipe.classes
    names = [source.name for source in config.data]
    nameless = [name for name in names if name not in metrics.get("by_patient", [])]
    lines = [
        "## Limits",
        "",
        (
            "- **Not a medical device.** For research and integration tests; a radiologist reads the "
            "images."
        ),
        (
            f"- It knows {len(classes)} classes: {', '.join(classes)}. It names one of them whatever "
            "it is shown, also for other lesions (metastasis, stroke, abscess), "
            + (
                "other body parts and pictures that are no MRI."
                if "answers" not in metrics
                else "which nothing tells from these; other body parts and pictures that are no MRI it "
                + (
                    "refers, as far as the tables above say."
                    if "foreign" in metrics["answers"]
                    else "may refer, which was not measured."
                )
            )
        ),
        *(
            [
                f"- Never shown: {', '.join(config.never_shown)}. What it says of these means nothing."
            ]
            if config.never_shown
            else []
        ),
        (
            "- 2D slices. "
            + (
                "A data set left out is one guess at another hospital's scanner: "
                if config.held_out
                else "These figures do not say how the model does on another hospital's scanner: "
            )
            + "what tells data sets apart may tell the classes apart."
        ),
        *(f"- {name}: {_KNOWN[name]}" for name in names if name in _KNOWN),
    ]
    if nameless:
        studies = [name for name in metrics.get("by_study", []) if name in nameless]
        lines.append(
            f"- No patients are named in {', '.join(nameless)}. Near-duplicate groups"
            + (f", and studies in DICOM headers of {', '.join(studies)}," if studies else "")
            + " keep copies and most neighbouring slices of one volume together; that is less than a "
            "split by patient."
        )
    return [*lines, "" if "answers" in metrics else _PLAIN_SOFTMAX]


def _row(protocol: str, subset: str, kind: str, figures: dict[str, Any]) -> str:
    tumor = {f"tumor.{name}": value for name, value in figures["tumor"].items()}
    named = ("tumor.sensitivity", "tumor.specificity", "tumor.auc")
    # Of one class, accuracy is that class's recall, and a model that knows no other has it whole.
    shown = figures if len(figures["classes"]) > 1 else {}
    cells = [
        protocol,
        {"testing_unleaked": "*unleaked*", "testing": "all"}.get(subset, subset),
        kind,
        str(figures["images"]),
        *(with_interval(shown, name, figures["interval"]) for name in ("accuracy", "macro_f1")),
        # Reports of before it was noted are at one half.
        f"{figures['tumor'].get('threshold', 0.5):g}",
        *(with_interval(tumor, name, figures["interval"]) for name in named),
    ]
    return f"| {' | '.join(cells)} |"


def _reading(protocols: dict[str, Any], served: str) -> str:
    if set(protocols) != {"clean", "published"}:
        return "Only one protocol is shown: the other was not run."
    leaked, clean = (protocols[name]["testing"][served] for name in ("published", "clean"))
    points = 100 * (leaked["accuracy"] - clean["accuracy"])
    return (
        f"On the same {clean['images']} images the leak is worth {points:+.2f} points of accuracy "
        f"({served}). Part of that is the smaller training set that `clean` leaves."
    )
