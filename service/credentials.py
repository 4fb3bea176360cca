"""Credentials of the destination that lie in files, as a container or systemd hands secrets on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from service.passing import passes

IN_FILES: Final = ("dicomweb_password", "dicomweb_token")
"""Settings that may be named as a file as well: with ``_file`` behind."""


def with_files_read(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they were given, and what is in the files that they name.

    Raises:
        ValueError: a file cannot be read or is no single line, or a secret is given in both ways. The
            message repeats nothing of it.
        OSError: a file cannot be read now.
    """
    read = dict(values)
    for name in IN_FILES:
        path = values.get(f"{name}_file")
        if path is None:
            continue
        setting = f"BRAIN_{name}_FILE".upper()
        if values.get(name) is not None:
            raise ValueError(f"{setting} and {setting.removesuffix('_FILE')} must not both be set")
        read[name] = _secret(setting, Path(path))
    return read


def _secret(setting: str, path: Path) -> str:
    try:
        # Editors on Windows put a mark before what they write.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{setting}: cannot read {path} (it is not UTF-8)") from None
    except OSError as error:
        if passes(error):
            # One that reads has no name in its error.
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise ValueError(f"{setting}: cannot read {path} ({error.strerror})") from None
    lines = text.splitlines()
    if len(lines) != 1 or not lines[0].strip():
        raise ValueError(f"{setting}: {path} must hold the secret in one line, and nothing else")
    return lines[0]
