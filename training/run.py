"""A training run's folder: what it is, how far it got, its best weights.

``run.json`` says what the run is; ``progress.npz`` holds everything that the next epoch depends on;
``best.npz`` the weights that did best on validation, and ``restart.npz``, where another figure ends
a phase than chooses the best, those that the next phase starts from. Each is written aside and
renamed, so that a run killed at any moment goes on from its last whole epoch.
"""

import fcntl
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.manifest import DataSource
from training.departure import differences
from training.errors import RunError, brief
from training.files import load_arrays, save_arrays, tidy, write_aside
from training.progress import Better, Progress
from training.recipe import Recipe
from training.splits import Protocol

PACKAGES: Final = ("tensorflow", "tensorflow_cpu", "keras", "numpy", "pillow", "ai-edge-litert")
ARTIFACTS: Final = "artifacts"
REPORT: Final = "report"
RUN_FILE: Final = "run.json"
_PROGRESS: Final = "progress.npz"
_BEST: Final = "best.npz"
_RESTART: Final = "restart.npz"
SHARED: Final = ("recipe", "protocol", "held_out", "data", "splits", "truth", "probe_digest")
"""What of a run's description all that train it must have alike."""


_OTHER: Final = {
    "recipe": "another recipe",
    "protocol": "another protocol",
    "held_out": "other data sets held out",
    "data": "other data",
    "splits": "another split",
}
"""What makes another run, in the order in which it is asked: what comes first decides what follows."""


class RunConfig(BaseModel):
    """What a run is; resuming with another one is refused.

    Attributes:
        held_out: data sets that are test as a whole.
        data: what was read, with digests.
        roots: the folders it was read from, for ``evaluate`` and ``export``.
        splits: sha256 of the files in each part, sorted by their order of reading.
        probe_digest: what this installation's preprocessing makes of a slice; see
            :func:`contract.preprocessing.probe_digest`. None in runs older than this record.
        packages: versions of what the run began with, by name; likewise.
        truth: what the data say of their images; see :func:`training.truth.truth_digest`; likewise.
        never_shown: classes of which no training image is.
        overrides: what the command line said instead of the recipe's file; see
            :func:`training.catalogue.load_recipe`. Empty where that is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Recipe
    protocol: Protocol
    held_out: tuple[str, ...] = ()
    data: tuple[DataSource, ...]
    roots: tuple[Path, ...]
    splits: dict[str, tuple[str, ...]]
    probe_digest: str | None = None
    packages: dict[str, str] | None = None
    truth: str | None = None
    never_shown: tuple[str, ...] = ()
    overrides: dict[str, int | str] = Field(default_factory=dict)

    def digests(self) -> dict[str, bytes]:
        """sha256 of each part of the description in :data:`SHARED`."""
        content = self.model_dump(mode="json", include=set(SHARED))
        return {
            name: hashlib.sha256(json.dumps(content[name], sort_keys=True).encode()).digest()
            for name in SHARED
        }


@dataclass(frozen=True)
class Run:
    """A run's folder and what is in it."""

    path: Path
    config: RunConfig

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> Self:
        """Starts a run in a new folder, or in one where none has ended an epoch.

        Raises:
            RunError: the folder already holds one, or what was made of one.
        """
        cls.require_startable(path, resume=False)
        path.mkdir(parents=True, exist_ok=True)
        return cls._described(path, config)

    @classmethod
    def _described(cls, path: Path, config: RunConfig) -> Self:
        write_aside(path / RUN_FILE, config.model_dump_json(indent=1).encode())
        return cls(path, config)

    def moved(self, roots: tuple[Path, ...]) -> Self:
        """The same run on the same data, which lie in other folders now."""
        return self._described(self.path, self.config.model_copy(update={"roots": roots}))

    @staticmethod
    def begun(path: Path) -> bool:
        """Whether the folder holds a run with an epoch to go on from."""
        return (path / RUN_FILE).exists() and (path / _PROGRESS).exists()

    @classmethod
    def require_startable(cls, path: Path, resume: bool) -> None:
        """Asks, before data are read, whether a run can be begun or gone on with in a folder.

        Raises:
            RunError: the folder holds a run that is not to be resumed, or what was made of another one;
                or the one to be resumed is damaged.
        """
        if cls.begun(path):
            if not resume:
                raise RunError(f"{path} holds a run; add --resume to go on with it")
            cls.open(path)
            return
        if (path / _PROGRESS).exists():
            # It is never there before its description.
            raise RunError(f"{path} holds a run without its {RUN_FILE}; choose another folder")
        for name in (ARTIFACTS, REPORT):
            # They would pass for those of the new run.
            if (path / name).exists():
                raise RunError(f"{path} holds {name}/ of an earlier run; choose another folder")

    @classmethod
    def open(cls, path: Path) -> Self:
        """Opens a run that was started before.

        Raises:
            RunError: there is none, or its description is damaged.
        """
        try:
            return cls(path, RunConfig.model_validate_json((path / RUN_FILE).read_bytes()))
        except OSError as error:
            raise RunError(f"{path} holds no run") from error
        except ValidationError as error:
            raise RunError(f"{path / RUN_FILE} is damaged: {brief(error)}") from error

    def require_same(self, config: RunConfig) -> None:
        """Raises RunError when ``config`` would continue another run than this one."""
        for name in _OTHER:
            before, now = getattr(self.config, name), getattr(config, name)
            if before != now:
                what = ""
                if name == "recipe":
                    what = f": {'; '.join(differences(before, now))}"
                elif name == "protocol":
                    what = f": {before}, not {now}"
                elif name == "splits":
                    what = f" of the same images: {_read_otherwise(self.config, config)}"
                elif name == "data":
                    what = f": {_renamed(before, now) or _changed(before, now)}"
                raise RunError(f"{self.path} was started with {_OTHER[name]}{what}")
        if self.config.probe_digest not in (None, config.probe_digest):
            raise RunError(f"{self.path} was started where preprocessing gives other pixels")
        if None not in (self.config.truth, config.truth) and self.config.truth != config.truth:
            why = _read_otherwise(self.config, config)
            raise RunError(f"{self.path} was started with the same images, but {why}")

    def save_progress(self, progress: Progress, variables: Sequence[Any]) -> None:
        """Saves an epoch's end: every variable of the model and the optimiser, in order.

        Raises:
            ValueError: a figure of the history is no number, which JSON has no name for.
        """
        history = json.dumps(progress.history, indent=1, allow_nan=False).encode()
        text = np.frombuffer(json.dumps(asdict(progress)).encode(), np.uint8)
        arrays = {f"v{i:04}": np.asarray(value) for i, value in enumerate(variables)}
        save_arrays(self.path / _PROGRESS, arrays | {"progress": text})
        write_aside(self.path / "history.json", history)

    def load_progress(self) -> tuple[Progress, list[np.ndarray]] | None:
        """What :meth:`save_progress` saved last, or None before the first epoch's end.

        Raises:
            RunError: it is damaged, or of a later release.
        """
        arrays = load_arrays(self.path / _PROGRESS)
        if arrays is None:
            return None
        progress = self._progress(arrays)
        return progress, [arrays[name] for name in sorted(arrays) if name != "progress"]

    def _progress(self, arrays: dict[str, np.ndarray]) -> Progress:
        path = self.path / _PROGRESS
        try:
            content = dict(json.loads(arrays["progress"].tobytes()))
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} is damaged: it does not say how far the run got") from error
        if not content.keys() <= {known.name for known in fields(Progress)}:
            raise RunError(f"{path} was written by a later release of this project")
        return Progress(**content)

    def weights_digest(self) -> str:
        """sha256 of the file of the best weights, in hex; raises as :meth:`load_best`."""
        try:
            with (self.path / _BEST).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise RunError(f"{self.path} has no weights") from error

    def save_weights(self, weights: Sequence[np.ndarray], better: Better) -> None:
        """Keeps the weights, in the model's order, of an epoch that did best on validation so far."""
        arrays = {f"w{i:04}": value for i, value in enumerate(weights)}
        if better.checkpoint:
            save_arrays(self.path / _BEST, arrays)
        if better.stop and self._has_restart:
            save_arrays(self.path / _RESTART, arrays)

    @property
    def _has_restart(self) -> bool:
        recipe = self.config.recipe
        return recipe.stop_monitor != recipe.checkpoint_monitor

    def load_restart(self) -> list[np.ndarray]:
        """The weights that the next phase starts from; raises as :meth:`load_best`."""
        return self._load_weights(_RESTART if self._has_restart else _BEST)

    def load_best(self) -> list[np.ndarray]:
        """The weights that did best on validation.

        Raises:
            RunError: the run has not finished its first epoch, or the file is damaged.
        """
        return self._load_weights(_BEST)

    def _load_weights(self, name: str) -> list[np.ndarray]:
        arrays = load_arrays(self.path / name)
        if arrays is None:
            raise RunError(f"{self.path} has no weights yet")
        return [arrays[name] for name in sorted(arrays)]

    def require_finished(self) -> Progress:
        """The progress of a run that has ended; raises RunError for one that has not."""
        # The variables beside it, which nobody goes on with, are three times the model.
        arrays = load_arrays(self.path / _PROGRESS, only="progress")
        progress = None if arrays is None else self._progress(arrays)
        if progress is None or not progress.finished:
            raise RunError(f"{self.path} is not finished; go on with fit --resume")
        return progress


def _renamed(before: Sequence[DataSource], now: Sequence[DataSource]) -> str:
    """How data sets are called, where nothing else tells two descriptions of data apart."""
    ours, theirs = ({source.digest: source.name for source in data} for data in (before, now))
    if ours.keys() != theirs.keys():
        return ""
    return "; ".join(
        f"the data set {name} is called {theirs[digest]} here; give it by the name {name}"
        for digest, name in ours.items()
        if theirs[digest] != name
    )


def _read_otherwise(before: RunConfig, now: RunConfig) -> str:
    """What may have made something else of the same images."""
    ours, theirs = ([root.name for root in config.roots] for config in (before, now))
    if ours != theirs and sorted(ours) == sorted(theirs):
        return f"--data came in the order {', '.join(ours)}"
    # Files are read, and drawn from, in the order of their names.
    return "the names of files, or their parts, classes, persons or masks, were others"


def _changed(before: Sequence[DataSource], now: Sequence[DataSource]) -> str:
    """Which data sets two descriptions of data differ in, and how."""
    ours, theirs = ({source.name: source for source in data} for data in (before, now))
    told = [f"the data set {name} was not among them" for name in theirs if name not in ours]
    for name, source in ours.items():
        if name not in theirs:
            told.append(f"the data set {name} is not given")
        elif source.images != theirs[name].images:
            told.append(f"{name} held {source.images} images, now {theirs[name].images}")
        elif source.digest != theirs[name].digest:
            told.append(f"{name} holds {source.images} images as before, and not the same ones")
    return "; ".join(told)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keeps every other process from training in a run's folder, or evaluating or exporting it.

    The folder is made if need be, and what a killed process left half-written in it is deleted.

    Raises:
        RunError: one does, or the folder cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise RunError(f"{path} cannot be used: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"another process trains in {path}, evaluates or exports it") from error
        except OSError:
            pass  # Some network file systems lock no folders; there nobody is kept out.
        else:
            for folder in (path, path / ARTIFACTS, path / REPORT):
                tidy(folder)
        yield
    finally:
        os.close(descriptor)


def installed() -> dict[str, str]:
    """Versions of what a run depends on, by name."""
    found = {}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
