"""A real Prometheus of Debian, with the stack's alert rules, in a folder of its own."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from scripts.ports import free_port
from tests.support.programs import found, needs
from tests.support.service import PATIENCE_SECONDS, ROOT, wait_until

FOLDER = ROOT / "deploy" / "prometheus"

needs_prometheus = needs("prometheus")
"""Of Debian's package of that name."""

INTERVAL = "500ms"
"""Between two scrapes, each of which may take as long, and between two looks at the rules."""


@dataclass(frozen=True)
class Prometheus:
    """One that runs.

    Attributes:
        client: of its HTTP API.
    """

    client: httpx.Client

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples that an expression has now, each with ``metric`` and ``value``.

        Raises:
            ValueError: it is no expression, or fails; with what Prometheus says of it.
        """
        answer = self.client.post("/api/v1/query", data={"query": expression}).json()
        if answer["status"] != "success":
            raise ValueError(f"{answer['error']}: {expression}")
        samples: list[dict[str, Any]] = answer["data"]["result"]
        return samples

    def series(self, selector: str) -> list[dict[str, str]]:
        """Labels of all series that a selector has met since the start."""
        answer = self.client.get("/api/v1/series", params={"match[]": selector}).json()
        found_series: list[dict[str, str]] = answer["data"]
        return found_series


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Runs one that scrapes a service as the stack's does, but more often.

    Args:
        folder: for its files; new.
        target: host and port of the service.
    """
    folder.mkdir()
    configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
    configuration["global"] = {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL}
    configuration["global"]["scrape_timeout"] = INTERVAL
    configuration["rule_files"] = [str(FOLDER / name) for name in configuration["rule_files"]]
    configuration["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    program = found("prometheus")
    assert program is not None, "prometheus is not installed"
    command = [
        program,
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (
        (folder / "stderr").open("wb") as stderr,
        subprocess.Popen(command, stderr=stderr) as child,
        httpx.Client(base_url=f"http://{address}", timeout=PATIENCE_SECONDS) as client,
    ):
        try:
            wait_until(lambda: child.poll() is not None or _ready(client))
            assert child.poll() is None, (folder / "stderr").read_text("utf-8")
            yield Prometheus(client)
        finally:
            child.terminate()


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False
