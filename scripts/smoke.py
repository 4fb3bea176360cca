"""Starts a command that serves, asks what the README asks, stops it, and says how long each took.

usage: python -m scripts.smoke [--ready-within SECONDS] [--rss-below MB] -- make serve

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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOST, PORT = "127.0.0.1", 8000
STOPPED_BY_SIGINT = {0, 2, -signal.SIGINT, 128 + signal.SIGINT}
"""Exit codes of a command that Ctrl-C stopped; 2 is make's."""


def main() -> int:
    """Runs the command and the checks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ready-within", type=float, default=90, metavar="SECONDS")
    parser.add_argument("--rss-below", type=float, default=300, metavar="MB")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()

    if status("/health/live") is not None:
        print(f"something listens on port {PORT} already", file=sys.stderr)
        return 1
    began = time.monotonic()
    # A session of its own, so that SIGINT goes to the whole of it, as a terminal's Ctrl-C does.
    process = subprocess.Popen(options.command, cwd=ROOT, start_new_session=True)
    try:
        wait_until_ready(process, began + options.ready_within)
        print(f"ready after {time.monotonic() - began:.1f} s")
        check_readme_curl()
        check_rss(process.pid, options.rss_below)
        stopped = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        code = process.wait(timeout=40)
        print(f"stopped {time.monotonic() - stopped:.1f} s after Ctrl-C, exit code {code}")
        if code not in STOPPED_BY_SIGINT or status("/health/live") is not None:
            raise SystemExit("Ctrl-C did not stop it cleanly")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return 0


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
    output = subprocess.run(command.split(), cwd=ROOT, check=True, capture_output=True).stdout
    answer = json.loads(output)
    (prediction,) = answer["predictions"]
    print(f"{command}\n  -> {prediction['label']}, probability {prediction['probability']:.3f}")
    folder = re.search(r"slices/(\w+)/", command)
    if folder is None or prediction["label"] != folder.group(1):
        raise SystemExit(f"the README's slice got a wrong answer: {answer}")


def check_rss(group: int, limit_mb: float) -> None:
    """Adds up the memory of the command's processes (Linux)."""
    total_kb = 0
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            if os.getpgid(int(path.parent.name)) == group:
                resident = re.search(r"VmRSS:\s+(\d+) kB", path.read_text(encoding="utf-8"))
                total_kb += int(resident.group(1)) if resident else 0
        except OSError:
            continue
    print(f"resident memory {total_kb / 1024:.0f} MB")
    if total_kb / 1024 > limit_mb:
        raise SystemExit(f"more than the {limit_mb:.0f} MB that it may take")


if __name__ == "__main__":
    sys.exit(main())
