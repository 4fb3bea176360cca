"""What names of folders and files say."""

import pytest

from training.names import (
    canonical_label,
    is_mask_folder,
    keeps_all,
    like_masks,
    masked_by,
    nearest_label,
    part_of,
    person_name,
)


@pytest.mark.parametrize(
    ("folder", "label"),
    [
        ("glioma", "glioma"),
        ("Glioma_Tumor", "glioma"),
        ("meningioma tumour", "meningioma"),
        ("PITUITARY", "pituitary"),
        ("pituitary_tumor", "pituitary"),
        ("notumor", "notumor"),
        ("no_tumor", "notumor"),
        ("No Tumour", "notumor"),
        ("no", "notumor"),
        ("yes", "tumor"),
        ("healthy", "notumor"),
        ("Training", None),
        ("images", None),
        ("tumours", "tumor"),
        ("non_tumor", "notumor"),
        ("Non Tumor", "notumor"),
        ("without-tumour", "notumor"),
        ("tumor_free", "notumor"),
        ("Tumour Free", "notumor"),
        ("healthy brain", "notumor"),
        ("normal_brain", "notumor"),
        ("no_brain_tumor", "notumor"),
        ("NonTumorous", "notumor"),
        ("no_tumor_detected", "notumor"),
        ("normal contrast", None),
        ("monotumor", None),
        ("Brain Tumor", "tumor"),
        ("brain_tumours", "tumor"),
        ("gliomas", "glioma"),
        ("HGG", "glioma"),
        ("low grade glioma", "glioma"),
        ("Meningiomas", "meningioma"),
        ("pituitary adenoma", "pituitary"),
        ("Pituitary_Adenomas", "pituitary"),
        ("control", "notumor"),
        ("Healthy controls", "notumor"),
        ("no tumour (control)", "notumor"),
        ("tumor negative", "notumor"),
        ("tumor_positive", "tumor"),
        ("glioma images", "glioma"),
        ("normal scans", "notumor"),
        ("tumor images", "tumor"),
        ("glioma data", "glioma"),
        ("glioma_1", "glioma"),
        ("tumor_10", "tumor"),
    ],
)
def test_class_folders_are_known_in_common_spellings(folder: str, label: str | None) -> None:
    assert canonical_label(folder) == label


@pytest.mark.parametrize(
    "folder",
    [
        *("Non-tumor glioma", "notumor_vs_glioma", "no tumor removed", "glioma tumor free"),
        *("no_glioma", "positive", "negative", "no images", "No. 12", "no7", "Pituitary_Normal"),
        *("healthy tumor", "tumor_0", "tumor_1", "Tumour 1", "yes0", "glioma_0"),
        # Titles of data sets, which hold healthy brains as well.
        *("Brain Tumor Data Set", "brain_tumor_dataset", "brain tumor data"),
    ],
)
def test_what_could_be_two_classes_is_none(folder: str) -> None:
    assert canonical_label(folder) is None


@pytest.mark.parametrize(
    "folder",
    [
        *("T1 without contrast", "non-contrast", "T1 no gad", "not enhanced", "T2 contrast-free"),
        *("without iv contrast", "T1 non contrast-enhanced", "no fat sat"),
    ],
)
def test_that_contrast_medium_is_absent_is_no_absence_of_a_tumour(folder: str) -> None:
    assert nearest_label(["set", "glioma", "P01", folder]) == "glioma"


@pytest.mark.parametrize(
    "folder",
    [
        *("no contrast, no tumour seen here", "not affected", "notumor_vs_glioma"),
        *("Non-tumor glioma", "tumor_0"),
    ],
)
def test_what_speaks_of_absence_is_no_tumour_s(folder: str) -> None:
    assert nearest_label(["set", "glioma", folder]) is None


@pytest.mark.parametrize(
    ("folder", "part"),
    [
        ("Training", "training"),
        ("train_set", "training"),
        ("val", "training"),
        ("Valid", "training"),
        ("validation", "training"),
        ("TEST", "testing"),
        ("Testing Data", "testing"),
        ("test1", None),
        ("valve", None),
    ],
)
def test_parts_are_known_in_common_spellings(folder: str, part: str | None) -> None:
    assert part_of(folder) == part


def test_some_names_say_how_images_are_kept() -> None:
    kept = ["images", "PNG", "T1", "Axial", "t1 axial", "png_images", "raw data", "rawdata", "raw"]
    kept += [
        "derivatives",
        "anat",
        "augmented",
        "Cropped images",
        "fold1",
        "Fold_2",
        "T1-w",
        "t1_ce",
    ]
    others = ["P01", "2019", "axial_t1_defaced", "images of Max", "Maximages", "scan 7", "folder1"]
    assert [name for name in kept + others if keeps_all(name)] == kept


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("P1", "p1 "),
        ("Mu\u0308ller", "m\u00fcller"),
        ("sub-01_ses-02", "sub-01"),
        ("sub-01_ses-01_run-1", "SUB-01"),
        ("_ses-1", "_ses-1"),
    ],
)
def test_a_person_has_one_name(name: str, same: str) -> None:
    assert person_name(name) == person_name(same) != ""


@pytest.mark.parametrize(
    ("stem", "names"),
    [
        *(("7_mask", {"7"}), ("7-SEG", {"7"}), ("7 mask 1", {"7"}), ("seg_7", {"7"})),
        *(("gt_001", {"001"}), ("a_b_ground truth", {"a_b"}), ("mask_7_seg", {"mask_7", "7_seg"})),
        *((name, set()) for name in ("7", "mask", "label1", "Segal-1", "unmasked", "Te-gl_0010")),
    ],
)
def test_masks_are_known_by_their_names(stem: str, names: set[str]) -> None:
    assert masked_by(stem) == names


def test_mask_folders_are_known_by_all_of_their_names() -> None:
    folders = ["masks", "Labels", "seg", "segmentation", "ground truth", "GT", "annotations"]
    others = ["no mask", "train_labels", "segmented", "masked man", "Segura"]
    assert [name for name in folders + others if is_mask_folder(name)] == folders


@pytest.mark.parametrize(
    ("path", "like"),
    [
        *(
            (name, True)
            for name in ("label1", "7_mask", "no mask/7", "segmented/7", "train_labels/7")
        ),
        *((name, False) for name in ("7", "masked man/7", "Segura/7", "unmasked", "Segal-1")),
    ],
)
def test_what_is_like_a_mask_by_its_name(path: str, like: bool) -> None:
    *folders, stem = path.split("/")
    assert like_masks(folders, stem) is like
