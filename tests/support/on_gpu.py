"""Runs the SavedModel on a GPU with each setting and prints what came of it, a line of JSON."""

import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from contract.decoding import decode
from contract.preprocessing import preprocess
from contract.store import ModelStore
from service.choices import Device, RuntimeChoice
from service.runtimes import open_runtime
from service.runtimes.tensorflow import import_tensorflow
from tests.support.service import MODEL, ROOT, newest, settings_for

LARGEST = 6


def main(root: Path) -> dict[str, Any]:
    """Of the newest version in a store.

    Returns:
        ``auto``: runtime and device that the defaults come to; ``differences``: of each pair of XLA and
        mixed precision, the largest between a probability on the GPU and on the processor;
        ``memory``: bytes of the GPU that TensorFlow has taken, and those that the GPU has.
    """
    stored = ModelStore(root).load(MODEL, newest(root))
    files = sorted((ROOT / "tests" / "data" / "slices").glob("*/*.jpg"))[:LARGEST]
    batch = np.stack(
        [preprocess(decode(file.read_bytes()).pixels, stored.preprocess) for file in files]
    )
    tensorflow = {"runtime": RuntimeChoice.TENSORFLOW, "max_batch_size": LARGEST}
    on_processor = open_runtime(settings_for(root, **tensorflow, device=Device.CPU), stored)
    expected = on_processor.predict(batch).probabilities
    chosen = open_runtime(settings_for(root, runtime=RuntimeChoice.AUTO), stored)
    differences = {}
    for xla, mixed in product([False, True], repeat=2):
        changes = {"device": Device.GPU, "xla": xla, "mixed_precision": mixed}
        runtime = open_runtime(settings_for(root, **tensorflow, **changes), stored)
        found = runtime.predict(batch).probabilities
        differences[f"xla {xla}, mixed precision {mixed}"] = float(np.abs(found - expected).max())
    tf = import_tensorflow()
    return {
        "on_processor": on_processor.device,
        "auto": [chosen.name, chosen.device],
        "differences": differences,
        "peak_bytes": tf.config.experimental.get_memory_info("GPU:0")["peak"],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
