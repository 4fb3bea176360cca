"""``python -m training fit | audit | crossval | evaluate | export | compare``."""

import argparse
import errno
import os
import re
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

from contract.errors import StoreError
from contract.manifest import MODEL_NAME_PATTERN, VERSION_PATTERN
from training.catalogue import load_recipe
from training.errors import TrainingError
from training.recipe import MAX_RESOLUTION, MIN_RESOLUTION, SEEDS, Recipe

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a write to an open file ends with, which may name no file."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    fit = commands.add_parser("fit", help="train a recipe")
    _add_recipe_and_data(fit, out="a new folder for the run, or that of a run to go on with")
    fit.add_argument(
        "--protocol",
        choices=["clean", "published", "grouped"],
        default="clean",
        help="clean (the default) tests on folders named Testing, and trains on nothing like them; "
        "grouped draws the test from all folders, as data without Testing need; published tests on "
        "Testing and leaves near duplicates of it in training",
    )
    fit.add_argument(
        "--hold-out",
        action="append",
        default=[],
        metavar="NAME",
        help="data set to test on alone; with --protocol grouped; may come again",
    )
    fit.add_argument("--resume", action="store_true", help="go on with the run in --out")
    fit.add_argument("--seed", type=_seed, help="instead of the recipe's")
    _add_overrides(fit)
    fit.add_argument(
        "--strategy",
        choices=["none", "mirrored", "multiworker"],
        default="none",
        help="all GPUs of this machine, or the workers that TF_CONFIG lists",
    )
    fit.add_argument(
        "--start-timeout",
        type=_positive,
        default=600,
        metavar="SECONDS",
        help="how long multiworker waits until all workers have read their data (default: 600)",
    )

    crossval = commands.add_parser(
        "crossval", help="train and test by patient-wise folds, or by repeated splits of groups"
    )
    _add_recipe_and_data(crossval, out="a folder for the runs; what is there is gone on with")
    crossval.add_argument(
        "--repeats", type=_positive, default=5, help="splits of data without folds (default: 5)"
    )
    _add_overrides(crossval)

    audit = commands.add_parser("audit", help="find duplicates; writes audit.json and a PNG")
    _add_data(audit)
    audit.add_argument(
        "--out",
        type=_folder,
        default=Path("runs/audit"),
        metavar="DIR",
        help="folder for audit.json and the picture (default: runs/audit)",
    )

    evaluate = commands.add_parser("evaluate", help="test a finished run, once; writes report/")
    evaluate.add_argument(
        "--run", type=Path, required=True, metavar="runs/NAME", help="what fit wrote"
    )
    evaluate.add_argument(
        "--beside",
        type=Path,
        metavar="runs/OTHER",
        help="evaluated run of the other protocol, clean or published, to show beside this one",
    )
    evaluate.add_argument(
        "--foreign",
        type=Path,
        metavar="DIR",
        help="pictures that are no brain MRI, a folder a kind; needs a recipe with a mask head",
    )
    evaluate.add_argument(
        "--answers-of",
        type=Path,
        metavar="runs/OTHER",
        help="evaluated run with the same weights: keep its answers but for what is in distribution",
    )
    evaluate.add_argument(
        "--left-out",
        type=Path,
        action="append",
        default=[],
        metavar="runs/OTHER",
        help="evaluated run with --hold-out, for the model card; may come again",
    )

    export = commands.add_parser("export", help="publish an evaluated run as a version")
    export.add_argument(
        "--run", type=Path, required=True, metavar="runs/NAME", help="what evaluate has tested"
    )
    export.add_argument(
        "--store",
        type=Path,
        default=Path("model_store"),
        metavar="DIR",
        help="folder of versions, BRAIN_MODEL_STORE of the service (default: model_store)",
    )
    export.add_argument(
        "--name",
        type=_model_name,
        default="brain-tumor",
        help="of the model, BRAIN_MODEL of the service (default: brain-tumor)",
    )
    export.add_argument("--version", type=_version, help="the next free number if not given")
    export.add_argument(
        "--other-classes",
        action="store_true",
        help="publish though the newest version of that name has other classes, instead of refusing",
    )
    export.add_argument(
        "--allow-float",
        action="store_true",
        help="publish a float32 LiteRT file where the int8 one strays, instead of refusing",
    )

    compare = commands.add_parser("compare", help="add runs to the table of all that were compared")
    compare.add_argument(
        "runs",
        type=Path,
        nargs="*",
        metavar="runs/NAME",
        help="evaluated runs, cross-validations, versions in a store; without any, the page that is "
        "there is written again",
    )
    compare.add_argument(
        "--out",
        type=Path,
        default=Path("runs/compare.md"),
        metavar="FILE",
        help="the page; beside it, under the same name, go its picture, .png, and what it has shown "
        "so far, .json (default: runs/compare.md)",
    )
    compare.add_argument(
        "--step",
        action="append",
        default=[],
        metavar="RECIPE",
        help="measure one step of a recipe at its full size; may come again",
    )
    return parser


def _folder(text: str) -> Path:
    """A folder that is there or can be made."""
    path = Path(text)
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{there} is no folder")
    return path


def _positive(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _version(text: str) -> int:
    if not re.fullmatch(VERSION_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on, of up to 9 digits")
    return int(text)


def _model_name(text: str) -> str:
    if not re.fullmatch(MODEL_NAME_PATTERN, text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name of a model: lower-case letters, digits, and . _ - between"
        )
    return text


def _seed(text: str) -> int:
    return _between(text, 0, SEEDS - 1)


def _resolution(text: str) -> int:
    return _between(text, MIN_RESOLUTION, MAX_RESOLUTION)


def _between(text: str, least: int, most: int) -> int:
    if not re.fullmatch("0|[1-9][0-9]{0,9}", text) or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from {least} to {most}")
    return int(text)


def _add_recipe_and_data(command: argparse.ArgumentParser, out: str) -> None:
    command.add_argument(
        "--recipe",
        required=True,
        help="name of one in training/recipes, or a path to your own, which ends in .toml",
    )
    _add_data(command)
    command.add_argument("--out", type=_folder, required=True, metavar="runs/NAME", help=out)


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="a data set: class folders, or index.csv, see docs/training-data.md; may come again",
    )


def _add_overrides(command: argparse.ArgumentParser) -> None:
    command.add_argument("--epochs", type=_positive, help="of every phase, instead of the recipe's")
    command.add_argument(
        "--resolution",
        type=_resolution,
        help=f"of every phase, {MIN_RESOLUTION} to {MAX_RESOLUTION} pixels, instead of the recipe's",
    )
    command.add_argument(
        "--weights", help="instead of the recipe's: imagenet, none, a package's name or a file"
    )
    command.add_argument(
        "--mixed-precision",
        dest="precision",
        nargs="?",
        const="mixed_float16",
        choices=["mixed_float16", "mixed_bfloat16"],
        help="layers compute in half precision: mixed_float16 (the default) suits GPUs, "
        "mixed_bfloat16 processors with AVX512-BF16",
    )


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    """What the command line says instead of the recipe."""
    names = ("epochs", "resolution", "seed", "weights", "precision")
    return {n: getattr(options, n) for n in names if getattr(options, n, None) is not None}


def _require_startpoint(recipe: Recipe, download: bool = True) -> None:
    """Raises TrainingError where there is no such backbone, or what it starts from cannot be had."""
    from training.backbones import backbone
    from training.weights import require_weights

    backbone(recipe.backbone)
    require_weights(recipe.backbone, recipe.weights, download)


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns its exit code.

    What can go wrong ends it with a line: a full disk or a folder that cannot be read, too.
    """
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        # Imported per command: the audit needs no TensorFlow, whose import takes seconds.
        if options.command == "fit":
            from training.cluster import cluster
            from training.prepare import as_begun, prepare
            from training.run import Run, held
            from training.splits import Protocol

            overrides = _overrides(options)
            recipe = load_recipe(options.recipe, overrides)
            writes = options.strategy != "multiworker" or cluster().place == 0
            with held(options.out) if writes else nullcontext():
                if writes:
                    # To read the data takes minutes.
                    Run.require_startable(options.out, options.resume)
                if not (options.resume and Run.begun(options.out)):
                    # The first use of a GPU, or of other workers, is the strategy's.
                    _require_startpoint(recipe, download=options.strategy == "none")
                roots = as_begun(options.out, options.data) if options.resume else options.data
                prepared = prepare(recipe, roots, Protocol(options.protocol), options.hold_out)
                from training.fit import begin, train
                from training.strategy import Strategy, StrategyName

                strategy = Strategy(StrategyName(options.strategy), options.start_timeout)
                config = prepared.config.model_copy(update={"overrides": overrides})
                run = begin(options.out, config, options.resume, strategy)
                train(run, prepared.images, prepared.audit.alike, prepared.parts, strategy)
        elif options.command == "crossval":
            from training.crossval import crossval

            overrides = _overrides(options)
            recipe = load_recipe(options.recipe, overrides)
            _require_startpoint(recipe)
            crossval(recipe, options.data, options.out, options.repeats, overrides)
        elif options.command == "audit":
            from training.contactsheet import run_audit

            run_audit(options.data, options.out)
        elif options.command == "evaluate":
            from training.evaluate import evaluate
            from training.run import Run, held

            Run.open(options.run)  # A folder that is not there must not be made.
            with held(options.run):
                evaluate(
                    options.run,
                    options.beside,
                    options.foreign,
                    options.answers_of,
                    options.left_out,
                )
        elif options.command == "export":
            from contract.store import ModelStore
            from training.export import export
            from training.run import Run, held

            store = ModelStore(options.store)
            Run.open(options.run)  # As above.
            with held(options.run):
                export(
                    options.run,
                    store,
                    options.name,
                    options.version,
                    allow_float=options.allow_float,
                    other_classes=options.other_classes,
                )
        elif options.command == "compare":
            from training.compare import compare

            compare(options.runs, options.out, options.step)
    except (TrainingError, StoreError, OSError) as error:
        print(f"error: {_told(error, options)}", file=sys.stderr)
        return 1
    return 0


def _told(error: Exception, options: argparse.Namespace) -> str:
    """What an error says, in a line; of a full disk also where."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        # Of each file that was not copied: both ends, and the reason, which may name them.
        source, target, reason = map(str, error.args[0][0])
        return reason if source in reason or target in reason else f"{reason}: '{target}'"
    if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
        written = next(getattr(options, n) for n in ("out", "store", "run") if hasattr(options, n))
        return f"{error}: '{written}'"
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
