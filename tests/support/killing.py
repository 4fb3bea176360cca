"""Kills a publish before each of its file operations, and says what the store holds then.

Run as a program of its own, single-threaded, so that it can fork: one child for each operation.
Writes a JSON list to standard output, one entry for each child.

usage: python -m tests.support.killing [RUN]      RUN: folder of an evaluated run, for training export
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from contract.errors import ContractError
from contract.store import STAGING_PREFIX, ModelStore
from tests.contract.versions import NAME, publish

KILLED = 9
OPERATIONS = {"open", "os.chmod", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.utime"}

Publish = Callable[[ModelStore, int], object]
"""Publishes a version of that number."""


def publish_until(tried: Publish, store: ModelStore, operation: int) -> None:
    """Publishes version 2, and exits on the spot before that file operation in the store."""
    count = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in OPERATIONS and str(arguments[0]).startswith(str(store.root)):
            count += 1
            if count == operation:
                os._exit(KILLED)

    sys.addaudithook(watch)
    tried(store, 2)


def trial(tried: Publish, root: Path, operation: int) -> dict[str, object]:
    """What a publish that is killed at an operation leaves, and whether the next one works."""
    store = ModelStore(root)
    publish(store, 1)
    child = os.fork()
    if child == 0:
        publish_until(tried, store, operation)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    after = store.versions(NAME)
    outcome: dict[str, object] = {
        "operation": operation,
        "exit": os.waitstatus_to_exitcode(status),
        "versions": after,
        "staged": any(path.name.startswith(STAGING_PREFIX) for path in (root / NAME).iterdir()),
        "names": store.names(),
        "latest": store.resolve(NAME, "latest"),
    }
    try:
        for version in after:
            store.load(NAME, version)
        if 2 not in after:
            tried(store, 2)
        store.load(NAME, 2)
    except ContractError as error:
        outcome["error"] = repr(error)
    return outcome


def trials(tried: Publish) -> list[dict[str, object]]:
    """Goes on until a publish is not killed any more."""
    outcomes: list[dict[str, object]] = []
    while not outcomes or outcomes[-1]["exit"] == KILLED:
        with tempfile.TemporaryDirectory() as folder:
            outcomes.append(trial(tried, Path(folder), len(outcomes) + 1))
    return outcomes


def require_all_or_nothing(outcomes: list[dict[str, object]], least: int) -> None:
    """Fails the test if any of the killed publishes left what it should not.

    Args:
        outcomes: what the program wrote.
        least: operations that there are at least.
    """
    assert [outcome for outcome in outcomes if "error" in outcome] == []
    assert all(outcome["versions"] in ([1], [1, 2]) for outcome in outcomes)
    assert all(
        outcome["latest"] == (2 if outcome["versions"] == [1, 2] else 1) for outcome in outcomes
    )
    assert all(outcome["names"] == [NAME] for outcome in outcomes)
    killed = outcomes[:-1]
    assert len(killed) >= least, "every file is written, hashed and synced"
    assert any(outcome["staged"] for outcome in killed), "killed in the middle"
    assert [outcome["versions"] for outcome in outcomes[::-1]].index([1]) > 1, "killed at last"
    assert outcomes[-1]["exit"] == 0
    assert outcomes[-1]["versions"] == [1, 2]


def exporting(run: Path) -> Publish:
    """``training export`` of a run."""
    from training.export import export

    return lambda store, version: export(run, store, NAME, version)


def main(arguments: list[str]) -> None:
    """Tries all operations."""
    # Without a run, the store's own publishing of a few small files.
    chosen = exporting(Path(arguments[0])) if arguments else publish
    # What a command prints is not the result.
    result, sys.stdout = sys.stdout, sys.stderr
    result.write(json.dumps(trials(chosen)))


if __name__ == "__main__":
    main(sys.argv[1:])
