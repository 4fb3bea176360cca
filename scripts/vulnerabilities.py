"""Asks a vulnerability service about everything that the service's lock pins.

usage: python -m scripts.vulnerabilities

Exits with 1 where a pinned version has a known vulnerability. Where no service answers for a package,
as behind a mirror that holds packages alone, that is said, and counts as not checked.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

LOCK: Final = Path(__file__).resolve().parents[1] / "requirements" / "service.txt"
TIMEOUT_SECONDS: Final = 120


def audit() -> list[dict[str, Any]] | None:
    """What pip-audit says of each package; None if it cannot ask anybody."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--require-hashes"]
    command += ["--disable-pip", "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, json.JSONDecodeError, KeyError):
        return None
    return found


def main() -> int:
    """Prints what was found; returns the process' exit status."""
    packages = audit()
    checked = [package for package in packages or [] if "skip_reason" not in package]
    if not packages or not checked:
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


if __name__ == "__main__":
    sys.exit(main())
