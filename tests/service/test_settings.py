"""Settings: from the environment, strict, immutable; and how many cores there are."""

import codecs
import errno
import os
import socket
import ssl
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import HttpUrl, ValidationError

import service
from service.choices import RuntimeChoice
from service.cores import available_cores
from service.keys import Keyring
from service.pacs.destination import Destination
from service.release import RELEASE
from service.server import check_address
from service.settings import PassingFault, Settings, SettingsError
from tests.support.service import PATIENCE_SECONDS, ROOT, environment_with

SPOOLED = {
    "DICOMWEB_URL": "https://pacs.example/dicom-web",
    "STOW_MAX_BODY_BYTES": "1073741824",
}
"""A destination, and bodies that need 4/3 as many bytes of spool: 1,431,655,766."""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("BRAIN_"):
            monkeypatch.delenv(name)


def test_defaults_listen_on_loopback_only() -> None:
    settings = Settings.from_environment()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.runtime is RuntimeChoice.AUTO
    assert settings.max_wait_ms == 0


def test_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAIN_RUNTIME", "litert")
    monkeypatch.setenv("BRAIN_MODEL_STORE", "/models")
    monkeypatch.setenv("BRAIN_DEADLINE_MS", "250")
    monkeypatch.setenv("BRAIN_PORT", "")
    settings = Settings.from_environment()
    assert settings.runtime is RuntimeChoice.LITERT
    assert settings.model_store == Path("/models")
    assert settings.deadline_ms == 250
    assert settings.port == 8000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BRAIN_MAX_BATCH_SIZ", "8"),
        ("BRAIN_MAX_BATCH_SIZE", "0"),
        ("BRAIN_MAX_FILES", "0"),
        ("BRAIN_LOG_LEVEL", "loud"),
        ("BRAIN_DICOM_UID_ROOT", "1.2."),
        ("BRAIN_DRAIN_NOTICE_MS", "inf"),
        ("BRAIN_DEADLINE_MS", "inf"),
    ],
)
def test_wrong_value_or_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"MAX_BODY_BYTES": "500001", "MAX_BUFFERED_BYTES": "1000001"},
            "BRAIN_MAX_BUFFERED_BYTES must be at least twice BRAIN_MAX_BODY_BYTES",
        ),
        (
            {"STOW_MAX_BODY_BYTES": "1000", "STOW_MAX_INSTANCE_BYTES": "1001"},
            "BRAIN_STOW_MAX_INSTANCE_BYTES must not exceed BRAIN_STOW_MAX_BODY_BYTES",
        ),
        (
            {**SPOOLED, "SPOOL_MAX_BYTES": "1431655764"},
            "BRAIN_STOW_MAX_BODY_BYTES must not exceed 75% of BRAIN_SPOOL_MAX_BYTES",
        ),
        (
            {"DICOMWEB_RETRY_MS": "3000", "DICOMWEB_RETRY_MAX_MS": "2999"},
            "BRAIN_DICOMWEB_RETRY_MS must not exceed BRAIN_DICOMWEB_RETRY_MAX_MS",
        ),
        ({"DICOMWEB_TOKEN": "x"}, "there are credentials of a destination"),
        (
            {"DICOMWEB_USER": "x", "DICOMWEB_PASSWORD": "y"},
            "there are credentials of a destination",
        ),
        (
            {"DICOMWEB_USER": "x"},
            "BRAIN_DICOMWEB_USER and BRAIN_DICOMWEB_PASSWORD go together",
        ),
        ({"DICOM_UID_ROOT": "1.2."}, "BRAIN_DICOM_UID_ROOT: not a UID root"),
    ],
    ids=["memory", "instance", "spool", "waits", "token", "password", "credentials", "root"],
)
def test_what_is_wrong_is_said_in_the_names_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"BRAIN_{name}", value)
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment()
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    "variables",
    [
        {"MAX_BODY_BYTES": "500000", "MAX_BUFFERED_BYTES": "1000000"},
        {"STOW_MAX_BODY_BYTES": "1000", "STOW_MAX_INSTANCE_BYTES": "1000"},
        {**SPOOLED, "SPOOL_MAX_BYTES": "1431655766"},
        {"SPOOL_MAX_BYTES": "1431655764"},
        {"DICOMWEB_RETRY_MS": "3000", "DICOMWEB_RETRY_MAX_MS": "3000"},
        {**SPOOLED, "DICOMWEB_TOKEN": "x"},
    ],
    ids=["memory", "instance", "spool", "nothing is spooled", "waits", "token"],
)
def test_what_just_agrees_is_accepted(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"BRAIN_{name}", value)
    Settings.from_environment()


@pytest.mark.parametrize("end", ["", "\n", "\r\n"], ids=repr)
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["", "mark"])
@pytest.mark.parametrize("name", ["PASSWORD", "TOKEN"])
def test_a_secret_may_lie_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, mark: bytes, end: str
) -> None:
    path = tmp_path / "secret"
    secret_text = {"PASSWORD": "öpen sesame ", "TOKEN": "open-sesame="}[name]
    path.write_bytes(mark + f"{secret_text}{end}".encode())
    variables = {**SPOOLED, f"DICOMWEB_{name}_FILE": str(path)}
    if name == "PASSWORD":
        variables["DICOMWEB_USER"] = "x"
    for setting, value in variables.items():
        monkeypatch.setenv(f"BRAIN_{setting}", value)
    settings = Settings.from_environment()
    secret = {"PASSWORD": settings.dicomweb_password, "TOKEN": settings.dicomweb_token}[name]
    assert secret is not None
    assert secret.get_secret_value() == secret_text
    assert "sesame" not in repr(settings)


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        (b"sesame", {"DICOMWEB_TOKEN": "sesame"}, "BRAIN_DICOMWEB_TOKEN_FILE and BRAIN_DICOMWEB_T"),
        (b"sesame", {"DICOMWEB_USER": "x"}, "BRAIN_DICOMWEB_USER and BRAIN_DICOMWEB_PASSWORD go"),
        (b"sesame\nsesame\n", {}, "BRAIN_DICOMWEB_TOKEN_FILE: "),
        (b"sesame\xff\n", {}, "BRAIN_DICOMWEB_TOKEN_FILE: cannot read "),
        (b"\n", {}, "BRAIN_DICOMWEB_TOKEN_FILE: "),
        (b"", {}, "BRAIN_DICOMWEB_TOKEN_FILE: "),
        (b"changeme\n", {}, "the credentials of BRAIN_DICOMWEB_URL are still a placeholder"),
        (b"...\n", {}, "the credentials of BRAIN_DICOMWEB_URL are still a placeholder"),
        (None, {}, "BRAIN_DICOMWEB_TOKEN_FILE: cannot read "),
        (b"open sesame", {}, "BRAIN_DICOMWEB_TOKEN may hold "),
        ("sesame-öffne".encode(), {}, "BRAIN_DICOMWEB_TOKEN may hold "),
    ],
    ids=[
        *("both", "half", "lines", "binary", "blank", "empty", "placeholder", "dots", "absent"),
        *("blank within", "umlaut"),
    ],
)
def test_a_file_without_a_secret_is_refused_and_nothing_of_it_repeated(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes | None,
    more: dict[str, str],
    message: str,
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    for setting, value in {**SPOOLED, "DICOMWEB_TOKEN_FILE": str(path), **more}.items():
        monkeypatch.setenv(f"BRAIN_{setting}", value)
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment()
    assert str(raised.value).startswith(message)
    assert "sesame" not in str(raised.value)
    assert raised.value.__suppress_context__


def read_keys() -> None:
    Keyring.read(Path("keys"))


def check_host() -> None:
    check_address(Settings())


def make_destination() -> None:
    Destination(Settings(dicomweb_url=HttpUrl("https://pacs.example"), dicomweb_ca_file=Path("ca")))


UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
UNANSWERED = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@pytest.mark.parametrize(
    ("holder", "name", "use", "start"),
    [
        (Path, "read_text", Settings.from_environment, "cannot read secret (Stale file handle)"),
        (Path, "read_text", read_keys, "BRAIN_API_KEYS_FILE: cannot read keys (Stale file handle)"),
        (ssl, "create_default_context", make_destination, "BRAIN_DICOMWEB_CA_FILE: it cannot be"),
        (socket, "getaddrinfo", check_host, "BRAIN_HOST: 127.0.0.1 is no address: "),
    ],
    ids=["secret", "keys", "certificates", "address"],
)
@pytest.mark.parametrize("passing", [True, False], ids=["passes", "stays"])
def test_a_disk_or_a_name_server_that_fails_is_no_wrong_setting(
    monkeypatch: pytest.MonkeyPatch,
    holder: object,
    name: str,
    use: Callable[[], object],
    start: str,
    passing: bool,
) -> None:
    def fail(*_: object, **__: object) -> None:
        if holder is socket:
            raise UNANSWERED if passing else UNKNOWN
        number = errno.ESTALE if passing else errno.ENOENT
        raise OSError(number, os.strerror(number))

    for setting, value in {**SPOOLED, "DICOMWEB_TOKEN_FILE": "secret"}.items():
        monkeypatch.setenv(f"BRAIN_{setting}", value)
    if use != Settings.from_environment:
        monkeypatch.delenv("BRAIN_DICOMWEB_TOKEN_FILE")
    monkeypatch.setattr(holder, name, fail)
    with pytest.raises(SettingsError) as raised:
        use()
    assert isinstance(raised.value, PassingFault) == passing
    if passing:
        assert str(raised.value).startswith(start)


@pytest.mark.parametrize(
    "secret",
    [
        {"DICOMWEB_TOKEN": "sesame\n"},
        {"DICOMWEB_USER": "x", "DICOMWEB_PASSWORD": "sesame\n"},
        {"DICOMWEB_USER": "x:y", "DICOMWEB_PASSWORD": "sesame"},
        {"DICOMWEB_USER": "x\n", "DICOMWEB_PASSWORD": "sesame"},
    ],
    ids=["token", "password", "colon", "user"],
)
def test_a_secret_that_no_header_holds_is_refused(
    monkeypatch: pytest.MonkeyPatch, secret: dict[str, str]
) -> None:
    """As a secret of Kubernetes that `echo` made; each delivery would fail, or get 401."""
    for setting, value in {**SPOOLED, **secret}.items():
        monkeypatch.setenv(f"BRAIN_{setting}", value)
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment()
    assert str(raised.value).startswith("BRAIN_DICOMWEB_")
    assert "sesame" not in str(raised.value)


@pytest.mark.parametrize(
    "band", [{"LOW": "0.4"}, {"HIGH": "0.6"}, {"LOW": "0.6", "HIGH": "0.4"}], ids=str
)
def test_half_a_band_or_one_upside_down_stops_the_start(band: dict[str, str]) -> None:
    variables = environment_with(**{f"BRAIN_REFER_{end}": share for end, share in band.items()})
    started = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert started.returncode == 2
    assert "BRAIN_REFER_LOW" in started.stderr
    assert "BRAIN_REFER_HIGH" in started.stderr
    assert "Traceback" not in started.stderr


def test_equal_ends_of_a_band_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAIN_REFER_LOW", "0.5")
    monkeypatch.setenv("BRAIN_REFER_HIGH", "0.5")
    settings = Settings.from_environment()
    assert settings.refer_low == settings.refer_high == 0.5


def test_settings_are_frozen_and_closed() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Settings(no_such_setting=1)  # type: ignore[call-arg]


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    ("content", "limit"),
    [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("junk", None)],
)
def test_cores_respect_the_container_quota(tmp_path: Path, content: str, limit: int | None) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(content, encoding="ascii")
    own = available_cores(tmp_path / "absent")
    assert available_cores(quota) == (own if limit is None else min(own, limit))


def test_release_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == RELEASE


def test_what_is_public() -> None:
    assert sorted(service.__all__) == ["Settings", "create_app"]
    for name in service.__all__:
        assert getattr(service, name).__module__.startswith("service.")
