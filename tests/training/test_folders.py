"""Layouts of data sets: whose slices lie where, and what is not taken."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.contract.samples import RANGE, mr_object
from tests.training.layouts import SLICE, draw, groups_of, indexed, put
from training.datasets import find_images, given, read_folders
from training.duplicates import audit
from training.errors import DatasetError
from training.patients import known_persons

PERSONS = {
    "below a class": (["glioma/p1/a", "glioma/p1/t2/b", "glioma/p2/a"], "1 1 2"),
    "in two classes": (["glioma/p1/a", "notumor/p1/a", "notumor/p2/a"], "1 1 2"),
    "in two parts": (["Training/glioma/p1/a", "Testing/glioma/p1/a"], "1 1"),
    "part below class": (["glioma/Training/p1/a", "glioma/Testing/p1/a"], "1 1"),
    "above the class": (["p1/glioma/a", "p1/notumor/a", "p2/glioma/a"], "1 1 2"),
    "above, with parts": (["train/p1/glioma/a", "test/p1/notumor/a", "test/p2/yes/a"], "1 1 2"),
    "above, series below": (["p1/glioma/t1/a", "p1/glioma/x/a", "p2/glioma/x/a"], "1 1 2"),
    "a folder that keeps all": (["glioma/images/a", "glioma/PNG/p1/a", "notumor/T1/p1/a"], "- 1 1"),
    "valid": (["valid/glioma/a", "glioma/val/b", "validation/glioma/p1/c"], "- - 1"),
    "the data set's own": (["all/set/glioma/a", "all/set/notumor/p1/a", "all/set/yes/b"], "- 1 -"),
    "numbered classes": (["glioma_01/a", "glioma_01/b", "glioma_02/a", "notumor 1/a"], "1 1 2 -"),
    "numbered, one a part": (["train/glioma_1/a", "train/glioma_2/a", "test/glioma_3/a"], "1 2 3"),
    "numbered, same in two parts": (["train/1 glioma/a", "test/1 glioma/a"], "- -"),
    "letter case": (["glioma/P1/a", "notumor/p1/a"], "1 1"),
    "spelling": (["glioma/Mu\u0308ller/a", "notumor/M\u00fcller /a"], "1 1"),
    "sessions": (["glioma/sub-1_ses-1/a", "glioma/sub-1_ses-2/a", "yes/sub-2_ses-1/a"], "1 1 2"),
    "containers": (["yes/t1 axial/a", "no/raw data/anat/p1/a", "fold1/no/p1/a"], "- 1 1"),
}


@pytest.mark.parametrize("layout", PERSONS)
def test_a_person_is_one_wherever_the_folder_lies(tmp_path: Path, layout: str) -> None:
    places, expected = PERSONS[layout]
    root = put(tmp_path / "Set", *(f"{place}.jpg" for place in places))
    persons = {f.path.relative_to(root).as_posix(): f.person for f in find_images([root])}
    numbers: dict[str, int] = {}
    found = [
        str(numbers.setdefault(person, len(numbers) + 1)) if person else "-"
        for person in (persons[f"{place}.jpg"] for place in places)
    ]
    assert " ".join(found) == expected


def test_a_data_set_s_own_number_makes_no_person_of_a_class_in_it(tmp_path: Path) -> None:
    root = put(tmp_path / "glioma 1", "glioma 2/7.jpg", "7.jpg")
    assert [file.person for file in find_images([root])] == ["", ""]


@pytest.mark.parametrize(
    "stray", ["glioma/stray.jpg", "other/glioma/stray.jpg", "set/glioma/s.jpg"]
)
def test_a_stray_file_makes_no_person_of_the_data_set_s_folder(tmp_path: Path, stray: str) -> None:
    places = [f"set/Brain MRI/{name}/{n}.jpg" for n in range(12) for name in ("glioma", "no")]
    images = read_folders([put(tmp_path / "all", *places, stray)])
    assert [file.person for file in images.files if "Brain" in str(file.path)] == [""] * 24
    assert "all: the 2 outermost folder(s) above the classes" in images.describe()


def test_a_data_set_s_folder_that_is_given_itself_is_no_remark(tmp_path: Path) -> None:
    images = read_folders([put(tmp_path / "Brain MRI", "yes/1.jpg", "no/1.jpg")])
    assert images.remarks == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("glioma/p1/a.png", "notumor/p1/b.png"),
        ("Training/glioma/p1/a.png", "Testing/notumor/p1/b.png"),
        ("p1/glioma/a.png", "p1/notumor/b.png"),
    ],
)
def test_slices_of_a_person_are_one_group_in_two_classes_and_parts(
    tmp_path: Path, one: str, other: str
) -> None:
    root = tmp_path / "set"
    for place in (one, other, one.replace("p1", "p2")):
        draw(root / place)
    images = read_folders([root])
    group = {
        file.path.relative_to(root).as_posix(): number
        for file, number in zip(images.files, audit(images).groups, strict=True)
    }
    assert group[one] == group[other] != group[one.replace("p1", "p2")]
    assert "person a folder, the index or a DICOM header names: 3" in images.describe()


@pytest.mark.parametrize(
    ("place", "label"),
    [
        ("Tumor/non_tumor", "notumor"),
        ("Tumor/not affected", None),
        ("Tumor/not affected/p1", None),
        ("mri/negative", None),
        ("mri/no/negative", "notumor"),
        ("mri/normalised", None),
    ],
)
def test_a_name_that_speaks_of_absence_gets_no_tumour_from_the_folders_above(
    place: str, label: str | None, tmp_path: Path
) -> None:
    root = tmp_path / place.split("/")[0]
    for folder in (tmp_path / place, root / "glioma"):
        folder.mkdir(parents=True)
        shutil.copy(SLICE, folder / "a.jpg")
    images = read_folders([root])
    labels = {
        file.path.parent.relative_to(tmp_path).as_posix(): file.label for file in images.files
    }
    assert labels.pop(f"{root.name}/glioma") == "glioma"
    assert labels.get(place) == label
    expected = {} if label else {f"{root.name}/{'no/' if '/no/' in place else ''}*": 1}
    assert images.unlabelled == expected
    assert f"images without a class: {len(expected)}" in images.describe()


@pytest.mark.parametrize("title", ["Brain Tumor", "Brain Tumor Data Set", "set/tumors"])
def test_what_holds_class_folders_gives_no_class_to_other_folders(
    tmp_path: Path, title: str
) -> None:
    root = put(
        tmp_path / title.split("/")[0],
        *(f"{'tumors/' if '/' in title else ''}{place}/7.jpg" for place in CLASSED),
    )
    labels = {f.path.parent.name: f.label for f in find_images([root])}
    labels.pop("tumors", None)  # that is no title
    assert labels == {"yes": "tumor", "HGG": "glioma", "p2": "glioma", "no": "notumor"}


CLASSED = ("yes", "no", "HGG", "HGG/p2", "pred", "Control group", "unclear", "unclear/p1", ".")


def test_folders_of_the_same_class_are_no_division(tmp_path: Path) -> None:
    root = put(tmp_path / "set", "glioma/HGG/7.jpg", "glioma/p1/7.jpg", "glioma/7.jpg")
    assert [f.label for f in find_images([root])] == ["glioma"] * 3


def test_what_lies_in_a_divided_class_folder_itself_is_of_that_class(tmp_path: Path) -> None:
    root = put(tmp_path / "set", "tumor/glioma/7.jpg", "tumor/7.jpg", "tumor/unclear/7.jpg")
    assert [f.label for f in find_images([root])] == ["tumor", "glioma"]


@pytest.mark.parametrize(
    "name", ["IM000001", "MR.1.2.840.1", "a.IMA", "a.dicom", "a.jfif", "a.jpe", "a.PNG"]
)
def test_images_are_known_by_their_content(tmp_path: Path, name: str) -> None:
    path = tmp_path / "set" / "glioma" / name
    path.parent.mkdir(parents=True)
    pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    if name.startswith("a.j"):
        shutil.copy(SLICE, path)
    elif name == "a.PNG":
        draw(path)
    else:
        path.write_bytes(mr_object(pixels, attributes=RANGE))
    assert [f.path.name for f in read_folders([tmp_path / "set"]).files] == [name]


def test_what_is_not_taken_is_counted(tmp_path: Path) -> None:
    root = put(tmp_path / "set", "glioma/a.jpg", "glioma/.b.jpg", ".git/c.jpg")
    for name, format_ in (
        ("b.bmp", "BMP"),
        ("c.tif", "TIFF"),
        ("d.webp", "WEBP"),
        ("e.tif", "TIFF"),
    ):
        Image.new("L", (99, 99)).save(root / "glioma" / name, format_)
    (root / "notes.txt").write_text("none")
    (root / "glioma" / "1.2.3").write_text("none")
    (root / "glioma" / "link.jpg").symlink_to(root / "nowhere")
    (root / "glioma" / "itself").symlink_to(root / "glioma" / "itself")
    images = read_folders([root])
    assert len(images) == 1
    assert images.passed_over == {
        ".bmp": 1,
        ".tif": 2,
        ".webp": 1,
        ".txt": 1,
        "without a suffix": 1,
        "links to nowhere": 2,
        "hidden": 2,
    }
    assert "other files, not read: 10\n" in images.describe()
    assert "\n  .tif: 2\n" in images.describe()


def test_a_folder_of_files_that_are_not_read_says_which(tmp_path: Path) -> None:
    (tmp_path / "set" / "glioma").mkdir(parents=True)
    Image.new("L", (99, 99)).save(tmp_path / "set" / "glioma" / "a.bmp")
    with pytest.raises(DatasetError, match=r"it holds 1 of '\.bmp'"):
        find_images([tmp_path / "set"])


def test_links_to_folders_are_followed_and_lead_round_once(tmp_path: Path) -> None:
    root = put(tmp_path / "set", "glioma/a.jpg")
    put(tmp_path / "elsewhere", "p1/b.jpg")
    (root / "glioma" / "p1").symlink_to(tmp_path / "elsewhere" / "p1")
    (tmp_path / "elsewhere" / "p1" / "back").symlink_to(root)
    images = read_folders([root])
    assert [(f.path.name, f.person) for f in images.files] == [("a.jpg", ""), ("b.jpg", "p1")]
    assert images.passed_over == {"links back to a folder above": 1}


@pytest.mark.parametrize(
    "mask",
    [
        *("glioma/7_mask.png", "glioma/7-seg.jpg", "glioma/masks/7.png", "labels/glioma/7.png"),
        *("glioma/gt/7_seg.png", "glioma/GT_7.png"),
    ],
)
def test_masks_beside_images_are_no_slices(tmp_path: Path, mask: str) -> None:
    root = put(tmp_path / "set", "glioma/7.png", mask)
    images = read_folders([root])
    assert [f.path for f in images.files] == [root / "glioma" / "7.png"]
    assert images.passed_over == {"masks beside images": 1}
    assert images.remarks == ()


@pytest.mark.parametrize("folder", ["masks", "seg"])
def test_a_folder_of_masks_stands_beside_one_of_images(tmp_path: Path, folder: str) -> None:
    root = put(
        tmp_path / "set",
        *(f"yes/p1/{kind}/a/{n}.png" for kind in ("images", folder) for n in range(3)),
        f"yes/p1/{folder}/a/left.png",
    )
    images = read_folders([root])
    assert {f.path.parents[1].name for f in images.files} == {"images"}
    assert images.passed_over == {"masks beside images": 4}


@pytest.mark.parametrize(
    "place",
    [
        *("yes/gt_001.jpg", "yes/label1.jpg", "yes/seg 2 t1.jpg", "yes/segmented/8.jpg"),
        *("no/no mask/7.jpg", "train_labels/yes/7.jpg", "yes/labels/8.jpg", "labels/yes/a/7.jpg"),
    ],
)
def test_slices_of_masks_names_are_taken_and_said(tmp_path: Path, place: str) -> None:
    images = read_folders([put(tmp_path / "set", "yes/7.jpg", place)])
    assert len(images) == 2
    assert "set: 1 images are taken for slices, though their name" in images.describe()


@pytest.mark.parametrize("folder", ["@eaDir", "__MACOSX", "Thumbs", "thumbnails"])
def test_what_systems_make_of_images_is_no_slice(tmp_path: Path, folder: str) -> None:
    root = put(tmp_path / "set", "yes/7.jpg", f"yes/{folder}/7.jpg", f"{folder}/yes/p1/7.jpg")
    images = read_folders([root])
    assert len(images) == 1
    assert images.passed_over == {"thumbnails and system folders": 2}


def test_no_name_that_may_be_a_person_s_is_in_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.contactsheet import run_audit

    root = put(tmp_path / "set", "yes/7.jpg", "Testing/Erika Zweig/mri/1.jpg", "Erika Zweig/2.jpg")
    put(root, "T1/3.jpg", "Zweig/x/4.jpg")
    for name in ("a.Zweig_Erika", "Report.of Zweig", "a.mustermann", "a.dcm2", "a.7"):
        (root / name).write_text("none")
    run_audit([root], tmp_path / "out")
    written = capsys.readouterr().out + (tmp_path / "out" / "audit.json").read_text()
    assert not any(name in written.casefold() for name in ("erika", "zweig", "mustermann"))
    images = read_folders([root])
    assert images.unlabelled == {"set/*": 2, "set/Testing/*": 1, "set/T1": 1}
    assert images.passed_over == {"without a suffix": 4, ".dcm2": 1}


def test_a_data_set_may_be_called_a_mask(tmp_path: Path) -> None:
    assert len(find_images([put(tmp_path / "masks", "glioma/7.png")])) == 1


def test_names_that_are_no_text_are_told(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for folder in (b"glioma", b"Sch\xe4del"):
        place = root / os.fsdecode(folder)
        place.mkdir(parents=True)
        shutil.copy(SLICE, place / os.fsdecode(b"\xe4.jpg"))
    images = read_folders([root])
    assert b"images without a class: 1\n  set/*: 1" in images.describe().encode()
    assert images.files[0].name == "set/glioma/\\udce4.jpg"


def test_a_data_set_whose_path_is_no_text_is_refused(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"M\xfcller")
    root.mkdir()
    with pytest.raises(DatasetError, match=r"M\\udcfcller: the path is not UTF-8"):
        find_images([root])


def test_a_data_set_that_links_to_itself_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "set").symlink_to(tmp_path / "set")
    with pytest.raises(DatasetError, match="set is no folder"):
        find_images([tmp_path / "set"])


def test_a_folder_that_cannot_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = put(tmp_path / "set", "glioma/p1/7.png")

    def refused(folder: Path) -> object:
        if Path(folder).name == "p1":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    scandir = os.scandir
    monkeypatch.setattr("training.folders.os.scandir", refused)
    with pytest.raises(DatasetError, match="p1 cannot be read: Permission denied"):
        find_images([root])


@pytest.mark.parametrize("names", ["Training Testing", "glioma notumor", "train test"])
def test_halves_of_a_data_set_name_persons_together(tmp_path: Path, names: str) -> None:
    roots = [tmp_path / "set" / name for name in names.split()]
    for root in roots:
        for person in "ab":
            draw(root / ("" if "glioma" in names else "glioma") / person / "7.png")
    images = read_folders(roots)
    assert groups_of(images) == [0, 1, 0, 1]
    assert images.remarks == ()


def test_that_two_data_sets_call_persons_alike_is_said(tmp_path: Path) -> None:
    roots = [
        tmp_path / "set" / "site a",
        tmp_path / "set" / "site b",
        tmp_path / "other" / "Testing",
    ]
    for root, persons in zip(roots, ("ab", "bcd", "d"), strict=True):
        for person in persons:
            draw(root / "glioma" / person / "7.png")
    images = read_folders(roots)
    assert len(set(groups_of(images))) == 6
    assert [remark.partition(",")[0] for remark in images.remarks] == [
        "1 persons of site a are called as ones of site b",
        "1 persons of site b are called as ones of Testing",
    ]


def test_a_data_set_has_the_name_that_it_is_given_by(tmp_path: Path) -> None:
    """Where it lies behind a link is the machine's business."""
    for number, part in enumerate(("Training", "Testing")):
        blob = tmp_path / "volumes" / f"blob{number}"
        draw(blob / "glioma" / "P1" / f"{number}.png")
        (tmp_path / "hospital").mkdir(exist_ok=True)
        (tmp_path / "hospital" / part).symlink_to(blob)
    roots = [tmp_path / "hospital" / "Training", tmp_path / "hospital" / "Testing"]
    images = read_folders(roots)
    assert [(file.source, file.part) for file in images.files] == [
        ("Training", "training"),
        ("Testing", "testing"),
    ]
    # Halves side by side name persons together.
    assert groups_of(images) == [0, 0]
    # A run is evaluated from the folders that it notes.
    assert read_folders([given(root) for root in roots]).files == images.files
    assert [given(Path(root)).name for root in (".", "training/..")] == [Path.cwd().name] * 2


def test_one_folder_under_two_names_is_an_error(tmp_path: Path) -> None:
    root = put(tmp_path / "set", "glioma/1.jpg")
    (tmp_path / "again").symlink_to(root)
    with pytest.raises(DatasetError, match="again is a folder that is given twice"):
        find_images([root, tmp_path / "again"])


def test_halves_of_a_data_set_name_persons_together_whatever_links_call_them(
    tmp_path: Path,
) -> None:
    for number, part in enumerate(("Training", "Testing")):
        draw(tmp_path / "set" / part / "glioma" / "P1" / f"{number}.png")
        (tmp_path / f"site {number}").symlink_to(tmp_path / "set" / part)
    assert groups_of(read_folders([tmp_path / "site 0", tmp_path / "site 1"])) == [0, 0]


def test_where_a_link_s_name_says_nothing_that_of_its_folder_does(tmp_path: Path) -> None:
    def found(link: str, folder: str, image: str) -> tuple[str, str, str]:
        root = put(tmp_path / link / "volumes" / folder, image)
        (tmp_path / link / "given").mkdir()
        (tmp_path / link / "given" / link).symlink_to(root)
        (file,) = find_images([tmp_path / link / "given" / link])
        return file.source, file.part, file.label

    assert found("hospital", "Testing", "glioma/1.jpg") == ("hospital", "testing", "glioma")
    assert found("cases", "glioma", "1.jpg") == ("cases", "", "glioma")
    assert found("Training", "Testing", "glioma/1.jpg") == ("Training", "training", "glioma")
    assert found("notumor", "glioma", "1.jpg") == ("notumor", "", "notumor")


def test_a_data_set_is_by_patient_where_each_of_its_slices_is(tmp_path: Path) -> None:
    put(tmp_path / "whole", "glioma/p1/1.jpg", "glioma/p2/2.jpg")
    put(tmp_path / "partly", "glioma/p1/1.jpg", "glioma/2.jpg")
    folds = indexed(tmp_path / "folds", "id,label,fold\n1,glioma,1\n2,glioma,2\n")
    images = read_folders([tmp_path / "whole", tmp_path / "partly", folds])
    found = known_persons(images, np.arange(len(images)))
    assert found["by_patient"] == ["folds", "whole"]
    assert found["by_fold"] == ["folds"]
    assert found["persons_named"] == {"folds": False, "partly": False, "whole": True}
