"""What keeps the slices of a person together, by data set, as a report has it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.images import ImageSet


def persons_named(images: ImageSet, rows: NDArray[np.intp]) -> dict[str, bool]:
    """The data sets of some images, and whether each names the person of every one of them.

    The audit then has a person's slices in one group. A patient-wise fold keeps them together as well,
    and does not say which are whose; a DICOM study does, but a person may have several.
    """
    found: dict[str, bool] = {}
    for row in rows.tolist():
        file = images.files[row]
        found[file.source] = found.get(file.source, True) and file.named
    return dict(sorted(found.items()))


def known_persons(images: ImageSet, test: NDArray[np.intp]) -> dict[str, Any]:
    """What of each data set names persons, or keeps theirs together.

    Returns:
        ``by_patient``: the data sets each of whose slices has a person's name or a patient-wise fold;
        ``by_fold``: those with such folds; ``by_study``: those where a DICOM study or series links
        slices of persons whom nothing names; ``persons_named``: of the test images, see
        :func:`persons_named`.
    """
    files = images.files
    nameless = {file.source for file in files if not file.patient}
    return {
        "by_patient": sorted({file.source for file in files} - nameless),
        "by_fold": sorted({file.source for file in files if file.part.startswith("fold")}),
        "by_study": sorted({files[row].source for row in np.flatnonzero(images.linked)}),
        "persons_named": persons_named(images, test),
    }
