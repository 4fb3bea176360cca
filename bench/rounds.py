"""The run itself: rounds over all contenders, each started, driven, weighed and stopped in turn."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.contenders import LABEL, SERVICE, SERVICE_FIELD, Peer, Variant, model_environment
from bench.environments import FOLDER, ROOT, python
from bench.forms import encode
from bench.load import LoadError, Plan
from bench.machine import busy_share
from bench.results import CLIENTS, Ceiling, Row, Sample
from bench.server import Driven, Server, StartError, environment, free_port

CEILING_SECONDS: Final = 240
"""Limit for one bare loop, its loading included."""

MODES: Final = {
    Variant.LITERT_HALVED: ("processes", "threads"),
    Variant.LITERT: ("processes",),
    Variant.TENSORFLOW: ("batches",),
}
"""Of the bare loop; TensorFlow takes all cores from one process."""


class LoopError(Exception):
    """The bare loop failed; the message is the last that it said."""


@dataclass(frozen=True, slots=True)
class Options:
    """How much is done.

    Attributes:
        rounds: how often each contender runs.
        seconds: of one load, warm-up included.
        warm_up: seconds at the start of each load that do not count.
        first_load: seconds of the warm-up right after a start.
        version: folder of the model version.
        service_python: interpreter of this service's environment.
        files: the images.
    """

    rounds: int
    seconds: int
    warm_up: float
    first_load: int
    version: Path
    service_python: Path
    files: Sequence[Path]


@dataclass(slots=True)
class Contender:
    """A server and how to reach it: this service or a peer.

    Attributes:
        path, answer, input_name: as of :class:`bench.contenders.Peer`.
        labels: the right one for each image.
        command: its command line.
        environment: given a port, beyond what every server gets.
        rows: one for each form.
        plans: likewise.
    """

    key: str
    path: str
    answer: str
    input_name: str
    labels: Sequence[str]
    command: Sequence[str]
    environment: Callable[[int], Mapping[str, str]]
    rows: list[Row]
    plans: list[Plan] = field(default_factory=list)


def service(options: Options, labels: Sequence[str], rows: list[Row]) -> Contender:
    """This service, as ``make serve`` starts it."""
    name, store = options.version.parent.name, options.version.parent.parent

    def settings(port: int) -> dict[str, str]:
        return {
            "BRAIN_PORT": str(port),
            "BRAIN_MODEL_STORE": str(store),
            "BRAIN_MODEL": name,
            "BRAIN_MODEL_VERSION": options.version.name,
        }

    command = [str(options.service_python), "-m", "service"]
    return Contender(SERVICE, "/predict", LABEL, SERVICE_FIELD, labels, command, settings, rows)


def peer(options: Options, which: Peer, folder: Path, labels: Sequence[str], row: Row) -> Contender:
    """A peer in its environment."""

    def settings(port: int) -> dict[str, str]:
        return which.environment(options.version, port)

    command = [str(python(folder)), "-m", f"bench.peers.{which.module}"]
    return Contender(
        which.key, which.path, which.answer, which.field, labels, command, settings, [row]
    )


def prepare(contender: Contender, files: Sequence[Path]) -> None:
    """Writes the bodies that it will get."""
    patterns = [contender.answer.replace("{label}", label) for label in contender.labels]
    for row in contender.rows:
        folder = FOLDER / "bodies" / f"{contender.key}-{row.form.name.lower()}"
        shutil.rmtree(folder, ignore_errors=True)
        bodies = [encode(file.read_bytes(), row.form, contender.input_name) for file in files]
        contender.plans.append(Plan.write(folder, bodies, patterns))


def rotated(items: Sequence[Contender], number: int, rounds: int) -> list[Contender]:
    """The order of one round; over all rounds each contender comes early and late."""
    shift = number * len(items) // max(1, rounds)
    return [*items[shift:], *items[:shift]]


def run(
    contenders: Sequence[Contender],
    ceilings: Sequence[Ceiling],
    pythons: Mapping[Variant, Path],
    options: Options,
    say: Callable[[str], None],
) -> list[float]:
    """All rounds; fills in rows and ceilings.

    Returns:
        The busy share of the machine before each round.
    """
    busy = []
    for number in range(options.rounds):
        busy.append(busy_share())
        say(f"round {number + 1} of {options.rounds}; the machine is {busy[-1]:.0%} busy")
        for contender in rotated(contenders, number, options.rounds):
            take(contender, options, say)
        for ceiling in ceilings:
            climb(ceiling, pythons[ceiling.variant], options, say)
    return busy


def take(contender: Contender, options: Options, say: Callable[[str], None]) -> None:
    """One contender in one round; what it cannot do is noted in its rows."""
    try:
        samples = _sample(contender, options)
    except (StartError, LoadError, subprocess.TimeoutExpired) as error:
        for row in contender.rows:
            row.failure = str(error)
        say(f"  {contender.key}: {error}")
        return
    for row, sample in zip(contender.rows, samples, strict=True):
        row.samples.append(sample)
        rates = " / ".join(f"{sample.driven[n].measurement.throughput:.0f}" for n in CLIENTS)
        measured = [driven.measurement for driven in sample.driven.values()]
        wrong = next((seen.first_wrong for seen in measured if seen.first_wrong), "")
        say(
            f"  {contender.key} ({row.form}): {rates} a second, "
            f"{sample.driven[max(CLIENTS)].cpu_ms:.2f} CPU-ms, "
            f"cold {sample.cold_seconds:.2f} s, PSS {sample.memory.proportional / 1e6:.0f} MB"
            + (f", WRONG: {wrong}" if wrong else "")
        )


def climb(
    ceiling: Ceiling, interpreter: Path, options: Options, say: Callable[[str], None]
) -> None:
    """The bare loop in one mode, once."""
    seconds = str(options.seconds - options.warm_up)
    what = "rate", ceiling.mode, seconds
    try:
        answer = _bare_loop(interpreter, ceiling.variant, options.version, options.files, *what)
    except LoopError as error:
        ceiling.failure = str(error)
        say(f"  bare loop ({ceiling.variant}, {ceiling.mode}): {error}")
        return
    ceiling.rates.append(float(answer["images_per_second"]))
    say(f"  bare loop ({ceiling.variant}, {ceiling.mode}): {ceiling.rates[-1]:.0f} images/s")


def right_labels(
    interpreter: Path, variant: Variant, version: Path, files: Sequence[Path]
) -> list[str]:
    """What the artifact itself says of each image, decoded as the variant does.

    Raises:
        LoopError: it says nothing.
    """
    labels: list[str] = _bare_loop(interpreter, variant, version, files, "labels")["labels"]
    return labels


def _bare_loop(
    interpreter: Path, variant: Variant, version: Path, files: Sequence[Path], *what: str
) -> dict[str, Any]:
    """What :mod:`bench.ceiling` says in an environment."""
    with subprocess.Popen(  # noqa: S603 - the project's own module
        [interpreter, "-m", "bench.ceiling", *what, *files],
        env=environment(ROOT, model_environment(version, variant)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=CEILING_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise LoopError(f"not done after {CEILING_SECONDS} s") from error
        finally:
            # Its own processes as well: they would run beside the next measurement.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        last = errors.strip().splitlines()[-1:]
        raise LoopError(*last or (f"status {process.returncode}",))
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer


def _sample(contender: Contender, options: Options) -> list[Sample]:
    port = free_port()
    folder = FOLDER / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    logs = FOLDER / "logs"
    logs.mkdir(exist_ok=True)
    with Server(
        contender.command,
        environment(ROOT, contender.environment(port)),
        # Ours reads nothing from its folder; peers may write into theirs.
        folder,
        logs / f"{contender.key}.log",
        port,
    ) as server:
        first = encode(options.files[0].read_bytes(), contender.rows[0].form, contender.input_name)
        right = contender.answer.replace("{label}", contender.labels[0])
        cold_seconds = server.await_answer(contender.path, first, right)
        driven: list[dict[int, Driven]] = []
        for plan in contender.plans:
            server.drive(contender.path, plan, max(CLIENTS), 0, options.first_load)
            driven.append(
                {
                    clients: server.drive(
                        contender.path, plan, clients, options.warm_up, options.seconds
                    )
                    for clients in CLIENTS
                }
            )
        memory = server.memory()
    return [Sample(one, cold_seconds, memory) for one in driven]
