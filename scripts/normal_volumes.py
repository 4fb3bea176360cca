"""What the shipped model makes of whole volumes without a tumour: ``python -m scripts.normal_volumes``.

A volume is a folder of slices in the order of their names, neighbours beside each other. Everything
that is called a tumour in it is a false positive.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from contract.answer import DECIMALS, Decision, Rules
from contract.decoding import decode
from contract.preprocessing import DicomReference, preprocess
from contract.series import score_series
from contract.store import ModelStore
from service.choices import RuntimeChoice
from service.runtimes import open_runtime
from service.settings import Settings

STORE = Path("model_store")
MODEL = "brain-tumor"
PLACE = DicomReference(None, None, 1, None)


def main() -> None:
    """Prints a line for each volume."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--version", default="latest")
    arguments = parser.parse_args()
    store = ModelStore(STORE)
    stored = store.load(MODEL, store.resolve(MODEL, arguments.version))
    rules = Rules.read(stored.manifest, stored.path)
    settings = Settings(model_store=STORE, runtime=RuntimeChoice.LITERT)
    runtime = open_runtime(settings, stored)
    for folder in arguments.folders:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".jpg")
        pixels = [
            preprocess(decode(path.read_bytes()).upright, stored.preprocess) for path in paths
        ]
        size = runtime.batch_sizes[-1]
        batches = [np.stack(pixels[start : start + size]) for start in range(0, len(pixels), size)]
        answers = [rules.answer(runtime.predict(batch)) for batch in batches]
        probabilities = np.concatenate([answer.tumor_probability for answer in answers])
        places = [replace(PLACE, instance_number=number) for number in range(len(paths))]
        score = score_series(places, probabilities.tolist())
        decisions = [decision for answer in answers for decision in answer.decisions]
        tumors, referred = decisions.count(Decision.TUMOR), decisions.count(Decision.REFER)
        series = rules.decide(round(score.tumor_probability, DECIMALS))
        print(
            f"{folder.name}: {len(paths)} slices, {tumors} called a tumour, {referred} referred; "
            f"highest of a slice {probabilities.max():.3f}, "
            f"of the series {score.tumor_probability:.3f} (slices {score.window}): {series}"
        )


if __name__ == "__main__":
    main()
