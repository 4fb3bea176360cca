"""What the shipped model makes of whole volumes without a tumour: ``python -m scripts.normal_volumes``.

A volume is a folder of slices in the order of their names, neighbours beside each other. Everything
that is called a tumour in it is a false positive.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contract.answer import DECIMALS, Decision, Rules
from contract.decoding import decode
from contract.errors import DecodeError, StoreError, UndecodableImage
from contract.preprocessing import DicomReference, preprocess
from contract.series import score_series
from contract.store import ModelStore
from service.choices import RuntimeChoice
from service.runtimes import open_runtime
from service.settings import Settings

STORE = Path(__file__).resolve().parents[1] / "model_store"
MODEL = "brain-tumor"
PLACE = DicomReference(None, None, 1, None)


def main() -> int:
    """Prints a line for each volume; returns the process' exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.normal_volumes", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--version", default="latest")
    arguments = parser.parse_args()
    try:
        measure(arguments.folders, arguments.version)
    except (OSError, DecodeError, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def measure(folders: Sequence[Path], version: str) -> None:
    """Prints what a version makes of each volume.

    Raises:
        OSError: a folder cannot be read, or has no slices.
        DecodeError: a slice is none.
        StoreError: the version cannot be had.
    """
    slices = {folder: slices_of(folder) for folder in folders}
    store = ModelStore(STORE)
    stored = store.load(MODEL, store.resolve(MODEL, version))
    rules = Rules.read(stored)
    settings = Settings(model_store=STORE, runtime=RuntimeChoice.LITERT)
    runtime = open_runtime(settings, stored)
    for folder, paths in slices.items():
        pixels = [preprocess(upright(path), stored.preprocess) for path in paths]
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


def upright(path: Path) -> NDArray[np.uint8]:
    """A slice as its file shows it.

    Raises:
        OSError: the file cannot be read.
        UndecodableImage: it is no slice.
    """
    try:
        return decode(path.read_bytes()).upright
    except DecodeError as error:
        raise UndecodableImage(f"{path}: {error}") from error


def slices_of(folder: Path) -> list[Path]:
    """The slices of a volume, in their order.

    Raises:
        OSError: the folder cannot be read, or has none.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix == ".jpg")
    if not paths:
        raise FileNotFoundError(f"{folder} has no .jpg files")
    return paths


if __name__ == "__main__":
    sys.exit(main())
