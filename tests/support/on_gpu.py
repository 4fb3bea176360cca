"""Runs the SavedModel on a GPU with each setting and prints what came of it, a line of JSON."""

import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.store import ModelStore
from service.choices import Device, RuntimeChoice
from service.runtimes import Runtime, open_runtime
from service.runtimes.tensorflow import import_tensorflow
from tests.support.inputs import preprocessed
from tests.support.service import MODEL, newest, settings_for

SLICES = 6


def main(root: Path) -> dict[str, Any]:
    """Of the newest version in a store.

    Returns:
        ``auto``: runtime and device that the defaults come to; ``differences``: of each pair of XLA and
        mixed precision, the largest between a probability on the GPU and on the processor;
        ``on_processor``: the device of the reference; ``peak_bytes``: of the GPU's memory.
    """
    stored = ModelStore(root).load(MODEL, newest(root))
    batch = preprocessed(stored.preprocess)[:SLICES]
    # XLA compiles half a minute for each size of a batch.
    tensorflow = {"runtime": RuntimeChoice.TENSORFLOW, "max_batch_size": 1}
    on_processor = open_runtime(settings_for(root, **tensorflow, device=Device.CPU), stored)
    expected = predicted(on_processor, batch)
    chosen = open_runtime(settings_for(root, runtime=RuntimeChoice.AUTO), stored)
    differences = {}
    for xla, mixed in product([False, True], repeat=2):
        changes = {"device": Device.GPU, "xla": xla, "mixed_precision": mixed}
        runtime = open_runtime(settings_for(root, **tensorflow, **changes), stored)
        found = predicted(runtime, batch)
        differences[f"xla {xla}, mixed precision {mixed}"] = float(np.abs(found - expected).max())
    tf = import_tensorflow()
    return {
        "on_processor": on_processor.device,
        "auto": [chosen.name, chosen.device],
        "differences": differences,
        "peak_bytes": tf.config.experimental.get_memory_info("GPU:0")["peak"],
    }


def predicted(runtime: Runtime, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Class probabilities of slices, one by one."""
    return np.concatenate([runtime.predict(slice_[None]).probabilities for slice_ in batch])


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
