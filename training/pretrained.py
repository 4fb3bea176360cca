"""ImageNet weights from installed packages, read without PyTorch and without running any code in them.

Two of them carry PyTorch's pre-1.6 serialisation: five pickles (magic number, protocol, system
information, state dict, storage keys) and then each storage as an int64 length and raw little-endian
values. Layout: ``torch/serialization.py``, ``_legacy_save``, PyTorch 1.6. One carries a plain pickle of
NumPy arrays in dicts.
"""

import collections
import importlib.util
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from training.errors import PretrainedWeightsError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First pickle of a legacy PyTorch file (``torch/serialization.py``, ``MAGIC_NUMBER``)."""

ZIP_MAGIC = b"PK\x03\x04"
"""First bytes of a file of PyTorch 1.6 and later, a zip archive."""

STORAGE_DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}
"""The storage classes that an image backbone holds, and how their values lie on disk."""


class _TensorRef(NamedTuple):
    """A tensor as the pickle describes it, before the storage that holds its values is read."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _StorageType(NamedTuple):
    name: str


def _tensor_ref(
    storage: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _TensorRef:
    return _TensorRef(storage, offset, shape, strides)


def _refused(module: str, name: str) -> PretrainedWeightsError:
    return PretrainedWeightsError(f"the weights file asks for {module}.{name}, which is refused")


class _StateDictUnpickler(pickle.Unpickler):
    """Resolves the tensor rebuilder and ordered dicts; every other global is refused."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.dtypes: dict[str, str] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor_ref
        if module == "torch" and name in STORAGE_DTYPES:
            return _StorageType(name)
        raise _refused(module, name)

    def persistent_load(self, pid: Any) -> str:
        kind, storage_type, key = pid[0], pid[1], str(pid[2])
        if kind != "storage":
            raise PretrainedWeightsError(f"unknown persistent object {kind!r} in the weights file")
        self.dtypes[key] = STORAGE_DTYPES[storage_type.name]
        return key


def read_legacy_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Reads a pre-1.6 PyTorch state dict.

    Args:
        path: the ``.pth`` file.

    Returns:
        Parameter name to array in PyTorch's shapes (convolutions: out, in, height, width).

    Raises:
        PretrainedWeightsError: the file is missing, truncated, of another format, or refers to
            anything but tensors.
    """
    if not path.is_file():
        raise PretrainedWeightsError(f"no weights file at {path}")
    try:
        with path.open("rb") as file:
            if file.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
                raise PretrainedWeightsError(
                    f"{path.name} is of PyTorch 1.6 or later; write the state dict with "
                    "torch.save(…, _use_new_zipfile_serialization=False)"
                )
            file.seek(0)
            if _StateDictUnpickler(file).load() != LEGACY_MAGIC:
                raise PretrainedWeightsError(f"{path.name} is no legacy PyTorch file")
            for _ in ("protocol version", "system information"):
                _StateDictUnpickler(file).load()
            unpickler = _StateDictUnpickler(file)
            refs = _state_dict(unpickler.load(), path)
            keys = _StateDictUnpickler(file).load()
            storages = {key: _read_storage(file, unpickler.dtypes[key]) for key in keys}
            return {name: _view(storages[ref.storage], ref) for name, ref in refs.items()}
    except PretrainedWeightsError:
        raise
    except Exception as error:  # A pickle can be made to raise almost anything.
        raise PretrainedWeightsError(f"{path.name} is unreadable: {error!r}") from error


def _state_dict(content: Any, path: Path) -> dict[str, _TensorRef]:
    """Raises PretrainedWeightsError for anything but tensors by their names."""
    if not isinstance(content, dict):
        raise PretrainedWeightsError(f"{path.name} holds no state dict")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, _TensorRef):
            raise PretrainedWeightsError(
                f"{path.name} holds no state dict: {name!r} is no tensor; write a model's state_dict() "
                "alone"
            )
    return content


def _empty_array(*_: Any) -> np.ndarray:
    """What an array is before the pickle sets its shape, type and values."""
    return np.empty(0, np.int8)


_ARRAY_PARTS = {
    # Before NumPy 2.0, and since.
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Resolves what an array of numbers consists of; every other global is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAY_PARTS:
            raise _refused(module, name)
        return _ARRAY_PARTS[module, name]


def read_pickled_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads a pickle of dicts within dicts, whose leaves are arrays of numbers.

    Args:
        path: the ``.ckpt`` file.

    Returns:
        The keys that lead to an array, joined by dots, to the array.

    Raises:
        PretrainedWeightsError: the file is missing, truncated or of another format, or holds
            anything else.
    """
    if not path.is_file():
        raise PretrainedWeightsError(f"no weights file at {path}")
    try:
        with path.open("rb") as file:
            return dict(_leaves(_ArrayUnpickler(file).load(), ""))
    except PretrainedWeightsError:
        raise
    except Exception as error:  # As above.
        raise PretrainedWeightsError(f"{path.name} is unreadable: {error}") from error


def _leaves(node: Any, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(node, dict):
        for key, below in node.items():
            yield from _leaves(below, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(node, np.ndarray) and node.dtype.kind in "fiu":
        yield prefix, node
    else:
        raise ValueError(f"{prefix or 'the file'} is no array of numbers")


def _read_storage(file: IO[bytes], kind: str) -> np.ndarray:
    count = int(np.frombuffer(file.read(8), "<i8")[0])
    if count < 0:
        raise ValueError("a storage has less than no values")
    dtype = np.dtype(kind)
    return np.frombuffer(file.read(count * dtype.itemsize), dtype, count)


def _view(storage: np.ndarray, ref: _TensorRef) -> np.ndarray:
    if min((ref.offset, *ref.shape, *ref.strides)) < 0:
        raise ValueError("a tensor begins before its storage")
    # The convolutions are stored with channels-last strides: the shape alone would scramble them.
    strides = tuple(step * storage.itemsize for step in ref.strides)
    needed = ref.offset + sum((n - 1) * s for n, s in zip(ref.shape, ref.strides, strict=True)) + 1
    if needed > storage.size:
        raise ValueError("a tensor reaches past its storage")
    view = np.lib.stride_tricks.as_strided(
        storage[ref.offset :], ref.shape, strides, writeable=False
    )
    return np.ascontiguousarray(view)


def package_file(package: str, pattern: str) -> Path:
    """Finds one file inside an installed package, without importing the package.

    Args:
        package: import name.
        pattern: glob below the package's folder.

    Raises:
        PretrainedWeightsError: the package or the file is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise PretrainedWeightsError(
            f"the package {package.replace('_', '-')} is not installed; it carries the weights"
        )
    found = sorted(Path(spec.submodule_search_locations[0]).glob(pattern))
    if not found:
        raise PretrainedWeightsError(f"{package} has no file {pattern}")
    return found[0]
