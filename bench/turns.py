"""This service beside that of another commit, by turns: the same load for one and then for the other.

``python -m bench.turns COMMIT``. A machine whose speed changes by the minute says nothing of two runs
apart; each figure here is a ratio of two loads that followed on each other.
"""

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.environments import ROOT
from bench.forms import Form, encode
from bench.load import Plan
from bench.report import table
from bench.server import Server, environment, free_port
from bench.slices import PUBLIC, SHIPPED, choose
from bench.summary import Figure, ratio

CLIENTS: Final = (1, 8, 32)
WARM_UP_SECONDS: Final = 0.5
IMAGES: Final = 32
LABEL: Final = '"label"'


def main() -> int:
    """Measures and prints a table."""
    options = _arguments()
    source = choose([PUBLIC, SHIPPED], IMAGES)
    bodies = [encode(file.read_bytes(), Form.RAW, "") for file in source.files]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plan = Plan.write(folder / "plan", bodies, [LABEL] * len(bodies))
        trees = {options.commit: _checkout(options.commit, folder / "tree"), "now": ROOT}
        servers: dict[str, Server] = {}
        for name, tree in trees.items():
            port = free_port()
            variables = {
                "BRAIN_PORT": str(port),
                "BRAIN_MODEL_STORE": str(ROOT / "model_store"),
                "BRAIN_MODEL_VERSION": options.version,
            }
            command = [sys.executable, "-m", "service"]
            log = folder / f"{len(servers)}.log"
            server = Server(command, environment(tree, variables), tree, log, port)
            servers[name] = stack.enter_context(server)
            seconds = server.await_answer("/predict", bodies[0], LABEL)
            sys.stdout.write(f"{name}: first answer after {seconds:.2f} s\n")
        rates: dict[tuple[str, int], list[float]] = {}
        for number in range(options.rounds):
            for clients in CLIENTS:
                for name in sorted(servers, reverse=number % 2 == 1):
                    driven = servers[name].drive(
                        "/predict", plan, clients, WARM_UP_SECONDS, options.seconds
                    )
                    rates.setdefault((name, clients), []).append(driven.measurement.throughput)
    rows = []
    for clients in CLIENTS:
        before, now = rates[options.commit, clients], rates["now", clients]
        ratios = [ratio(ours, theirs) for ours, theirs in zip(now, before, strict=True)]
        figures = Figure.of(before).text(), Figure.of(now).text(), Figure.of(ratios).text(2)
        rows.append([f"{clients} client(s)", *figures])
    sys.stdout.write(table(["answers a second", options.commit, "now", "ratio"], rows) + "\n")
    return 0


def _checkout(commit: str, folder: Path) -> Path:
    """The files of a commit."""
    command = ["git", "-C", str(ROOT), "archive", commit]
    archive = subprocess.run(command, capture_output=True, check=True).stdout  # noqa: S603
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit", help="what to compare with, as git names it")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=2, help="of each load")
    parser.add_argument("--version", default="latest", help="of brain-tumor")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
