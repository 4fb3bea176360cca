"""Builds and starts the containers, asks what the README asks, looks at Prometheus, takes them down.

Needs a Docker engine. Exits with 1, after the containers' last log lines, where something is not as it
should be.
"""

import argparse
import http.client
import json
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable

from scripts.smoke import ROOT, check_readme_curl, status

PROMETHEUS = ("127.0.0.1", 9090)
WITHIN_SECONDS = 60
"""Time that the service has to become ready, and Prometheus to scrape it."""

HARDENED = """
import os, pathlib
lines = pathlib.Path("/proc/self/status").read_text().splitlines()
status = dict(line.split(":\\t", 1) for line in lines)
assert os.getuid() != 0, "it runs as root"
assert int(status["CapBnd"], 16) == 0, "it has capabilities"
assert status["NoNewPrivs"] == "1", "it may gain privileges"
for folder in ("/app", "/opt/venv", "/etc"):
    assert not os.access(folder, os.W_OK), f"it can write to {folder}"
    assert os.statvfs(folder).f_flag & os.ST_RDONLY, "the root file system is not read-only"
"""
"""What holds inside the service's container."""


def main() -> int:
    """Runs the stack and the checks."""
    argparse.ArgumentParser(
        prog="python -m scripts.smoke_stack", description=__doc__.splitlines()[0]
    ).parse_args()
    began = time.monotonic()
    try:
        make("stack", "ARGS=-d")
        print(f"built and started after {time.monotonic() - began:.0f} s")
        wait(lambda: status("/health/ready") == 200, "the service is not ready")
        check_readme_curl()
        subprocess.run(
            ["docker", "exec", container("service"), "python", "-c", HARDENED], check=True
        )
        wait(lambda: value('up{job="brain-mri"}') == 1, "Prometheus does not see the service")
        wait(lambda: value("sum(brain_predictions_total)") == 1, "nor the prediction")
        print("Prometheus scrapes the service and has counted the prediction")
        healthy("prometheus")
    except BaseException:
        for name in ("service", "prometheus"):
            subprocess.run(["docker", "logs", "--tail", "50", container(name)], check=False)
        raise
    finally:
        make("stack-down", "ARGS=--volumes")
    print(f"stack checked in {time.monotonic() - began:.0f} s")
    return 0


def make(*arguments: str) -> None:
    """Runs a command of the Makefile."""
    subprocess.run(["make", *arguments], cwd=ROOT, check=True)


def container(service: str) -> str:
    """Id of the container of a service of the stack."""
    image = {"service": "brain-mri", "prometheus": "brain-mri-prometheus"}[service]
    label = f"label=com.docker.compose.service={service}"
    command = ["docker", "ps", "-aq", "--filter", f"ancestor={image}", "--filter", label]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def healthy(service: str) -> None:
    """Waits for the container's own health check."""
    command = ["docker", "inspect", "--format", "{{.State.Health.Status}}", container(service)]

    def is_healthy() -> bool:
        state = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        return state == "healthy"

    wait(is_healthy, f"the health check of {service} does not pass")


def value(query: str) -> float | None:
    """The one value that Prometheus has for an expression; None as well while it starts."""
    connection = http.client.HTTPConnection(*PROMETHEUS, timeout=5)
    try:
        connection.request("GET", "/api/v1/query?" + urllib.parse.urlencode({"query": query}))
        result = json.loads(connection.getresponse().read())["data"]["result"]
    except (OSError, ValueError):
        return None
    finally:
        connection.close()
    return float(result[0]["value"][1]) if len(result) == 1 else None


def wait(condition: Callable[[], bool], otherwise: str) -> None:
    """Waits until the condition holds, and fails with a message after a minute."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(otherwise)
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
