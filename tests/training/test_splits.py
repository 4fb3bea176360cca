"""Splits of data sets that name folds and volumes, and of several sets at once."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.data import require_data
from training.catalogue import load_recipe
from training.datasets import find_images
from training.duplicates import Audit, audit
from training.errors import DatasetError
from training.images import ImageFile, ImageSet
from training.reading import read_images
from training.reasons import off_share, why_few
from training.recipe import Folds, Recipe
from training.splits import Protocol, Split, pick, split

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")

PARTS = ("training",) * 24 + ("testing",) * 8


def _set(rows: list[tuple[str, str, str, int]]) -> tuple[ImageSet, Audit]:
    """Images of (source, part, label, group)."""
    files = tuple(
        ImageFile(Path(f"{number}.png"), source, part, label)
        for number, (source, part, label, _) in enumerate(rows)
    )
    slices = np.zeros((len(rows), 2, 2), np.uint8)
    images = ImageSet(files, tuple(str(n) for n in range(len(rows))), slices)
    groups = np.array([row[3] for row in rows])
    return images, Audit(groups, (), (), np.zeros(0, np.intp))


def _recipe(**changes: object) -> Recipe:
    recipe = load_recipe("efficientnet_lite0")
    return recipe.model_copy(
        update={"folds": Folds(validation=(4,), test=(5,)), "validation_share": 0.25, **changes}
    )


def _folds_and_rest() -> tuple[ImageSet, Audit]:
    rows = [
        ("folds", f"fold{1 + group % 5}", label, group)
        for group, label in enumerate(CLASSES * 5)
        for _ in range(2)
    ]
    rows += [("rest", "", label, 100 + n) for n, label in enumerate(CLASSES * 10)]
    # Copies of slices of folds 1, 4 and 5, and a volume that always trains.
    rows += [("rest", "", CLASSES[g % 4], g) for g in (0, 3, 4)]
    rows += [("volume", "", "notumor", 200)] * 30
    return _set(rows)


def _groups(found: Audit, rows: Collection[int]) -> set[int]:
    return {int(found.groups[i]) for i in rows}


def _assert_disjoint(found: Audit, parts: Split) -> None:
    train, validation, test = (
        _groups(found, rows) for rows in (parts.train, parts.validation, parts.test)
    )
    assert not train & validation
    assert not test & (train | validation)


def test_folds_go_where_the_recipe_sends_them_and_take_their_copies_along() -> None:
    images, found = _folds_and_rest()
    parts = split(images, found, Protocol.GROUPED, _recipe(train_only=("volume",)))
    _assert_disjoint(found, parts)
    for name, folds in (("train", "123"), ("validation", "4"), ("test", "5")):
        seen = {images.files[i].part[-1:] for i in getattr(parts, name)}
        assert seen - {""} == set(folds)
    sources = np.array([file.source for file in images.files])
    assert (sources[parts.train] == "volume").sum() == 30
    assert 6 <= (sources[parts.test] == "rest").sum() <= 14
    # Copies of a test slice neither train nor validate.
    assert not {4} & _groups(found, [*parts.train, *parts.validation])


def test_a_person_is_one_group() -> None:
    files = tuple(
        ImageFile(Path(f"{n}.png"), "s", "", "notumor", person="abb"[n]) for n in range(3)
    )
    rng = np.random.default_rng(0)
    slices = rng.integers(0, 255, (3, 224, 224), np.uint8)
    groups = audit(ImageSet(files, ("x", "y", "z"), slices)).groups
    assert groups[1] == groups[2] != groups[0]


@pytest.mark.parametrize(("held_out", "tested"), [("small", 12), ("large", 36)])
def test_of_shared_groups_the_smaller_side_keeps_its_images(held_out: str, tested: int) -> None:
    large = [("large", "", label, n) for n, label in enumerate(CLASSES * 10)]
    small = [("small", "", label, n) for n, label in enumerate(CLASSES)]
    small += [("small", "", label, 100 + n) for n, label in enumerate(CLASSES * 2)]
    images, found = _set(large + small)
    parts = split(images, found, Protocol.GROUPED, _recipe(validation_share=0.5), [held_out])
    _assert_disjoint(found, parts)
    assert {images.files[i].source for i in parts.test} == {held_out}
    assert len(parts.test) == tested


@pytest.mark.parametrize("protocol", [Protocol.CLEAN, Protocol.PUBLISHED])
def test_a_set_that_only_trains_is_not_tested(protocol: Protocol) -> None:
    rows = [
        ("ours", part, c, n) for n, (c, part) in enumerate(zip(CLASSES * 8, PARTS, strict=True))
    ]
    rows += [("theirs", part, c, 50 + n) for n, (_, part, c, _) in enumerate(rows)]
    images, found = _set(rows)
    parts = split(images, found, protocol, _recipe(train_only=("theirs",), folds=None))
    _assert_disjoint(found, parts)
    sources = np.array([file.source for file in images.files])
    assert set(sources[parts.test]) == set(sources[parts.validation]) == {"ours"}
    assert (sources[parts.train] == "theirs").sum() == 32


def test_a_class_that_shares_all_its_groups_with_testing_is_missed() -> None:
    rows = [("s", part, c, n) for n, (c, part) in enumerate(zip(CLASSES * 8, PARTS, strict=True))]
    # Every pituitary slice of Training is a copy of one in Testing.
    rows = [(s, part, c, 31 if c == "pituitary" else n) for s, part, c, n in rows]
    images, found = _set(rows)
    says = "no training images of pituitary; each pituitary slice that is not tested shares"
    with pytest.raises(DatasetError, match=says):
        split(images, found, Protocol.CLEAN, _recipe(folds=None))


def test_the_published_split_keeps_its_leak() -> None:
    """Others' figures have it, so that a comparison with them needs it."""
    rows = [("s", part, c, n) for n, (c, part) in enumerate(zip(CLASSES * 8, PARTS, strict=True))]
    # The first slice of each class in Testing is a copy of one in Training.
    rows = [(s, part, c, n - 24 if 24 <= n < 28 else n) for s, part, c, n in rows]
    images, found = _set(rows)
    learned = {}
    for protocol in (Protocol.PUBLISHED, Protocol.CLEAN):
        parts = split(images, found, protocol, _recipe(folds=None))
        assert parts.test.tolist() == list(range(24, 32))
        learned[protocol] = {*parts.train.tolist(), *parts.validation.tolist()}
    assert learned[Protocol.PUBLISHED] == {*range(24)}
    assert learned[Protocol.CLEAN] == {*range(4, 24)}


def test_a_seed_draws_its_own_validation_and_draws_it_again() -> None:
    rows = [("s", part, c, n) for n, (c, part) in enumerate(zip(CLASSES * 8, PARTS, strict=True))]
    images, found = _set(rows)
    drawn = {
        tuple(split(images, found, Protocol.CLEAN, _recipe(folds=None, seed=seed)).validation)
        for seed in (1, 2, 3, 1, 2, 3)
    }
    assert len(drawn) == 3


def test_what_is_held_out_does_not_train_where_it_is_not_tested() -> None:
    """Most of the images are held out, so that some of them go for the sake of the others."""
    large = [("large", "", label, n) for n, label in enumerate(CLASSES * 10)]
    images, found = _set(
        [*large, *(("small", "", label, n) for n, label in enumerate(CLASSES * 3))]
    )
    parts = split(images, found, Protocol.GROUPED, _recipe(validation_share=0.5), ["large"])
    assert {images.files[i].source for i in (*parts.train, *parts.validation)} == {"small"}


def test_validation_and_test_have_their_own_shares() -> None:
    rows = [("s", "", label, n) for n, label in enumerate(CLASSES * 50)]
    images, found = _set(rows)
    recipe = _recipe(folds=None, validation_share=0.1, test_share=0.3)
    parts = split(images, found, Protocol.GROUPED, recipe)
    assert len(parts.test) == pytest.approx(0.3 * len(rows), abs=4)
    assert len(parts.validation) == pytest.approx(0.1 * (len(rows) - len(parts.test)), abs=4)


def test_a_class_of_one_group_is_missed_where_it_would_validate() -> None:
    rows = [("s", part, c, n) for n, (c, part) in enumerate(zip(CLASSES * 8, PARTS, strict=True))]
    rows = [
        (s, part, c, 99 if c == "pituitary" and part == "training" else n) for s, part, c, n in rows
    ]
    images, found = _set(rows)
    with pytest.raises(DatasetError, match="no validation images of pituitary"):
        split(images, found, Protocol.CLEAN, _recipe(folds=None))


def test_a_class_of_large_groups_validates_with_its_smallest() -> None:
    sizes = {0: 6, 1: 4, 2: 8}
    rows = [("s", "", "glioma", group) for group, size in sizes.items() for _ in range(size)]
    images, found = _set(rows)
    usable, rng = np.ones(len(rows), bool), np.random.default_rng(0)
    picked = pick(images.labels, found.groups, usable, 0.1, rng)
    assert found.groups[picked].tolist() == [1] * 4


@pytest.mark.parametrize("protocol", [Protocol.CLEAN, Protocol.GROUPED])
def test_folds_that_a_recipe_sends_nowhere_are_named_as_what_is_wrong(protocol: Protocol) -> None:
    rows = [("f", f"fold{1 + n % 5}", CLASSES[n % 2], n) for n in range(40)]
    images, found = _set(rows)
    with pytest.raises(
        DatasetError, match=r"efficientnet_lite0 sends none anywhere.*crossval"
    ) as end:
        split(images, found, protocol, _recipe(folds=None))
    for way_out in ("[folds] in a copy of the recipe", "without fold", "no model to serve"):
        assert way_out in str(end.value)


def _indexed(source: str, folds: int, first: int) -> list[tuple[str, str, str, int]]:
    return [(source, f"fold{1 + n % folds}", CLASSES[n % 4], first + n) for n in range(120)]


def test_where_folds_go_is_said_for_each_data_set() -> None:
    rows = [*_indexed("theirs", 5, 0), *_indexed("ours", 3, 200), *_indexed("mine", 4, 400)]
    rows += [("rest", "", label, 1000 + n) for n, label in enumerate(CLASSES * 10)]
    images, found = _set([*rows, *_indexed("bound", 5, 600)])
    remarks = split(images, found, Protocol.GROUPED, _recipe(train_only=("bound",))).remarks
    assert "\n".join(remarks) == (
        "bound names folds 1, 2, 3, 4, 5: efficientnet_lite0 has it for training alone\n"
        "mine names folds 1, 2, 3, 4: fold 4 validates, it has no fold 5 that is tested\n"
        "ours names folds 1, 2, 3: it has no fold 4 that validates, it has no fold 5 that is tested, "
        "all of its slices train\n"
        "theirs names folds 1, 2, 3, 4, 5: fold 4 validates, fold 5 is tested"
    )


def test_folds_that_fit_no_recipe_are_named_where_they_leave_a_part_empty() -> None:
    images, found = _set(_indexed("ours", 3, 0))
    with pytest.raises(
        DatasetError, match=r"no validation .*ours names folds 1, 2, 3: it has no fold 4"
    ):
        split(images, found, Protocol.GROUPED, _recipe())


def test_that_a_share_is_missed_by_far_is_said() -> None:
    rows = [("s", "", "glioma", 0)]
    rows += [("s", "", "glioma", group) for group in (1, 2) for _ in range(60)]
    rows += [("s", "", "notumor", 10 + n) for n in range(60)]
    images, found = _set(rows)
    recipe = _recipe(folds=None, test_share=0.1, validation_share=0.1)
    parts = split(images, found, Protocol.GROUPED, recipe)
    assert (images.labels[parts.test] == "glioma").sum() == 1
    assert "\n".join(parts.remarks) == (
        "test has 1 of 121 glioma slices, and 12 are its share: groups of persons or near duplicates "
        "have 1 to 60 of them\n"
        "validation has 60 of 120 glioma slices, and 12 are its share: groups of persons or near "
        "duplicates have 60 to 60 of them"
    )


def _of_persons(
    persons: dict[str, list[str]], identities: tuple[str, ...] = ()
) -> tuple[ImageSet, Audit]:
    """Images of persons, a name to labels; no two are alike."""
    files = tuple(
        ImageFile(
            Path(f"{name}{n}.png"), "s", "", label, person=name.strip("-"), identities=identities
        )
        for name, labels in persons.items()
        for n, label in enumerate(labels)
    )
    rng = np.random.default_rng(0)
    slices = rng.integers(0, 255, (len(files), 8, 8), np.uint8).repeat(28, 1).repeat(28, 2)
    images = ImageSet(files, tuple(str(n) for n in range(len(files))), slices)
    return images, audit(images)


def test_slices_of_other_classes_go_where_their_person_goes() -> None:
    images, found = _of_persons({f"p{n}": ["glioma", "glioma", "notumor"] for n in range(20)})
    recipe = _recipe(folds=None, validation_share=0.2, test_share=0.2)
    parts = split(images, found, Protocol.GROUPED, recipe)
    _assert_disjoint(found, parts)
    assert sum(parts.counts().values()) == len(images)
    for rows in (parts.validation, parts.test):
        assert (images.labels[rows] == "glioma").sum() == 2 * (
            images.labels[rows] == "notumor"
        ).sum()
        assert 3 * 3 <= len(rows) <= 5 * 3
    assert parts.remarks == ()


def test_so_they_do_in_cross_validation() -> None:
    from training.crossval import parts

    images, found = _of_persons({f"p{n}": ["glioma", "notumor"] for n in range(20)})
    recipe = _recipe(
        folds=None, validation_share=0.2, test_share=0.2, classes=("notumor", "glioma")
    )
    for part in parts(recipe, images, found, repeats=2):
        assert sum(part.split.counts().values()) == len(images)


def test_one_patient_does_not_test_what_was_trained_on() -> None:
    """Slices of Training of a person who is in Testing as well neither train nor validate."""
    images, found = _of_persons({f"p{n}": ["glioma", "notumor"] * 2 for n in range(20)})
    files = tuple(
        f._replace(part="testing" if f.person == "p3" and "0" in f.path.name else "training")
        for f in images.files
    )
    images = replace(images, files=files)
    parts = split(images, found, Protocol.CLEAN, _recipe(folds=None))
    assert [images.files[row].person for row in parts.test] == ["p3"]
    assert "p3" not in {images.files[row].person for row in (*parts.train, *parts.validation)}
    assert parts.remarks == (
        "3 images are left out: a near duplicate or the same person is tested",
    )
    # What is said to be left out for its label is not said twice.
    found = replace(
        found, conflicting=np.flatnonzero([f.person == "p3" for f in images.files])[1:3]
    )
    remarks = split(images, found, Protocol.CLEAN, _recipe(folds=None)).remarks
    assert remarks == (
        "2 images are left out: near duplicates with conflicting labels; audit lists them",
        "1 image is left out: a near duplicate or the same person is tested",
    )
    assert split(images, found, Protocol.PUBLISHED, _recipe(folds=None)).remarks == remarks[:1]


def test_copies_of_a_fold_that_validates_are_counted() -> None:
    images, found = _folds_and_rest()
    remarks = split(images, found, Protocol.GROUPED, _recipe()).remarks
    assert [remark for remark in remarks if "left out" in remark] == [
        "1 image is left out: a near duplicate or the same person is tested",
        "1 image is left out: a near duplicate or the same person validates",
    ]


def test_what_is_held_out_and_in_no_part_is_counted() -> None:
    """Of ``large``, 40 slices share groups with ``small``, which has fewer and keeps them."""
    large = [("large", "", label, n) for n, label in enumerate(CLASSES * 15)]
    images, found = _set(
        [*large, *(("small", "", label, n) for n, label in enumerate(CLASSES * 10))]
    )
    # The first slice of ``small`` is in no part either, for another reason. That of ``large`` would be
    # tested all the same, were it not for ``small``.
    found = replace(found, conflicting=np.array([0, len(large)]))
    recipe = _recipe(folds=None, validation_share=0.3)
    parts = split(images, found, Protocol.GROUPED, recipe, ["large"])
    validate = len(parts.validation)
    assert parts.counts() == {"train": 39 - validate, "validation": validate, "test": 20}
    assert "\n".join(parts.remarks) == (
        "40 images are held out but not tested: "
        "a near duplicate or the same person is in another data set\n"
        "1 image is left out: near duplicates with conflicting labels; audit lists them"
    )


def test_what_is_held_out_says_nothing_of_its_folds() -> None:
    images, found = _set([*_indexed("theirs", 5, 0), *_indexed("ours", 5, 200)])
    recipe = _recipe(folds=Folds(validation=(4,), test=(5,)))
    remarks = split(images, found, Protocol.GROUPED, recipe, ["theirs"]).remarks
    assert remarks == ("ours names folds 1, 2, 3, 4, 5: fold 4 validates",)


@pytest.mark.parametrize(("size", "said"), [(8, True), (9, False)])
def test_a_share_is_missed_by_less_than_half_unsaid(size: int, said: bool) -> None:
    """Of 20 slices that are the share, fewer than 9 are said."""
    labels = np.array(["glioma"] * 100)
    drawn = np.arange(100) < size
    found = list(off_share("test", labels, np.arange(100), np.ones(100, bool), drawn, 0.2))
    assert bool(found) is said


@pytest.mark.parametrize(
    ("persons", "identities", "says"),
    [
        (
            {"2019": ["glioma"] * 9},
            (),
            "all 9 glioma slices have one person by the index file",
        ),
        (
            {"p": ["glioma"] * 4, "q": ["glioma"] * 4},
            (),
            r"the 8 glioma slices are 2 group\(s\) of .*, of 2 person\(s\) by the index file",
        ),
        (
            {"-": ["glioma"] * 9},
            ("PatientID:same",),
            "the DICOM headers of all glioma slices have one PatientID, as they",
        ),
    ],
    ids=["folder", "two folders", "placeholder"],
)
def test_what_makes_groups_too_few_is_said(
    persons: dict[str, list[str]], identities: tuple[str, ...], says: str
) -> None:
    of_gliomas, _ = _of_persons(persons, identities)
    healthy, _ = _of_persons({f"h{n}": ["notumor"] for n in range(20)})
    slices = np.random.default_rng(1).integers(
        0, 255, (len(of_gliomas) + len(healthy), 8, 8), np.uint8
    )
    files = (*of_gliomas.files, *healthy.files)
    names = tuple(str(n) for n in range(len(files)))
    images = ImageSet(files, names, slices.repeat(28, 1).repeat(28, 2))
    with pytest.raises(DatasetError, match=f"no (training|validation) images of glioma; {says}"):
        split(images, audit(images), Protocol.GROUPED, _recipe(folds=None))


@pytest.mark.parametrize(
    ("path", "level"),
    [
        ("set/glioma/2019/a/7.png", "their outermost folder below the class"),
        ("set/2019/T1/glioma/a/7.png", "their outermost folder above the class"),
        ("set/images/7.png", "the index file"),
    ],
)
def test_what_names_a_person_is_said(path: str, level: str) -> None:
    file = ImageFile(Path(path), "set", "", "glioma", person="2019")
    images = ImageSet((file, file), ("a", "b"), np.zeros((2, 2, 2), np.uint8))
    found = Audit(np.zeros(2, np.intp), (), (), np.zeros(0, np.intp))
    (reason,) = why_few(images, found, ["glioma"])
    assert reason.startswith(f"all 2 glioma slices have one person by {level}: ")
    assert ("a folder" in reason) is ("folder" in level)


def test_tumours_of_an_unstated_kind_need_not_be_left() -> None:
    rows = [("s", part, c, n) for n, (c, part) in enumerate(zip(CLASSES * 8, PARTS, strict=True))]
    images, found = _set([*rows, ("s", "training", "tumor", 31)])
    assert split(images, found, Protocol.CLEAN, _recipe(folds=None)).train.size


def test_a_held_out_data_set_must_be_there() -> None:
    images, found = _folds_and_rest()
    with pytest.raises(DatasetError, match="absent"):
        split(images, found, Protocol.GROUPED, _recipe(), ["absent"])


@pytest.mark.data
@pytest.mark.slow
def test_the_real_folds_are_read_with_their_masks() -> None:
    images = read_images(find_images([require_data("figshare_cheng") / "figshare_cheng"]))
    assert len(images) == len(images.masks) == 3064
    assert sorted(set(images.parts)) == [f"fold{n}" for n in range(1, 6)]
    areas = np.array([mask.mean() / 255 for mask in images.masks.values()])
    assert areas.min() > 0.0005
    assert areas.max() < 0.3
    found = audit(images)
    parts = split(images, found, Protocol.GROUPED, load_recipe("efficientnet_lite0_mask"))
    _assert_disjoint(found, parts)
    assert (images.parts == "fold5").sum() == len(parts.test) == 664


@pytest.mark.parametrize("protocol", [*Protocol])
def test_what_has_conflicting_labels_neither_trains_nor_validates(protocol: Protocol) -> None:
    rows = [
        ("set", "testing" if number % 5 == 0 else "training", label, number)
        for number in range(40)
        for label in CLASSES
    ]
    images, found = _set(rows)
    conflicting = np.flatnonzero(np.isin(found.groups, [0, 1, 2, 3]))
    # Each label has a group of its own otherwise.
    groups = np.where(np.isin(found.groups, [0, 1, 2, 3]), found.groups, 100 + np.arange(len(rows)))
    parts = split(
        images, replace(found, groups=groups, conflicting=conflicting), protocol, _recipe()
    )
    learned = np.concatenate([parts.train, parts.validation])
    assert not np.isin(conflicting, learned).any()
    dropped = np.setdiff1d(conflicting, parts.test)
    assert f"{len(dropped)} images are left out: near duplicates with" in "\n".join(parts.remarks)
    if protocol is not Protocol.GROUPED:
        # Test stays whole.
        assert np.isin(conflicting[images.parts[conflicting] == "testing"], parts.test).all()


@pytest.mark.tensorflow
def test_no_group_spans_training_and_validation_of_a_part() -> None:
    crossval = pytest.importorskip("training.crossval", reason="training needs TensorFlow")
    rows = [("set", "", label, 4 * n + k) for n in range(20) for k, label in enumerate(CLASSES)]
    # Every group has a second slice of another label, which is picked by itself.
    rows += [("set", "", CLASSES[(group + 1) % 4], group) for *_, group in rows[:40]]
    images, found = _set(rows)
    conflicting = np.flatnonzero(found.groups < 4)
    test = np.isin(found.groups, range(4, 12)) & (np.arange(len(rows)) < 80)
    found = replace(found, conflicting=conflicting)
    parts = crossval._around(images, found, test, _recipe())
    groups = [set(found.groups[rows].tolist()) for rows in (parts.train, parts.validation)]
    assert all(groups)
    assert not groups[0] & groups[1]
    assert parts.remarks[0].startswith("8 images are left out: near duplicates with conflicting")
    for one in groups:
        # What is tested, its copies, and what is filed under two labels.
        assert not one & set(range(12))


def test_a_placeholder_in_an_index_is_not_called_a_folder() -> None:
    file = ImageFile(Path("set/images/7.png"), "set", "", "glioma", person="unknown")
    images = ImageSet((file, file), ("a", "b"), np.zeros((2, 2, 2), np.uint8))
    found = Audit(np.zeros(2, np.intp), (), (), np.zeros(0, np.intp))
    (reason,) = why_few(images, found, ["glioma"])
    assert reason.endswith(": if its column patient has a placeholder there, leave it empty")
