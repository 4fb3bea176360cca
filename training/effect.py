"""What a valid recipe says without effect, or with another than it says."""

import re
from collections.abc import Collection, Iterator
from typing import Final

from training.names import NO_TUMOR, canonical_label
from training.recipe import Recipe

NAME_PATTERN: Final = "[A-Za-z0-9][A-Za-z0-9_-]*"
"""Of a recipe: what can be a file's name and a Keras model's, everywhere."""
_TUMOR_THRESHOLD: Final = Recipe.model_fields["tumor_threshold"].default


def faults(recipe: Recipe, file: str) -> Iterator[str]:
    """Why a recipe that is read from a file should not be run.

    Asked of recipes that are read, and not by their model: the runs of before have their own copy.

    Args:
        recipe: what the file says.
        file: its name, without the suffix, by which the recipe has to be found again.
    """
    if recipe.name != file or not re.fullmatch(NAME_PATTERN, file):
        yield f"it calls itself {recipe.name!r}; a recipe has the name of its file"
    for phase in recipe.phases:
        if phase.warmup_epochs > phase.epochs:
            yield f"phase {phase.name} has {phase.epochs} epochs and {phase.warmup_epochs:g} of warm-up"
    names = [phase.name for phase in recipe.phases]
    if len(set(names)) < len(names):
        yield f"phases are called {', '.join(names)}: each needs a name of its own"
    yield from _of_labels(recipe)
    yield from _of_classes(recipe)
    yield from _of_weights(recipe)
    if recipe.mask is None and recipe.copy_weight != 1:
        yield "copy_weight needs a mask head"
    if recipe.mask is not None and recipe.tumor_threshold != _TUMOR_THRESHOLD:
        yield "tumor_threshold has no effect with a mask head: it is fitted on validation then"


def _of_labels(recipe: Recipe) -> Iterator[str]:
    """Labels are renamed that no data can have, or that of no tumour, or another is made that."""
    for label in recipe.labels:
        if canonical_label(label) != label:
            yield f"labels has {label!r}, which is no label that data are read with"
    if recipe.labels.get(NO_TUMOR, NO_TUMOR) != NO_TUMOR:
        yield (
            f"labels renames {NO_TUMOR!r}, and slices without a tumour are known by that name: keep it"
        )
    for label, name in recipe.labels.items():
        if name == NO_TUMOR != label:
            yield f"labels makes {label!r} {NO_TUMOR!r}, by which slices without a tumour are known"


def _of_classes(recipe: Recipe) -> Iterator[str]:
    """Another class than :data:`NO_TUMOR` is no tumour, or a class is one that no label leads to."""
    without = set(recipe.classes) - set(recipe.tumor_classes)
    if without != {NO_TUMOR}:
        yield (
            f"tumor_classes leaves {', '.join(sorted(without))} as no tumour: that has to be the class "
            f"{NO_TUMOR!r}, and it alone"
        )
    for name in recipe.classes:
        unnamed = name not in recipe.labels.values()
        if unnamed and recipe.labels.get(name, canonical_label(name)) != name:
            yield (
                f"no label that data are read with leads to the class {name!r}: say in labels which "
                "one does"
            )


def _of_weights(recipe: Recipe) -> Iterator[str]:
    """Slices are weighted that are not drawn: without ``epoch_images`` each is in every epoch, once."""
    if recipe.epoch_images is not None:
        return
    mask = recipe.mask
    weights = {
        "source_weights": bool(recipe.source_weights),
        "copy_weight": recipe.copy_weight != 1,
        "mask.mask_weight": mask is not None and mask.mask_weight != 1,
        "mask.synthetic_weight": mask is not None and mask.synthetic_weight != 1,
    }
    for key, is_set in weights.items():
        if is_set:
            yield f"{key} needs epoch_images"


def unused_names(recipe: Recipe, sources: Collection[str]) -> dict[str, list[str]]:
    """What of a recipe names data sets that are not there, by its key.

    No error: a recipe speaks of all data sets that it may be given.
    """
    named = {"train_only": recipe.train_only, "source_weights": recipe.source_weights}
    found = {key: sorted(set(names) - set(sources)) for key, names in named.items()}
    return {key: names for key, names in found.items() if names}
