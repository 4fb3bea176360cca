"""The destination's address, and answers that are too large or never end."""

from pathlib import Path

import pytest

from service.settings import Settings, SettingsError


@pytest.mark.parametrize("end", ["?x=1", "#a", "?", "/?a=b#c"])
def test_an_address_that_nothing_can_be_added_to_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str
) -> None:
    monkeypatch.setenv("BRAIN_SPOOL", str(tmp_path))
    monkeypatch.setenv("BRAIN_DICOMWEB_URL", f"https://pacs.example/dicom-web{end}")
    with pytest.raises(SettingsError, match=r"^BRAIN_DICOMWEB_URL: an address without a query"):
        Settings.from_environment()
