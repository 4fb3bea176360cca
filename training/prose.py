"""What a page of comparisons says of the data sets on it: the project's own page, and any other."""

from collections.abc import Mapping
from typing import Final, NamedTuple


class Claim(NamedTuple):
    """What others publish of a recipe, and what of the record stands beside it.

    Attributes:
        recipe: its name here.
        published: figures, and on which split.
        ours: recipes whose accuracies compare.
    """

    recipe: str
    published: str
    ours: tuple[str, ...]


class Prose(NamedTuple):
    """Sentences of a page.

    Attributes:
        patients: what its intervals leave out.
        served: which rows are those of the default model's versions.
        testing: heading of what is tested on Testing.
        grouped: what the protocol ``grouped`` tests, up to the next sentence.
        left_out: why a data set is not left out of every recipe.
        crossval: by what is cross-validated.
        leak: what the difference between ``published`` and ``clean`` means.
        claims: what others publish.
        missed: what was aimed for and not reached, and what was tried.
        remarks: why a recipe has no figures or only some, by its name.
    """

    patients: str
    served: str
    testing: str
    grouped: str
    left_out: str
    crossval: str
    leak: str
    claims: tuple[Claim, ...]
    missed: str
    remarks: Mapping[str, str]


_NO_TESTING: Final = "`clean` and `published` cannot be run, since navoneel has no Testing images"
_NO_WEIGHTS: Final = (
    "it needs ImageNet's weights, which no package here carries; one step was measured"
)

PROJECT: Final = Prose(
    patients=(
        "`figshare_cheng`, `navoneel` and `nickparvar`, as they were read for these, do not say which "
        "slices are one patient's, and a patient's slices lie in several groups. So the intervals do "
        "not cover how patients differ, not where whole folds of patients are tested either, and are "
        "too narrow for new patients: [by how much, of one "
        "fold](default-model.md#intervals-and-patients)."
    ),
    served=(
        "The default model, version 4, is the row `efficientnet_lite0_mask`, `grouped`, with all four "
        "data sets; version 1 is `efficientnet_lite0`, `clean`. They stand in tables of different test "
        "images and do not compare: [versions 1 and 2 on the same "
        "images](default-model.md#on-the-same-images)."
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
        "103 of the 1311 Testing images are byte-identical to a Training image and 1075 have a near "
        "duplicate there (`python -m training audit`). A model that remembers its training slices gets "
        "those right, so `published` says how well it recognises patients that it has seen. `clean` "
        "removes the copies and neighbouring slices that the audit finds, but nickparvar names no "
        "patients: other slices of a tested patient may still train. Only the patient-wise folds leave "
        "whole patients out: they are the figures to expect of a new patient from the same hospitals. "
        "None of them says how a model does at another hospital.\n\n"
        "**The runs of this page were split before 2026-11-28, when the audit missed [copies that are "
        "cropped otherwise](default-model.md#copies-that-were-found-later).** Of `clean`'s 1311 images "
        "217 share a group with what trained or validated by what it finds now, of the default "
        "model's 1197 there are 277, of the 1083 without `nickparvar` 328, of the 253 without "
        "`navoneel` 60. Without them version 1 has 93.51 % in place of 94.43 %, and version 4 90.88 % "
        "in place of 92.53 %; the other models are not there any more to be tested so."
    ),
    claims=(
        Claim(
            "vgg16_binary",
            "85 to 92 % on validation, on a split with duplicates",
            ("vgg16_binary", "vgg16_binary_joined"),
        ),
        Claim(
            "resnet50_4class",
            "98.17 % of Testing, which also validated; loss 0.0531; F1 of glioma 0.97, meningioma "
            "0.96, no tumour 1.00, pituitary 0.98",
            ("resnet50_4class", "resnet50_scratch"),
        ),
        Claim(
            "efficientnetb4_binary",
            "F1 about 0.97 on validation",
            ("efficientnetb4_binary", "efficientnetb4_scratch"),
        ),
        Claim(
            "efficientnet_lite0",
            "-",
            (
                "efficientnet_lite0",
                "efficientnet_lite0_full",
                "efficientnet_lite0_late",
                "efficientnet_lite0_strong",
                "mobilenet_v2",
            ),
        ),
    ),
    missed=(
        "The two recipes from scratch are small ones: they say what is left without ImageNet's "
        "weights, not what the published recipes would reach here. For `efficientnet_lite0` 97.5 % was "
        "aimed for without the leak, and is missed by three points. Stronger changes to the slices, "
        "a longer training and three more data sets (`efficientnet_lite0_strong`) and another backbone "
        "(`mobilenet_v2`) are no better there; every block trained (`efficientnet_lite0_full`) and a "
        "smaller validation (`efficientnet_lite0_late`) were run with the leak alone. What was tried "
        "with VGG16 is in the heads of its [recipes](../training/recipes)."
    ),
    remarks={
        "efficientnet_lite0_bent": (
            "trained and validated, [and not "
            "tested](default-model.md#augmentation-and-a-data-set-left-out)"
        ),
        "efficientnet_lite0_stripped": (
            "trained and validated, [and not tested](default-model.md#without-the-skull)"
        ),
        "efficientnetb4_binary": _NO_WEIGHTS,
        "efficientnetb4_scratch": (
            "of nickparvar alone; `efficientnetb4_binary` is meant for several data sets at once, and "
            "was not run so"
        ),
        "resnet50_4class": _NO_WEIGHTS,
        "vgg16_binary": _NO_TESTING,
        "vgg16_binary_joined": _NO_TESTING,
    },
)
"""Of the page that is kept with the recipes that ship."""

ANY: Final = Prose(
    patients=(
        "A data set that does not say which slices are one patient's has a patient's slices in several "
        "groups. Its intervals do not cover how patients differ, and are too narrow for new patients."
    ),
    served="",
    testing="Clean and published: the Testing images",
    grouped="",
    left_out="",
    crossval=(
        "A data set with patient-wise folds is tested by these, others by repeated splits in whole "
        "near-duplicate groups."
    ),
    leak=(
        "A model that remembers its training slices gets near duplicates of them right, so `published` "
        "says how well it recognises patients that it has seen. `clean` removes the copies and "
        "neighbouring slices that the audit finds; where a data set names no patients, other slices of "
        "a tested patient may still train. Neither says how a model does at another hospital."
    ),
    claims=(),
    missed="",
    remarks={},
)
