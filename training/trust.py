"""Whether the answers can be trusted: where the tumour is and how sure they are, measured on test.

:mod:`training.foreign` measures when not to answer, :mod:`training.robustness` what changes withstand.
Everything goes through the rules that the service follows, with what was fitted on validation.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.answer import Answers, Decision, Rules
from contract.manifest import RegionRecord
from training.answering import as_outputs
from training.calibrate import class_indices, expected_calibration_error
from training.duplicates import Audit
from training.images import ImageSet
from training.interval import Basis, bootstrap
from training.names import NO_TUMOR
from training.regions import average_precision, compare, read_mask, regions, summary
from training.scores import by_source, finite, shares, tumor_scores


class Tested(NamedTuple):
    """Test slices and what was answered about them.

    Attributes:
        rows: indices into the image set.
        labels: class names, (N,).
        sources: data sets, (N,).
        groups: of each, (N,), by the audit.
        doubtful: whether a copy of the slice lies turned or upside down against it, (N,).
        answers: by the rules.
        masks: tumour probability of the cells, (N, h, w).
    """

    rows: NDArray[np.intp]
    labels: NDArray[np.str_]
    sources: NDArray[np.str_]
    groups: NDArray[np.intp]
    doubtful: NDArray[np.bool_]
    answers: Answers
    masks: NDArray[np.float32]

    @property
    def tumor(self) -> NDArray[np.bool_]:
        """Whether there is a tumour, (N,)."""
        return np.asarray(self.labels != NO_TUMOR)


def tested(
    images: ImageSet,
    rows: NDArray[np.intp],
    found: Audit,
    rules: Rules,
    outputs: Mapping[str, NDArray[np.float32]],
) -> Tested:
    """Slices with their answers.

    Args:
        images: what was read.
        rows: which of them the outputs are of.
        found: what is alike among all images.
        rules: how outputs become answers.
        outputs: the model's, by name.
    """
    sources = np.array([images.files[int(row)].source for row in rows])
    return Tested(
        rows,
        images.labels[rows],
        sources,
        found.groups[rows],
        found.doubtful[rows],
        rules.answer(as_outputs(outputs)),
        outputs["mask"],
    )


def tumor_figures(test: Tested) -> dict[str, Any]:
    """Tumour or not, by data set and over all; a set with one kind only has no AUC."""
    result = {"all": tumor_scores(test.answers.tumor_probability, test.tumor, test.groups)}
    for name, inside in by_source(test.sources).items():
        result[name] = tumor_scores(
            test.answers.tumor_probability[inside], test.tumor[inside], test.groups[inside]
        )
    return result


def threshold_figures(test: Tested, threshold: float) -> dict[str, Any]:
    """Tumour or not over all at the threshold that serves, before anything is referred."""
    found = tumor_scores(test.answers.tumor_probability, test.tumor, test.groups, threshold)
    return {"threshold": threshold, **found}


def calibration_figures(
    test: Tested, classes: Sequence[str], plain: NDArray[np.float32]
) -> dict[str, Any]:
    """ECE of the label's probability, before (the bare softmax) and after; sets and their coverage.

    The label of the bare softmax is its first highest class: only an answer has a decision that chooses
    among equally probable ones, as :class:`contract.answer.Answers` says.

    The sets are those that the service answers, which hold every class where a slice is out of
    distribution: so coverage and sizes are also given of the slices that are in distribution. Of
    slices of one class the error is that class's recall against its probability, and is not given.
    """
    known = class_indices(test.labels, classes)
    named = known >= 0
    truth = known[named]
    answers = test.answers
    assert answers.prediction_set is not None
    assert answers.in_distribution is not None
    sets, familiar = answers.prediction_set[named], answers.in_distribution[named]
    covered = sets[np.arange(len(truth)), truth]
    every = np.ones(len(truth), np.bool_)
    counted = shares(
        {
            "coverage": (covered, every),
            "familiar": (covered, familiar),
            "full_sets": (np.asarray(sets.all(1)), every),
            **{f"of {name}": (covered, truth == index) for index, name in enumerate(classes)},
        },
        test.groups[named],
    )
    limits = counted["interval"]
    before, after = plain[named], answers.probabilities[named]
    several = len(np.unique(truth)) > 1
    errors = {
        "ece_softmax": expected_calibration_error(before.max(1), before.argmax(1) == truth),
        "ece": expected_calibration_error(after.max(1), answers.labels[named] == truth),
    }
    return {
        "images": int(named.sum()),
        **(finite(errors) if several else {}),
        **{name: counted[name] for name in ("coverage", "full_sets") if name in counted},
        "coverage_by_class": {
            name: counted[f"of {name}"] for name in classes if f"of {name}" in counted
        },
        **_set_sizes(sets),
        "in_distribution": {
            "images": int(familiar.sum()),
            **({"coverage": counted["familiar"]} if "familiar" in counted else {}),
            **_set_sizes(sets[familiar]),
            "interval": {"coverage": limits["familiar"]} if "familiar" in limits else {},
        },
        "interval": {name: limits[name] for name in ("coverage", "full_sets") if name in limits},
    }


def _set_sizes(sets: NDArray[np.bool_]) -> dict[str, Any]:
    """Of prediction sets, (N, classes)."""
    if not len(sets):
        return {}
    sizes = sets.sum(1)
    return {
        "set_size": float(sizes.mean()),
        "set_sizes": {str(n): float((sizes == n).mean()) for n in range(1, sets.shape[1] + 1)},
    }


def decision_figures(test: Tested, inside: NDArray[np.bool_]) -> dict[str, Any]:
    """What is decided and how often rightly, and what is referred, of the slices inside, (N,).

    With 95 % intervals: copies of a slice are decided alike, so that one picture which the test holds
    many times may make up most of a share.
    """
    decisions = np.array([str(decision) for decision in test.answers.decisions])
    referred = decisions == Decision.REFER
    missed = test.tumor & (decisions == Decision.NO_TUMOR)
    false = ~test.tumor & (decisions == Decision.TUMOR)
    assert test.answers.in_distribution is not None
    counted = {
        "referred": (referred, inside),
        "right_of_decided": (~missed & ~false, inside & ~referred),
        "tumors_missed": (missed, inside & test.tumor),
        "false_alarms": (false, inside & ~test.tumor),
        "in_distribution": (test.answers.in_distribution, inside),
    }
    return {"images": float(inside.sum()), **shares(counted, test.groups)}


def false_regions(
    images: ImageSet, test: Tested, record: RegionRecord
) -> dict[str, dict[str, Any]]:
    """Slices without a tumour that get a region all the same, over all and by data set."""
    found = regions(images, test.rows.tolist(), test.masks, test.answers.tumor_probability, record)
    drawn = np.array([region is not None for region in found])
    none = ~test.tumor
    inside = {"all": none}
    inside |= {name: none & ours for name, ours in by_source(test.sources).items()}
    counted = shares({name: (drawn, of) for name, of in inside.items()}, test.groups)
    limits = counted["interval"]
    return {
        name: {
            "images": int(of.sum()),
            "share": counted[name],
            **({"interval": limits[name]} if name in limits else {}),
        }
        for name, of in inside.items()
        if name in counted
    }


def region_figures(images: ImageSet, test: Tested, record: RegionRecord) -> dict[str, Any]:
    """Regions against the radiologist's masks; those where there is no tumour cost precision."""
    found = regions(images, test.rows.tolist(), test.masks, test.answers.tumor_probability, record)
    compared = {
        index: compare(region, read_mask(path), float(test.answers.tumor_probability[index]))
        for index, region in enumerate(found)
        if (path := images.files[int(test.rows[index])].mask) is not None
    }
    indices = np.array(list(compared), np.intp)
    false = {
        index: float(test.answers.tumor_probability[index]) * region.score
        for index, region in enumerate(found)
        if region is not None and not test.tumor[index]
    }
    values = list(compared.values())
    dice = np.array([f.dice for f in values])

    def resampled(rows: NDArray[np.intp]) -> dict[str, float]:
        return summary([values[i] for i in rows])

    figures: dict[str, Any] = summary(values)
    every = (np.ones(len(values), np.bool_),)
    bases = {name: Basis(every, share=True) for name in ("centre_inside", "without_region")}
    figures["interval"] = bootstrap(resampled, test.groups[indices], bases, samples=300)
    figures["ap50_with_slices_without_tumor"] = average_precision(values, list(false.values()))
    figures["dice_by_class"] = {
        str(name): float(dice[test.labels[indices] == name].mean())
        for name in np.unique(test.labels[indices])
    }
    return figures
