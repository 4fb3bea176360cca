"""Files of API keys."""

from pathlib import Path

from service.keys import Key


def write_keys(path: Path, *keys: Key) -> Path:
    """Writes a file with a line for each key.

    Returns:
        Its path.
    """
    path.write_text("".join(f"{key.line()}\n" for key in keys), encoding="utf-8")
    return path
