"""The part of MODEL_CARD.md about answers: where, how sure, when not, how robust."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from training.cells import percent, plain, with_interval
from training.recipe import Mask

NORMAL_BRAIN: Final = "normal brain"
"""The kind that ``scripts/foreign.py`` cuts from a template."""
_NORMAL: Final = (
    f" `{NORMAL_BRAIN}` is a template of a healthy man's T1 (Colin27), as it is and without the skull, "
    "no picture of another kind: there, a low AUROC is right, and what is decided tells."
)


def answer_sections(answers: Mapping[str, Any], mask: Mask | None) -> list[str]:
    """Lines of Markdown; every figure is from ``metrics["answers"]``.

    Args:
        answers: these; reports of earlier releases lack some, as what lies upright for certain.
        mask: the recipe's, which says whether synthetic slices were made.
    """
    lines: list[str] = []
    if "regions" in answers:
        lines += _where(answers)
    made = mask is not None and any((mask.removed, mask.pasted, mask.stripped))
    lines += how_sure(answers, "slices and synthetic ones made from them" if made else "slices")
    lines += _tumor(answers["tumor"])
    if "foreign" in answers:
        lines += _when_not(answers["foreign"], answers.get("decisions_upright"))
    return lines + _robust(answers["robustness"])


def _where(answers: Mapping[str, Any]) -> list[str]:
    regions = answers["regions"]
    lines = [
        "## Where: regions against the radiologist's masks",
        "",
        (
            "Test slices with a mask, in the pixels of the original image; where they are a whole fold "
            "of patients, training and validation saw no slice of that fold. A slice that gets no "
            "region counts as Dice 0. The centre lies "
            "inside the mask if that of the region's box or that of its pixels does. AP50 is of these "
            "slices alone, and with the regions on slices without a tumour counted as wrong. Green is "
            "the radiologist's outline, red the model's, on slices drawn at random."
        ),
        "",
        (
            "| model | slices | mean Dice | median Dice | box AP50 | AP50 with slices without tumour "
            "| centre of box or pixels inside the mask | no region |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, figures in regions.items():
        lines.append(
            f"| {kind} | {figures['images']:.0f} | {with_interval(figures, 'dice')} "
            f"| {figures['dice_median']:.4f} | {figures['ap50']:.4f} "
            f"| {figures['ap50_with_slices_without_tumor']:.4f} "
            f"| {figures['centre_inside']:.2%} | {figures['without_region']:.2%} |"
        )
    by_class = ", ".join(
        f"{name} {value:.3f}" for name, value in regions["int8"]["dice_by_class"].items()
    )
    return [
        *lines,
        "",
        (
            f"Mean Dice by class (int8): {by_class}. Slices without tumour that get a region all the "
            "same: "
            f"{_false_regions(answers)}."
        ),
        "",
        "![Regions](regions.jpg)",
        "",
    ]


def _false_regions(answers: Mapping[str, Any]) -> str:
    before = answers.get("regions", {}).get("int8", {}).get("false_regions", {})
    return (
        ", ".join(
            f"{percent(figures['share'], figures.get('interval'))} of {figures['images']} in {source}"
            for source, figures in answers.get("false_regions", before).items()
        )
        or "none were tested"
    )


def how_sure(answers: Mapping[str, Any], fitted_on: str) -> list[str]:
    """The section on calibration, prediction sets and decisions.

    Args:
        answers: ``metrics["answers"]``; of it ``fitted``, ``calibration``, ``decisions`` and
            ``decisions_upright``, and what else there is.
        fitted_on: what of validation.
    """
    fitted = answers["fitted"]["answer"]
    evidence = fitted["tumor"]
    return [
        "## How sure: calibration, prediction sets, decisions",
        "",
        (
            f"Temperature {fitted['temperature']:.3f}. Tumour evidence: class head "
            f"{evidence['class_weight']:.3f}, mask {evidence['mask_weight']:.3f} (mean of the "
            f"{evidence['mask_cells']} highest cells), bias {evidence['bias']:.3f}; fitted on "
            f"validation {fitted_on}."
        ),
        "",
        (
            "Validation was used many times over: the same slices chose the epoch, the temperature, "
            "the weights of the evidence, the prediction sets' threshold, the operating point and its "
            "band, the region's threshold and the limit of what is in distribution. So what was aimed "
            "for there is reached there by choice, and test may fall short of it even if its patients "
            "are alike."
        ),
        "",
        "| | test |",
        "|---|---|",
        *_rows(answers),
        "",
        *_bracketed(answers.get("decisions_upright")),
        "![Reliability](reliability.png)",
        "![Risk and coverage](risk_coverage.png)",
        "",
        (
            "The second picture leaves out the least probable classes first. The service refers by "
            "the band and the distance instead, so it is at none of these points."
        ),
        "",
    ]


def _rows(answers: Mapping[str, Any]) -> list[str]:
    """The table: how well probabilities, sets and decisions hold on test."""
    figures = answers["calibration"]
    fitted = answers["fitted"]["answer"]
    point = fitted["operating_point"]
    errors = {
        "ece_softmax": "expected calibration error of the bare softmax",
        "ece": "expected calibration error as answered",
    }
    return [
        *(f"| {name} | {figures[key]:.4f} |" for key, name in errors.items() if key in figures),
        *_sets(figures, fitted["conformal"]["coverage"]),
        *(_served(answers["served"], point) if "served" in answers else []),
        (
            f"| referred (tumour probability from {point['refer_low']:.3f} to "
            f"{point['refer_high']:.3f}, or out of distribution) | {_decided(answers, 'referred')} |"
        ),
        f"| right where it decides tumour or no tumour | {_decided(answers, 'right_of_decided')} |",
        f"| tumours decided as none | {_decided(answers, 'tumors_missed')} |",
        f"| slices without tumour decided as tumour | {_decided(answers, 'false_alarms')} |",
        f"| real slices taken as in distribution | {_decided(answers, 'in_distribution')} |",
        # With masks, the section on regions says it.
        *(
            []
            if "regions" in answers
            else [f"| slices without tumour that get a region | {_false_regions(answers)} |"]
        ),
    ]


def _bracketed(upright: Mapping[str, float] | None) -> list[str]:
    """What stands in brackets, if anything does."""
    if upright is None:
        return []
    return [
        (
            f"In brackets, the {upright['images']:.0f} slices that lie upright "
            "for certain. Of the others the data hold a copy that is turned or upside down against "
            "them, so one of the two lies wrong, and is out of distribution rightly."
        ),
        "",
    ]


def _sets(figures: Mapping[str, Any], wanted: float) -> list[str]:
    """Rows about the prediction sets: of all slices, and of those in distribution."""
    by_class = ", ".join(
        f"{name} {value:.1%}" for name, value in figures["coverage_by_class"].items()
    )
    rows = [
        f"| coverage of the {wanted:.0%} prediction sets | {_covered(figures)} |",
        f"| coverage by class | {by_class} |",
        f"| classes in a set | {_sized(figures)} |",
    ]
    inside = figures.get("in_distribution", {})
    if "coverage" not in inside:
        return rows
    limits = figures["interval"].get("full_sets")
    return [
        *rows,
        (
            "| sets of every class, as every slice out of distribution has "
            f"| {percent(figures['full_sets'], limits)} |"
        ),
        (
            f"| the {inside['images']} slices in distribution alone: coverage; classes in a set "
            f"| {_covered(inside)}; {_sized(inside)} |"
        ),
    ]


def _covered(figures: Mapping[str, Any]) -> str:
    limits = figures.get("interval", {}).get("coverage")
    return percent(figures["coverage"], limits, digits=2)


def _sized(figures: Mapping[str, Any]) -> str:
    sizes = ", ".join(f"{share:.1%} of {size}" for size, share in figures["set_sizes"].items())
    return f"{figures['set_size']:.2f} on average; {sizes}"


def _served(figures: Mapping[str, Any], point: Mapping[str, Any]) -> list[str]:
    """Rows about the threshold that serves, beside what it was chosen for."""
    rates = {
        name: percent(figures[name], figures["interval"].get(name), digits=2)
        for name in ("sensitivity", "specificity")
        if name in figures
    }
    target = point.get("target_sensitivity")
    aimed = f"aimed for {target:.0%}, " if target is not None else ""
    return [
        (
            f"| {' and '.join(rates)} at the threshold {figures['threshold']:.3f}, before anything is "
            f"referred | {'; '.join(rates.values())} (sensitivity: {aimed}on validation "
            f"{point['sensitivity']:.2%}) |"
        )
    ]


def _decided(answers: Mapping[str, Any], name: str) -> str:
    said = [
        percent(answers[which][name], answers[which].get("interval", {}).get(name), digits=2)
        if name in answers[which]
        else "none"
        for which in ("decisions", "decisions_upright")
        if which in answers
    ]
    return said[0] + "".join(f" ({upright})" for upright in said[1:])


def _tumor(sources: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Tumour or not, by data set",
        "",
        "At a tumour probability of one half. A set with tumours only has no specificity and no AUC.",
        "",
        "| data set | slices | with tumour | sensitivity | specificity | AUC |",
        "|---|---|---|---|---|---|",
    ]
    for source, figures in sources.items():
        cells = [with_interval(figures, name) for name in ("sensitivity", "specificity", "auc")]
        lines.append(
            f"| {source} | {figures['images']} | {figures['tumors']} | {' | '.join(cells)} |"
        )
    return [*lines, ""]


def _when_not(foreign: Mapping[str, Any], upright: Mapping[str, float] | None) -> list[str]:
    compared = (
        ""
        if not upright or "in_distribution" not in upright
        else " Compared with the test slices that lie upright for certain, of which "
        f"{upright['in_distribution']:.1%} are in distribution; the turned and mirrored ones are made "
        "from these."
    )
    lines = [
        "## When not: pictures that are not its business",
        "",
        (
            "AUROC of the distance in the embedding against test slices, and what is decided. A "
            "picture out of distribution is referred."
            + compared
            + (_NORMAL if NORMAL_BRAIN in foreign else "")
        ),
        "",
        (
            "| kind | pictures | AUROC | out of distribution | decided: tumour | decided: no tumour "
            "| accepted and over 90 % sure of a tumour |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {kind} | {f['images']:.0f} | {plain(f, 'auroc')} "
        f"| {f['out_of_distribution']:.1%} | {f['decided_tumor']:.1%} "
        f"| {f['decided_no_tumor']:.1%} | {f['confident_tumor']:.1%} |"
        for kind, f in foreign.items()
    ]
    return [*lines, ""]


def _robust(table: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Robust: the same test slices, changed",
        "",
        "| change | accuracy | tumour AUC | mean Dice | calibration error | in distribution |",
        "|---|---|---|---|---|---|",
    ]
    for name, figures in table.items():
        cells = [plain(figures, key) for key in ("accuracy", "tumor_auc", "dice", "ece")]
        lines.append(f"| {name} | {' | '.join(cells)} | {figures['in_distribution']:.1%} |")
    return [*lines, "", "![Robustness](robustness.png)", ""]


def left_out_section(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown: runs that trained without a data set, on that data set.

    Args:
        runs: ``metrics["left_out"]``.
    """
    lines = [
        "## A data set left out: the honest guess for a new hospital",
        "",
        (
            "Other runs, each trained without a data set and tested on it; int8, at a tumour "
            "probability of one half, or a recipe's own `tumor_threshold`. Accuracy and calibration "
            "error are of the slices with a class, where these show more than one."
        ),
        "",
        (
            "| left out | recipe | slices | with a class | tumour AUC | sensitivity | specificity "
            "| accuracy | mean Dice | calibration error |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        changed = "".join(f" --{name} {value}" for name, value in run["overridden"].items())
        # Reports of earlier releases note neither this nor how many have a class.
        another = f" (another recipe, {run['another_recipe']})" if run.get("another_recipe") else ""
        tumor = run["tumor"]
        accuracy = {"accuracy": run["interval"]} if "interval" in run else {}
        cells = [
            ", ".join(run["held_out"]),
            f"`{run['recipe']}{changed}`{another}",
            f"{run['images']}",
            f"{run.get('named', '')}",
            *(with_interval(tumor, name) for name in ("auc", "sensitivity", "specificity")),
            with_interval(run, "accuracy", accuracy),
            *(plain(run, name) for name in ("dice", "ece")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]
