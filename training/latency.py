"""How large a model's files are, and how long one slice takes them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from contract.preprocessing import DEFAULT_SPEC
from training.fidelity import LITERT_FILE, SAVED_MODEL
from training.processor import processor

_CALLS: Final = 100
_WARM_UP: Final = 5


def measure(artifacts: Path) -> dict[str, Any]:
    """Sizes of a SavedModel and its int8 file, and how long they take.

    Args:
        artifacts: the folder with both: a run's ``artifacts`` or a version.

    Returns:
        ``parameters``; ``int8_bytes`` and ``saved_model_bytes``; ``int8_ms``, ``float32_ms`` and
        ``tensorflow_ms``: processor time for one slice, of all threads together; ``processor``: whose.
    """
    saved = artifacts / SAVED_MODEL
    model = tf.saved_model.load(str(saved))
    signature = model.signatures["serving_default"]
    files = [entry for entry in saved.rglob("*") if entry.is_file()]
    result: dict[str, Any] = {
        "processor": processor(),
        "parameters": float(sum(variable.shape.num_elements() for variable in signature.variables)),
        "saved_model_bytes": float(sum(entry.stat().st_size for entry in files)),
        "float32_ms": _cpu_ms(_litert(_float_file(saved))),
        "tensorflow_ms": _cpu_ms(_tensorflow(signature)),
    }
    light = artifacts / LITERT_FILE
    if light.is_file():
        result["int8_bytes"] = float(light.stat().st_size)
        result["int8_ms"] = _cpu_ms(_litert(light.read_bytes()))
    return result


def _float_file(saved: Path) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(saved), signature_keys=["serving_default"]
    )
    content: bytes = converter.convert()
    return content


def _slice() -> Any:
    rows, columns = np.mgrid[0 : DEFAULT_SPEC.height, 0 : DEFAULT_SPEC.width]
    return ((rows + columns) % 256).astype(np.uint8)[None]


def _litert(content: bytes) -> Callable[[], Any]:
    interpreter = Interpreter(model_content=content, num_threads=1)
    slice_ = _slice()
    place = interpreter.get_input_details()[0]["index"]
    # The batch axis may be open.
    interpreter.resize_tensor_input(place, slice_.shape)
    interpreter.allocate_tensors()

    def call() -> None:
        interpreter.set_tensor(place, slice_)
        interpreter.invoke()

    return call


def _tensorflow(signature: Any) -> Callable[[], Any]:
    slice_ = tf.constant(_slice())

    def call() -> None:
        signature(slices=slice_)["probabilities"].numpy()

    return call


def _cpu_ms(call: Callable[[], Any]) -> float:
    """Median processor time of all threads: it leaves out what others run on a machine meanwhile."""
    times = []
    for _ in range(_WARM_UP + _CALLS):
        start = time.process_time()
        call()
        times.append(1000 * (time.process_time() - start))
    return float(np.median(times[_WARM_UP:]))
