"""What the images and the compose stack must stay: not root, nothing to write to, this machine only."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.catalogue import CODES, catalogue
from service.cores import available_cores
from service.metrics import Metrics
from service.settings import PREFIX, Settings
from tests.support.programs import needs

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = [ROOT / "Dockerfile", ROOT / "deploy" / "prometheus" / "Dockerfile"]
PROMETHEUS = ROOT / "deploy" / "prometheus"

ALLOWED_KEYS = {
    *("build", "image", "environment", "depends_on", "ports", "volumes", "restart"),
    *("read_only", "tmpfs", "cap_drop", "security_opt", "stop_grace_period"),
    *("mem_limit", "pids_limit", "cpu_period", "cpu_quota"),
}
"""Of a service of the stack: nothing that gives it more of the host, such as ``privileged``."""


def last_stage(path: Path) -> list[str]:
    """Instructions of the stage that becomes the image, a continued line as one."""
    text = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    start = max(i for i, line in enumerate(lines) if line.startswith("FROM"))
    return lines[start:]


def stack() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    return content


@pytest.mark.parametrize("path", DOCKERFILES, ids=["service", "prometheus"])
def test_image_does_not_run_as_root(path: Path) -> None:
    users = [line.split()[1] for line in last_stage(path) if line.startswith("USER")]
    assert users
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", users[-1])


@pytest.mark.parametrize("path", DOCKERFILES, ids=["service", "prometheus"])
def test_image_starts_without_a_shell_and_has_a_health_check(path: Path) -> None:
    stage = last_stage(path)
    (start,) = [line for line in stage if line.startswith(("CMD", "ENTRYPOINT"))]
    (health,) = [line for line in stage if line.startswith("HEALTHCHECK")]
    assert re.fullmatch(r"(CMD|ENTRYPOINT) \[.*\]", start)
    assert re.search(r"CMD \[.*\]$", health)


@pytest.mark.parametrize("path", DOCKERFILES, ids=["service", "prometheus"])
@pytest.mark.parametrize("status", [200, 503])
def test_health_check_asks_no_proxy(path: Path, status: int) -> None:
    """Docker gives containers the proxy that its client is configured with."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    (health,) = [line for line in last_stage(path) if line.startswith("HEALTHCHECK")]
    _, flag, program = json.loads(health[health.index("CMD ") + 4 :])
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever).start()
        port = str(server.server_port)
        away = "http://127.0.0.1:9"
        environment = {**os.environ, "BRAIN_PORT": port, "http_proxy": away, "HTTP_PROXY": away}
        environment.pop("no_proxy", None)
        environment.pop("NO_PROXY", None)
        command = [sys.executable, flag, program.replace(":9090", f":{port}")]
        try:
            result = subprocess.run(
                command, env=environment, capture_output=True, timeout=60, check=False
            )
        finally:
            server.shutdown()
    assert (result.returncode == 0) is (status == 200), result.stderr


def test_service_image_holds_what_serves_and_nothing_else() -> None:
    copied = [line.split()[-2] for line in last_stage(DOCKERFILES[0]) if line.startswith("COPY")]
    assert copied == ["/opt/venv", "/app", "model_store"]
    assert "--require-hashes -r /build/service.txt" in DOCKERFILES[0].read_text(encoding="utf-8")
    assert "STOPSIGNAL SIGTERM" in last_stage(DOCKERFILES[0])


@pytest.mark.parametrize("name", ["service", "prometheus"])
def test_container_is_locked_down(name: str) -> None:
    service = stack()["services"][name]
    assert service.keys() <= ALLOWED_KEYS
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    # Who opens the service to others has keys for it; Prometheus has none.
    bind = {"service": "BIND", "prometheus": "PROMETHEUS_BIND"}[name]
    assert all(port.startswith(f"${{{bind}:-127.0.0.1}}:") for port in service["ports"])


@pytest.mark.parametrize("path", DOCKERFILES, ids=["service", "prometheus"])
def test_what_an_image_copies_is_sent_to_the_engine(path: Path) -> None:
    """Whoever adds a COPY has to let it through ``.dockerignore``, which names what is not ignored."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in lines
    sent = [Path(line[1:]) for line in lines if line.startswith("!")]
    ignored = [line for line in lines if line[:1] not in ("", "!", "#") and line != "*"]
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", path.read_text("utf-8"), re.MULTILINE)
    sources = [Path(source) for line in copies for source in line.split()]
    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        assert any(source.is_relative_to(folder) for folder in sent), f"{source} is ignored"
        assert not any(source.match(pattern) for pattern in ignored), f"{source} is ignored"


def test_on_a_large_host_the_service_counts_the_cores_that_its_memory_is_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = stack()["services"]["service"]
    # The engine does not start a container with more "cpus" than the host has; a quota it takes.
    assert "cpus" not in service
    quota, period = service["cpu_quota"], service["cpu_period"]
    # docker-compose 1.29 takes a word with a unit, Compose v2 one without, both of them a number.
    assert isinstance(quota, int)
    assert isinstance(period, int)
    cpu_max = tmp_path / "cpu.max"
    cpu_max.write_text(f"{quota} {period}\n", encoding="ascii")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert service["mem_limit"] == "1536m"
    assert available_cores(cpu_max) == 4


def test_prometheus_scrapes_the_service_of_the_stack() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "brain-mri"
    assert job["static_configs"] == [{"targets": ["service:8000"]}]
    assert config["rule_files"] == ["alerts.yml"]


@needs("promtool")
def test_promtool_accepts_the_section_for_an_alertmanager(tmp_path: Path) -> None:
    text = (PROMETHEUS / "prometheus.yml").read_text("utf-8")
    with_section = re.sub(r"^# (?=alerting:| )", "", text, flags=re.MULTILINE)
    (managers,) = yaml.safe_load(with_section)["alerting"]["alertmanagers"]
    assert managers["static_configs"]
    (tmp_path / "prometheus.yml").write_text(with_section, encoding="utf-8")
    shutil.copy(PROMETHEUS / "alerts.yml", tmp_path)
    promtool(tmp_path, "check config prometheus.yml")


@needs("promtool")
@pytest.mark.parametrize(
    "command",
    ["check config prometheus.yml", "test rules alerts_test.yml"],
    ids=["config", "alerts"],
)
def test_promtool_accepts(command: str) -> None:
    promtool(PROMETHEUS, command)


def promtool(folder: Path, command: str) -> None:
    result = subprocess.run(
        ["promtool", *command.split()], cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_alerts_ask_for_metrics_that_the_service_has() -> None:
    text = (PROMETHEUS / "alerts.yml").read_text(encoding="utf-8")
    asked = set(re.findall(r"\b(?:brain|process)_\w+", text))
    exposed, _ = Metrics().render("")
    kinds = re.findall(r"^# TYPE (\w+) (\w+)", exposed.decode(), re.MULTILINE)
    suffixes = {"histogram": ("_bucket", "_sum", "_count")}
    assert asked
    assert asked <= {name + suffix for name, kind in kinds for suffix in suffixes.get(kind, ("",))}


def test_alerts_ask_for_codes_that_the_service_has() -> None:
    text = (PROMETHEUS / "alerts.yml").read_text(encoding="utf-8")
    lists = [names.split("|") for names in re.findall(r'code=~?"([^"]+)"', text)]
    assert {code for names in lists for code in names} <= set(CODES)
    statuses = {entry.code: set(entry.statuses) for entry in catalogue()}
    own_faults = {code for code, its_statuses in statuses.items() if its_statuses == {500}}
    refused = {code for code, its_statuses in statuses.items() if its_statuses & {401, 403, 429}}
    assert own_faults in map(set, lists)
    assert refused in map(set, lists)


def in_container(text: str, **variables: str) -> dict[str, str]:
    """The service's environment in the stack, as Compose fills it in: without a value as it is."""
    environment = yaml.safe_load(text)["services"]["service"]["environment"]
    return {
        name: variables[name]
        if value is None
        else re.sub(
            r"\$\{(\w+):-([^}]*)\}", lambda match: variables.get(match[1]) or match[2], value
        )
        for name, value in environment.items()
        if value is not None or name in variables
    }


def settings_in_container(monkeypatch: pytest.MonkeyPatch, text: str, **variables: str) -> Settings:
    for name in os.environ:
        if name.startswith("BRAIN_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BRAIN_HOST", "0.0.0.0")  # noqa: S104 - as the image has it
    for name, value in in_container(text, **variables).items():
        monkeypatch.setenv(name, value)
    return Settings.from_environment()


def test_the_stack_starts_with_keys_as_well_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    open_to_all = settings_in_container(monkeypatch, text)
    assert (open_to_all.allow_anonymous, open_to_all.api_keys_file) == (True, None)
    keys = {"BRAIN_ALLOW_ANONYMOUS": "false", "BRAIN_API_KEYS_FILE": "/etc/brain-mri/keys.txt"}
    guarded = settings_in_container(monkeypatch, text, **keys)
    assert (guarded.allow_anonymous, guarded.api_keys_file) == (
        False,
        Path("/etc/brain-mri/keys.txt"),
    )


def test_the_stack_hands_on_the_names_that_it_is_called_by(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    unset = settings_in_container(monkeypatch, text)
    named = settings_in_container(monkeypatch, text, BRAIN_ALLOWED_HOSTS="mri.example.org")
    assert (unset.allowed_hosts, named.allowed_hosts) == (
        frozenset(),
        frozenset({"mri.example.org"}),
    )


def test_what_is_commented_out_of_the_stack_works(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    # Its only example of a path that is no default.
    (audit_log,) = re.findall(r"^ +# .* (/\S+\.log)\.$", text, re.MULTILINE)
    text = re.sub(r"^( +)# (?=volumes:|  - |spool:|audit:)", r"\1", text, flags=re.MULTILINE)
    whole = yaml.safe_load(text)
    volumes = [volume.split(":") for volume in whole["services"]["service"]["volumes"]]
    assert {source for source, *_ in volumes} - set(whole["volumes"]) == {"./keys.txt"}
    settings = settings_in_container(monkeypatch, text, BRAIN_AUDIT_LOG=audit_log)
    assert settings.audit_log is not None
    mounted = {Path(target) for _, target, *_ in volumes}
    assert {settings.spool.parent, settings.audit_log.parent} <= mounted
    made = next(line for line in last_stage(DOCKERFILES[0]) if "useradd" in line)
    assert str(settings.spool.parent) in made
    assert str(settings.audit_log.parent) in made
    page = (ROOT / "docs" / "installation.md").read_text("utf-8")
    assert "BRAIN_API_KEYS_FILE=/etc/brain-mri/keys.txt docker compose up" in page
    assert Path("/etc/brain-mri/keys.txt") in mounted


def test_the_stack_hands_on_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    named = stack()["services"]["service"]["environment"].keys()
    settings = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    # Which address and port it has inside its container is the image's business.
    assert settings - named == {"BRAIN_HOST", "BRAIN_PORT"}
    assert named <= settings
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    given = settings_in_container(monkeypatch, text, BRAIN_TUMOR_THRESHOLD="0.4", BRAIN_WATCH="")
    assert (given.tumor_threshold, given.watch) == (0.4, False)


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="not installed: docker-compose")
def test_compose_hands_on_what_is_set_and_nothing_else() -> None:
    variables = {name: value for name, value in os.environ.items() if name[:6] != PREFIX}
    result = subprocess.run(
        ["docker-compose", "--file", ROOT / "docker-compose.yml", "config"],
        env=variables | {"BRAIN_TUMOR_THRESHOLD": "0.4"},
        capture_output=True,
        text=True,
        check=True,
    )
    environment = yaml.safe_load(result.stdout)["services"]["service"]["environment"]
    assert environment["BRAIN_TUMOR_THRESHOLD"] == "0.4"
    given = {name for name, value in environment.items() if value is not None}
    defaults = {"ALLOW_ANONYMOUS", "MAX_BODY_BYTES", "MAX_BUFFERED_BYTES", "SPOOL"}
    assert given == {f"{PREFIX}{name}" for name in {*defaults, "TUMOR_THRESHOLD"}}


def test_what_patients_wait_for_outlives_the_stack() -> None:
    """``down --volumes`` removes every volume that is not external."""
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    volumes = yaml.safe_load(re.sub(r"^( +)# (?=spool:|audit:)", r"\1", text, flags=re.MULTILINE))[
        "volumes"
    ]
    assert volumes.pop("prometheus") is None
    assert volumes.keys() == {"spool", "audit"}
    page = (ROOT / "docs" / "installation.md").read_text("utf-8")
    for volume in volumes.values():
        assert volume["external"] is True
        assert f"docker volume create {volume['name']}" in text
        assert f"docker volume create {volume['name']}" in page


def test_only_the_stack_lets_anybody_in() -> None:
    """Its port is published on this machine; an image that somebody runs elsewhere wants API keys."""
    environment = stack()["services"]["service"]["environment"]
    assert environment["BRAIN_ALLOW_ANONYMOUS"] == "${BRAIN_ALLOW_ANONYMOUS:-true}"
    instructions = "\n".join(last_stage(DOCKERFILES[0]))
    assert "BRAIN_HOST=0.0.0.0" in instructions
    assert "BRAIN_ALLOW_ANONYMOUS" not in instructions
