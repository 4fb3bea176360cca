"""Asks a vulnerability service about everything that the service's lock pins.

Exits with 1 where a pinned version has a known vulnerability, and with 2 where the audit itself failed.
Where no service answers, or it knows none of the packages, as behind a mirror that holds packages
alone, that is said, and is not called sound.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

LOCK: Final = Path(__file__).resolve().parents[1] / "requirements" / "service.txt"
TIMEOUT_SECONDS: Final = 120

UNREACHABLE: Final = (
    "Couldn't connect",
    "requests.exceptions.ConnectionError",
    "requests.exceptions.Timeout",
    "requests.exceptions.ConnectTimeout",
    "requests.exceptions.ReadTimeout",
    "_service.interface.ConnectionError",
)
"""How pip-audit's error output tells that nobody answered, handled by it or not."""


class AuditFailed(Exception):
    """The packages were not checked, and not for want of a service."""


def audit(lock: Path) -> list[dict[str, Any]] | None:
    """What pip-audit says of each package of a lock; None if nobody answers it.

    Raises:
        AuditFailed: pip-audit is not there, does not take the lock, or breaks.
    """
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--require-hashes"]
    command += ["--disable-pip", "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    return packages_in(done.stdout, done.stderr)


def packages_in(output: str, errors: str) -> list[dict[str, Any]] | None:
    """The packages in what pip-audit printed.

    Args:
        output: its standard output.
        errors: its standard error output.

    Returns and raises:
        As :func:`audit`.
    """
    try:
        found: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        if any(sign in errors for sign in UNREACHABLE):
            return None
        lines = errors.strip().splitlines() or ["pip-audit said nothing"]
        raise AuditFailed(lines[-1]) from error
    if not found:
        raise AuditFailed("the lock holds no package")
    return found


def main(lock: Path = LOCK) -> int:
    """Prints what was found; returns the process' exit status."""
    try:
        packages = audit(lock)
    except AuditFailed as error:
        print(f"not checked: {error}", file=sys.stderr)
        return 2
    checked = [package for package in packages or [] if "skip_reason" not in package]
    if packages is None or not checked:
        print("skipped: no vulnerability service answers here")
        return 0
    affected = [package for package in checked if package["vulns"]]
    for package in affected:
        names = ", ".join(found["id"] for found in package["vulns"])
        print(f"{package['name']} {package['version']}: {names}")
    print(
        f"{len(checked)} of {len(packages)} packages checked, {len(affected)} with vulnerabilities"
    )
    return 1 if affected else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.vulnerabilities", description=__doc__.splitlines()[0]
    )
    parser.add_argument("lock", nargs="?", type=Path, default=LOCK, help="default: the service's")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main(_arguments().lock))
