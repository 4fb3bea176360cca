"""What the service is made of, and whether anything in it is known to be vulnerable."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts import vulnerabilities
from tests.project.test_locks import pinned
from tests.support.service import ROOT


def test_the_bill_of_materials_is_of_the_services_environment(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements", "scripts", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    # That of the tests has more in it, and is not to be rebuilt by one of them.
    options = [f"--old-file={sys.prefix}/.ready", f"TEST_ENV={sys.prefix}"]
    ready = subprocess.run(["make", "--question", ".venv/.ready"], cwd=ROOT, check=False)
    if ready.returncode == 0:
        # `make serve` has made it of the present locks; to make another one takes most of a minute.
        options += [f"--old-file={ROOT}/.venv/.ready", f"SERVICE_ENV={ROOT}/.venv"]
    made = subprocess.run(
        ["make", *options, "sbom", f"PYTHON={sys.executable}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    bill = json.loads((tmp_path / "build" / "sbom.cdx.json").read_bytes())
    assert bill["bomFormat"] == "CycloneDX"
    found = {
        part["name"].lower().replace("_", "-").replace(".", "-"): part
        for part in bill["components"]
    }
    wanted = pinned("service")
    # What installs the others is there as well; colorama is for another system.
    assert found.keys() - wanted.keys() <= {"pip", "setuptools", "wheel"}
    assert wanted.keys() - found.keys() <= {"colorama", "win32-setctime"}
    assert {name: found[name]["version"] for name in wanted.keys() & found.keys()} == {
        name: wanted[name] for name in wanted.keys() & found.keys()
    }
    # protobuf's wheel names none; it is under BSD-3-Clause.
    silent = {name for name in wanted.keys() & found.keys() if not found[name].get("licenses")}
    assert silent <= {"protobuf"}


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
    monkeypatch.setattr(vulnerabilities, "audit", lambda _: packages)
    assert vulnerabilities.main() == status
    assert said in capsys.readouterr().out


def test_an_audit_that_breaks_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = tmp_path / "absent.txt"
    assert vulnerabilities.main(absent) == 2
    assert "not checked" in capsys.readouterr().err
    absent.write_text("")
    assert vulnerabilities.main(absent) == 2


@pytest.mark.parametrize(
    "errors",
    [
        "ERROR:pip_audit._cli:Couldn't connect to the vulnerability service",
        "Traceback\nrequests.exceptions.ConnectionError: Failed to resolve",
    ],
)
def test_nobody_answering_is_told_from_a_tool_that_breaks(errors: str) -> None:
    assert vulnerabilities.packages_in("", errors) is None
    with pytest.raises(vulnerabilities.AuditFailed, match="No module named pip_audit"):
        vulnerabilities.packages_in("", "python: No module named pip_audit")
