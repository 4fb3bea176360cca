"""The client in docs/client.md runs as it stands there."""

import re
from contextlib import redirect_stdout
from io import StringIO

import pytest

from tests.support.service import ROOT, serving, settings_for

PAGE = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")


def test_the_client_predicts(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(ROOT)
    with (
        serving(settings_for(ROOT / "model_store")) as service,
        redirect_stdout(StringIO()) as said,
    ):
        address = f"http://{service.client.base_url.netloc.decode()}"
        assert code.count("http://127.0.0.1:8000") == 1
        exec(code.replace("http://127.0.0.1:8000", address), {})  # noqa: S102 - a page of this project
    assert re.fullmatch(r"Te-gl_0014\.jpg tumor 0\.\d+\n", said.getvalue())
