"""``python -m bench``: see ``--help``; ``make bench`` runs it in the service's environment."""

import argparse
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from bench import environments, machine, rounds
from bench.contenders import PEERS, SERVICE, SERVICE_FORMS, Peer, Variant
from bench.environments import FOLDER, ROOT, NotInstallable
from bench.load import Plan, command
from bench.processes import take_charge
from bench.report import Setting, render
from bench.results import Ceiling, Results, Row
from bench.slices import PUBLIC, SHIPPED, Source, choose
from bench.terminal import positive, say
from service.release import RELEASE

IMAGES = 32
WARM_UP_SECONDS = 0.5
CEILING = "ceiling"
KEYS = (SERVICE, CEILING, *(peer.key for peer in PEERS))
SERVICE_CONFIGURATION = (
    "as `make serve` starts it: defaults, one process, a log line for each request"
)


def main() -> int:
    """Runs the benchmark; returns the process' exit status."""
    arguments = _arguments()
    if shutil.which("wrk") is None:
        sys.stderr.write("bench: wrk is not installed (on Debian: apt-get install wrk)\n")
        return 2
    take_charge()
    began = monotonic()
    source = choose(_folders(arguments.data), IMAGES)
    options = _options(arguments, source)
    say(f"{len(source.files)} images from {source.name}, {source.mean_bytes} bytes on average")
    wanted = [peer for peer in PEERS if _wanted(peer.key, arguments.only)]
    folders, rows = _build(wanted)
    results = Results([], [])
    contenders = _contenders(options, wanted, folders, rows, results, arguments.only)
    pythons = _pythons(options, folders)
    if _wanted(CEILING, arguments.only):
        results.ceilings = [
            Ceiling(variant, mode) for variant in pythons for mode in rounds.MODES[variant]
        ]
    busy = rounds.run(contenders, results.ceilings, pythons, options, say)
    text = render(results, _setting(options, source, busy))
    arguments.output.write_text(text, encoding="utf-8")
    say(f"\n{text}\nwritten to {arguments.output} after {(monotonic() - began) / 60:.1f} min")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round; no RESULTS.md")
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=[],
        help=f"some of: {', '.join(KEYS)}; or a prefix, for all that have it",
    )
    parser.add_argument("--rounds", type=positive, help="default 3, or 1 with --quick")
    parser.add_argument(
        "--seconds",
        type=positive,
        help="of one load; default 4, or 2 with --quick",
    )
    parser.add_argument(
        "--version",
        type=Path,
        default=ROOT / "model_store" / "brain-tumor" / "1",
        help="folder of the model version",
    )
    parser.add_argument("--data", type=Path, help="folder of class folders with JPEGs")
    parser.add_argument("--output", type=Path, help="where the report goes")
    arguments = parser.parse_args()
    for name in arguments.only:
        if not any(_wanted(key, [name]) for key in KEYS):
            parser.error(f"--only: {name!r} is none of {', '.join(KEYS)}")
    partial = arguments.quick or arguments.only
    arguments.output = arguments.output or (FOLDER if partial else ROOT / "bench") / "RESULTS.md"
    try:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.open("a").close()
    except OSError as error:
        parser.error(f"--output: {error}")
    return arguments


def _folders(data: Path | None) -> list[tuple[str, Path]]:
    return [(data.name, data)] if data else [PUBLIC, SHIPPED]


def _options(arguments: argparse.Namespace, source: Source) -> rounds.Options:
    quick = arguments.quick
    return rounds.Options(
        rounds=arguments.rounds or (1 if quick else 3),
        seconds=arguments.seconds or (2 if quick else 4),
        warm_up=WARM_UP_SECONDS,
        first_load=1 if quick else 3,
        version=arguments.version.resolve(),
        service_python=Path(sys.executable),
        files=source.files,
    )


def _wanted(key: str, only: list[str]) -> bool:
    """Whether it is named, or begins with what is no name itself."""
    prefixes = tuple(f"{name}-" for name in only if name not in KEYS)
    return not only or key in only or key.startswith(prefixes)


def _build(peers: list[Peer]) -> tuple[dict[str, Path], dict[str, Row]]:
    """Environments by key, and a row for every peer, whether it has one or not."""
    folders, rows = {}, {}
    for peer in peers:
        row = Row(peer.key, peer.name, "", peer.variant, peer.form, peer.configuration)
        rows[peer.key] = row
        try:
            folder = environments.build(peer)
        except NotInstallable as error:
            row.failure = f"cannot be installed here: {error}"
            say(f"{peer.key}: {row.failure}")
            continue
        folders[peer.key] = folder
        row.environment_bytes = environments.size_bytes(folder)
        row.version = environments.versions(folder, [peer.package]).get(peer.package, "")
    return folders, rows


def _pythons(options: rounds.Options, folders: dict[str, Path]) -> dict[Variant, Path]:
    """An interpreter that can run each variant's bare loop: ours, and any peer's with TensorFlow."""
    found = dict.fromkeys((Variant.LITERT_HALVED, Variant.LITERT), options.service_python)
    suffix = f"-{Variant.TENSORFLOW}"
    with_tensorflow = [folder for key, folder in folders.items() if key.endswith(suffix)]
    if with_tensorflow:
        found[Variant.TENSORFLOW] = environments.python(with_tensorflow[0])
    return found


def _contenders(
    options: rounds.Options,
    peers: list[Peer],
    folders: dict[str, Path],
    rows: dict[str, Row],
    results: Results,
    only: list[str],
) -> list[rounds.Contender]:
    """Everyone who can run, ready to be started; their rows go into the results."""
    labels = {
        variant: rounds.right_labels(python, variant, options.version, options.files)
        for variant, python in _pythons(options, folders).items()
    }
    found = []
    if _wanted(SERVICE, only):
        found.append(rounds.service(options, labels[Variant.LITERT_HALVED], _service_rows(options)))
    found += [
        rounds.peer(options, peer, folders[peer.key], labels[peer.variant], rows[peer.key])
        for peer in peers
        if peer.key in folders
    ]
    for contender in found:
        rounds.prepare(contender, options.files)
    results.rows = [row for one in found if one.key == SERVICE for row in one.rows]
    results.rows += rows.values()
    return found


def _service_rows(options: rounds.Options) -> list[Row]:
    folder = options.service_python.parents[1]
    size = environments.size_bytes(folder)
    return [
        Row(SERVICE, "This service", RELEASE, None, form, SERVICE_CONFIGURATION, size)
        for form in SERVICE_FORMS
    ]


def _setting(options: rounds.Options, source: Source, busy: list[float]) -> Setting:
    plan = Plan(Path("PLAN"), "MEDIA-TYPE")
    line = command("http://127.0.0.1:PORT/PATH", plan, 8, options.warm_up, options.seconds)
    words = [word.replace(f"{ROOT}/", "") for word in line]
    return Setting(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        machine=machine.describe(),
        command=" ".join(["python -m bench", *sys.argv[1:]]),
        load_command=" ".join(words),
        images=f"{len(source.files)} JPEGs of 512x512 from {source.name}, "
        f"{source.mean_bytes} bytes on average",
        rounds=options.rounds,
        seconds=options.seconds,
        warm_up=options.warm_up,
        busy_shares=busy,
        model=f"{options.version.parent.name} {options.version.name}",
    )


if __name__ == "__main__":
    sys.exit(main())
