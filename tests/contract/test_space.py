"""Distances from the training data, worked out by hand, and files of embeddings that are none."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.errors import CorruptVersion
from contract.space import EmbeddingSpace, Orientation
from tests.contract.versions import SPACE_ARRAYS, npz

MEANS = np.array([[0, 0], [10, 0]], np.float32)


def floats(*values: Any) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def test_distance_is_that_of_the_nearest_mean_after_whitening() -> None:
    """(3, 8) becomes (3, 4): 5 from the origin, and further from (10, 0)."""
    space = EmbeddingSpace(MEANS, floats([1, 0], [0, 0.5]))
    embedding = floats([3, 8], [10, 0], [10, -2])
    np.testing.assert_allclose(space.distance(embedding), [5, 0, 1], atol=1e-6)


def test_a_turned_slice_is_far_and_an_upright_one_no_nearer() -> None:
    """Logits at (3, 8): 3 for upright; 8 and 7 for turned ones, together 8.3133. Odds 5.3133."""
    weights = floats([1, 0, 0], [0, 1, 0.875])
    turned = Orientation(weights, floats(0, 0, 0), floats(2, 1))
    space = EmbeddingSpace(MEANS, np.eye(2, dtype=np.float32), turned)
    embedding = floats([3, 8], [10, 0])
    np.testing.assert_allclose(turned.odds(embedding)[0], 5.313262, atol=1e-5)
    np.testing.assert_allclose(space.distance(embedding), [2 * 5.313262 + 1, 0], atol=1e-5)


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("/tmp/executed-by-an-npz"),)  # noqa: S108


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as output:
        for name, content in members.items():
            output.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def pickled() -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|O", "fortran_order": False, "shape": (1, 1)}
    )
    return archive(means=header.getvalue() + pickle.dumps(_Bomb()), whitening=b"")


def damaged_inside() -> bytes:
    """Compressed, with a bit turned that makes the stream no stream."""
    data = bytearray(archive(**{name: npy(array) for name, array in SPACE_ARRAYS.items()}))
    start = 30 + int.from_bytes(data[26:28], "little") + int.from_bytes(data[28:30], "little")
    data[start : start + 4] = b"\xff" * 4
    return bytes(data)


def with_in_directory(offset: int, value: bytes) -> bytes:
    """With something else in the directory's first entry."""
    data = bytearray(npz(**SPACE_ARRAYS))
    at = data.index(b"PK\x01\x02") + offset
    data[at : at + len(value)] = value
    return bytes(data)


def header_of(shape: tuple[int, ...]) -> bytes:
    """An array's, without the array."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    return header.getvalue()


TURNED = {
    "orientation_weights": np.ones((3, 2), np.float32),
    "orientation_bias": np.zeros(2, np.float32),
    "orientation_scale": np.ones(2, np.float32),
}
BAD: dict[str, bytes] = {
    "empty": b"",
    "no-zip": b"PK\x03\x04 but no more",
    "no-array": archive(means=b"junk", whitening=b"junk"),
    "cut": npz(**SPACE_ARRAYS)[:-40],
    "pickle": pickled(),
    "no-whitening": npz(means=SPACE_ARRAYS["means"]),
    "float64": npz(**{**SPACE_ARRAYS, "means": np.zeros((2, 3))}),
    "one-axis": npz(**{**SPACE_ARRAYS, "means": np.zeros(3, np.float32)}),
    "no-mean": npz(**{**SPACE_ARRAYS, "means": np.zeros((0, 3), np.float32)}),
    "of-different-embeddings": npz(**{**SPACE_ARRAYS, "means": np.zeros((2, 4), np.float32)}),
    "not-finite": npz(**{**SPACE_ARRAYS, "means": np.full((2, 3), np.nan, np.float32)}),
    "orientation-in-part": npz(**SPACE_ARRAYS, orientation_bias=TURNED["orientation_bias"]),
    "orientation-of-another": npz(
        **SPACE_ARRAYS, **{**TURNED, "orientation_weights": np.ones((4, 2), np.float32)}
    ),
    "orientation-float64": npz(**SPACE_ARRAYS, **{**TURNED, "orientation_bias": np.zeros(2)}),
    "orientation-of-one-kind": npz(
        **SPACE_ARRAYS,
        **{
            **TURNED,
            "orientation_weights": np.ones((3, 1), np.float32),
            "orientation_bias": np.zeros(1, np.float32),
        },
    ),
    "orientation-not-finite": npz(
        **SPACE_ARRAYS, **{**TURNED, "orientation_scale": np.full(2, np.inf, np.float32)}
    ),
    "damaged-inside": damaged_inside(),
    "method-unknown": with_in_directory(10, b"\x63\0"),
    "encrypted": with_in_directory(8, b"\1\0"),
    "larger-than-memory": archive(means=header_of((2**40, 2**10)), whitening=b""),
    # In order but for a third member, which nobody asks for.
    "bomb": archive(
        **{name: npy(array) for name, array in SPACE_ARRAYS.items()}, more=bytes(65 * 2**20)
    ),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_a_file_of_training_embeddings_that_is_none_is_refused(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "ood.npz"
    path.write_bytes(content)
    with pytest.raises(CorruptVersion, match="training embeddings"):
        EmbeddingSpace.read(path)
    assert not Path("/tmp/executed-by-an-npz").exists()  # noqa: S108


def test_a_file_that_tells_turned_slices_does(tmp_path: Path) -> None:
    path = tmp_path / "ood.npz"
    path.write_bytes(npz(**SPACE_ARRAYS, **TURNED))
    assert EmbeddingSpace.read(path).distance(floats([0, 0, 0])).tolist() == [1.0]
    path.write_bytes(npz(**SPACE_ARRAYS))
    assert EmbeddingSpace.read(path).distance(floats([0, 0, 0])).tolist() == [0.0]
