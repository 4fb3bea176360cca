"""Where the processor time of one slice goes, stage by stage, in one thread and without HTTP.

usage: python -m bench.stages [VERSION-FOLDER ...]

Each stage is the service's own code, run on the same real slices again and again; the figure is the
median over the passes of the mean over the slices. What a request costs beyond these stages, the
benchmark's "CPU an answer" tells.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

from bench.environments import ROOT
from bench.slices import PUBLIC, SHIPPED, choose
from contract.answer import Rules
from contract.decoding import open_source
from contract.policy import DEFAULT_POLICY
from contract.preprocessing import preprocess_placed
from contract.region import Geometry
from contract.store import ModelStore
from service.answers import Answer, MaskForm
from service.runtimes.base import served_shapes
from service.runtimes.litert import Interpreter

IMAGES: Final = 27
PASSES: Final = 15


def stages(folder: Path) -> dict[str, float]:
    """Milliseconds of each stage for one slice, of a version in its store.

    Raises:
        ContractError: the version is not sound.
    """
    stored = ModelStore(folder.parents[1]).load(folder.parent.name, int(folder.name))
    rules = Rules.read(stored)
    spec = stored.preprocess
    artifact = stored.path / stored.manifest.artifacts["litert"]
    interpreter = Interpreter(artifact, served_shapes(stored.manifest))
    files = [path.read_bytes() for path in choose([PUBLIC, SHIPPED], IMAGES).files]

    def decode(data: bytes) -> Any:
        return open_source(data, spec, DEFAULT_POLICY).slice(1)

    decoded = [decode(data) for data in files]
    placed = [preprocess_placed(image.upright, spec) for image in decoded]
    inputs = [pixels[None] for pixels, _ in placed]
    outputs = [interpreter.predict(pixels) for pixels in inputs]
    geometries = [
        Geometry.of(image, placement, spec)
        for image, (_, placement) in zip(decoded, placed, strict=True)
    ]
    answers = [Answer.of(o, g, rules) for o, g in zip(outputs, geometries, strict=True)]
    return {
        "decode": _milliseconds(decode, files),
        "preprocess": _milliseconds(lambda image: preprocess_placed(image.upright, spec), decoded),
        "predict": _milliseconds(interpreter.predict, inputs),
        "answer": _milliseconds(
            lambda pair: Answer.of(pair[0], pair[1], rules),
            list(zip(outputs, geometries, strict=True)),
        ),
        "JSON": _milliseconds(lambda a: json.dumps(a.content(MaskForm.NONE)), answers),
    }


def _milliseconds(stage: Callable[[Any], object], items: list[Any]) -> float:
    passes = []
    for _ in range(PASSES):
        start = perf_counter()
        for item in items:
            stage(item)
        passes.append((perf_counter() - start) / len(items))
    return 1000 * median(passes)


def version(text: str) -> Path:
    """A version's folder as a command line names it.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    folder = Path(text).resolve()
    if not folder.name.isdecimal() or not folder.is_dir():
        raise argparse.ArgumentTypeError(f"no folder of a model version: {text}")
    return folder


def main() -> int:
    """Prints the table; returns the process' exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.stages", description=__doc__.splitlines()[0]
    )
    parser.add_argument("version", nargs="*", type=version, help="folder; default: first and last")
    store = ROOT / "model_store" / "brain-tumor"
    newest = ModelStore(store.parent).versions(store.name)[-1]
    folders = parser.parse_args().version or [store / "1", store / str(newest)]
    tables = [stages(folder) for folder in folders]
    names = " | ".join(f"{folder.parent.name} {folder.name}" for folder in folders)
    sys.stdout.write(f"| ms for one slice | {names} |\n|---|{'---:|' * len(folders)}\n")
    for stage in tables[0]:
        cells = " | ".join(f"{table[stage]:.2f}" for table in tables)
        sys.stdout.write(f"| {stage} | {cells} |\n")
    sums = " | ".join(f"{sum(table.values()):.2f}" for table in tables)
    sys.stdout.write(f"| all of them | {sums} |\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
