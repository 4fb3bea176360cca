"""What the service is made of, and whether anything in it is known to be vulnerable."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts import vulnerabilities
from tests.project.test_locks import pinned


def test_the_bill_of_materials_has_every_package_of_the_lock(tmp_path: Path) -> None:
    out = tmp_path / "sbom.json"
    command = [sys.executable, "-m", "cyclonedx_py", "environment", sys.executable, "-o", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    found = {
        part["name"].lower().replace("_", "-").replace(".", "-"): part["version"]
        for part in json.loads(out.read_text())["components"]
    }
    # uvloop and the like are not for every system.
    wanted = {name: version for name, version in pinned("service").items() if name in found}
    assert len(wanted) > 25
    assert {name: found[name] for name in wanted} == wanted
    assert pinned("service").keys() - found.keys() <= {"colorama", "win32-setctime"}


def package(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "vulns": [], **fields}


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        (None, 0, "skipped: no vulnerability service answers here"),
        ([package("a", skip_reason="not found")], 0, "skipped: no vulnerability service"),
        ([package("a"), package("b", skip_reason="no")], 0, "1 of 2 packages checked, 0 with"),
        ([package("a", vulns=[{"id": "CVE-1"}])], 1, "a 1.0: CVE-1"),
    ],
    ids=["no answer", "nothing known", "sound", "vulnerable"],
)
def test_what_was_not_checked_is_not_called_sound(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    packages: list[dict[str, Any]] | None,
    status: int,
    said: str,
) -> None:
    monkeypatch.setattr(vulnerabilities, "audit", lambda: packages)
    assert vulnerabilities.main() == status
    assert said in capsys.readouterr().out
