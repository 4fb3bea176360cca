"""Environments: each peer in its own, made from its locks; what they weigh and hold."""

import os
import subprocess
from pathlib import Path
from typing import Final

from bench.contenders import Peer

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / ".bench"
"""Environments, bodies, logs and raw results; git ignores it."""

REQUIREMENTS: Final = ROOT / "bench" / "requirements"
BUILD_SECONDS: Final = 1800
REASON_LINES: Final = 3


class NotInstallable(Exception):
    """A peer's environment cannot be made here; the message is the installer's."""


def python(environment: Path) -> Path:
    """Its interpreter."""
    return environment / "bin" / "python"


def build(peer: Peer) -> Path:
    """The peer's environment, made if it is not there or older than its locks.

    Raises:
        NotInstallable: it cannot be made.
    """
    folder = FOLDER / peer.installed_as
    locks = [REQUIREMENTS / name for name in peer.requirements]
    ready = folder / ".ready"
    if ready.is_file() and all(ready.stat().st_mtime >= lock.stat().st_mtime for lock in locks):
        return folder
    FOLDER.mkdir(exist_ok=True)
    try:
        done = subprocess.run(  # noqa: S603 - the project's own script
            [ROOT / "scripts" / "make-env", folder, os.environ.get("PYTHON", ""), *locks],
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotInstallable(f"not done after {BUILD_SECONDS} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise NotInstallable(" ".join(lines[-REASON_LINES:]) or f"status {done.returncode}")
    return folder


def size_bytes(environment: Path) -> int:
    """What its files hold; a file with several names counts once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for folder, _, names in os.walk(environment):
        for name in names:
            status = (Path(folder) / name).lstat()
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += status.st_size
    return total


def versions(environment: Path, packages: list[str]) -> dict[str, str]:
    """Installed versions of those packages that are there."""
    found = {}
    for path in environment.glob("lib/python*/site-packages/*.dist-info"):
        name, _, version = path.name.removesuffix(".dist-info").partition("-")
        found[name.lower().replace("_", "-")] = version
    return {package: found[package] for package in packages if package in found}
