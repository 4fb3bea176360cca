"""Starts a command that serves, asks what the README asks, stops it, and says how long each took.

usage: python -m scripts.smoke [--ready-within SECONDS] [--memory-below MB] -- make serve

The service gets two interpreters, and so two workers, whatever the machine has: a worker takes 45 MB,
and what a machine of many cores holds says nothing of what is held here.

Needs nothing but the standard library and curl. Exits with 1 where something is not as the README says.
"""

import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from bench.processes import descendants, memory, started_since, take_charge

ROOT = Path(__file__).resolve().parents[1]
HOST, PORT = "127.0.0.1", 8000
STOPPED_BY_SIGINT = {0, 2, -signal.SIGINT, 128 + signal.SIGINT}
"""Exit codes of a command that Ctrl-C stopped; 2 is make's."""
INTERPRETERS = 2
SETTLED_SECONDS = 1.5
"""A start is over once as many processes hold as much memory as this long ago, to 2 %."""
SETTLE_SECONDS = 20.0
ANSWER_SECONDS = 60.0
"""A prediction has an answer by then, or the service hangs."""
END_SECONDS = 3.0
"""How long what the command started may outlive it."""
MB = 2**20


def main() -> int:
    """Runs the command and the checks."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.smoke", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--ready-within", type=float, default=90, metavar="SECONDS")
    parser.add_argument("--memory-below", type=float, default=300, metavar="MB")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()

    if status("/health/live") is not None:
        print(f"something listens on port {PORT} already", file=sys.stderr)
        return 1
    # Whatever it leaves behind shows here, beside what the caller had started.
    take_charge()
    before = descendants(os.getpid())
    began = time.monotonic()
    # A session of its own, so that SIGINT goes to the whole of it, as a terminal's Ctrl-C does.
    variables = dict.fromkeys(("BRAIN_INTERPRETERS", "BRAIN_WORKERS"), str(INTERPRETERS))
    environment = {**os.environ, **variables}
    try:
        process = subprocess.Popen(
            options.command, cwd=ROOT, env=environment, start_new_session=True
        )
        wait_until_ready(process, began + options.ready_within)
        print(f"ready after {time.monotonic() - began:.1f} s")
        check_readme_curl()
        check_memory(process.pid, options.memory_below)
        stopped = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        code = process.wait(timeout=40)
        print(f"stopped {time.monotonic() - stopped:.1f} s after Ctrl-C, exit code {code}")
        if code not in STOPPED_BY_SIGINT or status("/health/live") is not None:
            raise SystemExit("Ctrl-C did not stop it cleanly")
        if left := left_behind(before):
            raise SystemExit(f"Ctrl-C left {left} of its processes behind")
    finally:
        for pid in started_since(before):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return 0


def left_behind(before: list[int]) -> int:
    """How many processes outlive the command, which has ended; the workers' sessions are their own."""
    deadline = time.monotonic() + END_SECONDS
    while left := started_since(before):
        with suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return len(left)


def status(path: str) -> int | None:
    """HTTP status of a GET, or None where nothing listens."""
    connection = http.client.HTTPConnection(HOST, PORT, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def wait_until_ready(process: subprocess.Popen[bytes], deadline: float) -> None:
    """Waits for ``/health/ready``; gives up at the deadline or when the command has ended."""
    while status("/health/ready") != 200:
        if process.poll() is not None:
            raise SystemExit(f"the command ended with code {process.returncode}")
        if time.monotonic() > deadline:
            raise SystemExit("not ready in time")
        time.sleep(0.1)


def readme_curl() -> str:
    """The first curl line of the README that asks for a prediction."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    line = re.search(r"^curl .*/predict$", text, re.MULTILINE)
    if line is None:
        raise SystemExit("README.md has no curl line for /predict")
    return line.group()


def check_readme_curl() -> None:
    """Runs the README's curl line and checks the answer; the folder of the slice is its label."""
    command = readme_curl()
    output = subprocess.run(
        command.split(), cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=ANSWER_SECONDS
    ).stdout
    answer = json.loads(output)
    (prediction,) = answer["predictions"]
    print(f"{command}\n  -> {prediction['label']}, probability {prediction['probability']:.3f}")
    folder = re.search(r"slices/(\w+)/", command)
    if folder is None or prediction["label"] != folder.group(1):
        raise SystemExit(f"the README's slice got a wrong answer: {answer}")


def check_memory(process: int, limit_mb: float) -> None:
    """Adds up what the command and all below it hold once they have started (Linux, PSS).

    The workers have sessions of their own, so that the command's group does not tell which they are.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    count = held = 0
    while True:
        tree = [process, *descendants(process)]
        before, held = held, memory(tree).proportional
        if len(tree) == count and abs(held - before) < 0.02 * held:
            break
        if time.monotonic() > deadline:
            raise SystemExit("its processes come and go")
        count = len(tree)
        time.sleep(SETTLED_SECONDS)
    print(f"{count} processes hold {held / MB:.0f} MB")
    if count <= INTERPRETERS:
        raise SystemExit("its workers do not run")
    if held / MB > limit_mb:
        raise SystemExit(f"more than the {limit_mb:.0f} MB that it may take")


if __name__ == "__main__":
    sys.exit(main())
