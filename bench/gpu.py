"""The service on this machine's GPU, beside the same service on its processor.

usage: python -m bench.gpu [--rounds 2] [--seconds 6] [--version 4] [--images 64]

Each configuration is started, asked for all slices once, driven and stopped, in turn. The model alone
is timed as well, in batches, so that it shows whether the GPU or what is before it sets the limit.
Exits with 1 where a configuration that is to run on a GPU does not, or answers otherwise than
TensorFlow on the processor does.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any, Final

import numpy as np

from bench.environments import FOLDER, ROOT
from bench.forms import Body, Form, encode
from bench.load import Plan
from bench.machine import describe
from bench.processes import take_charge
from bench.report import table
from bench.server import Driven, Server, environment, free_port, post
from bench.slices import PUBLIC, SHIPPED, choose
from bench.summary import percentile
from bench.terminal import longer_than, positive, say
from contract.store import ModelStore
from service.choices import Device
from service.runtimes import open_runtime
from service.settings import Settings

CLIENTS: Final = (1, 8, 32, 64)
"""The last as many as the service lets in by default."""

WARM_UP_SECONDS: Final = 1.0
FIRST_SECONDS: Final = 2
BATCHES: Final = (1, 8, 32)
ALONE_SECONDS: Final = 2.0

CONFIGURATIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "LiteRT, processor": {"BRAIN_RUNTIME": "litert"},
    "TensorFlow, processor": {"BRAIN_RUNTIME": "tensorflow", "BRAIN_DEVICE": "cpu"},
    "TensorFlow, GPU": {"BRAIN_DEVICE": "gpu"},
    "the same, mixed precision": {"BRAIN_DEVICE": "gpu", "BRAIN_MIXED_PRECISION": "true"},
    "the same, XLA": {"BRAIN_DEVICE": "gpu", "BRAIN_XLA": "true"},
    "the same, both": {
        "BRAIN_DEVICE": "gpu",
        "BRAIN_XLA": "true",
        "BRAIN_MIXED_PRECISION": "true",
    },
}
REFERENCE: Final = "TensorFlow, processor"
"""What the others' answers are held against; LiteRT's file is int8 and differs for its own reason."""

MOST_DIFFERENCE: Final = 0.02
"""Of a probability, between the GPU and the processor. Float16 keeps about three digits."""

LIBRARIES: Final = ("LD_LIBRARY_PATH", "XLA_FLAGS", "CUDA_VISIBLE_DEVICES")
"""Where CUDA is, which a server needs to know too."""


@dataclass(slots=True)
class Seen:
    """What one configuration did, over the rounds.

    Attributes:
        device: as answers name it.
        cold_seconds: from the start of the process to the first answer.
        driven: by the number of clients.
        resident: bytes of all its processes, after the loads.
        gpu_megabytes: of the GPU's memory in use while it ran; None where ``nvidia-smi`` does not say.
        probabilities: of every slice, in order, (slices, classes).
        alone: slices a second of the model without a service, by the size of the batch.
    """

    device: str = ""
    cold_seconds: list[float] = field(default_factory=list)
    driven: dict[int, list[Driven]] = field(default_factory=dict)
    resident: int = 0
    gpu_megabytes: int | None = None
    probabilities: list[list[float]] = field(default_factory=list)
    alone: dict[int, float] = field(default_factory=dict)

    def rate(self, clients: int) -> float:
        """Median of the answers a second with 200 and a label."""
        return median(one.measurement.throughput for one in self.driven[clients])

    def latency_ms(self, clients: int, percent: float) -> float:
        """Percentile of all rounds' latencies."""
        pooled = sorted(
            time for one in self.driven[clients] for time in one.measurement.latencies_us
        )
        return percentile(pooled, percent) / 1000

    def difference(self, other: "Seen") -> float:
        """The largest between two probabilities of the same slice and class."""
        return float(np.abs(np.subtract(self.probabilities, other.probabilities)).max())


def main() -> int:
    """Runs it; returns the process' exit status."""
    options = _arguments()
    if options.alone:
        say(json.dumps(alone(options.version, options.images)))
        return 0
    take_charge()
    for name, value in [*describe(), ("GPU", gpu())]:
        say(f"{name}: {value}")
    files = choose([PUBLIC, SHIPPED], options.images).files
    bodies = [encode(file.read_bytes(), Form.RAW, "") for file in files]
    plan = Plan.write(FOLDER / "bodies" / "gpu", bodies, ['"label"'] * len(bodies))
    seen = {name: Seen() for name in CONFIGURATIONS if name in (options.only or CONFIGURATIONS)}
    for number in range(options.rounds):
        for name, one in seen.items():
            measure(name, one, bodies, plan, options)
            if number == 0:
                one.alone = _alone(CONFIGURATIONS[name], options)
            say(f"round {number + 1}, {name}: {_line(one)}")
    say("")
    say(render(seen))
    wrong = list(faults(seen))
    for fault in wrong:
        say(f"WRONG: {fault}")
    return 1 if wrong else 0


def gpu() -> str:
    """Name, memory and driver of the GPU, as its driver's tool gives them; else ``none``."""
    return _nvidia_smi("--query-gpu=name,memory.total,driver_version") or "none"


def measure(
    name: str, seen: Seen, bodies: Sequence[Body], plan: Plan, options: argparse.Namespace
) -> None:
    """One configuration, once."""
    port = free_port()
    command = [sys.executable, "-m", "service"]
    log = FOLDER / "logs" / f"gpu-{list(CONFIGURATIONS).index(name)}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    variables = {
        "BRAIN_PORT": str(port),
        "BRAIN_MODEL_STORE": str(ROOT / "model_store"),
        "BRAIN_MODEL_VERSION": options.version,
        **_libraries(),
        **CONFIGURATIONS[name],
    }
    with Server(command, environment(ROOT, variables), ROOT, log, port) as server:
        seen.cold_seconds.append(server.await_answer("/predict", bodies[0], '"label"'))
        answers = [json.loads(post(port, "/predict", body)[1]) for body in bodies]
        seen.device = answers[0]["model"]["device"]
        seen.probabilities = [
            list(answer["predictions"][0]["probabilities"].values()) for answer in answers
        ]
        server.drive("/predict", plan, max(CLIENTS), 0, FIRST_SECONDS)
        for clients in CLIENTS:
            driven = server.drive("/predict", plan, clients, WARM_UP_SECONDS, options.seconds)
            seen.driven.setdefault(clients, []).append(driven)
        seen.resident = server.memory().resident
        used = _nvidia_smi("--query-gpu=memory.used")
        seen.gpu_megabytes = int(used.split()[0]) if used else None


def alone(version: str, images: int) -> dict[int, float]:
    """Slices a second of the runtime that this process' settings choose, without a service."""
    settings = Settings(model_version=version)
    store = ModelStore(ROOT / "model_store")
    stored = store.load(settings.model, store.resolve(settings.model, version))
    runtime = open_runtime(settings, stored)
    shape = (max(BATCHES), stored.preprocess.height, stored.preprocess.width)
    slices = np.random.default_rng(images).integers(0, 256, shape, np.uint8)
    rates = {}
    for size in BATCHES:
        done, start = 0, perf_counter()
        while perf_counter() - start < ALONE_SECONDS:
            runtime.predict(slices[:size])
            done += size
        rates[size] = done / (perf_counter() - start)
    return rates


def faults(seen: Mapping[str, Seen]) -> Iterator[str]:
    """What is not as it has to be, in words."""
    reference = seen.get(REFERENCE)
    for name, one in seen.items():
        for clients, driven in one.driven.items():
            for run in driven:
                if run.measurement.wrong or run.measurement.broken:
                    yield f"{name}, {clients} clients: {run.measurement.first_wrong or 'broken'}"
        if CONFIGURATIONS[name].get("BRAIN_DEVICE") != Device.GPU:
            continue
        if one.device == Device.CPU:
            yield f"{name} ran on the processor"
        if reference is not None and one.difference(reference) > MOST_DIFFERENCE:
            yield f"{name}: a probability is {one.difference(reference):.4f} off"


def render(seen: Mapping[str, Seen]) -> str:
    """The tables, as Markdown."""
    reference = seen.get(REFERENCE)
    served = [
        [
            name,
            *(f"{one.rate(clients):.0f}" for clients in CLIENTS),
            f"{one.latency_ms(1, 50):.1f}",
            f"{one.latency_ms(32, 99):.0f}",
            f"{min(one.cold_seconds):.1f}",
            f"{one.resident / 1e6:.0f}",
            "-" if one.gpu_megabytes is None else str(one.gpu_megabytes),
            "-" if reference is None else f"{one.difference(reference):.4f}",
        ]
        for name, one in seen.items()
    ]
    head = [
        "",
        *(f"{clients} clients" if clients > 1 else "1 client" for clients in CLIENTS),
        *("p50 alone, ms", "p99 at 32, ms", "first answer, s", "memory, MB", "GPU memory, MB"),
        "largest difference",
    ]
    model = [
        [name, *(f"{one.alone.get(size, float('nan')):.0f}" for size in BATCHES)]
        for name, one in seen.items()
    ]
    heading = ["slices a second, the model alone", *(f"batches of {size}" for size in BATCHES)]
    return f"{table(head, served)}\n\n{table(heading, model)}"


def _line(seen: Seen) -> str:
    rates = " / ".join(f"{seen.rate(clients):.0f}" for clients in CLIENTS)
    return f"{seen.device}, {rates} a second, first answer after {seen.cold_seconds[-1]:.1f} s"


def _alone(configuration: Mapping[str, str], options: argparse.Namespace) -> dict[int, float]:
    command = [sys.executable, "-m", "bench.gpu", "--alone", "--version", options.version]
    done = subprocess.run(  # noqa: S603 - the project's own module
        command,
        env=environment(ROOT, {**_libraries(), **configuration}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        say(f"the model alone: {done.stderr.strip()[-500:]}")
        return {}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {int(size): rate for size, rate in answer.items()}


def _libraries() -> dict[str, str]:
    return {name: os.environ[name] for name in LIBRARIES if name in os.environ}


def _nvidia_smi(query: str) -> str:
    command = ["nvidia-smi", query, "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rounds", type=positive, default=2)
    parser.add_argument(
        "--seconds", type=longer_than(WARM_UP_SECONDS), default=6, help="of each load"
    )
    parser.add_argument("--version", default="latest", help="of brain-tumor")
    parser.add_argument("--images", type=positive, default=64, help="different slices")
    parser.add_argument(
        "--only",
        action="append",
        choices=CONFIGURATIONS,
        metavar="NAME",
        help=f"one of: {'; '.join(CONFIGURATIONS)}",
    )
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
