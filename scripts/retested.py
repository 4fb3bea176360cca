"""What a version answers on test slices today: ``python -m scripts.retested FOLDER …``.

A version's report is of the day that it was exported; the service's rules have changed since: slices
out of distribution get every class. The slices are those of a report's ``test_images.txt``, found by
their files' sha256 in the folders of the data sets, and the file is the int8 one.

Of data sets with an index file and masks the figures also have intervals *by run*: a run is the slices
with consecutive ids in the index that have the same fold and label. Slices of one series follow one
another there, so that a run holds what near-duplicate groups part. It is no patient: figshare_cheng has
233 of them and 510 runs, so that a patient is in about two, and these intervals are too narrow as well.

The shipped versions were split when copies were looked for in the cropped slices alone. ``--apart``
leaves out those test slices of which today's audit finds a copy in what trained or validated.
"""

import argparse
import csv
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.answer import Answers, Outputs, Rules
from contract.errors import StoreError
from contract.manifest import AnswerRecord, RegionRecord
from contract.store import ModelStore
from contract.version import StoredVersion
from training import trust
from training.calibrate import class_indices
from training.card_answers import how_sure
from training.catalogue import load_recipe
from training.convert import litert_predictor
from training.datasets import given, read_folders
from training.duplicates import Audit, audit
from training.errors import DatasetError, TrainingError
from training.images import ImageSet
from training.index import INDEX_FILE
from training.names import NO_TUMOR
from training.scores import shares, tumor_scores
from training.splits import Protocol, split

STORE = Path(__file__).resolve().parents[1] / "model_store"
MODEL = "brain-tumor"


def main() -> int:
    """Prints it; returns the process' exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.retested", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="the data sets")
    parser.add_argument("--version", default="latest")
    parser.add_argument(
        "--tested-by", help="version whose test images these are; its own otherwise"
    )
    parser.add_argument("--among", default="", metavar="SET/PART", help="as nickparvar/testing")
    parser.add_argument("--apart", action="store_true", help="without copies of what it saw")
    arguments = parser.parse_args()
    try:
        retest(**vars(arguments))
    except (TrainingError, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def retest(
    folders: Sequence[Path], version: str, tested_by: str | None, among: str, apart: bool
) -> None:
    """Prints figures of a version on the test images of a version.

    Raises:
        TrainingError: of the data sets.
        StoreError: a version cannot be had, or does not say what it was tested on.
    """
    store = ModelStore(STORE)
    stored = store.load(MODEL, store.resolve(MODEL, version))
    by = stored if tested_by is None else store.load(MODEL, store.resolve(MODEL, tested_by))
    images = read_folders(folders)
    wanted = _wanted(by, images)
    rows = np.flatnonzero(
        [
            digest in wanted and f"{file.source}/{file.part}".startswith(among)
            for file, digest in zip(images.files, images.sha256, strict=True)
        ]
    )
    found = audit(images)
    if apart:
        rows = np.setdiff1d(rows, _seen(by, images, found, wanted))
    if not rows.size:
        raise DatasetError("none of the images was tested")
    rules = Rules.read(stored)
    outputs = litert_predictor(stored.path / stored.manifest.artifacts["litert"])(
        images.slices[rows]
    )
    _, first = np.unique([images.sha256[row] for row in rows], return_index=True)
    for name, chosen in (("slices", np.arange(len(rows))), ("distinct files", np.sort(first))):
        ours = {key: array[chosen] for key, array in outputs.items()}
        groups, labels = found.groups[rows[chosen]], images.labels[rows[chosen]]
        print(f"{len(chosen)} {name}: {_classes(rules, ours, labels, groups)}")
    record = stored.manifest.answer
    if record is not None and record.region is not None:
        _answers(record, record.region, rules, outputs, images, found, rows, folders)


def _wanted(stored: StoredVersion, images: ImageSet) -> set[str]:
    """The sha256 of the files that a version was tested on.

    Raises:
        StoreError: it does not say.
    """
    tested = stored.path / "report" / "test_images.txt"
    if tested.is_file():
        return {*tested.read_text(encoding="utf-8").split()}
    if stored.manifest.provenance.protocol == Protocol.GROUPED:
        raise StoreError(f"{MODEL} {stored.manifest.version} has no report/test_images.txt")
    # Of the other protocols all of Testing is the test.
    return {images.sha256[row] for row in np.flatnonzero(images.parts == "testing")}


def _seen(
    stored: StoredVersion, images: ImageSet, found: Audit, wanted: Collection[str]
) -> NDArray[np.intp]:
    """Images that share a group of today's audit with what a version trained or validated on.

    Raises:
        DatasetError: its split cannot be made again from these folders.
    """
    provenance = stored.manifest.provenance
    recipe = load_recipe(provenance.recipe)
    named = images.relabelled(recipe.labels)
    then = audit(replace(named, whole=None))
    parts = split(named, then, Protocol(provenance.protocol), recipe)
    if {images.sha256[row] for row in parts.test} != wanted:
        raise DatasetError("these are not the data sets of the version, or its recipe has changed")
    taught = np.concatenate([parts.train, parts.validation])
    return np.flatnonzero(np.isin(found.groups, found.groups[taught]))


def _outputs(found: Mapping[str, NDArray[np.float32]]) -> Outputs:
    names = ("logits", "mask", "embedding")
    if len(found) == 1:
        # Version 1's file has no name for its only output.
        found = {"probabilities": next(iter(found.values()))}
    return Outputs(found["probabilities"], **{n: found[n] for n in names if n in found})


def _classes(
    rules: Rules,
    found: Mapping[str, NDArray[np.float32]],
    labels: NDArray[np.str_],
    groups: NDArray[np.intp],
) -> str:
    answers = rules.answer(_outputs(found))
    known = class_indices(labels, rules.classes)
    right = answers.labels == known
    recalls = ", ".join(
        f"{name} {right[known == index].mean():.1%} of {(known == index).sum()}"
        for index, name in enumerate(rules.classes)
        if (known == index).any()
    )
    accuracy = shares({"accuracy": (right, known >= 0)}, groups)
    tumor = tumor_scores(answers.tumor_probability, labels != NO_TUMOR, groups)
    auc = _limits(tumor, "auc") if "auc" in tumor else "none"
    return (
        f"accuracy {_limits(accuracy, 'accuracy')} of the {(known >= 0).sum()} with a class; "
        f"tumour AUC {auc}; recall of {recalls}"
    )


def _answers(
    record: AnswerRecord,
    region: RegionRecord,
    rules: Rules,
    outputs: Mapping[str, NDArray[np.float32]],
    images: ImageSet,
    found: Audit,
    rows: NDArray[np.intp],
    folders: Sequence[Path],
) -> None:
    test = trust.tested(images, rows, found, rules, outputs)
    answers: dict[str, Any] = {
        "fitted": {"answer": record.model_dump(mode="json")},
        "calibration": trust.calibration_figures(test, rules.classes, outputs["probabilities"]),
        "decisions": trust.decision_figures(test, np.ones(len(rows), np.bool_)),
        "decisions_upright": trust.decision_figures(test, ~test.doubtful),
        "served": trust.threshold_figures(test, rules.tumor_threshold),
        "false_regions": trust.false_regions(images, test, region),
    }
    print("\n".join(how_sure(answers, "slices")))
    known = class_indices(test.labels, rules.classes)
    for folder in folders:
        name = given(folder).name
        masked = np.array([images.files[int(row)].mask is not None for row in rows])
        inside = (test.sources == name) & masked
        if not (folder / INDEX_FILE).is_file() or not inside.any():
            continue
        numbers = runs_of(folder / INDEX_FILE)
        stems = [images.files[int(row)].path.stem for row in rows[inside]]
        by_run = np.array([numbers[stem] for stem in stems], np.intp)
        for what, groups in (("by group", test.groups[inside]), ("by run", by_run)):
            ours = _part(test, inside, groups)
            right = ours.answers.labels == known[inside]
            every = np.ones(len(right), np.bool_)
            accuracy = shares({"accuracy": (right, every)}, groups)
            tumor = tumor_scores(ours.answers.tumor_probability, ours.tumor, groups)
            figures = trust.region_figures(images, ours, region)
            print(
                f"{name}, {len(right)} slices, {what}, {len(np.unique(groups))} of them: accuracy "
                f"{_limits(accuracy, 'accuracy')}, sensitivity {_limits(tumor, 'sensitivity')}, mean "
                f"Dice {_limits(figures, 'dice')}, centre inside {_limits(figures, 'centre_inside')}"
            )


def _part(test: trust.Tested, inside: NDArray[np.bool_], groups: NDArray[np.intp]) -> trust.Tested:
    """Some of the slices, grouped in another way."""
    answers = test.answers
    return trust.Tested(
        test.rows[inside],
        test.labels[inside],
        test.sources[inside],
        groups,
        test.doubtful[inside],
        Answers(
            probabilities=answers.probabilities[inside],
            tumor_probability=answers.tumor_probability[inside],
            decisions=tuple(d for d, here in zip(answers.decisions, inside, strict=True) if here),
            labels=answers.labels[inside],
        ),
        test.masks[inside],
    )


def _limits(figures: Mapping[str, Any], name: str) -> str:
    low, high = figures["interval"].get(name, (float("nan"), float("nan")))
    return f"{figures[name]:.4f} [{low:.4f}, {high:.4f}]"


def runs_of(index: Path) -> dict[str, int]:
    """Id of each image in an index to the number of its run; see the module."""
    with index.open(encoding="utf-8", newline="") as file:
        entries = sorted(csv.DictReader(file), key=lambda entry: int(entry["id"]))
    found: dict[str, int] = {}
    before, number = None, -1
    for entry in entries:
        kind = entry["fold"], entry["label"]
        number += kind != before
        before = kind
        found[entry["id"]] = number
    return found


if __name__ == "__main__":
    sys.exit(main())
