"""The part of MODEL_CARD.md about answers: where, how sure, when not, how robust."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

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
        answers: these.
        mask: the recipe's, which says whether synthetic slices were made.
    """
    lines: list[str] = []
    if "regions" in answers:
        lines += _where(answers["regions"])
    made = mask is not None and any((mask.removed, mask.pasted, mask.stripped))
    lines += _how_sure(answers, "slices and synthetic ones made from them" if made else "slices")
    lines += _tumor(answers["tumor"])
    if "foreign" in answers:
        lines += _when_not(answers["foreign"], answers["decisions_upright"])
    return lines + _robust(answers["robustness"])


def _where(regions: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Where: regions against the radiologist's masks",
        "",
        (
            "Test slices with a mask, of patients that neither training nor validation saw, in the "
            "pixels "
            "of the original image. A slice that gets no region counts as Dice 0. Green is the "
            "radiologist's outline, red the model's, on slices drawn at random."
        ),
        "",
        "| model | slices | mean Dice | median Dice | box AP50 | centre inside the mask | no region |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, figures in regions.items():
        low, high = figures["interval"]["dice"]
        lines.append(
            f"| {kind} | {figures['images']:.0f} | {figures['dice']:.4f} [{low:.4f}, {high:.4f}] "
            f"| {figures['dice_median']:.4f} | {figures['ap50']:.4f} "
            f"| {figures['centre_inside']:.2%} | {figures['without_region']:.2%} |"
        )
    ours = regions["int8"]
    by_class = ", ".join(f"{name} {value:.3f}" for name, value in ours["dice_by_class"].items())
    false = ", ".join(
        f"{figures['share']:.1%} of {figures['images']} in {source}"
        for source, figures in ours["false_regions"].items()
    )
    return [
        *lines,
        "",
        (
            f"Mean Dice by class (int8): {by_class}. Slices without tumour that get a region all the "
            "same: "
            f"{false or 'none were tested'}."
        ),
        "",
        "![Regions](regions.jpg)",
        "",
    ]


def _how_sure(answers: Mapping[str, Any], fitted_on: str) -> list[str]:
    figures = answers["calibration"]
    fitted = answers["fitted"]["answer"]
    point, evidence = fitted["operating_point"], fitted["tumor"]
    by_class = ", ".join(
        f"{name} {value:.1%}" for name, value in figures["coverage_by_class"].items()
    )
    sizes = ", ".join(f"{share:.1%} of {size}" for size, share in figures["set_sizes"].items())
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
        "| | test |",
        "|---|---|",
        f"| expected calibration error of the bare softmax | {figures['ece_softmax']:.4f} |",
        f"| expected calibration error as answered | {figures['ece']:.4f} |",
        (
            f"| coverage of the {fitted['conformal']['coverage']:.0%} prediction sets "
            f"| {figures['coverage']:.2%} |"
        ),
        f"| coverage by class | {by_class} |",
        f"| classes in a set | {figures['set_size']:.2f} on average; {sizes} |",
        (
            f"| referred (tumour probability from {point['refer_low']:.3f} to "
            f"{point['refer_high']:.3f}, or out of distribution) | {_decided(answers, 'referred')} |"
        ),
        f"| right where it decides tumour or no tumour | {_decided(answers, 'right_of_decided')} |",
        f"| tumours decided as none | {_decided(answers, 'tumors_missed')} |",
        f"| slices without tumour decided as tumour | {_decided(answers, 'false_alarms')} |",
        f"| real slices taken as in distribution | {_decided(answers, 'in_distribution')} |",
        "",
        (
            f"In brackets, the {answers['decisions_upright']['images']:.0f} slices that lie upright "
            "for certain. Of the others the data hold a copy that is turned or upside down against "
            "them, so one of the two lies wrong, and is out of distribution rightly."
        ),
        "",
        "![Reliability](reliability.png)",
        "![Risk and coverage](risk_coverage.png)",
        "",
    ]


def _decided(answers: Mapping[str, Any], name: str) -> str:
    every, upright = (
        f"{answers[which][name]:.2%}" if name in answers[which] else "none"
        for which in ("decisions", "decisions_upright")
    )
    return f"{every} ({upright})"


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
        cells = [_with_interval(figures, name) for name in ("sensitivity", "specificity", "auc")]
        lines.append(
            f"| {source} | {figures['images']} | {figures['tumors']} | {' | '.join(cells)} |"
        )
    return [*lines, ""]


def _when_not(foreign: Mapping[str, Any], upright: Mapping[str, float]) -> list[str]:
    lines = [
        "## When not: pictures that are not its business",
        "",
        (
            "AUROC of the distance in the embedding against test slices, and what is decided. A "
            "picture out of distribution is referred. Compared with the test slices that lie upright "
            f"for certain, of which {upright['in_distribution']:.1%} are in distribution; the turned "
            "and mirrored ones are made from these." + (_NORMAL if NORMAL_BRAIN in foreign else "")
        ),
        "",
        (
            "| kind | pictures | AUROC | out of distribution | decided: tumour | decided: no tumour "
            "| accepted and over 90 % sure of a tumour |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {kind} | {f['images']:.0f} | {f['auroc']:.4f} | {f['out_of_distribution']:.1%} "
        f"| {f['decided_tumor']:.1%} | {f['decided_no_tumor']:.1%} | {f['confident_tumor']:.1%} |"
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
    lines += [
        f"| {name} | {format(f['accuracy'], '.4f') if 'accuracy' in f else ''} "
        f"| {format(f['tumor_auc'], '.4f') if 'tumor_auc' in f else ''} "
        f"| {format(f['dice'], '.4f') if 'dice' in f else ''} | {f['ece']:.4f} "
        f"| {f['in_distribution']:.1%} |"
        for name, f in table.items()
    ]
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
            "probability of one half. Accuracy is of the slices with a class, where these show more "
            "than one."
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
        cells = [
            ", ".join(run["held_out"]),
            f"`{run['recipe']}{changed}`{another}",
            f"{run['images']}",
            f"{run.get('named', '')}",
            *(_with_interval(tumor, name) for name in ("auc", "sensitivity", "specificity")),
            f"{run['accuracy']:.4f} [{run['interval'][0]:.4f}, {run['interval'][1]:.4f}]"
            if "accuracy" in run
            else "",
            *(f"{run[name]:.4f}" if name in run else "" for name in ("dice", "ece")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _with_interval(figures: Mapping[str, Any], name: str) -> str:
    if name not in figures:
        return ""
    low, high = figures["interval"][name]
    return f"{figures[name]:.4f} [{low:.4f}, {high:.4f}]"
