"""For each real slice, both runtimes' labels and their largest difference in probability."""

from pathlib import Path

import numpy as np

from contract.store import ModelStore
from service.choices import RuntimeChoice
from service.runtimes import open_runtime
from tests.support.inputs import preprocessed
from tests.support.service import MODEL, newest, settings_for


def agreement(root: Path) -> list[tuple[int, int, float]]:
    """Of the newest version in a store."""
    stored = ModelStore(root).load(MODEL, newest(root))
    batch = preprocessed(stored.preprocess)
    outputs = [
        open_runtime(settings_for(root, runtime=choice, max_batch_size=16), stored).predict(batch)
        for choice in (RuntimeChoice.LITERT, RuntimeChoice.TENSORFLOW)
    ]
    return [
        (int(one.argmax()), int(other.argmax()), float(np.abs(one - other).max()))
        for one, other in zip(*(output.probabilities for output in outputs), strict=True)
    ]
