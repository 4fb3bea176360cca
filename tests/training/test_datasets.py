import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contract.decoding import decode
from contract.preprocessing import preprocess
from contract.turning import TURNS, Turn
from tests.contract.samples import RANGE, mr_frames
from tests.support.data import require_data
from tests.support.outlined import indexed, stored_otherwise
from training.catalogue import load_recipe
from training.datasets import find_images
from training.errors import DatasetError
from training.reading import read_images
from training.truth import allowed

SLICES = Path(__file__).parents[1] / "data" / "slices"


def test_finds_parts_and_labels_below_any_nesting(tmp_path: Path) -> None:
    source = next((SLICES / "glioma").glob("*.jpg"))
    for place in ("Set/Training/glioma", "Set/test/No_Tumor", "Set/yes"):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        shutil.copy(source, folder / "a.JPG")
        (folder / "notes.txt").write_text("not an image")
    found = find_images([tmp_path / "Set"])
    assert [(f.source, f.part, f.label) for f in found] == [
        ("Set", "training", "glioma"),
        ("Set", "testing", "notumor"),
        ("Set", "", "tumor"),
    ]


def test_reads_through_the_service_s_functions_and_reports_what_it_cannot_read(
    tmp_path: Path,
) -> None:
    root = tmp_path / "set"
    shutil.copytree(SLICES, root)
    (root / "glioma" / "broken.jpg").write_bytes(b"GIF89a, whatever its name says")
    images = read_images(find_images([root]))
    assert len(images) == 8
    assert [(path.name, code) for path, code in images.unreadable] == [
        ("broken.jpg", "unsupported_media_type")
    ]
    for file, pixels in zip(images.files, images.slices, strict=True):
        assert np.array_equal(pixels, preprocess(decode(file.path.read_bytes()).pixels))
    table = images.describe()
    assert "unreadable files: 1" in table
    assert "JPEG 8" in table
    assert images.sources()[0].images == 8


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("missing", "data is no folder$"),
        ("empty", "data holds no images below class folders [^;]*$"),
        (
            "classless",
            "data holds no images below class folders .*; it holds 1 images in data/\\*",
        ),
    ],
)
def test_a_folder_without_labelled_images_is_an_error(
    tmp_path: Path, content: str, says: str
) -> None:
    root = tmp_path / "data"
    if content != "missing":
        (root / "somewhere").mkdir(parents=True)
    if content == "classless":
        shutil.copy(next((SLICES / "glioma").glob("*.jpg")), root / "somewhere")
    with pytest.raises(DatasetError, match=says):
        find_images([root])


def test_two_folders_of_one_name_are_an_error(tmp_path: Path) -> None:
    for place in ("a", "b"):
        shutil.copytree(SLICES, tmp_path / place / "set")
    with pytest.raises(DatasetError, match="same name"):
        find_images([tmp_path / "a" / "set", tmp_path / "b" / "set"])


def test_a_data_set_s_digest_names_its_content(tmp_path: Path) -> None:
    digests = []
    for change in (False, True):
        root = tmp_path / str(change) / "set"
        shutil.copytree(SLICES, root)
        if change:
            next((root / "glioma").glob("*.jpg")).unlink()
        digests.append(read_images(find_images([root])).sources()[0].digest)
    assert digests[0] != digests[1]


def test_a_label_allows_its_class_and_some_tumour_allows_every_tumour_class() -> None:
    labels = np.array(["b", "a", "tumor"])
    assert allowed(labels, ("a", "b", "c"), ("a", "c")).tolist() == [
        [0, 1, 0],
        [1, 0, 0],
        [1, 0, 1],
    ]
    assert allowed(labels[2:], ("none", "tumor"), ("tumor",)).tolist() == [[0, 1]]


def test_a_mask_that_outlines_nothing_is_none(tmp_path: Path) -> None:
    black, outlined = Image.new("L", (256, 256)), Image.new("L", (256, 256))
    outlined.paste(255, (90, 90, 120, 120))
    roots = [indexed(tmp_path / "black", black), indexed(tmp_path / "outlined", outlined)]
    images = read_images(find_images(roots))
    assert [*images.masks] == [1]
    assert [file.mask is None for file in images.files] == [True, False]


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_a_mask_is_turned_as_its_slice(tmp_path: Path, turn: Turn) -> None:
    """A DICOM object that is stored in another way than it is read, and its outline with it."""
    root = stored_otherwise(tmp_path / "set", turn)
    images = read_images(find_images([root]))
    differs = (images.masks[0] > 127) != (images.slices[0] > 160)
    assert differs.mean() < 0.01


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (Image.new("L", (128, 256), 255), "128x256 pixels"),
        (b"no picture", "no readable mask"),
        (Image.new("1", (20_000, 10_000)), "no readable mask: .*decompression bomb"),
    ],
    ids=["size", "damaged", "huge"],
)
def test_a_mask_that_is_none_of_its_image_is_an_error(
    tmp_path: Path, mask: Image.Image | bytes, says: str
) -> None:
    root = indexed(tmp_path / "set", mask)
    with pytest.raises(DatasetError, match=f"1.png.*{says}"):
        read_images(find_images([root]))


def test_an_index_of_a_missing_image_is_an_error(tmp_path: Path) -> None:
    root = indexed(tmp_path / "set", Image.new("L", (256, 256), 255))
    (root / "images" / "1.jpg").unlink()
    with pytest.raises(DatasetError, match="cannot be read"):
        read_images(find_images([root]))


def test_an_index_that_is_no_utf_8_is_an_error(tmp_path: Path) -> None:
    root = indexed(tmp_path / "set", Image.new("L", (256, 256), 255))
    (root / "index.csv").write_bytes("id,label,fold\nré,glioma,1\n".encode("latin-1"))
    with pytest.raises(DatasetError, match="not UTF-8"):
        find_images([root])


def test_a_folder_that_is_named_like_an_image_is_none(tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(SLICES, root)
    (root / "glioma" / "folder.jpg").mkdir()
    assert len(find_images([root])) == 8


@pytest.mark.data
def test_finds_every_image_of_the_real_sets() -> None:
    root = require_data("nickparvar", "navoneel")
    found = find_images([root / "nickparvar", root / "navoneel"])
    counts = {
        (source, part, label): sum(f[1:4] == (source, part, label) for f in found)
        for source, part, label in {f[1:4] for f in found}
    }
    assert counts == {
        ("nickparvar", "training", "glioma"): 1321,
        ("nickparvar", "training", "meningioma"): 1339,
        ("nickparvar", "training", "notumor"): 1595,
        ("nickparvar", "training", "pituitary"): 1457,
        ("nickparvar", "testing", "glioma"): 300,
        ("nickparvar", "testing", "meningioma"): 306,
        ("nickparvar", "testing", "notumor"): 405,
        ("nickparvar", "testing", "pituitary"): 300,
        ("navoneel", "", "tumor"): 155,
        ("navoneel", "", "notumor"): 98,
    }


def test_a_label_map_makes_two_classes_of_four(tmp_path: Path) -> None:
    shutil.copytree(SLICES, tmp_path / "set")
    images = read_images(find_images([tmp_path / "set"]))
    mapped = images.relabelled(load_recipe("vgg16_binary").labels)
    assert set(mapped.labels) == {"notumor", "tumor"}
    assert ((mapped.labels == "notumor") == (images.labels == "notumor")).all()
    assert mapped.sha256 == images.sha256
    assert mapped.sources() == images.sources()


def test_where_nothing_is_readable_the_codes_are_counted(tmp_path: Path) -> None:
    """Several frames of one object are read by the service alone: a folder gives a slice its class."""
    frames = [np.full((64, 64), value, np.uint16) for value in (9, 900)]
    for number, label in enumerate(("glioma", "glioma", "notumor")):
        folder = tmp_path / "set" / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.dcm").write_bytes(mr_frames(frames, attributes=RANGE))
    (tmp_path / "set" / "glioma" / "3.png").write_bytes(b"none")
    with pytest.raises(
        DatasetError, match=r"is readable: 3 x multi_frame, 1 x unsupported_media_type$"
    ):
        read_images(find_images([tmp_path / "set"]))
