"""Data as a run sees them: read, audited and split, the same each time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from contract.preprocessing import DEFAULT_SPEC, probe_digest
from training.datasets import given, read_folders
from training.duplicates import Audit, audit
from training.errors import DatasetError, RunError
from training.images import ImageSet
from training.names import ANY_TUMOR, NO_TUMOR
from training.reasons import OTHER_FOLDS, why_few
from training.recipe import Recipe
from training.run import Run, RunConfig, installed
from training.splits import Protocol, Split, split
from training.truth import require_kinds, truth_digest

SPLIT_PARTS: Final = ("train", "validation", "test")


class Prepared(NamedTuple):
    """Images, what is alike among them, who trains on which, and what this makes of the run."""

    images: ImageSet
    audit: Audit
    parts: Split
    config: RunConfig


def read(recipe: Recipe, roots: Sequence[Path]) -> tuple[ImageSet, Audit]:
    """Reads and audits data sets, with the recipe's labels; says what it found.

    Raises:
        DatasetError: the folders hold no usable images, or of one class, or of classes that the recipe
            lacks.
    """
    images = read_folders(roots)
    print(images.describe(), flush=True)
    images = images.relabelled(recipe.labels)
    unknown = set(images.labels) - {*recipe.classes, ANY_TUMOR}
    if unknown:
        raise DatasetError(f"{recipe.name} knows no class {', '.join(sorted(unknown))}")
    require_kinds(images.labels)
    return images, audit(images)


def configure(
    recipe: Recipe,
    roots: Sequence[Path],
    images: ImageSet,
    parts: Split,
    protocol: Protocol,
    held_out: Sequence[str] = (),
) -> RunConfig:
    """What a run on that data and that split is."""
    return RunConfig(
        recipe=recipe,
        protocol=protocol,
        held_out=tuple(held_out),
        data=images.sources(),
        roots=tuple(map(given, roots)),
        splits={
            name: tuple(images.sha256[i] for i in getattr(parts, name)) for name in SPLIT_PARTS
        },
        probe_digest=probe_digest(DEFAULT_SPEC),
        packages=installed(),
        truth=truth_digest(images),
        never_shown=tuple(n for n in recipe.classes if n not in images.labels[parts.train]),
    )


def prepare(
    recipe: Recipe, roots: Sequence[Path], protocol: Protocol, held_out: Sequence[str] = ()
) -> Prepared:
    """Reads, audits and splits; says what it found.

    Raises:
        DatasetError: see :func:`read`; or a class is left without images to train or validate on, or
            there are none to test on, or none of a class.
        RunError: a data set is to be held out of another protocol than ``grouped``.
    """
    if held_out and protocol is not Protocol.GROUPED:
        # The other sets' Testing images would train, and what is near them as well: no figure of
        # such a run is one of those protocols.
        raise RunError(f"--hold-out needs --protocol grouped, not {protocol}")
    images, found = read(recipe, roots)
    parts = split(images, found, protocol, recipe, held_out)
    print(f"split ({protocol}): {parts.counts()}", flush=True)
    for remark in parts.remarks:
        print(f"  {remark}", flush=True)
    if not parts.test.size:
        raise DatasetError("; ".join(_nothing_to_test_on(images, found, parts, protocol)))
    if not np.isin(images.labels[parts.test], recipe.classes).any():
        raise DatasetError(f"no image to test on shows one of {', '.join(recipe.classes)}")
    if recipe.mask is not None:
        require_masks(images, parts)
    return Prepared(
        images, found, parts, configure(recipe, roots, images, parts, protocol, held_out)
    )


def _nothing_to_test_on(
    images: ImageSet, found: Audit, parts: Split, protocol: Protocol
) -> list[str]:
    if protocol is not Protocol.GROUPED:
        return [
            "no images to test on: no folder is named Testing",
            "--protocol grouped draws them by near-duplicate groups",
        ]
    if np.char.startswith(images.parts, "fold").all():
        return [
            "no images to test on: no slice is of a fold that is tested",
            *parts.remarks,
            OTHER_FOLDS,
        ]
    few = why_few(images, found, sorted(set(images.labels.tolist())))
    return ["no images to test on: there are too few groups to draw some for test", *few]


def require_masks(images: ImageSet, parts: Split) -> None:
    """Raises DatasetError if a mask head, or its answers, have nothing to be fitted on."""
    for name, rows in (("training", parts.train), ("validation", parts.validation)):
        if not any(int(row) in images.masks and images.masks[int(row)].any() for row in rows):
            raise DatasetError(
                f"a recipe with a mask head needs {name} images with an outlined tumour"
            )
        if NO_TUMOR not in images.labels[rows]:
            raise DatasetError(f"a recipe with a mask head needs {name} images without a tumour")


def as_begun(path: Path, roots: Sequence[Path]) -> list[Path]:
    """Data sets' folders in the order in which a run read them, if there is one that read the same.

    Whatever is drawn goes by the order of reading, so in another one the run would be another.

    Args:
        path: the run's folder, which need not be there.
        roots: the folders as they are given now; they may have been moved.

    Raises:
        RunError: the run's description is damaged.
    """
    if not Run.begun(path):
        return [*roots]
    names = [root.name for root in Run.open(path).config.roots]
    if sorted(names) != sorted(given(root).name for root in roots):
        return [*roots]
    return sorted(roots, key=lambda root: names.index(given(root).name))


def start(path: Path, config: RunConfig, resume: bool) -> Run:
    """A new run, or the one in the folder if it is to be resumed, with its data where they lie now.

    Raises:
        RunError: the folder holds a run that is not to be resumed, or another run.
    """
    if not (resume and Run.begun(path)):
        return Run.create(path, config)
    run = Run.open(path)
    run.require_same(config)
    # What evaluates it reads the data again.
    return run if run.config.roots == config.roots else run.moved(config.roots)


def reopen(path: Path) -> tuple[Run, Prepared]:
    """A finished run with its data, read and split again and shown to be the same.

    Raises:
        RunError: there is no finished run, or the data have changed since.
    """
    run = Run.open(path)
    run.require_finished()
    config = run.config
    prepared = prepare(config.recipe, config.roots, config.protocol, config.held_out)
    run.require_same(prepared.config)
    return run, prepared
