"""schemathesis against the service's own OpenAPI document: what it allows, and what it does not."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pacs import pacs, pacs_settings
from tests.support.service import ROOT, FakeRuntimes, serving

EXAMPLES = 60
OPERATIONS = 14

# A body of an image is any bytes to OpenAPI, and an image is not any bytes: such a refusal is right.
UNFIT = "positive_data_acceptance"


@pytest.mark.slow
def test_no_operation_breaks_its_contract(store_copy: Path, tmp_path: Path) -> None:
    # A store of its own: some operations move an alias.
    with (
        pacs() as destination,
        serving(pacs_settings(store_copy, tmp_path, destination.url), FakeRuntimes()) as service,
    ):
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json"]
        command += ["--max-examples", str(EXAMPLES), "--seed", "20261125", "--no-color"]
        command += ["--generation-database", "none", "--exclude-checks", UNFIT]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ
            | {"SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert service.client.get("/health").status_code == 200
        assert service.metric("brain_errors_total", code="internal_error") == 0
    assert re.search(rf"Tested: +{OPERATIONS}\b", done.stdout)
    generated = re.search(r"(\d+) generated", done.stdout)
    assert generated
    assert int(generated[1]) > OPERATIONS * EXAMPLES / 2
