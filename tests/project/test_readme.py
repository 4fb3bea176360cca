"""What the README and the pages tell a reader to type is there, and their tables are the code's."""

import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from scripts import alert_table, recipe_table, settings_table
from scripts.smoke import readme_curl
from service.usage import described
from training.__main__ import _parser

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
ALL = "\n".join([README, *PAGES.values()])
TRAINING_PAGE = PAGES["training.md"]
CARDS = sorted((ROOT / "model_store").glob("*/*/report/*.md"))
LINKING = [
    *(ROOT / name for name in ("README.md", "bench/RESULTS.md", "tests/data/README.md")),
    *(ROOT / "docs" / name for name in sorted(PAGES)),
    *CARDS,
]


def test_every_make_command_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`|`sh\n)make ([a-z][a-z-]*)", ALL, re.MULTILINE))
    assert {"serve", "test", "check", "train", "stack", "load", "lock"} <= named <= targets


def test_curl_line_sends_a_slice_of_the_repository() -> None:
    sent = re.findall(r"@(\S+)", readme_curl())
    assert sent
    assert all((ROOT / path).is_file() for path in sent)


def test_every_curl_line_sends_a_file_that_exists() -> None:
    sent = re.findall(r"@(tests/\S+)", ALL)
    assert len(sent) >= 4
    assert [path for path in sent if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("table", [alert_table, recipe_table, settings_table])
def test_generated_tables_are_those_of_the_code(table: ModuleType) -> None:
    page = PAGES[table.PAGE.name]
    assert table.with_table(page) == page, f"run: python -m {table.__name__} --write"


def test_every_key_of_a_recipe_has_a_meaning() -> None:
    assert re.findall(r"^\| `(\w+)` .*\|  \|$", PAGES["recipes.md"], re.MULTILINE) == []


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    rows = re.findall(
        r"^\| (\w+) \| (?:critical|warning) \| .+ \| .+ \|$",
        PAGES["operations.md"],
        re.MULTILINE,
    )
    assert rows == [rule["alert"] for rule in alert_table.alerts()]
    told = {rule["alert"]: rule["annotations"]["description"] for rule in alert_table.alerts()}
    for name in ("SeriesSetAside", "ResultsNotDelivered", "ResultsRefused"):
        assert "GET /deliveries" in told[name]
        assert "POST /deliveries/retry" in told[name]


def test_the_settings_of_the_readme_have_their_defaults() -> None:
    rows = re.findall(r"^\| `(BRAIN_\w+)` \| (?:`(\S+)`)? *\|", README, re.MULTILINE)
    assert rows
    defaults = {setting.variable: setting.default for setting in described()}
    assert {variable: defaults[variable] for variable, _ in rows} == dict(rows)


def anchors(text: str) -> set[str]:
    """What a link may name in a page, as GitHub makes them of its headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", LINKING, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)#]*)(?:#([^)]+))?\)", text):
        other = (path.parent / target).resolve() if target else path
        assert other.exists(), target
        if anchor:
            assert anchor in anchors(other.read_text(encoding="utf-8")), f"{target}#{anchor}"


TRAINING = re.findall(r"\bpython -m training ([^#`\n]+)", TRAINING_PAGE)


WRITTEN = "\n".join([ALL, *(card.read_text(encoding="utf-8") for card in CARDS)])
COMMANDS = re.findall(r"\bpython -m training ([^#`\n]+)", WRITTEN.replace("\\\n", ""))


@pytest.mark.parametrize(
    "command", sorted({line.strip() for line in COMMANDS if " " in line.strip()})
)
def test_every_training_command_is_one(command: str) -> None:
    words = shlex.split(command)
    assert _parser().parse_args(words).command == words[0]


def test_every_recipe_is_in_the_table() -> None:
    rows = "".join(re.findall(r"^\| `.*$", TRAINING_PAGE, re.MULTILINE))
    recipes = {path.stem for path in (ROOT / "training" / "recipes").glob("*.toml")}
    assert {name for name in recipes if f"`{name}`" not in rows} == set()


def test_every_training_command_is_looked_at() -> None:
    named = {line.split()[0] for line in TRAINING}
    looked_at = {line.split()[0] for line in TRAINING if " " in line.strip()}
    assert {"audit", "fit", "evaluate", "export", "crossval", "compare"} <= looked_at
    assert named == looked_at


def test_python_of_the_steps_is_made_by_a_rule_of_the_makefile() -> None:
    (target,) = re.findall(r"`make (\.venv-test/\S+)`", TRAINING_PAGE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"\n{target.replace('.venv-test', '$(TEST_ENV)')}: " in makefile
    assert "\nTEST_ENV := .venv-test\n" in makefile
