import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tests.support.memory import traced
from training import duplicates
from training.catalogue import load_recipe
from training.contactsheet import contact_sheet, run_audit
from training.datasets import find_images, read_folders
from training.duplicates import ORIENTATIONS, Audit, _conflicting, audit, orient
from training.errors import DatasetError
from training.images import ImageFile, ImageSet
from training.names import ANY_TUMOR, NO_TUMOR
from training.reading import read_images
from training.recipe import Recipe
from training.splits import Protocol, split

SLICES = Path(__file__).parents[1] / "data" / "slices"


def _recipe(share: float, seed: int) -> Recipe:
    recipe = load_recipe("efficientnet_lite0", {"seed": seed})
    return recipe.model_copy(update={"validation_share": share})


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """The slices in git as Training, and four doctored copies of them as Testing."""
    root = tmp_path / "planted"
    shutil.copytree(SLICES, root / "Training")
    for label in ("glioma", "meningioma", "notumor", "pituitary"):
        (root / "Testing" / label).mkdir(parents=True)
    glioma, meningioma, notumor, pituitary = (
        min((SLICES / label).glob("*.jpg"))
        for label in ("glioma", "meningioma", "notumor", "pituitary")
    )
    testing = root / "Testing"
    shutil.copy(glioma, testing / "glioma" / "exact.jpg")
    image = Image.open(meningioma).convert("L")
    image.resize((300, 300)).save(testing / "meningioma" / "small.jpg", quality=70)
    Image.open(notumor).convert("L").transpose(Image.Transpose.ROTATE_90).save(
        testing / "notumor" / "turned.png"
    )
    # The same picture under another label.
    Image.open(pituitary).convert("L").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
        testing / "glioma" / "mislabelled.png"
    )
    return root


def _named(images: ImageSet, name: str) -> int:
    return next(i for i, file in enumerate(images.files) if file.path.name == name)


def test_a_copy_in_another_set_is_none_in_training(tmp_path: Path) -> None:
    root = tmp_path / "ours"
    for part, number in (("Training", 0), ("Testing", 1)):
        folder = root / part / "glioma"
        folder.mkdir(parents=True)
        shutil.copy(sorted((SLICES / "glioma").glob("*.jpg"))[number], folder)
    shutil.copytree(root / "Testing" / "glioma", tmp_path / "theirs" / "glioma")
    images = read_images(find_images([root, tmp_path / "theirs"]))
    summary = audit(images).summary(images)
    assert summary["testing_images"] == summary["exact_pairs"] == 1
    assert summary["testing_with_exact_copy_in_training"] == 0
    assert summary["testing_with_near_duplicate_in_training"] == 0
    assert summary["testing_sharing_a_group_with_training"] == 0


def test_finds_exact_resized_turned_and_flipped_copies(planted: Path) -> None:
    images = read_images(find_images([planted]))
    found = audit(images)
    originals = {
        "exact.jpg": "glioma",
        "small.jpg": "meningioma",
        "turned.png": "notumor",
        "mislabelled.png": "pituitary",
    }
    for name, label in originals.items():
        copy = _named(images, name)
        original = _named(images, min((SLICES / label).glob("*.jpg")).name)
        assert found.groups[copy] == found.groups[original]
    labels = images.labels
    for i, j in zip(*np.nonzero(found.groups[:, None] == found.groups), strict=True):
        assert labels[i] == labels[j] or "mislabelled.png" in {
            images.files[i].path.name,
            images.files[j].path.name,
        }
    summary = found.summary(images)
    assert summary["exact_pairs"] == 1
    assert summary["testing_with_exact_copy_in_training"] == 1
    assert summary["testing_with_near_duplicate_in_training"] == 4
    conflicting = {images.files[i].path.name for i in found.conflicting}
    assert "mislabelled.png" in conflicting
    assert len(conflicting) == 2


def _noisy(picture: Image.Image) -> Image.Image:
    """With air that is no longer black, and so is no longer cropped away."""
    array = np.asarray(picture, np.float32)
    noise = np.random.default_rng(0).normal(20, 12, array.shape)
    return Image.fromarray(np.clip(array + noise, 0, 255).astype(np.uint8))


def _bordered(picture: Image.Image) -> Image.Image:
    wider = Image.new("L", (picture.width + 90, picture.height + 20))
    wider.paste(picture, (70, 10))
    return wider


@pytest.mark.parametrize("change", [_noisy, _bordered])
def test_a_copy_is_found_that_is_cropped_or_framed_otherwise(
    tmp_path: Path, change: Callable[[Image.Image], Image.Image]
) -> None:
    shutil.copytree(SLICES, tmp_path / "set" / "Training")
    (tmp_path / "set" / "Testing" / "notumor").mkdir(parents=True)
    original = SLICES / "notumor" / "Te-no_0224.jpg"
    mirrored = Image.open(original).convert("L").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    change(mirrored).save(tmp_path / "set" / "Testing" / "notumor" / "changed.jpg", quality=60)
    images = read_images(find_images([tmp_path / "set"]))
    found = audit(images)
    copy, same = _named(images, "changed.jpg"), _named(images, original.name)
    assert found.groups[copy] == found.groups[same]
    assert found.summary(images)["testing_with_near_duplicate_in_training"] == 1


def test_what_lies_turned_against_a_copy_is_in_doubt_and_a_mirror_image_is_not(
    planted: Path,
) -> None:
    images = read_images(find_images([planted]))
    doubtful = {images.files[i].path.name for i in np.flatnonzero(audit(images).doubtful)}
    assert {"turned.png", min((SLICES / "notumor").glob("*.jpg")).name} <= doubtful
    # nickparvar itself holds such pairs, all of them without a tumour.
    without_tumor = {path.name for path in (SLICES / "notumor").glob("*.jpg")}
    assert doubtful <= {"turned.png", *without_tumor}


def test_copies_across_data_sets_are_found(planted: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "yes"
    other.mkdir(parents=True)
    shutil.copy(sorted((SLICES / "glioma").glob("*.jpg"))[1], other / "again.jpg")
    images = read_images(find_images([planted, tmp_path / "other"]))
    across = audit(images).summary(images)["pairs_across_data_sets"]
    assert across == {"other / planted": 1}


def test_blank_slices_are_alike_to_nothing() -> None:
    blank = np.zeros((3, 224, 224), np.uint8)
    images = ImageSet((), ("a", "b", "c"), blank)
    object.__setattr__(images, "files", tuple(_fake(i) for i in range(3)))
    assert len(np.unique(audit(images).groups)) == 3


def _fake(number: int) -> ImageFile:
    return ImageFile(Path(f"{number}.png"), "set", "", "notumor")


def _set(slices: NDArray[np.uint8], parts: str, persons: str = "") -> ImageSet:
    """Images of Training or Testing, by the first letter; equal letters of persons are one each."""
    names = {"r": "training", "e": "testing", "-": ""}
    files = tuple(
        ImageFile(Path(f"{n}.png"), "set", names[part], "notumor", person=persons[n : n + 1])
        for n, part in enumerate(parts)
    )
    return ImageSet(files, tuple(map(str, range(len(files)))), slices)


def _noise(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (count, 224, 224), np.uint8)


def test_each_of_many_equal_files_is_one_of_every_pair() -> None:
    images = _set(_noise(4), "eerr")
    images = replace(images, sha256=("a", "a", "a", "b"))
    found = audit(images)
    assert found.copies == ((0, 1, 2),)
    summary = found.summary(images)
    assert summary["exact_pairs"] == 3
    assert summary["testing_with_exact_copy_in_training"] == 2
    assert summary["distinct_files"] == 2
    assert (summary["groups"], summary["largest_group"]) == (2, 3)
    assert summary["images_in_groups_of_two_or_more"] == 3


def test_a_group_of_two_is_one() -> None:
    images = _set(_noise(5), "-----", "aabb")
    summary = audit(images).summary(images)
    assert summary["images_in_groups_of_two_or_more"] == 4
    assert (summary["groups"], summary["largest_group"]) == (3, 2)


def test_persons_of_two_data_sets_are_two_whatever_they_are_called() -> None:
    images = _set(_noise(2), "--", "aa")
    one, other = images.files
    images = replace(images, files=(one, other._replace(source="other")))
    assert len(np.unique(audit(images).groups)) == 2


def test_what_has_no_copy_in_the_other_part_is_unleaked() -> None:
    images = _set(_noise(6), "rrreee", "abccbd")
    assert audit(images).unleaked(images).tolist() == [True, False, False, False, False, True]


@pytest.mark.parametrize(("flipped", "orientation"), [(False, 0), (True, 4)])
def test_of_two_orientations_that_fit_the_better_one_counts(
    flipped: bool, orientation: int
) -> None:
    """The slice is nearly its own mirror image, as a head is."""
    coarse = np.kron(_noise(1)[0, :56, :56], np.ones((4, 4))).astype(np.float64)
    nearly = 0.8 * (coarse + coarse[:, ::-1]) / 2 + 0.2 * coarse
    pixels = np.rint(nearly).astype(np.uint8)
    other = pixels.copy()
    # What is equal is no near duplicate.
    other[0, 0] ^= 1
    (pair,) = audit(_set(np.stack([pixels, other[:, ::-1] if flipped else other]), "--")).near_pairs
    assert pair[:3] == (0, 1, orientation)
    assert pair.fine > 0.95


def test_copies_are_found_in_every_block_of_images(
    planted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = read_images(find_images([planted]))
    at_once = audit(images)
    monkeypatch.setattr(duplicates, "_BLOCK", 5)
    in_blocks = audit(images)
    pairs = [[pair[:3] for pair in found.near_pairs] for found in (at_once, in_blocks)]
    assert pairs[0] == pairs[1] != []
    np.testing.assert_array_equal(at_once.groups, in_blocks.groups)


def test_orientations_are_the_eight_symmetries_of_the_square() -> None:
    square = np.arange(9).reshape(3, 3)
    seen = {orient(square, number).tobytes() for number in range(ORIENTATIONS)}
    assert len(seen) == 8


def test_the_audit_writes_its_table_and_a_contact_sheet(planted: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit"
    run_audit([planted], out)
    document = json.loads((out / "audit.json").read_text())
    assert document["images"] == 12
    assert len(document["groups_of_two_or_more"]) == 4
    assert document["conflicting_labels"]
    with Image.open(out / "duplicates.png") as sheet:
        assert sheet.width > 1000
        assert len(np.unique(np.asarray(sheet))) > 100


def test_classes_whose_slices_have_copies_in_testing_cannot_train(planted: Path) -> None:
    images = read_images(find_images([planted]))
    found = audit(images)
    # Each class's first slice goes, since it has a copy in Testing: one of each is left, or none.
    with pytest.raises(
        DatasetError, match="no training images of glioma, meningioma, notumor, pitu"
    ):
        split(images, found, Protocol.CLEAN, _recipe(0.1, 1))


def test_any_kind_of_tumour_agrees_with_a_kind_and_not_with_none() -> None:
    labels = np.array([ANY_TUMOR, "glioma", ANY_TUMOR, NO_TUMOR, "glioma", "pituitary"])
    assert _conflicting(np.array([0, 0, 1, 1, 2, 2]), labels).tolist() == [2, 3, 4, 5]


def _labelled(labels: str, persons: str, copies: str) -> tuple[ImageSet, Audit]:
    """Images of glioma, notumor or pituitary, by the first letter; equal letters of copies are one."""
    names = {"g": "glioma", "n": NO_TUMOR, "p": "pituitary"}
    images = _set(_noise(len(labels)), "-" * len(labels), persons)
    files = tuple(f._replace(label=names[c]) for f, c in zip(images.files, labels, strict=True))
    images = replace(images, files=files, sha256=tuple(copies))
    return images, audit(images)


def test_one_misfiled_slice_does_not_cost_its_patient_s_others() -> None:
    """The last image is a copy of the patient's second, under another class."""
    _, found = _labelled("gggp", "aaa-", "wxyx")
    assert found.conflicting.tolist() == [1, 3]
    assert len(set(found.groups.tolist())) == 1


def test_a_patient_with_slices_of_two_classes_is_no_conflict() -> None:
    _, found = _labelled("gngn", "aabb", "wxyz")
    assert found.conflicting.tolist() == []
    assert found.persons is not None
    assert found.persons.tolist() == found.groups.tolist() == [0, 0, 1, 1]


def test_copies_of_a_copy_are_in_conflict_with_it() -> None:
    """Near duplicates link by single linkage, whoever lies between."""
    images = _set(_noise(1).repeat(3, 0), "---")
    labels = ("glioma", ANY_TUMOR, NO_TUMOR)
    files = tuple(f._replace(label=n) for f, n in zip(images.files, labels, strict=True))
    assert audit(replace(images, files=files)).conflicting.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("labels", "parts", "titles"),
    [
        ("gg", "--", ["byte-identical"]),
        ("gg", "rr", ["byte-identical"]),
        ("gg", "re", ["byte-identical, Training and Testing"]),
        ("gn", "r-", ["byte-identical", "one picture, two labels"]),
    ],
)
def test_the_contact_sheet_calls_pairs_what_they_are(
    labels: str, parts: str, titles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, _ = _labelled(labels, "", "xx")
    of_parts = _set(images.slices, parts).files
    files = tuple(f._replace(part=p.part) for f, p in zip(images.files, of_parts, strict=True))
    images = replace(images, files=files)
    assert _titles(images, audit(images), monkeypatch) == titles


def test_agreeing_copies_of_what_is_in_conflict_show_no_two_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, found = _labelled("ggn", "", "xxx")
    shown: list[str] = []
    titles = _titles(images, found, monkeypatch, shown)
    captions = shown[shown.index("one picture, two labels") + 1 :]
    assert titles[-1] == "one picture, two labels"
    assert sorted(captions) == ["1.00 glioma/notumor", "1.00 glioma/notumor"]


def _titles(
    images: ImageSet,
    found: Audit,
    monkeypatch: pytest.MonkeyPatch,
    texts: list[str] | None = None,
) -> list[str]:
    """Titles of a contact sheet's rows; all of its texts go into the list."""
    written = texts if texts is not None else []
    draw = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, place: tuple[int, int], text: str, **options: Any) -> None:
        written.append(text)
        draw(self, place, text, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    contact_sheet(images, found)
    return [text for text in written if not text[0].isdigit()]


def test_the_audit_says_of_conflicts_what_a_recipe_makes_of_them(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (planted / "Training" / "readme.txt").touch()
    run_audit([planted], tmp_path / "audit")
    said = capsys.readouterr().out
    assert "a recipe that tells these classes apart does not train on them" in said
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())["other_files"] == {".txt": 1}


def test_blank_slices_link_no_patients_and_are_in_no_conflict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first slice of an exported volume is air, byte for byte the same in every patient's."""
    for number, label in enumerate(("glioma", "glioma", "notumor")):
        folder = tmp_path / "set" / label / f"P{number}"
        folder.mkdir(parents=True)
        Image.fromarray(_noise(3)[number]).save(folder / "1.png")
        Image.new("L", (256, 200)).save(folder / "0.png")
    images = read_folders([tmp_path / "set"])
    found = audit(images)
    assert found.groups.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.conflicting.size == 0
    assert found.summary(images)["exact_pairs"] == 0
    assert "\n  3 slices are blank, and count as nobody's copies" in images.describe()
    run_audit([tmp_path / "set"], tmp_path / "audit")
    assert re.search(r"^conflicting_labels +0$", capsys.readouterr().out, re.MULTILINE)


def test_many_copies_of_one_file_take_no_memory_for_each_pair() -> None:
    count = 200
    images = replace(_set(_noise(1).repeat(count, 0), "re" * (count // 2)), sha256=("a",) * count)
    with traced() as peak:
        found = audit(images)
    assert peak.size < 4e7
    summary = found.summary(images)
    assert (summary["exact_pairs"], summary["near_pairs"]) == (count * (count - 1) // 2, 0)
    assert summary["testing_with_exact_copy_in_training"] == count // 2


def test_copies_in_two_data_sets_are_counted_by_pairs() -> None:
    images = replace(_set(_noise(5), "-----"), sha256=tuple("aaaab"))
    sources = ("x", "y", "x", "y", "y")
    files = tuple(f._replace(source=s) for f, s in zip(images.files, sources, strict=True))
    images = replace(images, files=files)
    summary = audit(images).summary(images)
    assert summary["pairs_across_data_sets"] == {"x / y": 4}
    assert summary["exact_pairs"] == 6


def test_one_picture_in_many_files_takes_no_memory_for_each_pair() -> None:
    """DICOM objects of one picture differ in their identifiers, and so in their bytes."""
    count = 200
    images = _set(_noise(1).repeat(count, 0), "re" * (count // 2))
    images = replace(images, sha256=("a", "a", *map(str, range(count - 2))))
    with traced() as peak:
        found = audit(images)
    assert peak.size < 4e7
    assert (found.near_pairs, len(set(found.groups.tolist()))) == ((), 1)
    summary = found.summary(images)
    assert summary["exact_pairs"] == 1
    assert summary["near_pairs"] == count * (count - 1) // 2 - 1
    assert summary["testing_with_exact_copy_in_training"] == 1
    assert summary["testing_with_near_duplicate_in_training"] == count // 2
    assert summary["images_turned_against_a_copy"] == 0


def test_pictures_that_are_nearly_one_are_compared_a_few_at_a_time() -> None:
    count = 150
    slices = _noise(1).repeat(count, 0)
    slices[np.arange(count), 0, np.arange(count)] = 0
    with traced() as peak:
        found = audit(_set(slices, "-" * count))
    assert len(found.near_pairs) == count * (count - 1) // 2
    assert peak.size < 1e8


def test_one_picture_in_two_files_of_two_labels_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    images, _ = _labelled("gn", "", "xy")
    images = replace(images, slices=images.slices[[0, 0]])
    found = audit(images)
    assert found.conflicting.tolist() == [0, 1]
    titles = ["near duplicates, from least to most alike", "one picture, two labels"]
    assert _titles(images, found, monkeypatch) == titles


@pytest.mark.parametrize("mark", ["pixel", "letter", "grey"])
def test_air_with_a_mark_on_it_is_blank_too(tmp_path: Path, mark: str) -> None:
    for number, label in enumerate(("glioma", "glioma", "notumor")):
        folder = tmp_path / "set" / label / f"P{number}"
        folder.mkdir(parents=True)
        Image.fromarray(_noise(3)[number]).save(folder / "1.png")
        air = Image.new("L", (256, 200), 90 if mark == "grey" else 0)
        draw = ImageDraw.Draw(air)
        if mark == "pixel":
            draw.point((3, 4), 255)
        else:
            draw.text((226, 8), "R", fill=255, font_size=24)
        air.save(folder / "0.png")
    images = read_folders([tmp_path / "set"])
    found = audit(images)
    assert found.groups.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.conflicting.size == 0
    assert "\n  3 slices are blank" in images.describe()
