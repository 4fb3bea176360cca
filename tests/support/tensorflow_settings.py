"""Runs the SavedModel with each setting and prints what came of it, a line of JSON."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from contract.store import ModelStore
from service.choices import Device
from service.errors import RuntimeUnusable
from service.runtimes.base import served_shapes
from service.runtimes.tensorflow import TensorFlowRuntime
from tests.support.agreement import agreement
from tests.support.inputs import preprocessed
from tests.support.service import MODEL, newest

LARGEST = 4
COMPILED = 2
"""XLA compiles each padded size, for seconds; that batches are padded is seen without it."""


def main(root: Path) -> dict[str, Any]:
    """Of the newest version in a store.

    Returns:
        ``traces``: of the compiled model, after warm-up and after batches of every size;
        ``xla``, ``mixed``: largest differences in probability from the plain model; ``shapes``: batch
        sizes that the plain model was called with; ``gpu``, ``elsewhere``: error texts;
        ``agreement``: see :func:`tests.support.agreement.agreement`.
    """
    stored = ModelStore(root).load(MODEL, newest(root))
    shapes = served_shapes(stored.manifest)
    path = stored.path / stored.manifest.artifacts["tensorflow"]
    size = stored.preprocess.height, stored.preprocess.width
    batch = preprocessed(stored.preprocess)[:LARGEST]
    found: dict[str, Any] = {"agreement": agreement(root)}

    plain = TensorFlowRuntime(path, shapes, LARGEST, device=Device.CPU)
    plain.warm_up(*size, shapes)
    signature, seen = plain._signature, set()

    def counted(slices: Any) -> Any:
        seen.add(int(slices.shape[0]))
        return signature(slices=slices)

    plain._signature = counted
    expected = [plain.predict(batch[:count]).probabilities for count in range(1, LARGEST + 1)]
    found["shapes"] = sorted(seen)
    plain._placement = "/GPU:0"
    try:
        plain.warm_up(*size, shapes)
    except RuntimeUnusable as error:
        found["elsewhere"] = str(error)

    compiled = TensorFlowRuntime(path, shapes, COMPILED, xla=True)
    compiled.warm_up(*size, shapes)
    traces = [compiled._signature.experimental_get_tracing_count()]
    differences = [
        float(np.abs(compiled.predict(batch[:count]).probabilities - expected[count - 1]).max())
        for count in range(1, COMPILED + 1)
    ]
    found["traces"] = [*traces, compiled._signature.experimental_get_tracing_count()]
    found["xla"] = max(differences)

    mixed = TensorFlowRuntime(path, shapes, LARGEST, mixed_precision=True)
    mixed.warm_up(*size, shapes)
    found["mixed"] = float(np.abs(mixed.predict(batch).probabilities - expected[-1]).max())
    try:
        TensorFlowRuntime(path, shapes, LARGEST, device=Device.GPU)
    except RuntimeUnusable as error:
        found["gpu"] = str(error)
    return found


if __name__ == "__main__":
    # The same on a machine with a GPU.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
