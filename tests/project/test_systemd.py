"""The unit for systemd fits the service, and the steps in docs/installation.md fit the unit."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from service.__main__ import INVALID_SETTINGS, PASSING_FAULT
from service.crowd import most
from service.descriptors import ENOUGH, OTHERS
from service.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "systemd" / "brain-mri.service"
PAGE = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")


def values(name: str) -> list[str]:
    """What the unit assigns to a name, in order."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)


def value(name: str) -> str:
    (only,) = values(name)
    return only


def block(language: str, heading: str, page: str = PAGE) -> str:
    """The block of a language in a section of a page."""
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert isinstance(found, str)
    return found


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Those of the unit and of the page's example of variables."""
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    (tmp_path / "secret").write_text("sesame\n", encoding="utf-8")
    example = block("ini", "Installed with systemd").splitlines()
    for line in [*values("Environment"), *example]:
        name, _, content = line.partition("=")
        secret = name in {"BRAIN_DICOMWEB_PASSWORD_FILE", "BRAIN_DICOMWEB_TOKEN_FILE"}
        monkeypatch.setenv(name, str(tmp_path / "secret") if secret else content)
    return Settings.from_environment()


def test_what_is_written_lies_in_folders_that_systemd_makes(settings: Settings) -> None:
    state, logs = (
        Path("/var/lib", value("StateDirectory")),
        Path("/var/log", value("LogsDirectory")),
    )
    assert settings.spool.is_relative_to(state)
    assert settings.model_store == state / "model_store"
    assert f" {state}/\n" in block("sh", "Installed with systemd")
    assert settings.audit_log is not None
    assert settings.audit_log.parent == logs
    assert value("StateDirectoryMode") == value("LogsDirectoryMode") == "0700"
    assert value("ProtectSystem") == "strict"


def test_it_starts_what_make_sets_up() -> None:
    folder = value("WorkingDirectory")
    assert value("ExecStart") == f"{folder}/.venv/bin/python -m service"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "$(SERVICE_ENV)/bin/python -m service\n" in makefile
    assert "\nSERVICE_ENV := .venv\n" in makefile
    steps = block("sh", "Installed with systemd")
    assert " .venv/.ready " in steps
    assert f"{folder}/deploy/systemd/{UNIT.name} /etc/systemd/system/" in steps
    assert re.search(rf"^useradd .* {value('User')}$", steps, re.MULTILINE)
    assert f"install -m 600 /dev/null {value('EnvironmentFile')}\n" in steps
    assert f"systemctl enable --now {UNIT.stem}\n" in steps


def test_it_is_stopped_as_gently_as_it_stops(settings: Settings) -> None:
    drain_seconds = settings.drain_notice_ms / 1000 + settings.drain_seconds
    assert int(value("TimeoutStopSec")) >= drain_seconds + 10
    stack = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    assert stack["services"]["service"]["stop_grace_period"] == f"{value('TimeoutStopSec')}s"
    # Its workers end when it has taken their last answers.
    assert value("KillMode") == "mixed"


def test_it_may_have_as_many_files_open_as_its_connections_need(settings: Settings) -> None:
    assert int(value("LimitNOFILE")) >= max(ENOUGH, most(settings.max_connections) + OTHERS)
    needed = re.search(r"BRAIN_MAX_CONNECTIONS=(\d+), which needs (\d+)", UNIT.read_text("utf-8"))
    assert needed is not None
    limit = Settings().max_connections
    assert [int(number) for number in needed.groups()] == [limit, most(limit) + OTHERS]


def test_it_starts_again_after_a_crash_but_not_with_wrong_settings() -> None:
    assert value("Restart") == "on-failure"
    assert int(value("RestartPreventExitStatus")) == INVALID_SETTINGS
    assert str(PASSING_FAULT) not in value("RestartPreventExitStatus").split()


def test_a_worker_that_is_ended_for_its_memory_does_not_end_the_service() -> None:
    """The default of many systems is to stop the unit, although the service replaces its workers."""
    assert value("OOMPolicy") == "continue"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="not installed: systemd")
def test_systemd_accepts_it(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    text = UNIT.read_text(encoding="utf-8")
    # What is not installed here.
    unit.write_text(text.replace(value("ExecStart").split()[0], sys.executable), encoding="utf-8")
    result = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_prometheus_of_one_s_own_is_asked_for_the_job_of_the_alerts() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    config = yaml.safe_load(block("yaml", "Scraping without Compose", page))
    own = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text("utf-8"))
    assert config["rule_files"] == own["rule_files"]
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"127.0.0.1:{Settings().port}"]}]
    alerts = (ROOT / "deploy/prometheus/alerts.yml").read_text("utf-8")
    assert set(re.findall(r'job="([^"]+)"', alerts)) == {job["job_name"]}
