"""What the README tells a newcomer to type is there."""

import re
import shlex
from pathlib import Path

import pytest

from scripts.settings_table import with_table
from scripts.smoke import readme_curl
from training.__main__ import _parser

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_make_command_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"serve", "test", "check", "train", "stack", "load", "lock"} <= named <= targets


def test_curl_line_sends_a_slice_of_the_repository() -> None:
    sent = re.findall(r"@(\S+)", readme_curl())
    assert sent
    assert all((ROOT / path).is_file() for path in sent)


def test_every_curl_line_sends_a_file_that_exists() -> None:
    sent = re.findall(r"@(tests/\S+)", README)
    assert [path for path in sent if not (ROOT / path).is_file()] == []


def test_settings_table_is_made_from_the_settings() -> None:
    assert with_table(README) == README, "run: python -m scripts.settings_table --write"


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_somewhere(path: str) -> None:
    assert (ROOT / path).exists()


TRAINING = re.findall(r"\bpython -m training ([^#`\n]+)", README)


@pytest.mark.parametrize("command", [line for line in TRAINING if " " in line.strip()])
def test_every_training_command_is_one(command: str) -> None:
    words = shlex.split(command)
    assert _parser().parse_args(words).command == words[0]


def test_every_recipe_is_in_the_table() -> None:
    rows = "".join(re.findall(r"^\| `.*$", README, re.MULTILINE))
    recipes = {path.stem for path in (ROOT / "training" / "recipes").glob("*.toml")}
    assert {name for name in recipes if f"`{name}`" not in rows} == set()


def test_every_training_command_is_looked_at() -> None:
    named = {line.split()[0] for line in TRAINING}
    looked_at = {line.split()[0] for line in TRAINING if " " in line.strip()}
    assert {"audit", "fit", "evaluate", "export", "crossval", "compare"} <= looked_at
    assert named == looked_at


def test_python_of_the_steps_is_made_by_a_rule_of_the_makefile() -> None:
    (target,) = re.findall(r"`make (\.venv-test/\S+)`", README)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"\n{target.replace('.venv-test', '$(TEST_ENV)')}: " in makefile
    assert "\nTEST_ENV := .venv-test\n" in makefile
