"""docs/pacs.md names every variable of Orthanc's configuration, with its default."""

import re

from scripts.orthanc import CONFIGURATION, ROOT
from service.settings import PREFIX, Settings

TEXT = (ROOT / "docs" / "pacs.md").read_text(encoding="utf-8")
VARIABLES = dict(
    re.findall(r"\$\{(\w+)(?::-([^}]*))?\}", CONFIGURATION.read_text(encoding="utf-8"))
)


def test_every_variable_of_orthanc_is_in_the_table() -> None:
    rows = [line.split("|") for line in TEXT.splitlines() if line.startswith("| `ORTHANC_")]
    named = {
        name: default
        for _, names, defaults, *_ in rows
        for name, default in zip(
            re.findall(r"\w{2,}", names), re.findall(r"`([^`]+)`", defaults) or [""], strict=True
        )
    }
    assert named == VARIABLES
    assert len(VARIABLES) >= 10


def test_an_orthanc_that_runs_already_has_as_much_time_for_a_transfer() -> None:
    """By itself it has a minute, in which a large series does not go through a hospital's network."""
    (seconds,) = re.findall(r'"Timeout" : (\d+)', CONFIGURATION.read_text(encoding="utf-8"))
    assert f'"Timeout": {seconds}, ' in TEXT
    # The largest body by 2.5 Mbit/s.
    assert int(seconds) >= Settings().stow_max_body_bytes * 8 / 2.5e6


def test_none_of_them_looks_like_a_setting_of_the_service() -> None:
    assert [name for name in VARIABLES if name.startswith(PREFIX)] == []
