"""Whether the answers can be trusted: where, how sure, and when not to answer, measured on test.

Everything goes through the rules that the service follows, with what was fitted on validation.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

from contract.answer import Answers, Decision, Rules
from contract.decoding import decode
from contract.errors import DecodeError
from contract.manifest import RegionRecord
from contract.preprocessing import DEFAULT_SPEC, preprocess_placed
from contract.region import Geometry
from training.answering import as_outputs
from training.calibrate import class_indices, expected_calibration_error
from training.convert import Predictor
from training.duplicates import Audit
from training.errors import DatasetError
from training.images import ImageSet
from training.names import NO_TUMOR
from training.perturb import PERTURBATIONS, ROTATED, perturbed
from training.recipe import Recipe
from training.regions import average_precision, compare, read_mask, regions, reported, summary
from training.scores import (
    Basis,
    bootstrap,
    by_source,
    finite,
    shares,
    tumor_scores,
)

CONFIDENT: Final = 0.9
"""A class probability above which an answer about a picture that is no brain MRI is a scandal."""


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


def robustness(
    images: ImageSet,
    test: Tested,
    rules: Rules,
    predict: Predictor,
    recipe: Recipe,
) -> dict[str, dict[str, float]]:
    """Accuracy, Dice and calibration of the test slices after each perturbation."""
    assert rules.region is not None
    table: dict[str, dict[str, float]] = {}
    names: dict[str, Any] = {"none": lambda image, _: image, **PERTURBATIONS}
    known = class_indices(test.labels, recipe.classes)
    named = known >= 0
    several = len(np.unique(known[named])) > 1
    for name, change in names.items():
        rng = np.random.default_rng(recipe.seed)
        slices, geometries = [], []
        for row in test.rows:
            decoded = decode(images.files[int(row)].path.read_bytes())
            pixels = perturbed(decoded.upright, change, rng)
            prepared, placement = preprocess_placed(pixels)
            slices.append(prepared)
            geometries.append(Geometry.of(decoded, placement, DEFAULT_SPEC))
        outputs = predict(np.stack(slices))
        answers = rules.answer(as_outputs(outputs))
        dice = []
        for index, row in enumerate(test.rows):
            path = images.files[int(row)].mask
            if path is None:
                continue
            truth = read_mask(path)
            if name == ROTATED:
                truth = perturbed(truth.astype(np.uint8) * 255, change, rng) > 127
            probability = float(answers.tumor_probability[index])
            region = reported(outputs["mask"][index], geometries[index], probability, rules.region)
            dice.append(compare(region, truth, probability).dice)
        correct = answers.labels[named] == known[named]
        errors = {"ece": expected_calibration_error(answers.probabilities[named].max(1), correct)}
        assert answers.in_distribution is not None
        table[name] = {
            # A data set that was left out may hold one kind of slice, and may have no masks.
            **({"accuracy": float(correct.mean())} if several else {}),
            **(
                {"tumor_auc": float(roc_auc_score(test.tumor, answers.tumor_probability))}
                if len(np.unique(test.tumor)) == 2
                else {}
            ),
            **({"dice": float(np.mean(dice))} if dice else {}),
            **finite(errors if several else {}),
            "in_distribution": float(answers.in_distribution.mean()),
        }
        print(f"{name}: {table[name]}", flush=True)
    return table


def foreign_pictures(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Pictures that are no brain MRI, preprocessed, uint8 (N, H, W), by kind.

    Args:
        folder: a folder of pictures for each kind; see ``scripts/foreign.py``.

    Raises:
        DatasetError: there is no kind, one has no pictures, or a file is none.
    """
    kinds = {}
    for kind in sorted(path for path in folder.glob("*") if path.is_dir()):
        pictures = []
        for path in sorted(kind.glob("[!.]*")):
            try:
                pictures.append(preprocess_placed(decode(path.read_bytes()).upright)[0])
            except (OSError, DecodeError) as error:
                raise DatasetError(f"{path} is no picture: {error}") from error
        if not pictures:
            raise DatasetError(f"{kind} holds no pictures")
        kinds[kind.name] = np.stack(pictures)
    if not kinds:
        raise DatasetError(f"{folder} holds no folders of pictures")
    return kinds


def foreign_figures(
    pictures: Mapping[str, NDArray[np.uint8]],
    test: Tested,
    slices: NDArray[np.uint8],
    rules: Rules,
    predict: Predictor,
) -> dict[str, dict[str, float]]:
    """How well pictures of other kinds are told from the test slices that lie upright, by kind.

    Args:
        pictures: of each kind; see :func:`foreign_pictures`.
        test: test slices.
        slices: theirs, uint8 (N, H, W); those that lie upright for certain are also turned by a quarter
            and upside down, as kinds of their own, if there are any.
        rules: how outputs become answers.
        predict: the model.
    """
    kinds = dict(pictures)
    upright = slices[~test.doubtful]
    if len(upright):
        kinds["brain, turned by 90 degrees"] = np.rot90(upright, axes=(1, 2)).copy()
        kinds["brain, turned by 180 degrees"] = np.rot90(upright, 2, axes=(1, 2)).copy()
        kinds["brain, mirrored from top to bottom"] = upright[:, ::-1].copy()
    assert test.answers.distance is not None
    # What is upside down itself cannot show how well this is told.
    ours = test.answers.distance[~test.doubtful]
    table = {}
    for kind, shown in kinds.items():
        answers = rules.answer(as_outputs(predict(shown)))
        assert answers.distance is not None
        assert answers.in_distribution is not None
        truth = np.concatenate([np.zeros(len(ours)), np.ones(len(shown))])
        decisions = np.array([str(decision) for decision in answers.decisions])
        table[kind] = {
            "images": float(len(shown)),
            **(
                {"auroc": float(roc_auc_score(truth, np.concatenate([ours, answers.distance])))}
                if len(ours)
                else {}
            ),
            "out_of_distribution": float((~answers.in_distribution).mean()),
            "decided_tumor": float((decisions == Decision.TUMOR).mean()),
            "decided_no_tumor": float((decisions == Decision.NO_TUMOR).mean()),
            "confident_tumor": float(
                (answers.in_distribution & (answers.tumor_probability > CONFIDENT)).mean()
            ),
        }
    return table


def overlays(
    path: Path, images: ImageSet, test: Tested, record: RegionRecord, rng: np.random.Generator
) -> None:
    """A contact sheet of test slices, drawn at random: the mask in green, the region in red."""
    rows = np.flatnonzero([images.files[int(row)].mask is not None for row in test.rows])
    chosen = rng.permutation(rows)[:40]
    found = regions(
        images,
        test.rows[chosen].tolist(),
        test.masks[chosen],
        test.answers.tumor_probability[chosen],
        record,
    )
    side, columns = 192, 10
    sheet = Image.new("RGB", (columns * side, -(-len(chosen) // columns) * side))
    for place, (index, region) in enumerate(zip(chosen, found, strict=True)):
        file = images.files[int(test.rows[index])]
        assert file.mask is not None
        outline = read_mask(file.mask)
        # A large JPEG is decoded at a part of its size; outlines and regions are at the whole.
        pixels = Image.fromarray(decode(file.path.read_bytes()).pixels).resize(outline.shape[::-1])
        picture = np.stack([np.asarray(pixels)] * 3, axis=-1)
        picture[_edge(outline)] = (0, 220, 0)
        if region is not None:
            picture[_edge(region.mask())] = (255, 40, 40)
        tile = Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR)
        sheet.paste(tile, (place % columns * side, place // columns * side))
    sheet.save(path, quality=85)


def _edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    inner = mask.copy()
    for axis in (0, 1):
        inner &= np.roll(mask, 1, axis) & np.roll(mask, -1, axis)
    return np.asarray(mask & ~inner)
