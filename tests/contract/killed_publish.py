"""Kills a publish before each of its file operations, and says what the store holds then.

Run as a program of its own, single-threaded, so that it can fork: one child for each operation.
Writes a JSON list to standard output, one entry for each child.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from contract.errors import ContractError
from contract.store import STAGING_PREFIX, ModelStore
from tests.contract.versions import NAME, publish

KILLED = 9
OPERATIONS = {"open", "os.chmod", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}


def publish_until(store: ModelStore, operation: int) -> None:
    """Publishes version 2, and exits on the spot before that file operation in the store."""
    count = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in OPERATIONS and str(arguments[0]).startswith(str(store.root)):
            count += 1
            if count == operation:
                os._exit(KILLED)

    sys.addaudithook(watch)
    publish(store, version=2)


def trial(root: Path, operation: int) -> dict[str, object]:
    """What a publish that is killed at an operation leaves, and whether the next one works."""
    store = ModelStore(root)
    publish(store, version=1)
    child = os.fork()
    if child == 0:
        publish_until(store, operation)
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
            publish(store, version=2)
        store.load(NAME, 2)
    except ContractError as error:
        outcome["error"] = repr(error)
    return outcome


def main() -> None:
    """Goes on until a publish is not killed any more."""
    outcomes: list[dict[str, object]] = []
    while not outcomes or outcomes[-1]["exit"] == KILLED:
        with tempfile.TemporaryDirectory() as folder:
            outcomes.append(trial(Path(folder), len(outcomes) + 1))
    sys.stdout.write(json.dumps(outcomes))


if __name__ == "__main__":
    main()
