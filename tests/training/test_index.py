"""Index files: what they list, and what is wrong with those that are none."""

from pathlib import Path

import pytest
from PIL import Image

from tests.training.layouts import draw, groups_of, indexed, put
from training.datasets import find_images, read_folders
from training.errors import DatasetError


def test_an_index_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    root = indexed(tmp_path / "set", "id,label,fold\n1,glioma,3\n", "utf-8-sig")
    assert [(f.part, f.label) for f in find_images([root])] == [("fold3", "glioma")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"lacks id, label, fold \(or patient\): it is empty"),
        ("id;label;fold\n1;glioma;1\n", "lacks id, .*: it has none of them; .* with commas"),
        ("id,class,fold\n1,glioma,1\n", "lacks label: it has id, fold; expected"),
        ("id,label\n1,glioma\n", r"lacks fold \(or patient\)"),
        ("id,label,fold\n", "lists no images"),
        ("id,label,Fold, fold\n1,glioma,1,2\n", "has the column fold twice"),
        ("id,label,fold\n1,glioma\n", "line 2: '' is no number of a fold"),
        ("id,label,fold\n1,glioma,A\n", "line 2: 'A' is no number of a fold"),
        ("id,label,fold\n1,glioma,1\n2,,1\n", "line 3: no label"),
        ("id,label,fold\n1,unclear,1\n", "line 2: no class 'unclear'"),
        ('id,label,patient\n1,glioma,"P1\n2,glioma,P2\n', "line 1 or after it: unexpected end"),
        (
            'id,label,patient\n1,glioma,"P1\n2,glioma,P2"\n',
            "line 3: the patient is of several lines",
        ),
        ('id,label,"fold\n1,glioma,1\n', "line 1 or after it: unexpected end"),
        ("id,label,fold\n1\0,glioma,1\n", "line 2: the id .* has control characters"),
        ("id,label,fold\n1,glioma,1_0\n", "line 2: '1_0' is no number of a fold"),
        ("id,label,fold\n1,glioma,-3\n", "line 2: '-3' is no number of a fold"),
    ],
)
def test_an_index_that_is_none_says_why(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        find_images([indexed(tmp_path / "set", text)])


def test_a_row_in_the_place_of_an_index_s_first_line_stays_inside(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as error:
        find_images([indexed(tmp_path / "set", "17,glioma,Mustermann\n")])
    assert "ustermann" not in str(error.value)


@pytest.mark.parametrize("column", ["patient_id", "PatientID", "subject", "Person", "pid"])
def test_a_column_of_patients_under_another_name_is_an_error(tmp_path: Path, column: str) -> None:
    root = indexed(tmp_path / "set", f"id,label,fold,{column}\n1,glioma,1,a\n2,glioma,2,a\n")
    with pytest.raises(DatasetError, match=f"'{column.casefold()}': call it patient"):
        find_images([root])


def test_columns_are_known_in_any_case_and_others_are_named(tmp_path: Path) -> None:
    text = "ID, Label ,FOLD, Patient,Age\n 1,glioma , 1, a ,50\n2,glioma,2,A,60\n"
    images = read_folders([indexed(tmp_path / "set", text)])
    assert [file.person for file in images.files] == ["a", "a"]
    assert "\n  set: index.csv: not read are the columns age" in images.describe()


def test_an_index_may_name_patients(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for number in range(4):
        draw(root / "images" / f"{number}.jpg")
    rows = "0,glioma,a\n1,glioma,b\n2,notumor,a\n3,notumor,\n"
    (root / "index.csv").write_text(f"id,label,patient\n{rows}")
    images = read_folders([root])
    assert groups_of(images) == [0, 1, 0, 2]
    assert set(images.parts) == {""}
    folded = rows.replace("a\n", "a,1\n").replace("b\n", "b,1\n").replace("r,\n", "r,,2\n")
    (root / "index.csv").write_text(f"id,label,patient,fold\n{folded}")
    images = read_folders([root])
    assert groups_of(images) == [0, 1, 0, 2]
    assert images.parts.tolist() == ["fold1", "fold1", "fold1", "fold2"]


def test_files_that_an_index_does_not_list_are_counted(tmp_path: Path) -> None:
    root = indexed(tmp_path / "set", "id,label,fold\n1,glioma,3\n")
    put(root, "masks/1_mask.png")
    assert read_folders([root]).passed_over == {
        "images that the index does not list": 1,
        "masks of no image in the index": 1,
    }


def test_masks_in_a_folder_of_another_name_are_seen_to_be_none(tmp_path: Path) -> None:
    root = indexed(tmp_path / "set", "id,label,fold\n1,glioma,3\n2,glioma,3\n")
    put(root, "Masks/1.png")
    put(root, "Mustermann/a/1.png")
    images = read_folders([root])
    assert images.passed_over == {
        "in Masks/ beside images/ and masks/": 1,
        "in other folders beside images/ and masks/": 1,
    }
    assert "\nimages with an outlined tumour: 0" in images.describe()
    (root / "masks").mkdir()
    with Image.open(root / "images" / "1.jpg") as image:
        mask = Image.new("L", image.size)
    mask.putpixel((9, 9), 255)
    mask.save(root / "masks" / "1.png")
    assert "\nimages with an outlined tumour: 1" in read_folders([root]).describe()


@pytest.mark.parametrize("label", ["glioma", "notumor"])
def test_an_index_lists_an_image_once(tmp_path: Path, label: str) -> None:
    text = f"id,label,fold\n1,glioma,1\n2,glioma,1\n 1,{label},2\n"
    with pytest.raises(DatasetError, match=r"line 4: the id of line 2 again$"):
        find_images([indexed(tmp_path / "set", text)])


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("1,glioma,1\n\n\n2,glioma,1\n2,glioma,1\n", "line 6: the id of line 5 again"),
        ("1,glioma,1\n\n2,glima,1\n", "line 4: no class 'glima'"),
        ('"1",glioma,1,"two\nlines"\n2,glima,1\n', "line 4: no class 'glima'"),
    ],
    ids=["again", "label", "a value of two lines"],
)
def test_lines_of_an_index_are_those_of_the_file(tmp_path: Path, rows: str, says: str) -> None:
    text = f"id,label,fold,remark\n{rows}"
    with pytest.raises(DatasetError, match=says):
        find_images([indexed(tmp_path / "set", text)])
