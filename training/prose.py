"""What a page of comparisons says of the data sets on it: the project's own page, and any other."""

from typing import Final, NamedTuple


class Prose(NamedTuple):
    """Sentences of a page.

    Attributes:
        patients: what its intervals leave out.
        testing: heading of what is tested on Testing.
        grouped: what the protocol ``grouped`` tests, up to the next sentence.
        left_out: why a data set is not left out of every recipe.
        crossval: by what is cross-validated.
        leak: what the difference between ``published`` and ``clean`` means.
    """

    patients: str
    testing: str
    grouped: str
    left_out: str
    crossval: str
    leak: str


PROJECT: Final = Prose(
    patients=(
        "`figshare_cheng`, `navoneel` and `nickparvar`, as they were read for these, do not say which "
        "slices are one patient's, and a patient's slices lie in several groups. So the intervals do "
        "not cover how patients differ, not where whole folds of patients are tested either, and are "
        "too narrow for new patients: [by how much, of one "
        "fold](default-model.md#intervals-and-patients)."
    ),
    testing="Four classes, or tumour and none: nickparvar's 1311 Testing images",
    grouped=", so that some may be among the 1311 above",
    left_out=(
        " A recipe with a mask head cannot be trained without the set that has the masks, so another "
        "one is shown without `figshare_cheng`."
    ),
    crossval=(
        "figshare_cheng by its author's patient-wise folds: three tumour classes. navoneel, tumour or "
        "not: repeated splits in whole near-duplicate groups, since it names no patients."
    ),
    leak=(
        "103 of the 1311 Testing images are byte-identical to a Training image and 1064 have a near "
        "duplicate there (`python -m training audit`). A model that remembers its training slices gets "
        "those right, so `published` says how well it recognises patients that it has seen. `clean` "
        "removes copies and neighbouring slices, but nickparvar names no patients: other slices of a "
        "tested patient may still train. Only the patient-wise folds leave whole patients out: they "
        "are the figures to expect of a new patient from the same hospitals. None of them says how a "
        "model does at another hospital."
    ),
)
"""Of the page that is kept with the recipes that ship."""

ANY: Final = Prose(
    patients=(
        "A data set that does not say which slices are one patient's has a patient's slices in several "
        "groups. Its intervals do not cover how patients differ, and are too narrow for new patients."
    ),
    testing="Clean and published: the Testing images",
    grouped="",
    left_out="",
    crossval=(
        "A data set with patient-wise folds is tested by these, others by repeated splits in whole "
        "near-duplicate groups."
    ),
    leak=(
        "A model that remembers its training slices gets near duplicates of them right, so `published` "
        "says how well it recognises patients that it has seen. `clean` removes copies and "
        "neighbouring slices; where a data set names no patients, other slices of a tested patient may "
        "still train. Neither says how a model does at another hospital."
    ),
)
