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

from bench.contenders import LABEL, Variant
from bench.environments import ROOT
from bench.forms import Form, encode
from bench.load import Measurement, Plan
from bench.processes import take_charge
from bench.report import table
from bench.rounds import right_labels
from bench.server import Server, environment, free_port
from bench.slices import PUBLIC, SHIPPED, choose
from bench.summary import Figure, ratio
from bench.terminal import positive, say
from contract.errors import ContractError
from contract.store import ModelStore

CLIENTS: Final = (1, 8, 32)
WARM_UP_SECONDS: Final = 0.5
IMAGES: Final = 32
STORE: Final = ROOT / "model_store"
MODEL: Final = "brain-tumor"


def main() -> int:
    """Measures and prints a table."""
    options = _arguments()
    take_charge()
    files = choose([PUBLIC, SHIPPED], IMAGES).files
    bodies = [encode(file.read_bytes(), Form.RAW, "") for file in files]
    labels = right_labels(
        Path(sys.executable), Variant.LITERT_HALVED, STORE / MODEL / options.version, files
    )
    patterns = [LABEL.replace("{label}", label) for label in labels]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plan = Plan.write(folder / "plan", bodies, patterns)
        trees = {options.commit: unpacked(options.archive, folder / "tree"), "now": ROOT}
        servers: dict[str, Server] = {}
        for name, tree in trees.items():
            port = free_port()
            variables = {
                "BRAIN_PORT": str(port),
                "BRAIN_MODEL_STORE": str(STORE),
                "BRAIN_MODEL_VERSION": options.version,
            }
            command = [sys.executable, "-m", "service"]
            log = folder / f"{len(servers)}.log"
            server = Server(command, environment(tree, variables), tree, log, port)
            servers[name] = stack.enter_context(server)
            seconds = server.await_answer("/predict", bodies[0], patterns[0])
            say(f"{name}: first answer after {seconds:.2f} s")
        seen: dict[tuple[str, int], list[Measurement]] = {}
        for number in range(options.rounds):
            for clients in CLIENTS:
                for name in sorted(servers, reverse=number % 2 == 1):
                    driven = servers[name].drive(
                        "/predict", plan, clients, WARM_UP_SECONDS, options.seconds
                    )
                    seen.setdefault((name, clients), []).append(driven.measurement)
    rows = []
    for clients in CLIENTS:
        before, now = seen[options.commit, clients], seen["now", clients]
        rates = [[one.throughput for one in loads] for loads in (before, now)]
        ratios = [ratio(ours, theirs) for theirs, ours in zip(*rates, strict=True)]
        wrong = [str(sum(one.wrong + one.broken for one in loads)) for loads in (before, now)]
        figures = *(Figure.of(each).text() for each in rates), Figure.of(ratios).text(2)
        rows.append([f"{clients} client(s)", *figures, " and ".join(wrong)])
    head = ["right answers a second", options.commit, "now", "ratio", "wrong or broken"]
    say(table(head, rows))
    return 0


def archived(commit: str) -> bytes:
    """A tar archive of a commit's files.

    Raises:
        ValueError: there is no such commit; the message is git's.
    """
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", "--end-of-options", commit]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603
    if done.returncode:
        raise ValueError(" ".join(done.stderr.decode().split()))
    return done.stdout


def unpacked(archive: bytes, folder: Path) -> Path:
    """The folder, with the archive's files."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.turns", description=__doc__.splitlines()[0]
    )
    parser.add_argument("commit", help="what to compare with, as git names it")
    parser.add_argument("--rounds", type=positive, default=4)
    parser.add_argument("--seconds", type=positive, default=2, help="of each load")
    parser.add_argument("--version", default="latest", help=f"of {MODEL}")
    options = parser.parse_args()
    try:
        options.archive = archived(options.commit)
        options.version = str(ModelStore(STORE).resolve(MODEL, options.version))
    except (ValueError, ContractError) as error:
        parser.error(str(error))
    return options


if __name__ == "__main__":
    sys.exit(main())
