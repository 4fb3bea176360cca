"""``make clean`` leaves what was not made by the Makefile's other commands, and runs."""

import subprocess
from pathlib import Path

from tests.support.service import ROOT


def test_all_environments_and_caches_go_and_runs_stay(tmp_path: Path) -> None:
    (tmp_path / "Makefile").symlink_to(ROOT / "Makefile")
    gone = (".venv", ".venv-test", ".bench", ".mypy_cache", "build", "service/__pycache__")
    for name in (*gone, "runs", "service"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "file").touch()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {"Makefile", "runs", "runs/file", "service", "service/file"}
