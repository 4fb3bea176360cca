"""docs/pacs.md names every variable of Orthanc's configuration, with its default."""

import re

from scripts.orthanc import CONFIGURATION, ROOT
from service.settings import PREFIX

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


def test_none_of_them_looks_like_a_setting_of_the_service() -> None:
    assert [name for name in VARIABLES if name.startswith(PREFIX)] == []
