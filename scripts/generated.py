"""Tables that are made from the code and lie in a page between two lines."""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path


def replaced(text: str, name: str, table: str) -> str:
    """A page's text with the table in place of the one between ``NAME: begin`` and ``NAME: end``.

    Raises:
        ValueError: the page has not one such place.
    """
    made, count = re.subn(
        f"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)",
        lambda match: f"{match.group(1)}{table}\n{match.group(2)}",
        text,
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(f"{count} places between the lines of {name!r}, and not one")
    return made


def run(page: Path, with_table: Callable[[str], str], table: Callable[[], str]) -> int:
    """Prints the table, or writes it into the page with ``--write``; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m scripts.{Path(sys.argv[0]).stem}")
    parser.add_argument("--write", action="store_true", help=f"into docs/{page.name}")
    if parser.parse_args().write:
        page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(table())
    return 0
